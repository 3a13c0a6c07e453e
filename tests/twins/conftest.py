"""The hubs and peers of the tests of twins: the same as of calls."""

from __future__ import annotations

from tests.hub.conftest import shared
from tests.interop.conftest import language, pool

__all__ = ["language", "pool", "shared"]
