"""Which device protocols this installation has: AMQP's engine comes as source, and needs a C compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methodhub.device.amqp import AmqpConnection

WITHOUT_AMQP = (
    "AMQP is off: Apache Qpid Proton is not installed, which needs a C compiler. Devices over AMQP cannot connect; "
    "MQTT is not touched. To have it: pip install 'methodhub[amqp]'"
)


def amqp_connection_class() -> type[AmqpConnection] | None:
    """None where the engine is not installed."""
    try:
        from methodhub.device.amqp import AmqpConnection  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None
    return AmqpConnection
