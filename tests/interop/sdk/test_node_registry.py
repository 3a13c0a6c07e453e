"""Each method of azure-iothub's Registry and Twin, one test each: what was written is read back, and what is refused
comes as the SDK's own error."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.sdk.conftest import Caller, refused
from tests.interop.sdk.test_python_registry import KEY_1, KEY_2, PRINT_1, PRINT_2, plain

KEYS = {"primaryKey": KEY_1, "secondaryKey": KEY_2}
PRINTS = {"primaryThumbprint": PRINT_1, "secondaryThumbprint": PRINT_2}
IMPORT = "https://example.invalid/in", "https://example.invalid/out"


@pytest.fixture
def device(node: Caller, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A device named after the test."""
    name = request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")
    made: dict[str, Any] = node("create", {"deviceId": name, "authentication": {"symmetricKey": KEYS}})
    return made


@pytest.fixture
def module(node: Caller, device: dict[str, Any]) -> dict[str, Any]:
    """A module of that device."""
    made: dict[str, Any] = node(
        "addModule", {"deviceId": device["deviceId"], "moduleId": "m1", "managedBy": "operator"}
    )
    return made


def style_of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("style", ["promise", "callback"], ids=lambda style: f"{name}-{style}")


# --- devices -----------------------------------------------------------------------------------------------------


@style_of("create")
def test_Registry_create(node: Caller, style: str) -> None:
    made = node("create", {"deviceId": f"n-{style}", "authentication": {"x509Thumbprint": PRINTS}}, style=style)
    assert (made["deviceId"], made["authentication"]["type"]) == (f"n-{style}", "selfSigned")
    found = node("get", f"n-{style}")
    assert found["authentication"]["x509Thumbprint"] == PRINTS
    again = node.fails("create", {"deviceId": f"n-{style}"}, style=style)
    refused(again, "DeviceAlreadyExists", 409, "DeviceAlreadyExistsError")


def test_Registry_update(node: Caller, device: dict[str, Any]) -> None:
    changed = node("update", {**device, "status": "disabled", "statusReason": "maintenance"})
    found = node("get", device["deviceId"])
    assert (found["status"], found["statusReason"]) == ("disabled", "maintenance")
    assert found["etag"] == changed["etag"] != device["etag"]
    assert found["authentication"]["symmetricKey"] == KEYS
    refused(node.fails("update", {"deviceId": "nobody"}), "DeviceNotFound", 404, "DeviceNotFoundError")


def test_Registry_get(node: Caller, device: dict[str, Any]) -> None:
    assert node("get", device["deviceId"])["generationId"] == device["generationId"]
    refused(node.fails("get", "nobody"), "DeviceNotFound", 404, "DeviceNotFoundError")
    reader = node.fails("get", "nobody", connection=node.service_connection("service"))
    refused(reader, "IotHubUnauthorizedAccess", 401, "UnauthorizedError")


def test_Registry_list(node: Caller, device: dict[str, Any]) -> None:
    assert device["deviceId"] in {each["deviceId"] for each in node("list")}


def test_Registry_delete(node: Caller, device: dict[str, Any]) -> None:
    node("delete", device["deviceId"])
    refused(node.fails("get", device["deviceId"]), "DeviceNotFound", 404, "DeviceNotFoundError")
    refused(node.fails("delete", device["deviceId"]), "DeviceNotFound", 404, "DeviceNotFoundError")


# --- bulk --------------------------------------------------------------------------------------------------------


@style_of("add")
def test_Registry_addDevices(node: Caller, style: str) -> None:
    names = [f"add-{style}-{number}" for number in range(3)]
    devices = [{"deviceId": name, "authentication": {"symmetricKey": KEYS}} for name in names]
    assert node("addDevices", devices, style=style) == {"isSuccessful": True, "errors": [], "warnings": []}
    assert [node("get", name)["authentication"]["symmetricKey"] for name in names] == [KEYS] * 3
    again = node.fails("addDevices", devices[:1], style=style)
    assert (again.type, again.status) == ("ArgumentError", 400)


def test_Registry_updateDevices(node: Caller) -> None:
    names = ["update-0", "update-1"]
    node("addDevices", [{"deviceId": name} for name in names])
    old = [node("get", name) for name in names]
    node("updateDevices", [{**device, "status": "disabled"} for device in old], True)
    assert [node("get", name)["status"] for name in names] == ["disabled"] * 2
    stale = node.fails("updateDevices", [{**device, "status": "enabled"} for device in old], False)
    assert (stale.type, stale.status) == ("ArgumentError", 400)
    node("updateDevices", [{**node("get", name), "status": "enabled"} for name in names], False)
    assert [node("get", name)["status"] for name in names] == ["enabled"] * 2


def test_Registry_removeDevices(node: Caller) -> None:
    node("addDevices", [{"deviceId": name} for name in ("remove-0", "remove-1")])
    kept = node("get", "remove-1")
    node("removeDevices", [{"deviceId": "remove-0"}], True)
    refused(node.fails("get", "remove-0"), "DeviceNotFound", 404, "DeviceNotFoundError")
    stale = node.fails("removeDevices", [{**kept, "etag": "c3RhbGU="}], False)
    assert (stale.type, stale.status) == ("ArgumentError", 400)
    node("removeDevices", [kept], False)
    refused(node.fails("get", "remove-1"), "DeviceNotFound", 404, "DeviceNotFoundError")


def test_Registry_getRegistryStatistics(node: Caller, device: dict[str, Any]) -> None:
    before = node("getRegistryStatistics")
    assert before["totalDeviceCount"] == before["enabledDeviceCount"] + before["disabledDeviceCount"]
    node("update", {**device, "status": "disabled"})
    after = node("getRegistryStatistics")
    assert after["totalDeviceCount"] == before["totalDeviceCount"]
    assert after["disabledDeviceCount"] == before["disabledDeviceCount"] + 1


# --- import and export: blob containers are not there, and the hub says so ------------------------------------------


def test_Registry_importDevicesFromBlob(node: Caller) -> None:
    assert node.fails("importDevicesFromBlob", *IMPORT).status == 400


def test_Registry_importDevicesFromBlobByIdentity(node: Caller) -> None:
    assert node.fails("importDevicesFromBlobByIdentity", *IMPORT).type == "ArgumentError"


def test_Registry_exportDevicesToBlob(node: Caller) -> None:
    assert node.fails("exportDevicesToBlob", IMPORT[1], True).status == 400


def test_Registry_exportDevicesToBlobByIdentity(node: Caller) -> None:
    assert node.fails("exportDevicesToBlobByIdentity", IMPORT[1], False).type == "ArgumentError"


@style_of("jobs")
def test_Registry_listJobs(node: Caller, style: str) -> None:
    assert node("listJobs", style=style) == []


def test_Registry_getJob(node: Caller) -> None:
    failure = node.fails("getJob", "nothing")
    assert (failure.header, failure.status) == ("JobNotFound", 404)


def test_Registry_cancelJob(node: Caller) -> None:
    failure = node.fails("cancelJob", "nothing")
    assert (failure.header, failure.status) == ("JobNotFound", 404)


# --- twins -------------------------------------------------------------------------------------------------------


@style_of("twin")
def test_Registry_getTwin(node: Caller, device: dict[str, Any], style: str) -> None:
    twin = node("getTwin", device["deviceId"], style=style)
    assert (twin["deviceId"], twin["properties"]["desired"]["$version"]) == (device["deviceId"], 1)
    # As with the original: a 404 of a twin has no code that this SDK reads.
    refused(node.fails("getTwin", "nobody", style=style), "DeviceNotFound", 404, "Error")


def test_Registry_updateTwin(node: Caller, device: dict[str, Any]) -> None:
    name = device["deviceId"]
    first = node("updateTwin", name, {"tags": {"a": 1, "b": 2}, "properties": {"desired": {"c": {"d": 1}}}}, "*")
    second = node("updateTwin", name, {"tags": {"b": None}}, first["etag"])
    found = node("getTwin", name)
    assert (found["tags"], found["etag"]) == ({"a": 1}, second["etag"])
    assert plain(found["properties"]["desired"]) == {"c": {"d": 1}}
    stale = node.fails("updateTwin", name, {"tags": {}}, first["etag"])
    refused(stale, "PreconditionFailed", 412, "InvalidEtagError")


def test_Registry_getModuleTwin(node: Caller, module: dict[str, Any]) -> None:
    twin = node("getModuleTwin", module["deviceId"], "m1")
    assert (twin["deviceId"], twin["moduleId"]) == (module["deviceId"], "m1")
    refused(node.fails("getModuleTwin", module["deviceId"], "m2"), "ModuleNotFound", 404, "Error")


def test_Registry_updateModuleTwin(node: Caller, module: dict[str, Any]) -> None:
    node("updateModuleTwin", module["deviceId"], "m1", {"tags": {"a": 1}}, "*")
    assert node("getModuleTwin", module["deviceId"], "m1")["tags"] == {"a": 1}
    stale = node.fails("updateModuleTwin", module["deviceId"], "m1", {"tags": {}}, "c3RhbGU=")
    refused(stale, "PreconditionFailed", 412, "InvalidEtagError")


def test_Twin_get(node: Caller, device: dict[str, Any]) -> None:
    """The object follows what is stored, whoever changed it."""
    name = device["deviceId"]
    node("getTwin", name, keep="a twin")
    node("updateTwin", name, {"tags": {"a": 1}}, "*")
    for style in ("promise", "callback"):
        assert node("get", on="a twin", style=style)["tags"] == {"a": 1}


def test_Twin_update(node: Caller, device: dict[str, Any]) -> None:
    """It sends the etag that it has seen, and takes the new one."""
    name = device["deviceId"]
    node("getTwin", name, keep="a twin")
    node("getTwin", name, keep="an older twin")
    for value in (1, 2):
        found = node("update", {"properties": {"desired": {"a": value}}}, on="a twin")
        assert plain(found["properties"]["desired"]) == {"a": value}
    stale = node.fails("update", {"tags": {"b": 1}}, on="an older twin", style="callback")
    refused(stale, "PreconditionFailed", 412, "InvalidEtagError")
    assert node("getTwin", name)["properties"]["desired"]["$version"] == 3


def test_Twin_update_of_a_module(node: Caller, module: dict[str, Any]) -> None:
    node("getModuleTwin", module["deviceId"], "m1", keep="a twin")
    node("update", {"tags": {"a": 1}}, on="a twin")
    assert node("get", on="a twin")["tags"] == {"a": 1}


# --- modules -----------------------------------------------------------------------------------------------------


def test_Registry_addModule(node: Caller, device: dict[str, Any]) -> None:
    made = node("addModule", {"deviceId": device["deviceId"], "moduleId": "m1", "managedBy": "operator"})
    assert (made["deviceId"], made["moduleId"], made["managedBy"]) == (device["deviceId"], "m1", "operator")
    again = node.fails("addModule", {"deviceId": device["deviceId"], "moduleId": "m1"})
    refused(again, "ModuleAlreadyExistsOnDevice", 409, "DeviceAlreadyExistsError")


def test_Registry_getModulesOnDevice(node: Caller, module: dict[str, Any]) -> None:
    found = node("getModulesOnDevice", module["deviceId"])
    assert [(each["moduleId"], each["etag"]) for each in found] == [("m1", module["etag"])]


def test_Registry_getModule(node: Caller, module: dict[str, Any]) -> None:
    assert node("getModule", module["deviceId"], "m1")["generationId"] == module["generationId"]
    refused(node.fails("getModule", module["deviceId"], "m2"), "ModuleNotFound", 404, "Error")


def test_Registry_updateModule(node: Caller, module: dict[str, Any]) -> None:
    changed = node("updateModule", {**module, "managedBy": "somebody"})
    assert node("getModule", module["deviceId"], "m1")["managedBy"] == "somebody"
    stale = node.fails("updateModule", module, style="callback")
    refused(stale, "PreconditionFailed", 412, "InvalidEtagError")
    node("updateModule", {**module, "managedBy": "anybody"}, True)
    assert node("getModule", module["deviceId"], "m1")["etag"] != changed["etag"]


def test_Registry_removeModule(node: Caller, module: dict[str, Any]) -> None:
    # Given a module, this method works with a callback only.
    stale = node.fails("removeModule", {**module, "etag": "c3RhbGU="}, style="callback")
    refused(stale, "PreconditionFailed", 412, "InvalidEtagError")
    node("removeModule", module["deviceId"], "m1")
    refused(node.fails("getModule", module["deviceId"], "m1"), "ModuleNotFound", 404, "Error")
