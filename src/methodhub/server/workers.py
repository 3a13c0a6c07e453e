"""Several processes that serve one hub: they share its ports, its data, and a NATS server that is started for them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import structlog

from methodhub.bus.line import LineFailure
from methodhub.bus.server import OwnServer
from methodhub.config import SOCKET_NAME, Settings, field_of
from methodhub.metrics import Metrics, OfWorkers
from methodhub.net.listener import BindError, check_free
from methodhub.net.listeners import FALLBACK_HTTPS_PORT, HTTPS_PORT
from methodhub.process import ReadyFacts, StartError, Worker, on_socket
from methodhub.server.background import first_of
from methodhub.server.domain import Domain

log = structlog.get_logger()

WORKER = "WORKER_OF_METHODHUB"
"""Tells a process that it is a worker, and of which bus: its number, a space, a URL. In the environment, since anyone
may read arguments."""
URL_OPTIONS = {"--database-url": "database_url", "--nats-url": "nats_url"}
"""What may hold a password: goes to workers in the environment."""
ASK_TIMEOUT = 2.0
"""Seconds that one worker waits for another's metrics."""
PORT_PATIENCE = 2.0
PORT_PAUSE = 0.1
"""Seconds that a port may still be in use, and between two looks."""
SAME_MOMENT = 0.2
"""Seconds within which two signals to a worker are one: systemd tells it, and its parent does."""
RESTART_WAIT = 0.2
"""Seconds after a worker ended by itself."""


def this_worker() -> Worker | None:
    number, _, nats_url = os.environ.get(WORKER, "").partition(" ")
    return Worker(int(number), nats_url) if nats_url else None


def socket_name(worker: Worker | None) -> str:
    """The administrator's socket of a hub, which is the first worker's; the others have each its own."""
    return SOCKET_NAME if worker is None or worker.number == 0 else f"worker-{worker.number}.sock"


class MetricsOfWorkers:
    """[HUB-workers] What all workers count: whoever asks reaches one of them, as the kernel likes."""

    def __init__(self, worker: Worker, settings: Settings, own: Metrics) -> None:
        self._worker = worker
        self._settings = settings
        self._own = own

    async def exposition(self) -> bytes:
        numbers = range(self._settings.workers)
        return OfWorkers(dict(zip(numbers, await asyncio.gather(*map(self._text, numbers)), strict=True))).exposition()

    async def _text(self, number: int) -> str | None:
        if number == self._worker.number:
            return self._own.exposition().decode()
        path = self._settings.data_dir / socket_name(Worker(number, self._worker.nats_url))
        try:
            async with httpx.AsyncClient(transport=on_socket(path), timeout=ASK_TIMEOUT, trust_env=False) as client:
                answer = await client.get(f"http://localhost/metrics?worker={number}")
        except httpx.HTTPError:
            return None
        return answer.text if answer.is_success else None


class Workers:
    """`arguments` are what this process was started with: workers are started likewise [HUB-workers]."""

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._nats: OwnServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = False

    async def start(self) -> ReadyFacts:
        """Returns when all of them are ready. Raises StartError."""
        await self._check_ports()
        await self._prepare()
        url = self._settings.nats_url
        if url is None:
            self._nats = OwnServer(self._settings.data_dir)
            try:
                await self._nats.start()
            except (LineFailure, OSError) as error:
                raise StartError(f"Workers need NATS between them: {error}.") from None
            url = self._nats.url
        facts = await self._launch(0, url)  # which makes the certificates, if there are none
        await asyncio.gather(*(self._launch(number, url) for number in range(1, self._settings.workers)))
        return facts_of(facts)

    async def _check_ports(self) -> None:
        """[HUB-workers] Workers share their ports, and would with another hub. Those of a process that was killed have
        their moment to end."""
        settings = self._settings
        ports = {"https": settings.https_port or HTTPS_PORT, "mqtt": settings.mqtt_port}
        if find_spec("proton") is not None:
            ports["amqp"] = settings.amqp_port
        loop = asyncio.get_running_loop()
        patience = loop.time() + PORT_PATIENCE
        for name, port in ports.items():
            while (error := self._taken(name, port)) is not None:
                if loop.time() > patience:
                    raise StartError(str(error)) from error
                await asyncio.sleep(PORT_PAUSE)

    def _taken(self, name: str, port: int) -> BindError | None:
        try:
            check_free(name, self._settings.bind, port)
        except BindError as error:
            if error.reason == "permission" and port == HTTPS_PORT and self._settings.https_port is None:
                return self._taken(name, FALLBACK_HTTPS_PORT)
            return error if error.reason == "in_use" else None  # else it is told when the port is bound
        return None

    def _launch(self, number: int, url: str) -> asyncio.Future[dict[str, Any]]:
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._tasks.append(asyncio.create_task(self._keep(number, url, ready)))
        return ready

    async def _prepare(self) -> None:
        """What only one process may do: bring the schema up to date, and forget the nodes of an earlier life."""
        domain = Domain(self._settings)
        try:
            await domain.open()
            if self._settings.database_url is None:
                await domain.job_store.enroll("workers", 0.0, alone=True)
                await domain.job_store.retire("workers")
                await domain.identity_store.disconnect_all(domain.clock.wall())
        finally:
            await domain.close()

    async def _keep(self, number: int, url: str, ready: asyncio.Future[dict[str, Any]]) -> None:
        """Run one worker, and another one in its place when it ends."""
        while not self._stopping:
            try:
                process = await self._begin(number, url)
            except OSError as error:
                if not ready.done():
                    ready.set_exception(StartError(f"Worker {number} cannot be started: {error}."))
                    return
                log.error("a worker cannot be started; trying again", worker=number, error=str(error))
                await asyncio.sleep(RESTART_WAIT)
                continue
            self._processes[number] = process
            self._tell_if_stopping(process)  # the others were told while this one was not there yet
            assert process.stdout is not None
            line = await process.stdout.readline()
            if not ready.done():
                if not line:
                    await process.wait()
                    ready.set_exception(StartError(f"Worker {number} did not start; the log says why."))
                    return
                ready.set_result(json.loads(line))
            await process.stdout.read()
            code = await process.wait()
            if not self._stopping:
                log.error("a worker ended; another one takes its place", worker=number, code=code)
                await asyncio.sleep(RESTART_WAIT)

    async def _begin(self, number: int, url: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._arguments,
            env=os.environ | worker_environment(self._settings) | {WORKER: f"{number} {url}"},
            stdin=asyncio.subprocess.PIPE,  # its end tells a worker that this process is no more
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's interrupt is for this process, which tells them in turn
        )

    async def stop(self, at_once: asyncio.Event) -> int:
        """Tell them to stop, and again when told so. The exit code."""
        self._stopping = True
        self._signal()
        again = asyncio.create_task(at_once.wait())
        again.add_done_callback(lambda task: None if task.cancelled() else self._signal_at_once())
        if self._tasks:
            await asyncio.wait(self._tasks)
        again.cancel()
        if self._nats is not None:
            await self._nats.stop()
        return max((exit_code(process.returncode) for process in self._processes.values()), default=0)

    def _tell_if_stopping(self, process: asyncio.subprocess.Process) -> None:
        if self._stopping:
            process.terminate()

    def _signal_at_once(self) -> None:
        """Once more when a worker takes it for another signal than the first."""
        self._signal()
        asyncio.get_running_loop().call_later(2 * SAME_MOMENT, self._signal)

    def _signal(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()


def exit_code(code: int | None) -> int:
    """As of a worker that was told to stop, also before it could listen to that."""
    if code is None or code == -signal.SIGTERM:
        return 0
    return code if code >= 0 else 128 - code


def worker_arguments(given: Sequence[str]) -> list[str]:
    """[HUB-no-keys] Without URLs, which may hold passwords: any user can read the arguments of a process."""
    kept: list[str] = []
    arguments = iter(given)
    for argument in arguments:
        name, has_value, value = argument.partition("=")
        if name in URL_OPTIONS:
            if not has_value:
                next(arguments, None)
        elif name == "--set":
            setting = value if has_value else next(arguments, "")
            if field_of(setting.partition("=")[0]) not in URL_OPTIONS.values():
                kept += ["--set", setting]
        else:
            kept.append(argument)
    return [sys.executable, "-m", "methodhub", *kept, "--json"]


def worker_environment(settings: Settings) -> dict[str, str]:
    urls = {name: getattr(settings, name) for name in URL_OPTIONS.values()}
    return {f"METHODHUB_{name.upper()}": url for name, url in urls.items() if url is not None}


def facts_of(ready: dict[str, Any]) -> ReadyFacts:
    return ReadyFacts(
        hostname=ready["hostname"],
        https_port=ready["httpsPort"],
        mqtt_port=ready["mqttPort"],
        amqp_port=ready["amqpPort"],
        data_dir=Path(ready["dataDir"]),
        in_memory=ready["inMemory"],
        ca_file=Path(ready["caFile"]),
        notes=tuple(ready["notes"]),
    )


async def run_workers(
    settings: Settings, on_ready: Callable[[ReadyFacts], None], stop: asyncio.Event, at_once: asyncio.Event
) -> int:
    """Raises StartError."""
    workers = Workers(settings, worker_arguments(sys.argv[1:]))
    starting = asyncio.get_running_loop().create_task(workers.start())
    try:
        await first_of(asyncio.shield(starting), stop.wait())
        if starting.done():
            on_ready(starting.result())
            sys.stdout.flush()
            await stop.wait()
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        code = await workers.stop(at_once)
    return code
