"""An export and an import of many identities take memory for few of them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from methodhub.config import Settings
from methodhub.server.transfer import export_hub, import_hub, private_file
from tests.verify.hub_process import fill

pytestmark = pytest.mark.verify

IDENTITIES = 50_000
MEMORY = 8 * 1024 * 1024
"""Bytes; the file has 13 million."""


def peak(work: Coroutine[Any, Any, dict[str, int]]) -> int:
    tracemalloc.start()
    try:
        assert asyncio.run(work)["identities"] == IDENTITIES
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_hub(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """[HUB-export] SQLite to PostgreSQL to SQLite."""
    url = postgresql()
    fill(tmp_path / "one", (f"device-{number:06}" for number in range(IDENTITIES)))
    places = [
        Settings(data_dir=tmp_path / "one"),
        Settings(data_dir=tmp_path / "two", database_url=url),
        Settings(data_dir=tmp_path / "three"),
    ]
    peaks = []
    for number, (origin, goal) in enumerate(pairwise(places)):
        file = tmp_path / str(number)
        with private_file(file) as out:
            peaks.append(peak(export_hub(origin, out)))
        with file.open("rb") as source:
            peaks.append(peak(import_hub(goal, source)))
        assert file.stat().st_size > 10_000_000
    print("peaks in bytes", peaks)
    assert max(peaks) < MEMORY
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
