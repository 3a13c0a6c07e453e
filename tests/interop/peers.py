"""The official SDKs in processes of their own, as objects of a test: devices that are told what to answer, back ends
that are told whom to call."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.harness import PATIENCE, Program, RunningHub, node

Language = Literal["python", "node"]
Transport = Literal["mqtt", "mqtt-ws", "amqp", "amqp-ws"]

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
NODE_MODULES = HERE / "node" / "node_modules"
ABSENT = object()


def node_sdks() -> dict[str, str]:
    """The environment in which Node finds the SDKs. Fails unless the versions of `package.json` are installed."""
    wanted = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        manifest = NODE_MODULES / name / "package.json"
        if not manifest.is_file() or json.loads(manifest.read_text())["version"] != version:
            pytest.fail(
                f"{name} {version} is not installed; type: "
                "cd tests/interop/node && npm install --no-package-lock --no-audit --no-fund"
            )
    return {"NODE_PATH": str(NODE_MODULES)}


class SdkProgram(Program):
    """A script of either language; `script` without its suffix. `flags`: more for the interpreter."""

    def __init__(self, language: Language, script: Path, env: dict[str, str], *flags: str) -> None:
        if language == "python":
            super().__init__([sys.executable, "-u", "-W", "ignore", *flags, str(script.with_suffix(".py"))], env)
        else:
            super().__init__([node(), "--no-warnings", *flags, str(script.with_suffix(".js"))], {**node_sdks(), **env})


def device_env(hub: RunningHub, connection_string: str, **options: Any) -> dict[str, str]:
    return {
        "IOTHUB_DEVICE_CONNECTION_STRING": connection_string,
        "IOTHUB_CA_FILE": str(hub.ca_file),
        "DEVICE_OPTIONS": json.dumps(options),
    }


def service_env(hub: RunningHub, connection_string: str) -> dict[str, str]:
    return {
        "IOTHUB_CONNECTION_STRING": connection_string,
        "REQUESTS_CA_BUNDLE": str(hub.ca_file),
        "NODE_EXTRA_CA_CERTS": str(hub.ca_file),
    }


@dataclass(frozen=True)
class Request:
    """A call as the application on the device sees it. `payload` is ABSENT where the SDK gives it none."""

    name: str
    payload: Any
    rid: str


class Device(SdkProgram):
    """A device (or module) with one of the SDKs. It is created unless a connection string is given. `options` of the
    SDK, and `transport`: `mqtt` unless told otherwise."""

    def __init__(
        self,
        hub: RunningHub,
        language: Language,
        device_id: str,
        module_id: str = "",
        connection_string: str = "",
        **options: Any,
    ) -> None:
        if not connection_string:
            hub.create_device(device_id)
            if module_id:
                hub.create_module(device_id, module_id)
            connection_string = hub.device_connection_string(device_id, module_id)
        super().__init__(language, PROGRAMS / "device", device_env(hub, connection_string, **options))
        self.hub = hub
        self.device_id = device_id
        self.module_id = module_id

    def is_ready(self) -> Device:
        """Wait until it takes calls: `ready`, and, since Node does not say when it has subscribed, a first call."""
        self.expect("ready")
        module = f"/modules/{self.module_id}" if self.module_id else ""
        call = {"methodName": "echo", "payload": "ready?", "connectTimeoutInSeconds": 20}
        with self.hub.service() as client:
            response = client.post(f"/twins/{self.device_id}{module}/methods", json=call)
        assert response.json() == {"status": 200, "payload": "ready?"}
        assert self.request().name == "echo"
        return self

    def request(self, patience: float = PATIENCE) -> Request:
        """The next request that the application sees."""
        seen = json.loads(self.expect("request ", patience).split("request ", 1)[1])
        return Request(seen.get("name", ""), seen.get("payload", ABSENT), seen.get("rid", ""))

    def answer(self, rid: str, status: int, payload: Any) -> None:
        self.say(json.dumps({"rid": rid, "status": status, "payload": payload}))


@dataclass(frozen=True)
class Failure:
    """What a caller can read of a failed call. `code` is the number from the body of a method call, `name` that of
    the other routes' bodies, `header` the header's."""

    type: str
    message: str
    status: int | None
    code: int | None
    name: str | None
    header: str | None
    inner: dict[str, Any]


def read_failure(error: dict[str, Any]) -> Failure:
    code, name, inner = None, None, {}
    if error.get("body"):
        message = json.loads(error["body"]).get("Message", "")
        if message.startswith("ErrorCode:"):
            name = message.removeprefix("ErrorCode:").split(";")[0]
        elif message.startswith("{"):
            inner = json.loads(message)
            code = inner["errorCode"]
    return Failure(error["type"], error["message"], error.get("status"), code, name, error.get("header"), inner)


class Service(SdkProgram):
    """A back end with one of the SDKs. Calls may overlap: `begin` and `end`."""

    def __init__(self, hub: RunningHub, language: Language, policy: str = "iothubowner") -> None:
        super().__init__(language, PROGRAMS / "service", service_env(hub, hub.policy_connection_string(policy)))
        self.hub = hub
        self.language = language
        self._numbers = count(1)
        self._results: dict[int, dict[str, Any]] = {}

    def begin(self, verb: str, *args: Any, **more: Any) -> int:
        """`more`: what else the program of this language takes in a line."""
        number = next(self._numbers)
        self.say(json.dumps({"n": number, "verb": verb, "args": args, **more}))
        return number

    def end(self, number: int, patience: float = PATIENCE) -> Any:
        """What the SDK returned, or the Failure it raised."""
        while number not in self._results:
            found = json.loads(self.expect("result ", patience).split("result ", 1)[1])
            self._results[found["n"]] = found
        result = self._results.pop(number)
        return read_failure(result["error"]) if "error" in result else result["ok"]

    def ask(self, verb: str, *args: Any, **more: Any) -> Any:
        return self.end(self.begin(verb, *args, **more))

    def begin_call(
        self,
        device_id: str,
        name: str = "echo",
        payload: Any = ABSENT,
        module_id: str = "",
        response_timeout: int | None = None,
        connect_timeout: int | None = None,
        **more: Any,
    ) -> int:
        python = self.language == "python"
        names = (
            ("method_name", "response_timeout_in_seconds", "connect_timeout_in_seconds")
            if python
            else ("methodName", "responseTimeoutInSeconds", "connectTimeoutInSeconds")
        )
        values = zip(names, (name, response_timeout, connect_timeout), strict=True)
        call: dict[str, Any] = {key: value for key, value in values if value is not None}
        if payload is not ABSENT:
            call["payload"] = payload
        return self.begin("invoke", device_id, module_id, call, **more)

    def call(self, device_id: str, name: str = "echo", payload: Any = ABSENT, **more: Any) -> Any:
        return self.end(self.begin_call(device_id, name, payload, **more))
