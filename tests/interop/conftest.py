"""Hubs, devices and back ends that several tests of one file share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.interop.peers import Device, Language, Service


class Pool:
    """One running hub and the peers that were asked for so far."""

    def __init__(self, hub: RunningHub, stack: ExitStack) -> None:
        self.hub = hub
        self._stack = stack
        self._devices: dict[tuple[Language, str], Device] = {}
        self._services: dict[Language, Service] = {}

    def device(self, language: Language, module_id: str = "") -> Device:
        key = (language, module_id)
        if key not in self._devices:
            name = f"{language}-{module_id or 'device'}"
            started = self._stack.enter_context(Device(self.hub, language, name, module_id))
            self._devices[key] = started.is_ready()
        return self._devices[key]

    def service(self, language: Language) -> Service:
        if language not in self._services:
            self._services[language] = self._stack.enter_context(Service(self.hub, language))
        return self._services[language]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """A hub on real time, and its devices and back ends, for one file of tests."""
    with RunningHub(tmp_path_factory.mktemp("hub")) as hub, ExitStack() as stack:
        yield Pool(hub, stack)


def now_clock() -> ManualClock:
    """Moves only when the test says so, and begins now: the SDKs' tokens carry real time."""
    return ManualClock(wall=time.time())


@pytest.fixture
def timed_hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose time moves only when the test says so."""
    with RunningHub(tmp_path / "hub", now_clock()) as running:
        yield running


@pytest.fixture(params=["python", "node"])
def language(request: pytest.FixtureRequest) -> Language:
    """Which service SDK calls."""
    chosen: Language = request.param
    return chosen
