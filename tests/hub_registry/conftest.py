"""Fixtures of the tests of the whole registry: those of every hub."""

from __future__ import annotations

from tests.hub.conftest import kept, shared, timed

__all__ = ["kept", "shared", "timed"]
