"""What tests of a whole hub share: a hub in a thread of its own on its own loopback address, with time in the test's
hands if it wants, and programs in processes of their own whose output is waited for."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import structlog
import uvloop

from methodhub.bus.local import LocalBus
from methodhub.config import Settings
from methodhub.core.clock import Clock
from methodhub.iothub.sas import build_token
from methodhub.server import DataDirectory, Hub, ReadyFacts
from tests.clock import ManualClock

T = TypeVar("T")

API_VERSION = "2021-04-12"
PATIENCE = 20.0
"""Seconds until a test gives up waiting for an event."""

_numbers = count(2)


class Output(structlog.PrintLogger):
    """The log of hubs that run in threads while pytest exchanges and closes `sys.stdout`: what is said in that moment
    is lost, and must not fail in the middle of a hub."""

    def msg(self, message: str) -> None:
        with suppress(ValueError):
            super().msg(message)

    log = debug = info = warning = error = critical = exception = msg


def log_to_output() -> None:
    structlog.configure(logger_factory=lambda *_: Output())


def new_address() -> str:
    """A loopback address that no other hub of this test run has: the ports of the SDKs are fixed."""
    number = next(_numbers)
    return f"127.{10 + os.getpid() % 240}.{number // 250}.{number % 250 + 1}"


def administrator(data_dir: Path, socket_name: str = "methodhub.sock") -> httpx.Client:
    """On the hub's UNIX socket. With a context of TLS that is never used: without one, httpx loads the system's
    authorities each time, which takes longer than most tests."""
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.HTTPTransport(uds=str(data_dir / socket_name), verify=unused)
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=PATIENCE)


class RunningHub:
    """A hub that runs in a thread. `clock`: a ManualClock moves only with `advance`."""

    def __init__(self, data_dir: Path, clock: Clock | None = None, address: str | None = None, **settings: Any) -> None:
        self.address = address or new_address()
        self.clock = clock
        values: dict[str, Any] = {"hostname": (self.address,), "bind": self.address, "in_memory": True, **settings}
        self.settings = Settings(data_dir=data_dir, **values)
        self.hub = Hub(self.settings, clock)
        self.facts: ReadyFacts
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._directory: DataDirectory | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._directory = DataDirectory(self.settings.data_dir)
        started: queue.Queue[BaseException | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        failure = started.get(timeout=PATIENCE)
        if failure is not None:
            raise failure
        return self

    def _run(self, started: queue.Queue[BaseException | None]) -> None:
        self._stop: asyncio.Event

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            self.facts = await self.hub.start()
            started.put(None)
            await self._stop.wait()

        try:
            uvloop.run(main())
        except BaseException as failure:
            started.put(failure)
            raise

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and self._thread.is_alive():
            self.run(self.hub.close())
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)
        if self._directory is not None:
            self._directory.release()
            self._directory = None

    # --- reaching into it ----------------------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the hub's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def on_loop(self, work: Callable[[], T]) -> T:
        """Run a function on the hub's loop and wait for it."""

        async def call() -> T:
            return work()

        return self.run(call())

    def advance(self, seconds: float) -> None:
        """Let the manual clock run on, and everything that is due by then happen."""
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        clock = self.clock
        self.on_loop(lambda: self.hub.deadlines.expire(clock.monotonic()))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of the hub; it is looked at after each turn of the hub's loop."""

        async def wait() -> None:
            limit = time.monotonic() + PATIENCE
            while not condition():
                assert time.monotonic() < limit, "what the test waits for did not happen"
                await asyncio.sleep(0.002)

        self.run(wait())

    # --- credentials ---------------------------------------------------------------------------------------------

    @property
    def ca_file(self) -> Path:
        return self.facts.ca_file

    def create_device(self, device_id: str, **fields: Any) -> dict[str, Any]:
        return self._put(f"/devices/{device_id}", {"deviceId": device_id, **fields})

    def create_module(self, device_id: str, module_id: str) -> dict[str, Any]:
        path = f"/devices/{device_id}/modules/{module_id}"
        return self._put(path, {"deviceId": device_id, "moduleId": module_id})

    def _put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.admin() as client:
            response = client.put(path, json=body)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def policy_connection_string(self, name: str = "iothubowner") -> str:
        policy = self.hub.policies.get(name)
        assert policy is not None
        return f"HostName={self.address};SharedAccessKeyName={name};SharedAccessKey={policy.primary_key}"

    def device_connection_string(self, device_id: str, module_id: str = "") -> str:
        """Of an identity that exists."""
        path = f"/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "")
        with self.admin() as client:
            key = client.get(path).json()["authentication"]["symmetricKey"]["primaryKey"]
        module = f";ModuleId={module_id}" if module_id else ""
        return f"HostName={self.address};DeviceId={device_id}{module};SharedAccessKey={key}"

    def token(self, policy_name: str = "service", seconds: int = 3600, resource: str | None = None) -> str:
        """A policy token for the hub (or a resource of it) that begins to be valid now."""
        policy = self.hub.policies.get(policy_name)
        assert policy is not None
        expiry = int(self.hub.clock.wall()) + seconds
        return build_token(resource or self.address, policy.primary_key, expiry, policy_name)

    def device_token(self, device_id: str, module_id: str = "", seconds: int = 3600) -> str:
        key = dict(part.split("=", 1) for part in self.device_connection_string(device_id, module_id).split(";"))[
            "SharedAccessKey"
        ]
        path = f"{self.address}/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "")
        return build_token(path, key, int(self.hub.clock.wall()) + seconds)

    # --- HTTP ----------------------------------------------------------------------------------------------------

    def admin(self) -> httpx.Client:
        """The UNIX socket: every right, no credential."""
        return administrator(self.settings.data_dir)

    def service(self, policy_name: str = "service") -> httpx.Client:
        """HTTPS as a back end with a policy's token."""
        return httpx.Client(
            base_url=f"https://{self.address}",
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            headers={"Authorization": self.token(policy_name)},
            params={"api-version": API_VERSION},
            timeout=PATIENCE,
        )


def local_bus(hub: RunningHub) -> LocalBus:
    bus = hub.hub.bus
    assert isinstance(bus, LocalBus)
    return bus


class Program:
    """A program in a process of its own; its lines of output are events."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line.rstrip("\n"))
        self._new.put(None)

    def expect(self, text: str, patience: float = PATIENCE) -> str:
        """The next line that contains `text`. Fails if the program ends first."""
        limit = time.monotonic() + patience
        while True:
            try:
                line = self._new.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} in time; so far: {self.lines}") from None
            if line is None:
                raise AssertionError(f"the program ended before a line with {text!r}: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def node() -> str:
    """Node.js from the machine, or from the environment's own package."""
    found = shutil.which("node")
    assert found, "Node.js is missing; `make test` says how to get it"
    return found


@contextmanager
def no_cycles(times: int) -> Iterator[None]:
    """Of what the hub makes each of so many times, nothing is left for the collector. A connection that ends meanwhile
    may leave something."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        found = Counter(type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("methodhub"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert max(found.values(), default=0) < times, found
