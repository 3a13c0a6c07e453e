"""Twins between unmodified SDKs: devices of both languages over each transport, back ends of both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.interop.conftest import Pool
from tests.interop.peers import PROGRAMS, Failure, Language, SdkProgram, Service, Transport, device_env


class TwinDevice(SdkProgram):
    """A device or module that is told to read and report its twin."""

    def __init__(
        self, pool: Pool, language: Language, transport: Transport, device_id: str, module_id: str = "", **options: Any
    ) -> None:
        pool.hub.create_device(device_id)
        if module_id:
            pool.hub.create_module(device_id, module_id)
        connection_string = pool.hub.device_connection_string(device_id, module_id)
        env = device_env(pool.hub, connection_string, transport=transport, **options)
        super().__init__(language, PROGRAMS / "twin_device", env)
        self.expect("ready")

    def ask(self, **line: Any) -> Any:
        self.say(json.dumps(line))
        return json.loads(self.expect("result ").split("result ", 1)[1])

    def desired(self) -> Any:
        return json.loads(self.expect("desired ").split("desired ", 1)[1])


DEVICES: list[tuple[Language, Transport, str]] = [
    ("python", "mqtt", ""),
    ("python", "mqtt-ws", ""),
    ("python", "mqtt", "m"),
    ("node", "mqtt", ""),
    ("node", "mqtt-ws", ""),
    ("node", "amqp", ""),
    ("node", "amqp-ws", ""),
    ("node", "mqtt", "m"),
    ("node", "amqp", "m"),
]


@pytest.mark.parametrize(("language", "transport", "module_id"), DEVICES)
def test_a_device_reads_reports_and_is_told(
    pool: Pool, language: Language, transport: Transport, module_id: str
) -> None:
    """get_twin, patch_twin_reported_properties, on_twin_desired_properties_patch_received; getTwin,
    twin.properties.reported.update, on('properties.desired')."""
    name = f"twin-{language}-{transport}{module_id}"
    path = f"/twins/{name}" + (f"/modules/{module_id}" if module_id else "")
    with TwinDevice(pool, language, transport, name, module_id) as device, pool.hub.service() as back_end:
        if language == "node":
            assert device.desired() == {"$version": 1}
        assert device.ask(verb="report", patch={"fw": {"v": "1"}, "old": [1, 2]}) is None
        assert device.ask(verb="report", patch={"old": None}) is None
        twin = back_end.patch(path, json={"properties": {"desired": {"interval": 30, "led": {"on": True}}}}).json()
        told = device.desired()
        assert (told["interval"], told["led"], told["$version"]) == (30, {"on": True}, 2)
        assert (twin["connectionState"], twin["properties"]["reported"]["fw"]) == ("Connected", {"v": "1"})
        back_end.patch(path, json={"properties": {"desired": {"interval": None}}})
        assert device.desired()["$version"] == 3
        found = device.ask(verb="get")
        assert found["desired"] == {"led": {"on": True}, "$version": 3}
        assert {key: found["reported"][key] for key in ("fw", "$version")} == {"fw": {"v": "1"}, "$version": 3}
        assert "old" not in found["reported"]


@pytest.mark.parametrize(
    ("language", "transport", "told"),
    [("python", "mqtt", "status 400"), ("node", "mqtt", "must be within"), ("node", "amqp", "must be within")],
)
def test_a_refused_report_fails_in_the_application(
    pool: Pool, language: Language, transport: Transport, told: str
) -> None:
    with TwinDevice(pool, language, transport, f"refused-{language}-{transport}") as device:
        failure = device.ask(verb="report", patch={"n": 2**52 + 1})
        assert told in failure["error"]
        assert device.ask(verb="report", patch={"n": 2**51}) is None


@pytest.mark.parametrize(("language", "transport"), [("python", "mqtt"), ("node", "mqtt"), ("node", "amqp")])
def test_a_plug_and_play_device_names_its_model(pool: Pool, language: Language, transport: Transport) -> None:
    name, model = f"model-{language}-{transport}", "dtmi:com:example:Thermostat;1"
    options = {"product_info": model} if language == "python" else {"modelId": model}
    with TwinDevice(pool, language, transport, name, **options), pool.hub.service() as back_end:
        found = back_end.get(f"/twins/{name}").json()
        if (language, transport) != ("node", "amqp"):  # that one names no model
            assert found["modelId"] == model
        assert found["connectionState"] == "Connected"


# --- back ends ---------------------------------------------------------------------------------------------------


class Twins:
    """A service SDK's twin calls, the same in both languages; a twin comes back as the SDK's own JSON."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.python = service.language == "python"

    def get(self, device_id: str, module_id: str = "") -> Any:
        names = {True: ("get_twin", "get_module_twin"), False: ("getTwin", "getModuleTwin")}[self.python]
        return self._ask(names, device_id, module_id)

    def update(self, device_id: str, module_id: str, change: dict[str, Any], etag: str) -> Any:
        names = {True: ("update_twin", "update_module_twin"), False: ("updateTwin", "updateModuleTwin")}[self.python]
        return self._ask(names, device_id, module_id, self._twin(change), etag)

    def replace(self, device_id: str, module_id: str, change: dict[str, Any], etag: str) -> Any:
        """Only one of the SDKs has it."""
        assert self.python
        return self._ask(("replace_twin", "replace_module_twin"), device_id, module_id, self._twin(change), etag)

    def _ask(self, names: tuple[str, str], device_id: str, module_id: str, *args: Any) -> Any:
        ids = (device_id, module_id) if module_id else (device_id,)
        return self._service.ask(names[bool(module_id)], *ids, *args)

    def _twin(self, change: dict[str, Any]) -> dict[str, Any]:
        if not self.python:
            return change
        properties = {"$": "TwinProperties", **change.get("properties", {})}
        return {"$": "Twin", **change, "properties": properties}


def change_of(tags: dict[str, Any], desired: dict[str, Any]) -> dict[str, Any]:
    return {"tags": tags, "properties": {"desired": desired}}


@pytest.mark.parametrize("module_id", ["", "m"])
def test_a_back_end_reads_and_changes_twins(pool: Pool, language: Language, module_id: str) -> None:
    name = f"from-{language}{module_id}"
    pool.hub.create_device(name)
    if module_id:
        pool.hub.create_module(name, module_id)
    twins = Twins(pool.service(language))
    etag = twins.get(name, module_id)["etag"]
    changed = twins.update(name, module_id, change_of({"site": "north"}, {"a": {"b": 1}}), etag)
    assert changed["tags"] == {"site": "north"}
    assert changed["properties"]["desired"]["a"] == {"b": 1}
    late = twins.update(name, module_id, change_of({"site": "south"}, {}), etag)
    assert isinstance(late, Failure)
    assert (late.status, late.code) == (412, 412001)
    assert twins.update(name, module_id, change_of({"row": 1}, {}), "*")["tags"] == {"site": "north", "row": 1}
    if twins.python:
        replaced = twins.replace(name, module_id, change_of({"only": True}, {"z": 1}), "*")
        assert replaced["tags"] == {"only": True}
        assert replaced["properties"]["desired"]["z"] == 1
        assert "a" not in replaced["properties"]["desired"]


def test_an_unknown_twin_is_told_as_each_sdk_tells_it(pool: Pool, language: Language) -> None:
    """Format F1 makes one of them throw a plain error (`wire/service.md` 10, 6)."""
    failure = Twins(pool.service(language)).get("nobody")
    assert isinstance(failure, Failure)
    assert failure.status == 404 if language == "python" else "Not found" in failure.message
