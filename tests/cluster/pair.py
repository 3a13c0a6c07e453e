"""Two nodes of one hub, in the words of a test: A is told, B is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.harness import RunningHub, new_address


class Pair(NamedTuple):
    a: RunningHub
    b: RunningHub


@contextmanager
def open_pair(folder: Path, database_url: str, nats_url: str) -> Iterator[Pair]:
    """Each on a loop and a loopback address of its own."""
    addresses = (new_address(), new_address())
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(
                RunningHub(
                    folder / f"node{number}",
                    address=address,
                    hostname=addresses,
                    in_memory=False,
                    database_url=database_url,
                    nats_url=nats_url,
                )
            )
            for number, address in enumerate(addresses)
        )
        yield Pair(a, b)
