"""Running a hub as a process, and its administrator's routes where none runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvloop
from starlette.types import ASGIApp

from methodhub.api.app import administrator_app, build_app
from methodhub.config import Settings, load
from methodhub.process import DataDirectory, ReadyFacts, Worker, calm_the_collector, raise_file_limit
from methodhub.server.background import first_of
from methodhub.server.certificates import prepare_authority
from methodhub.server.domain import Domain
from methodhub.server.hub import Hub
from methodhub.server.workers import SAME_MOMENT, run_workers, this_worker

log = structlog.get_logger()

AT_ONCE = 2.0
"""Seconds after a second signal until the process ends, whatever hangs."""


def serve(settings: Settings, on_ready: Callable[[ReadyFacts], None]) -> int:
    """Run a hub until SIGTERM or SIGINT. Returns the exit code. Raises StartError."""
    raise_file_limit()
    worker = this_worker()
    if worker is not None:
        return uvloop.run(_serve(settings, on_ready, worker))
    directory = DataDirectory(settings.data_dir)
    try:
        return uvloop.run(_serve(settings, on_ready, None))
    finally:
        directory.release()


async def _serve(settings: Settings, on_ready: Callable[[ReadyFacts], None], worker: Worker | None) -> int:
    loop = asyncio.get_running_loop()
    stop, at_once = asyncio.Event(), asyncio.Event()

    told = 0.0

    def on_signal() -> None:
        nonlocal told
        if not stop.is_set():
            stop.set()
            told = loop.time()
        elif not at_once.is_set() and (worker is None or loop.time() - told > SAME_MOMENT):
            at_once.set()
            loop.call_later(AT_ONCE, os._exit, 1)  # whatever hangs then is let go as a kill would

    def on_input() -> None:
        """Whoever started this worker says nothing: this is its end, even if it was killed."""
        loop.remove_reader(sys.stdin.fileno())
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if worker is None and settings.workers > 1:
        return await run_workers(settings, on_ready, stop, at_once)
    if worker is not None:
        os.set_blocking(sys.stdin.fileno(), False)
        loop.add_reader(sys.stdin.fileno(), on_input)
    hub = Hub(settings, worker=worker)
    starting = loop.create_task(hub.start())
    await first_of(asyncio.shield(starting), stop.wait())
    if not starting.done():
        log.info("stopping before it was ready")
        starting.cancel()
    try:
        facts = await starting
    except asyncio.CancelledError:
        return 0
    calm_the_collector()
    on_ready(facts)
    sys.stdout.flush()
    await stop.wait()
    log.info("stopping", open_calls=len(hub.methods.open), connected=len(hub.table))
    await hub.stop(at_once)
    return 0


@asynccontextmanager
async def offline_api(data_dir: Path) -> AsyncIterator[ASGIApp]:
    """The administrator's routes on the data itself, where no hub runs. Raises StartError."""
    directory = DataDirectory(data_dir)
    given = load({"data_dir": data_dir, "in_memory": False})
    settings = Settings(
        data_dir=data_dir,
        hostname=given.hostname,
        database_url=given.database_url,
        database_plaintext=given.database_plaintext,
        max_devices=given.max_devices,
        modules_per_device=given.modules_per_device,
    )
    domain = Domain(settings)
    try:
        await domain.open()
        await prepare_authority(settings, domain.hub_store, domain.clock.wall())
        yield administrator_app(build_app(domain.api_services(None)))
    finally:
        await domain.close()
        directory.release()
