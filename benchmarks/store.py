"""What the store costs at 1,000 and at 1,000,000 identities: `python -m benchmarks.store sqlite|postgresql`.

PostgreSQL is the one of the tests, with its commits on the disk.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from sqlalchemy import insert, text

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import InsertIdentity, ReplaceIdentity
from methodhub.core.twins.model import Twin
from methodhub.store.database import Database, open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.rows import row_of
from methodhub.store.tables import identities
from tests.postgres import running_server

COUNTS = (1_000, 1_000_000)
ON_DISK = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
KEYS = Authentication(primary_key="a" * 44, secondary_key="b" * 44)


def identity(name: str, number: int) -> Identity:
    return Identity(Target(f"{name}-{number:07}"), "638000000000000000", "e", KEYS, enabled=number % 10 != 0)


async def fill(database: Database, start: int, end: int) -> None:
    for first in range(start, end, 20_000):
        rows = [row_of(identity("device", number)) for number in range(first, min(end, first + 20_000))]
        await database.execute(insert(identities), rows)
    await database.write(lambda connection: connection.execute(text("ANALYZE")))


async def measure(database: Database, count: int) -> None:
    store, hub = SqlIdentityStore(database), SqlHubStore(database)
    any_target = [Target(f"device-{number:07}") for number in random.Random(1).choices(range(count), k=1_000)]
    twins = sorted({Target(f"device-{number:07}") for number in range(count - 1_000, count)})

    def bulk(number: int) -> list[Identity]:
        return [identity(f"bulk{count}", number * 100 + each) for each in range(100)]

    def save(number: int) -> Awaitable[object]:
        return hub.save_twins([(Twin(each, number + 2, {"floor": number}), number + 1) for each in twins])

    steps: dict[str, tuple[int, Callable[[int], Awaitable[object]]]] = {
        "get": (500, lambda number: store.get(any_target[number])),
        "page of 100": (100, lambda number: store.page_devices(any_target[number].device_id, 100)),
        "statistics": (10, lambda number: store.statistics()),
        "insert": (200, lambda number: store.insert(identity(f"new{count}", number))),
        "apply 100 inserts": (20, lambda number: store.apply([InsertIdentity(each) for each in bulk(number)])),
        "apply 100 replaces": (20, lambda number: store.apply([ReplaceIdentity(each, "e") for each in bulk(number)])),
        "save_twins of 1,000": (5, save),
        "twins of 1,000": (5, lambda number: hub.twins(twins)),
    }
    for name, (times, step) in steps.items():
        took = []
        for number in range(times):
            start = time.perf_counter()
            await step(number)
            took.append(time.perf_counter() - start)
        print(f"{database.dialect:12}{count:>10,}  {name:20}{median(took) * 1000:10.3f} ms")


async def run(where: Path | str) -> None:
    database = await open_database(where)
    for start, count in zip((0, *COUNTS), COUNTS, strict=False):
        await fill(database, start, count)
        await measure(database, count)
    await database.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["postgresql"]:
        with running_server(ON_DISK) as server:
            asyncio.run(run(server.fresh()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(Path(folder) / "hub.db"))
