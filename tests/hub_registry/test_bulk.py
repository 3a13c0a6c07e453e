"""Bulk requests over REST: every mode, order, repeated ids, partial failures, limits, two back ends at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.harness import RunningHub
from tests.hub.peers import Caller, Response, ready_device

_numbers = count()


def new_id() -> str:
    return f"bulk-{next(_numbers)}"


def bulk(caller: Caller, *items: Any, path: str = "/devices") -> Response:
    return caller.ask("POST", path, list(items))


def errors(answer: Response) -> list[tuple[str, str, str]]:
    """Device, operation and code of each error, in their order; checks what every result has in common."""
    result = json.loads(answer.body)
    assert set(result) == {"isSuccessful", "errors", "warnings"}
    assert result["warnings"] == []
    assert result["isSuccessful"] is (not result["errors"])
    assert answer.status == (400 if result["errors"] else 200)
    if result["errors"]:
        assert answer.headers["iothub-errorcode"] == "BulkRegistryOperationFailure"
        assert answer.headers["iothuberrorcode"] == "BulkRegistryOperationFailure"
    else:
        assert "iothuberrorcode" not in answer.headers
    for each in result["errors"]:
        assert set(each) == {"deviceId", "moduleId", "operation", "errorCode", "errorStatus"}
        assert each["errorStatus"]
    return [(each["deviceId"], each["operation"], each["errorCode"]) for each in result["errors"]]


def read(caller: Caller, path: str) -> dict[str, Any]:
    answer = caller.ask("GET", path)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def exists(caller: Caller, device_id: str) -> bool:
    return caller.ask("GET", f"/devices/{device_id}").status == 200


# --- the modes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["shared", "kept"])
def test_a_life_in_bulk(store: str, request: pytest.FixtureRequest) -> None:
    """[HUB-bulk] Create with a twin, update, update its twin, delete: each mode, by etag and without."""
    hub: RunningHub = request.getfixturevalue(store)
    one, two = new_id(), new_id()
    with Caller(hub) as caller:
        twin = {"tags": {"floor": 1}, "properties": {"desired": {"celsius": 20}}}
        created = bulk(caller, {"id": one, "importMode": "create", "status": "disabled", **twin}, {"id": two})
        assert errors(created) == []
        assert read(caller, f"/devices/{one}")["status"] == "disabled"
        assert len(read(caller, f"/devices/{two}")["authentication"]["symmetricKey"]["primaryKey"]) == 44
        found = read(caller, f"/twins/{one}")
        assert (found["tags"], found["properties"]["desired"]["celsius"]) == ({"floor": 1}, 20)

        before = read(caller, f"/devices/{one}")
        assert errors(bulk(caller, {"id": one, "importMode": "update", "statusReason": "new"})) == []
        after = read(caller, f"/devices/{one}")
        assert after["statusReason"] == "new" and after["status"] == "enabled"
        assert after["authentication"] == before["authentication"] and after["etag"] != before["etag"]
        assert after["generationId"] == before["generationId"]
        assert read(caller, f"/twins/{one}")["tags"] == {"floor": 1}

        stale = {"id": one, "importMode": "updateIfMatchETag", "eTag": before["etag"], "statusReason": "no"}
        assert errors(bulk(caller, stale)) == [(one, "updateIfMatchETag", "PreconditionFailed")]
        fresh = {**stale, "eTag": f'"{after["etag"]}"', "statusReason": "yes", "tags": {"floor": None, "room": "a"}}
        assert errors(bulk(caller, fresh)) == []
        assert read(caller, f"/devices/{one}")["statusReason"] == "yes"
        assert read(caller, f"/twins/{one}")["tags"] == {"room": "a"}

        etag = read(caller, f"/twins/{one}")["etag"]
        change = {"id": one, "importMode": "updateTwin", "tags": {"n": 1}, "properties": {"desired": {"celsius": 21}}}
        assert errors(bulk(caller, change)) == []
        found = read(caller, f"/twins/{one}")
        assert (found["tags"], found["properties"]["desired"]["celsius"]) == ({"room": "a", "n": 1}, 21)
        stale = {"id": one, "importMode": "updateTwinIfMatchETag", "twinETag": etag, "tags": {"n": 2}}
        assert errors(bulk(caller, stale)) == [(one, "updateTwinIfMatchETag", "PreconditionFailed")]
        assert errors(bulk(caller, {**stale, "twinETag": found["etag"]})) == []
        assert read(caller, f"/twins/{one}")["tags"]["n"] == 2

        stale = {"id": one, "importMode": "deleteIfMatchETag", "eTag": before["etag"]}
        assert errors(bulk(caller, stale)) == [(one, "deleteIfMatchETag", "PreconditionFailed")]
        fresh = {**stale, "eTag": read(caller, f"/devices/{one}")["etag"]}
        assert errors(bulk(caller, fresh, {"id": two, "importMode": "delete"})) == []
        assert not exists(caller, one) and not exists(caller, two)


def test_what_each_mode_needs(shared: RunningHub) -> None:
    here, gone = new_id(), new_id()
    shared.create_device(here)
    with Caller(shared) as caller:
        modes = ("update", "updateIfMatchETag", "delete", "deleteIfMatchETag", "updateTwin", "updateTwinIfMatchETag")
        for mode in modes:
            item = {"importMode": mode, "eTag": "x", "twinETag": "x"}
            assert errors(bulk(caller, {"id": gone, **item})) == [(gone, mode, "DeviceNotFound")]
            assert errors(bulk(caller, {"id": here, "moduleId": "m", **item})) == [(here, mode, "ModuleNotFound")]
            if "Match" in mode:
                found = errors(bulk(caller, {"id": here, "importMode": mode}))
                assert found == [(here, mode, "ArgumentInvalid")]
        assert errors(bulk(caller, {"id": here})) == [(here, "create", "DeviceAlreadyExists")]
        assert exists(caller, here)


def test_any_case_of_keys_and_modes(shared: RunningHub) -> None:
    """[HUB-bulk] As clients spell them. Names inside tags and properties stay as they are."""
    one = new_id()
    keys = {"PrimaryKey": "cHBwcHBwcHBwcHBwcHBwcHBw", "secondarykey": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nz"}
    with Caller(shared) as caller:
        item = {
            "ID": one,
            "IMPORTMODE": "Create",
            "Authentication": {"Type": "SAS", "SymmetricKey": keys},
            "capabilities": {"IoTEdge": True},
            "Tags": {"ETag": 1, "Status": {"ID": 2}},
            "Properties": {"Desired": {"Tags": 3}},
        }
        assert errors(bulk(caller, item, path="/devices/")) == []
        device = read(caller, f"/devices/{one}")
        assert device["authentication"]["symmetricKey"]["primaryKey"] == keys["PrimaryKey"]
        assert device["capabilities"] == {"iotEdge": True}
        twin = read(caller, f"/twins/{one}")
        assert twin["tags"] == {"ETag": 1, "Status": {"ID": 2}}
        assert twin["properties"]["desired"]["Tags"] == 3
        update = {"id": one, "importMode": "UpdateIfMatchETag", "etag": device["etag"]}
        assert errors(bulk(caller, update)) == []
        etag = read(caller, f"/devices/{one}")["etag"]
        assert errors(bulk(caller, {"id": one, "importMode": "UPDATEIFMATCHETAG", "ETag": f'W/"{etag}"'})) == []
        assert errors(bulk(caller, {"id": one, "importMode": "deleteIfMatchEtag", "etag": "*"})) == []


# --- many items --------------------------------------------------------------------------------------------------


def test_items_are_done_in_order_and_one_that_fails_stops_no_other(shared: RunningHub) -> None:
    ids = [new_id() for _ in range(6)]
    for each in ids[1:4]:
        shared.create_device(each)
    with Caller(shared) as caller:
        answer = bulk(
            caller,
            {"id": ids[0], "moduleId": "m"},
            {"id": ids[1]},
            {"id": ids[4]},
            {"id": ids[4], "moduleId": "m", "managedBy": "me"},
            {"id": ids[2], "importMode": "update", "status": "off"},
            {"id": ids[2], "moduleId": "m"},
            {"id": ids[3], "importMode": "delete"},
            {"id": ids[3], "moduleId": "m"},
            {"id": "not valid"},
            {"id": ids[5], "importMode": "destroy"},
            {"id": ids[5] + "x", "authentication": {"symmetricKey": {"primaryKey": "short"}}},
            {"id": ids[5] + "y", "tags": []},
            {"id": ids[5] + "z", "tags": {"a.b": 1}},
            7,
        )
        assert errors(answer) == [
            (ids[0], "create", "DeviceNotFound"),
            (ids[1], "create", "DeviceAlreadyExists"),
            (ids[2], "update", "ArgumentInvalid"),
            (ids[3], "create", "DeviceNotFound"),
            ("not valid", "create", "ArgumentInvalid"),
            (ids[5], "create", "ArgumentInvalid"),
            (ids[5] + "x", "create", "ArgumentInvalid"),
            (ids[5] + "y", "create", "ArgumentInvalid"),
            (ids[5] + "z", "create", "ArgumentInvalid"),
            ("", "create", "ArgumentInvalid"),
        ]
        assert read(caller, f"/devices/{ids[4]}/modules/m")["managedBy"] == "me"
        assert exists(caller, ids[2]) and not exists(caller, ids[3])
        assert read(caller, f"/devices/{ids[2]}/modules/m")["moduleId"] == "m"


def test_two_items_for_one_identity_both_fail(shared: RunningHub) -> None:
    """[HUB-bulk-once] A device and its module are two."""
    one, two = new_id(), new_id()
    with Caller(shared) as caller:
        items = [{"id": one}, {"id": two}, {"id": one, "importMode": "delete"}, {"id": two, "moduleId": "m"}]
        assert errors(bulk(caller, *items)) == [
            (one, "create", "DeviceDefinedMultipleTimes"),
            (one, "delete", "DeviceDefinedMultipleTimes"),
        ]
        assert not exists(caller, one) and exists(caller, two)


def test_a_hundred_and_one_more(shared: RunningHub) -> None:
    """[HUB-bulk] A hundred with twins of their own fit, too, though they take more than another body may."""
    ids = [new_id() for _ in range(101)]
    tags = {f"key{index}": "x" * 600 for index in range(9)}
    with Caller(shared) as caller:
        items = [{"id": each, "tags": tags} for each in ids]
        assert len(json.dumps(items)) > shared.settings.http_body_limit
        refused = bulk(caller, *items)
        assert (refused.status, refused.headers["iothub-errorcode"]) == (413, "TooManyDevices")
        assert not exists(caller, ids[0])
        assert errors(bulk(caller, *items[:100])) == []
        assert all(read(caller, f"/twins/{each}")["tags"] == tags for each in (ids[0], ids[99]))
        assert errors(bulk(caller, *({"id": each, "importMode": "delete"} for each in ids[:100]))) == []
        assert not any(exists(caller, each) for each in ids)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"[]", "ArgumentInvalid"),
        (b"{}", "ArgumentInvalid"),
        (b"null", "ArgumentInvalid"),
        (b"[{]", "IotHubFormatError"),
        (b"", "IotHubFormatError"),
        (b'[{"id":"\xff"}]', "IotHubFormatError"),
        (b"[" * 2_000, "IotHubFormatError"),
        (b'[{"id":"a","tags":{"a":1e999}}]', "IotHubFormatError"),
    ],
)
def test_what_is_no_bulk_request(shared: RunningHub, body: bytes, name: str) -> None:
    with Caller(shared) as caller:
        answer = caller.ask("POST", "/devices", body)
        assert (answer.status, answer.headers["iothub-errorcode"]) == (400, name)
        assert "iothuberrorcode" not in answer.headers


@pytest.mark.parametrize(("policy", "status"), [("registryReadWrite", 200), ("registryRead", 401), ("service", 401)])
def test_who_may(shared: RunningHub, policy: str, status: int) -> None:
    """[HUB-bulk-rights]"""
    with Caller(shared, policy) as caller:
        assert bulk(caller, {"id": new_id()}).status == status


def test_the_limits_of_single_changes_hold(tmp_path: Path) -> None:
    """[HUB-max-devices] Devices of the hub, and modules of a device."""
    with RunningHub(tmp_path / "hub", modules_per_device=2, max_devices=3) as hub, Caller(hub) as caller:
        modules = [{"id": "a", "moduleId": f"m{index}"} for index in range(3)]
        assert errors(bulk(caller, {"id": "a"}, *modules)) == [("a", "create", "TooManyModulesOnDevice")]
        too_many = [{"id": each} for each in "bcd"]
        assert errors(bulk(caller, *too_many)) == [(each, "create", "IotHubQuotaExceeded") for each in "bcd"]
        assert errors(bulk(caller, *too_many[:2])) == []
        answer = caller.ask("PUT", "/devices/d", {})
        assert (answer.status, answer.headers["iothub-errorcode"]) == (403, "IotHubQuotaExceeded")
        assert errors(bulk(caller, {"id": "b", "importMode": "delete"})) == []
        assert caller.ask("PUT", "/devices/d", {}).status == 200


# --- what else must know -----------------------------------------------------------------------------------------


def test_connections_end_as_after_single_changes(shared: RunningHub) -> None:
    """Of the disabled, the deleted and those with other keys; nobody else's. A desired change is pushed."""
    ids = {name: new_id() for name in ("disabled", "deleted", "keys", "twin")}
    for each in ids.values():
        shared.create_device(each)
    keys = {"symmetricKey": {"primaryKey": "cHBwcHBwcHBwcHBwcHBwcHBw", "secondaryKey": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nz"}}
    devices = {name: ready_device(shared, each) for name, each in ids.items()}
    devices["twin"].subscribe("$iothub/twin/PATCH/properties/desired/#")
    with Caller(shared) as caller:
        answer = bulk(
            caller,
            {"id": ids["disabled"], "importMode": "update", "status": "disabled"},
            {"id": ids["deleted"], "importMode": "delete"},
            {"id": ids["keys"], "importMode": "update", "authentication": keys},
            {"id": ids["twin"], "importMode": "updateTwin", "properties": {"desired": {"a": 1}}},
        )
        assert errors(answer) == []
        for name in ("disabled", "deleted", "keys"):
            assert devices[name].is_closed()
        kind, body = devices["twin"].packet()
        assert kind == 0x30
        assert body[2:] == b'$iothub/twin/PATCH/properties/desired/?$version=2{"a":1,"$version":2}'
        assert caller.invoke(ids["deleted"]).status == 404
    for device in devices.values():
        device.close()


def test_a_device_connects_with_the_keys_of_its_bulk_creation(shared: RunningHub) -> None:
    one = new_id()
    with Caller(shared) as caller:
        assert caller.invoke(one).status == 404  # known not to exist
        assert errors(bulk(caller, {"id": one})) == []
    with ready_device(shared, one), Caller(shared) as caller:
        assert read(caller, f"/devices/{one}")["connectionState"] == "Connected"


def test_two_back_ends_at_once(kept: RunningHub) -> None:
    """Of each device exactly one of two creations succeeds, and of each twin every update."""
    ids = [new_id() for _ in range(100)]

    def create(_: int) -> list[str]:
        with Caller(kept) as caller:
            return [device for device, _, _ in errors(bulk(caller, *({"id": each} for each in ids)))]

    def update(number: int) -> list[tuple[str, str, str]]:
        items = [{"id": each, "importMode": "updateTwin", "tags": {f"n{number}": number}} for each in ids]
        with Caller(kept) as caller:
            return errors(bulk(caller, *items))

    with ThreadPoolExecutor(4) as pool:
        first, second = pool.map(create, range(2))
        assert sorted(first + second) == sorted(ids)
        assert list(pool.map(update, range(4))) == [[]] * 4
    with Caller(kept) as caller:
        assert all(read(caller, f"/twins/{each}")["tags"] == {f"n{n}": n for n in range(4)} for each in ids)


# --- new keys ----------------------------------------------------------------------------------------------------


def regenerate(caller: Caller, policy_key: str, *devices: dict[str, str]) -> tuple[int, dict[str, Any]]:
    answer = caller.ask("POST", "/devices/keys/regenerate", {"policyKey": policy_key, "devices": devices})
    result: dict[str, Any] = json.loads(answer.body)
    return answer.status, result


def test_new_keys_for_many(shared: RunningHub) -> None:
    """[HUB-regenerate] 200, 207 and 400; whoever used the old key is closed, whoever used the other is not."""
    one, two = new_id(), new_id()
    shared.create_device(one)
    shared.create_device(two, authentication={"type": "certificateAuthority"})
    shared.create_module(one, "m")
    device, module = ready_device(shared, one), ready_device(shared, one, "m")
    with Caller(shared) as caller:
        old = read(caller, f"/devices/{one}")["authentication"]["symmetricKey"]
        status, result = regenerate(caller, "secondaryKey", {"id": one})
        new = read(caller, f"/devices/{one}")["authentication"]["symmetricKey"]
        assert (status, result) == (
            200,
            {"policyKey": "secondaryKey", "rotatedKeys": [{"id": one, "moduleId": None, **new}], "errors": []},
        )
        assert new["primaryKey"] == old["primaryKey"] and new["secondaryKey"] != old["secondaryKey"]
        device.ping()
        status, result = regenerate(caller, "both", {"id": one, "moduleId": "m"}, {"id": two}, {"id": "nobody"})
        assert status == 207
        assert [each["moduleId"] for each in result["rotatedKeys"]] == ["m"]
        assert [(each["id"], each["errorCode"]) for each in result["errors"]] == [
            (two, "InvalidOperation"),
            ("nobody", "DeviceNotFound"),
        ]
        assert module.is_closed()
        device.ping()
        status, result = regenerate(caller, "PrimaryKey", {"id": "nobody"})
        assert (status, result["rotatedKeys"]) == (400, [])
        assert regenerate(caller, "primaryKey", {"id": one})[0] == 200
        assert device.is_closed()
        for body, name in (
            ({"policyKey": "third", "devices": [{"id": one}]}, "InvalidPolicyKey"),
            ({"policyKey": "both", "devices": []}, "ArgumentInvalid"),
            ({"policyKey": "both", "devices": [{"id": " "}]}, "ArgumentInvalid"),
            ({"policyKey": "both", "devices": [{"id": "x"}] * 101}, "TooManyDevices"),
        ):
            answer = caller.ask("POST", "/devices/keys/regenerate", body)
            assert answer.headers["iothub-errorcode"] == name
    device.close()
    module.close()


def test_an_edge_device_has_a_scope(shared: RunningHub) -> None:
    """[HUB-edge-scope] Made once and kept; other devices have one only if they are given it, and one parent at most."""
    edge, leaf = new_id(), new_id()
    with Caller(shared) as caller:
        assert errors(bulk(caller, {"id": edge, "capabilities": {"iotEdge": True}})) == []
        made = read(caller, f"/devices/{edge}")
        assert made["deviceScope"].startswith(f"ms-azure-iot-edge://{edge}-")
        update = {"id": edge, "importMode": "update", "capabilities": {"iotEdge": True}}
        assert errors(bulk(caller, update)) == []
        assert read(caller, f"/devices/{edge}")["deviceScope"] == made["deviceScope"]
        child = {"id": leaf, "deviceScope": made["deviceScope"], "parentScopes": [made["deviceScope"]]}
        assert errors(bulk(caller, child)) == []
        assert read(caller, f"/devices/{leaf}")["parentScopes"] == [made["deviceScope"]]
        for scopes in ({"parentScopes": ["a", "b"]}, {"deviceScope": "x" * 513}):
            item = {"id": leaf, "importMode": "update", **scopes}
            assert errors(bulk(caller, item)) == [(leaf, "update", "InvalidDeviceScope")]
