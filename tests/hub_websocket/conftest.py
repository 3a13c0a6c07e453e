"""Fixtures of the tests against a running hub."""

from __future__ import annotations

from tests.hub.conftest import shared, timed

__all__ = ["shared", "timed"]
