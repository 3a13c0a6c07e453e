"""What the tests of jobs share: devices in threads of their own that answer and count, and a back end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.harness import PATIENCE, RunningHub
from tests.hub.peers import Caller, Device, Request, Response, ready_device

ENDED = {"completed", "failed", "cancelled"}


class Answering:
    """A connected device that answers each call with `answer(request)`, or not at all where that is None."""

    def __init__(
        self,
        hub: RunningHub,
        device_id: str,
        answer: Callable[[Request], bytes | None] = lambda request: request.payload,
        device: Device | None = None,
    ) -> None:
        self.seen: list[Request] = []
        self.device = device or ready_device(hub, device_id)
        self._answer = answer
        _open.append(self)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                request = self.device.request()
            except (AssertionError, OSError, ValueError):
                self.device.close()
                return
            self.seen.append(request)
            answer = self._answer(request)
            if answer is not None:
                self.device.answer(request, answer)

    def close(self) -> None:
        with suppress(OSError):
            self.device.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.device.close()


_open: list[Answering] = []


def close_devices() -> None:
    while _open:
        _open.pop().close()


class BackEnd:
    def __init__(self, hub: RunningHub, caller: Caller) -> None:
        self.hub = hub
        self.caller = caller

    def put(self, job_id: str = "j", *, method: dict[str, Any] | None = None, **fields: Any) -> Response:
        work = {} if "updateTwin" in fields else {"cloudToDeviceMethod": {"methodName": "m"} | (method or {})}
        body = {"jobId": job_id, "queryCondition": "*"} | work | fields
        return self.caller.ask("PUT", f"/jobs/v2/{job_id}", body)

    def create(self, job_id: str = "j", **fields: Any) -> None:
        response = self.put(job_id, **fields)
        assert (response.status, json.loads(response.body)["status"]) == (200, "queued"), response

    def get(self, job_id: str = "j") -> dict[str, Any]:
        """The job as it is. Its counts add up whenever it is looked at."""
        response = self.caller.ask("GET", f"/jobs/v2/{job_id}")
        assert response.status == 200, response
        job: dict[str, Any] = json.loads(response.body)
        counts = job["deviceJobStatistics"]
        parts = ("succeededCount", "failedCount", "runningCount", "pendingCount")
        assert counts["deviceCount"] == sum(counts[part] for part in parts), counts
        return job

    def until(self, condition: Callable[[dict[str, int]], bool], job_id: str = "j") -> dict[str, Any]:
        """The job, once its counts are as wanted."""
        limit = time.monotonic() + PATIENCE
        while True:
            job = self.get(job_id)
            if condition(job["deviceJobStatistics"]):
                return job
            assert time.monotonic() < limit, job

    def ended(self, job_id: str = "j") -> dict[str, Any]:
        limit = time.monotonic() + PATIENCE
        while (job := self.get(job_id))["status"] not in ENDED:
            assert time.monotonic() < limit, job
        return job

    def devices(self, job_id: str = "j") -> dict[str, dict[str, Any]]:
        """By their ids, each as `devices.jobs` shows it."""
        query = f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'"
        response = self.caller.ask("POST", "/devices/query", {"query": query})
        assert response.status == 200, response
        return {each["deviceId"]: each for each in json.loads(response.body)}

    def errors(self, job_id: str = "j") -> dict[str, str]:
        return {name: each["error"]["code"] for name, each in self.devices(job_id).items() if "error" in each}
