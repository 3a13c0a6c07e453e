"""Worlds to run the command in: a hub that runs, and data without a hub; real ones, and fakes that tests steer."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from methodhub.cli.app import main
from tests.harness import RunningHub

from .fake_hub import FakeHub


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class World:
    """A data directory and the command on it. `fake` is None where the hub is the real one."""

    data_dir: Path
    fake: FakeHub | None
    running: bool
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Result:
        self.capture.readouterr()
        code = main([*arguments, "--data-dir", str(self.data_dir)])
        captured = self.capture.readouterr()
        return Result(code, captured.out, captured.err)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("METHODHUB_"):
            monkeypatch.delenv(name)


class StartError(Exception):
    """Stands for the server's own."""


def fake_server_module(fake: FakeHub) -> types.ModuleType:
    module = types.ModuleType("methodhub.server")

    @contextlib.asynccontextmanager
    async def offline_api(data_dir: Path) -> AsyncIterator[ASGIApp]:
        yield fake

    module.StartError = StartError  # type: ignore[attr-defined]
    module.offline_api = offline_api  # type: ignore[attr-defined]
    return module


@contextlib.contextmanager
def fake_running(fake: FakeHub, socket_path: Path) -> Iterator[None]:
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            ready.set()

    server = Server(uvicorn.Config(fake, uds=str(socket_path), log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def real_running(data_dir: Path) -> Iterator[None]:
    with (
        capture_logs(),
        RunningHub(
            data_dir, in_memory=False, hostname=("127.0.0.1", "localhost"), https_port=0, mqtt_port=0, amqp_port=0
        ),
    ):
        yield


WorldMaker = Callable[[str], contextlib.AbstractContextManager[World]]


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> WorldMaker:
    @contextlib.contextmanager
    def make(kind: str) -> Iterator[World]:
        running = kind.endswith("running")
        data_dir = tmp_path / "data"
        if kind.startswith("real"):
            with real_running(data_dir) if running else contextlib.nullcontext():
                yield World(data_dir, None, running, capsys)
            return
        data_dir.mkdir()
        (data_dir / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
        fake = FakeHub(data_dir, 8443 if running else None)
        monkeypatch.setitem(sys.modules, "methodhub.server", fake_server_module(fake))
        with fake_running(fake, data_dir / "methodhub.sock") if running else contextlib.nullcontext():
            yield World(data_dir, fake, running, capsys)

    return make


@pytest.fixture(params=["real data", "real running"])
def world(request: pytest.FixtureRequest, make_world: WorldMaker) -> Iterator[World]:
    """The real hub, running or not: the command works the same."""
    with make_world(request.param) as made:
        yield made


@pytest.fixture
def fake_hub_world(make_world: WorldMaker) -> Iterator[World]:
    """A running fake: for answers that a test chooses."""
    with make_world("fake running") as made:
        yield made
