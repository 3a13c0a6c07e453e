"""Each method of azure-iot-hub's IoTHubRegistryManager, one test each: what was written is read back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.sdk.conftest import Caller, World, refused

KEY_1 = "bWV0aG9kaHViLWludGVyb3Ata2V5LW51bWJlci0wMDE="
KEY_2 = "bWV0aG9kaHViLWludGVyb3Ata2V5LW51bWJlci0wMDI="
PRINT_1 = "A1" * 32
PRINT_2 = "B2" * 32
KEYS = {"primary_key": KEY_1, "secondary_key": KEY_2}
PRINTS = {"primary_thumbprint": PRINT_1, "secondary_thumbprint": PRINT_2}


@pytest.fixture
def device(python: Caller, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A device named after the test."""
    name = request.node.name.removeprefix("test_")
    made: dict[str, Any] = python("create_device_with_sas", name, KEY_1, KEY_2, "enabled")
    return made


@pytest.fixture
def module(python: Caller, device: dict[str, Any]) -> dict[str, Any]:
    """A module of that device."""
    made: dict[str, Any] = python("create_module_with_sas", device["device_id"], "m1", "operator", KEY_1, KEY_2)
    return made


def without_times(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if not name.endswith("_time")}


# --- devices -----------------------------------------------------------------------------------------------------


def test_create_device_with_sas(python: Caller) -> None:
    made = python("create_device_with_sas", "sas", KEY_1, KEY_2, "disabled", True, "not yet")
    assert made["authentication"]["symmetric_key"] == KEYS
    assert (made["status"], made["status_reason"], made["capabilities"]) == ("disabled", "not yet", {"iot_edge": True})
    assert without_times(python("get_device", "sas")) == without_times(made)
    again = python.fails("create_device_with_sas", "sas", KEY_1, KEY_2, "enabled")
    refused(again, "DeviceAlreadyExists", 409)
    assert python("get_device", "sas")["etag"] == made["etag"]


def test_create_device_with_x509(python: Caller) -> None:
    made = python("create_device_with_x509", "thumbprint", PRINT_1, PRINT_2, "enabled")
    found = python("get_device", "thumbprint")["authentication"]
    assert (found["type"], found["x509_thumbprint"]) == ("selfSigned", PRINTS)
    assert made["authentication"]["x509_thumbprint"] == PRINTS


def test_create_device_with_certificate_authority(python: Caller) -> None:
    made = python("create_device_with_certificate_authority", "signed", "enabled")
    assert made["authentication"]["type"] == "certificateAuthority"
    assert python("get_device", "signed")["generation_id"] == made["generation_id"]


def test_get_device(python: Caller, device: dict[str, Any]) -> None:
    found = python("get_device", device["device_id"])
    assert without_times(found) == without_times(device)
    assert found["connection_state"] == "Disconnected"
    refused(python.fails("get_device", "nobody"), "DeviceNotFound", 404)


def test_get_devices(python: Caller, device: dict[str, Any]) -> None:
    assert device["device_id"] in {each["device_id"] for each in python("get_devices")}
    assert len(python("get_devices", 1)) == 1
    refused(python.fails("get_devices", 1001), "ArgumentInvalid", 400)


def test_update_device_with_sas(python: Caller, device: dict[str, Any]) -> None:
    name = device["device_id"]
    changed = python("update_device_with_sas", name, device["etag"], KEY_2, KEY_1, "disabled", False, "maintenance")
    assert changed["etag"] != device["etag"]
    assert changed["generation_id"] == device["generation_id"]
    found = python("get_device", name)
    assert found["authentication"]["symmetric_key"] == {"primary_key": KEY_2, "secondary_key": KEY_1}
    assert (found["status"], found["status_reason"]) == ("disabled", "maintenance")
    stale = python.fails("update_device_with_sas", name, device["etag"], KEY_1, KEY_2, "enabled")
    refused(stale, "PreconditionFailed", 412)


def test_update_device_with_x509(python: Caller, device: dict[str, Any]) -> None:
    python("update_device_with_x509", device["device_id"], "*", PRINT_1, PRINT_2, "enabled")
    found = python("get_device", device["device_id"])["authentication"]
    assert (found["type"], found["x509_thumbprint"]) == ("selfSigned", PRINTS)


def test_update_device_with_certificate_authority(python: Caller, device: dict[str, Any]) -> None:
    python("update_device_with_certificate_authority", device["device_id"], device["etag"], "enabled")
    assert python("get_device", device["device_id"])["authentication"]["type"] == "certificateAuthority"


def test_delete_device(python: Caller, device: dict[str, Any]) -> None:
    refused(python.fails("delete_device", device["device_id"], "stale"), "PreconditionFailed", 412)
    assert python("delete_device", device["device_id"], device["etag"]) is None
    refused(python.fails("get_device", device["device_id"]), "DeviceNotFound", 404)
    refused(python.fails("delete_device", device["device_id"]), "DeviceNotFound", 404)


# --- modules -----------------------------------------------------------------------------------------------------


def test_create_module_with_sas(python: Caller, device: dict[str, Any]) -> None:
    made = python("create_module_with_sas", device["device_id"], "m1", "operator", KEY_1, KEY_2)
    assert made["authentication"]["symmetric_key"] == KEYS
    assert (made["device_id"], made["module_id"], made["managed_by"]) == (device["device_id"], "m1", "operator")
    again = python.fails("create_module_with_sas", device["device_id"], "m1", "", KEY_1, KEY_2)
    refused(again, "ModuleAlreadyExistsOnDevice", 409)


def test_create_module_with_x509(python: Caller, device: dict[str, Any]) -> None:
    python("create_module_with_x509", device["device_id"], "m1", "", PRINT_1, PRINT_2)
    found = python("get_module", device["device_id"], "m1")["authentication"]
    assert (found["type"], found["x509_thumbprint"]) == ("selfSigned", PRINTS)


def test_create_module_with_certificate_authority(python: Caller, device: dict[str, Any]) -> None:
    python("create_module_with_certificate_authority", device["device_id"], "m1", "")
    assert python("get_module", device["device_id"], "m1")["authentication"]["type"] == "certificateAuthority"


def test_get_module(python: Caller, module: dict[str, Any]) -> None:
    found = python("get_module", module["device_id"], "m1")
    assert without_times(found) == without_times(module)
    refused(python.fails("get_module", module["device_id"], "m2"), "ModuleNotFound", 404)


def test_get_modules(python: Caller, module: dict[str, Any]) -> None:
    python("create_module_with_sas", module["device_id"], "m2", "", KEY_1, KEY_2)
    assert [each["module_id"] for each in python("get_modules", module["device_id"])] == ["m1", "m2"]
    refused(python.fails("get_modules", "nobody"), "DeviceNotFound", 404)


def test_update_module_with_sas(python: Caller, module: dict[str, Any]) -> None:
    name = module["device_id"]
    changed = python("update_module_with_sas", name, "m1", "somebody", module["etag"], KEY_2, KEY_1)
    found = python("get_module", name, "m1")
    assert (found["managed_by"], found["etag"]) == ("somebody", changed["etag"])
    assert found["authentication"]["symmetric_key"] == {"primary_key": KEY_2, "secondary_key": KEY_1}
    stale = python.fails("update_module_with_sas", name, "m1", "", module["etag"], KEY_1, KEY_2)
    refused(stale, "PreconditionFailed", 412)


def test_update_module_with_x509(python: Caller, module: dict[str, Any]) -> None:
    python("update_module_with_x509", module["device_id"], "m1", "", "*", PRINT_1, PRINT_2)
    found = python("get_module", module["device_id"], "m1")["authentication"]
    assert (found["type"], found["x509_thumbprint"]) == ("selfSigned", PRINTS)


def test_update_module_with_certificate_authority(python: Caller, module: dict[str, Any]) -> None:
    python("update_module_with_certificate_authority", module["device_id"], "m1", "", module["etag"])
    assert python("get_module", module["device_id"], "m1")["authentication"]["type"] == "certificateAuthority"


def test_delete_module(python: Caller, module: dict[str, Any]) -> None:
    refused(python.fails("delete_module", module["device_id"], "m1", "stale"), "PreconditionFailed", 412)
    assert python("delete_module", module["device_id"], "m1") is None
    refused(python.fails("get_module", module["device_id"], "m1"), "ModuleNotFound", 404)


# --- statistics, bulk, query -------------------------------------------------------------------------------------


def test_get_service_statistics(python: Caller, world: World) -> None:
    before = python("get_service_statistics")["connected_device_count"]
    world.answering("counted", 2)
    assert python("get_service_statistics") == {"connected_device_count": before + 2}


def test_get_device_registry_statistics(python: Caller, device: dict[str, Any]) -> None:
    before = python("get_device_registry_statistics")
    assert before["total_device_count"] == before["enabled_device_count"] + before["disabled_device_count"]
    python("create_device_with_sas", "statistics-1", KEY_1, KEY_2, "disabled")
    after = python("get_device_registry_statistics")
    assert after["total_device_count"] == before["total_device_count"] + 1
    assert after["disabled_device_count"] == before["disabled_device_count"] + 1


def test_bulk_create_or_update_devices(python: Caller) -> None:
    def item(name: str, mode: str, **fields: Any) -> dict[str, Any]:
        return {"$": "ExportImportDevice", "id": name, "import_mode": mode, "status": "enabled", **fields}

    sas = {"$": "AuthenticationMechanism", "type": "sas", "symmetric_key": {"$": "SymmetricKey", **KEYS}}
    made = python(
        "bulk_create_or_update_devices",
        [item(f"bulk-{n}", "create", authentication=sas, tags={"n": n}) for n in range(3)],
    )
    assert made["is_successful"] is True
    assert not made.get("errors")
    assert python("get_device", "bulk-2")["authentication"]["symmetric_key"] == KEYS
    assert python("get_twin", "bulk-2")["tags"] == {"n": 2}
    partly = python(
        "bulk_create_or_update_devices",
        [
            item("bulk-0", "create"),
            {**item("bulk-1", "update"), "status": "disabled"},
            item("bulk-2", "delete"),
            item("bulk-9", "delete"),
        ],
    )
    assert partly["is_successful"] is False
    assert [(each["device_id"], each["error_code"]) for each in partly["errors"]] == [
        ("bulk-0", "DeviceAlreadyExists"),
        ("bulk-9", "DeviceNotFound"),
    ]
    assert python("get_device", "bulk-1")["status"] == "disabled"
    refused(python.fails("get_device", "bulk-2"), "DeviceNotFound", 404)


def test_query_iot_hub(python: Caller, world: World) -> None:
    for number in range(5):
        python("create_device_with_sas", f"query-{number}", KEY_1, KEY_2, "enabled")
        world.tag(f"query-{number}", group="query")
    query = {"$": "QuerySpecification", "query": "SELECT * FROM devices WHERE tags.group = 'query'"}
    seen, token = [], None
    for size in (2, 2, 1):
        page = python("query_iot_hub", query, token, 2)
        assert page["type"] == "Twin"
        assert len(page["items"]) == size
        assert all(each["tags"] == {"group": "query"} for each in page["items"])
        seen += [each["device_id"] for each in page["items"]]
        token = page.get("continuation_token")
    assert token is None
    assert sorted(seen) == [f"query-{number}" for number in range(5)]
    wrong = python.fails("query_iot_hub", {"$": "QuerySpecification", "query": "SELECT * FRM devices"})
    assert wrong.status == 400


# --- twins -------------------------------------------------------------------------------------------------------


def patch(tags: dict[str, Any], desired: dict[str, Any]) -> dict[str, Any]:
    return {"$": "Twin", "tags": tags, "properties": {"$": "TwinProperties", "desired": desired}}


def plain(section: dict[str, Any]) -> dict[str, Any]:
    """Properties without what the hub keeps about them."""
    return {name: value for name, value in section.items() if name[0] != "$"}


def test_get_twin(python: Caller, device: dict[str, Any]) -> None:
    twin = python("get_twin", device["device_id"])
    assert (twin["device_id"], twin["status"], twin["connection_state"]) == (
        device["device_id"],
        "enabled",
        "Disconnected",
    )
    assert twin["properties"]["desired"]["$version"] == twin["properties"]["reported"]["$version"] == 1
    assert twin["authentication_type"] == "sas"
    refused(python.fails("get_twin", "nobody"), "DeviceNotFound", 404)


def test_update_twin(python: Caller, device: dict[str, Any]) -> None:
    name = device["device_id"]
    first = python("update_twin", name, patch({"site": "north", "floor": 1}, {"speed": {"max": 5, "min": 1}}))
    assert first["properties"]["desired"]["$version"] == 2
    second = python("update_twin", name, patch({"floor": None}, {"speed": {"max": 6}}), first["etag"])
    found = python("get_twin", name)
    assert found["tags"] == second["tags"] == {"site": "north"}
    assert plain(found["properties"]["desired"]) == {"speed": {"max": 6, "min": 1}}
    assert found["etag"] == second["etag"] != first["etag"]
    refused(python.fails("update_twin", name, patch({}, {}), first["etag"]), "PreconditionFailed", 412)


def test_replace_twin(python: Caller, device: dict[str, Any]) -> None:
    name = device["device_id"]
    first = python("update_twin", name, patch({"site": "north"}, {"speed": 5}))
    python("replace_twin", name, patch({"floor": 2}, {"mode": "eco"}), first["etag"])
    found = python("get_twin", name)
    assert found["tags"] == {"floor": 2}
    assert plain(found["properties"]["desired"]) == {"mode": "eco"}
    refused(python.fails("replace_twin", name, patch({}, {}), first["etag"]), "PreconditionFailed", 412)


def test_get_module_twin(python: Caller, module: dict[str, Any]) -> None:
    twin = python("get_module_twin", module["device_id"], "m1")
    assert (twin["device_id"], twin["module_id"]) == (module["device_id"], "m1")
    refused(python.fails("get_module_twin", module["device_id"], "m2"), "ModuleNotFound", 404)


def test_update_module_twin(python: Caller, module: dict[str, Any]) -> None:
    first = python("update_module_twin", module["device_id"], "m1", patch({"a": 1}, {"b": [1, "x", None]}))
    found = python("get_module_twin", module["device_id"], "m1")
    assert (found["tags"], plain(found["properties"]["desired"])) == ({"a": 1}, {"b": [1, "x", None]})
    assert python("get_twin", module["device_id"]).get("tags", {}) == {}
    python("update_module_twin", module["device_id"], "m1", patch({"a": 2}, {}), first["etag"])
    stale = python.fails("update_module_twin", module["device_id"], "m1", patch({"a": 3}, {}), first["etag"])
    refused(stale, "PreconditionFailed", 412)


def test_replace_module_twin(python: Caller, module: dict[str, Any]) -> None:
    python("update_module_twin", module["device_id"], "m1", patch({"a": 1}, {"b": 1}))
    python("replace_module_twin", module["device_id"], "m1", patch({"c": 1}, {"d": 1}))
    found = python("get_module_twin", module["device_id"], "m1")
    assert (found["tags"], plain(found["properties"]["desired"])) == ({"c": 1}, {"d": 1})


# --- methods -----------------------------------------------------------------------------------------------------


def call(name: str, payload: Any) -> dict[str, Any]:
    return {"$": "CloudToDeviceMethod", "method_name": name, "payload": payload, "response_timeout_in_seconds": 10}


def test_invoke_device_method(python: Caller, world: World) -> None:
    name = world.sdk_device("node").device_id
    answer = python("invoke_device_method", name, call("echo", {"a": [1, None]}))
    assert answer == {"status": 200, "payload": {"a": [1, None]}}
    python("create_device_with_sas", "offline", KEY_1, KEY_2, "enabled")
    refused(python.fails("invoke_device_method", "offline", call("echo", 1)), "DeviceNotOnline", 404)


def test_invoke_device_module_method(python: Caller, module: dict[str, Any]) -> None:
    offline = python.fails("invoke_device_module_method", module["device_id"], "m1", call("echo", 1))
    refused(offline, "DeviceNotOnline", 404)
    unknown = python.fails("invoke_device_module_method", module["device_id"], "m2", call("echo", 1))
    refused(unknown, "ModuleNotFound", 404)
