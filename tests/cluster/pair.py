"""Two nodes of one hub, in the words of a test: A is told, B is looked at."""

from __future__ import annotations

from typing import NamedTuple

from tests.harness import RunningHub


class Pair(NamedTuple):
    a: RunningHub
    b: RunningHub
