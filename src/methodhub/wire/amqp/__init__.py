"""AMQP 1.0 (OASIS Standard, 29 October 2012) as a server speaks it, on Apache Qpid Proton's engine. Knows nothing of
what addresses mean. Where the package python-qpid-proton is missing, importing it is an ImportError."""

import methodhub.wire.amqp.engine  # noqa: F401 - here, not at the first connection
