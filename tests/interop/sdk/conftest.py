"""One hub, one back end of each language and a few connected devices for the whole folder: each test has ids of its
own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness import PATIENCE, RunningHub
from tests.hub.peers import Device, Request, ready_device
from tests.interop.peers import Device as SdkDevice
from tests.interop.peers import Failure, Service

ENDED = ("completed", "failed", "cancelled")


class Caller:
    """The methods of one class of a service SDK."""

    def __init__(self, service: Service, on: str) -> None:
        self.service = service
        self.on = on

    def service_connection(self, policy: str) -> str:
        """Another policy's connection string, for the field `connection`."""
        return self.service.hub.policy_connection_string(policy)

    def __call__(self, verb: str, *args: Any, **more: Any) -> Any:
        """What the method returns; a failure fails the test."""
        found = self.service.ask(verb, *args, **{"on": self.on, **more})
        assert not isinstance(found, Failure), found
        return found

    def fails(self, verb: str, *args: Any, **more: Any) -> Failure:
        """How the method fails."""
        found = self.service.ask(verb, *args, **{"on": self.on, **more})
        assert isinstance(found, Failure), f"it succeeded: {found}"
        return found


def refused(failure: Failure, name: str, status: int, type_: str = "HttpOperationError") -> None:
    assert (failure.header, failure.status, failure.type) == (name, status, type_), failure


class Answering:
    """A device, byte by byte, in a thread: its method `fail` gets the status 500, every other one 200."""

    def __init__(self, hub: RunningHub, device_id: str) -> None:
        hub.create_device(device_id)
        self.seen: list[Request] = []
        self._device: Device = ready_device(hub, device_id)
        self._device.socket.settimeout(None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            kind, body = self._device.packet()
            if not kind:
                return
            size = int.from_bytes(body[:2], "big")
            _, _, _, name, rid = body[2 : 2 + size].decode().split("/")
            request = Request(name, rid.removeprefix("?$rid="), body[2 + size :])
            self.seen.append(request)
            status = 500 if name == "fail" else 200
            self._device.answer(request, b'{"by":"%b"}' % self._device.client_id.encode(), status)

    def close(self) -> None:
        """DISCONNECT: the hub closes the connection, which ends the thread."""
        self._device.send(b"\xe0\x00")
        self._thread.join(10)
        self._device.close()


class World:
    """The hub, and how tests of jobs wait."""

    def __init__(self, hub: RunningHub, stack: ExitStack) -> None:
        self.hub = hub
        self.stack = stack
        self._devices: dict[str, Any] = {}

    def answering(self, prefix: str, count: int) -> list[Answering]:
        """So many connected devices with a tag of their own."""
        made = []
        for number in range(count):
            made.append(Answering(self.hub, f"{prefix}-{number}"))
            self.stack.callback(made[-1].close)
            self.tag(f"{prefix}-{number}", group=prefix)
        return made

    def sdk_device(self, language: Any) -> SdkDevice:
        """A device with a device SDK that takes calls."""
        if language not in self._devices:
            device = SdkDevice(self.hub, language, f"sdk-{language}")
            self._devices[language] = self.stack.enter_context(device).is_ready()
        found: SdkDevice = self._devices[language]
        return found

    def tag(self, device_id: str, **tags: str) -> None:
        with self.hub.service() as client:
            client.patch(f"/twins/{device_id}", json={"tags": tags}).raise_for_status()

    def job_ends(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended, from the events of the hub."""
        limit = time.monotonic() + PATIENCE
        with self.hub.service() as client, client.stream("GET", f"/jobs/v2/{job_id}/progress") as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                assert time.monotonic() < limit, line
                if line.startswith("data:"):
                    job: dict[str, Any] = json.loads(line.removeprefix("data:"))
                    if job["status"] in ENDED:
                        return job
        raise AssertionError("the events ended before the job")


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with RunningHub(tmp_path_factory.mktemp("hub")) as hub, ExitStack() as stack:
        yield World(hub, stack)


def service(language: Any) -> Callable[[World], Service]:
    @pytest.fixture(scope="package", name=f"{language}_service")
    def start(world: World) -> Service:
        return world.stack.enter_context(Service(world.hub, language))

    return start


python_service = service("python")
node_service = service("node")


@pytest.fixture
def python(python_service: Service) -> Caller:
    return Caller(python_service, "IoTHubRegistryManager")


@pytest.fixture
def python_jobs(python_service: Service) -> Caller:
    return Caller(python_service, "IoTHubJobManager")


@pytest.fixture
def node(node_service: Service) -> Caller:
    return Caller(node_service, "Registry")


@pytest.fixture
def node_jobs(node_service: Service) -> Caller:
    return Caller(node_service, "JobClient")
