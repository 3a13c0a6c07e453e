"""The identity registry over REST, and what its changes do to connections, sessions and calls."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from methodhub.iothub.sas import build_token
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device, ready_device

KEYS = {"primaryKey": b64encode(b"p" * 32).decode(), "secondaryKey": b64encode(b"s" * 32).decode()}
OTHER_KEY = b64encode(b"o" * 32).decode()


def with_keys(**keys: str) -> dict[str, Any]:
    return {"authentication": {"type": "sas", "symmetricKey": KEYS | keys}}


def read(caller: Caller, path: str) -> dict[str, Any]:
    answer = caller.ask("GET", path)
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    assert answer.headers["etag"] == f'"{found["etag"]}"'
    return found


def error_name(caller: Caller, method: str, path: str, body: Any = None, **headers: str) -> str:
    return caller.ask(method, path, body, **headers).headers["iothub-errorcode"]


# --- the rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["shared", "kept"])
def test_create_update_delete(store: str, request: pytest.FixtureRequest) -> None:
    """[HUB-if-match] Of a device and of a module, with every spelling of If-Match."""
    hub: RunningHub = request.getfixturevalue(store)
    with Caller(hub) as caller:
        for path, exists in (
            ("/devices/r1", "DeviceAlreadyExists"),
            ("/devices/r1/modules/m", "ModuleAlreadyExistsOnDevice"),
        ):
            created = caller.ask("PUT", path, {})
            assert created.status == 200
            first = json.loads(created.body)
            assert len(b64decode(first["authentication"]["symmetricKey"]["primaryKey"])) == 32
            assert first["connectionState"] == "Disconnected" and first["lastActivityTime"] == "0001-01-01T00:00:00"
            assert first == read(caller, path)
            assert error_name(caller, "PUT", path, {}) == exists
            etag = first["etag"]
            for spelling in ("*", '"*"', "{}", '"{}"', 'W/"{}"'):
                answer = caller.ask("PUT", path, {"statusReason": spelling}, If_Match=spelling.format(etag))
                assert answer.status == 200, spelling
                changed = json.loads(answer.body)
                assert changed["etag"] != etag and changed["generationId"] == first["generationId"]
                assert changed["authentication"] == first["authentication"]
                etag = changed["etag"]
            for method in ("PUT", "DELETE"):
                body: dict[str, Any] | None = {} if method == "PUT" else None
                answer = caller.ask(method, path, body, If_Match=f'"{first["etag"]}"')
                assert answer.status == 412
                assert f"existingVersion:{etag} newVersion:{first['etag']}" in json.loads(answer.body)["Message"]
        assert caller.ask("DELETE", "/devices/r1/modules/m", If_Match=f'"{etag}"').status == 204
        assert error_name(caller, "DELETE", "/devices/r1/modules/m") == "ModuleNotFound"
        assert caller.ask("DELETE", "/devices/r1").status == 204
        for method in ("GET", "DELETE"):
            assert error_name(caller, method, "/devices/r1") == "DeviceNotFound"
        assert error_name(caller, "PUT", "/devices/r1", {}, If_Match="*") == "DeviceNotFound"
        assert error_name(caller, "PUT", "/devices/r1/modules/m", {}) == "DeviceNotFound"


@pytest.mark.parametrize("store", ["shared", "kept"])
def test_what_is_given_is_kept(store: str, request: pytest.FixtureRequest) -> None:
    """Keys, thumbprints, scopes, capabilities, status and its reason; a module's manager."""
    hub: RunningHub = request.getfixturevalue(store)
    given: dict[str, Any] = {
        "deviceId": "k1",
        "status": "disabled",
        "statusReason": "näher \U0001f600",
        "capabilities": {"iotEdge": True},
        "deviceScope": "ms-azure-iot-edge://k1-1",
        "parentScopes": ["ms-azure-iot-edge://up-1"],
        **with_keys(),
    }
    prints = {"primaryThumbprint": "A" * 40, "secondaryThumbprint": "b" * 64}
    with Caller(hub) as caller:
        assert caller.ask("PUT", "/devices/k1", given).status == 200
        found = read(caller, "/devices/k1")
        assert {name: found[name] for name in given if name != "authentication"} == {
            name: value for name, value in given.items() if name != "authentication"
        }
        assert found["authentication"]["symmetricKey"] == KEYS
        assert found["authentication"]["x509Thumbprint"] == {"primaryThumbprint": None, "secondaryThumbprint": None}
        signed = {"authentication": {"type": "selfSigned", "x509Thumbprint": prints}}
        assert caller.ask("PUT", "/devices/k1", signed, If_Match="*").status == 200
        found = read(caller, "/devices/k1")["authentication"]
        assert (found["type"], found["x509Thumbprint"]) == ("selfSigned", prints)
        module = {"deviceId": "k1", "moduleId": "m", "managedBy": "iotEdge"}
        assert caller.ask("PUT", "/devices/k1/modules/m", module).status == 200
        assert read(caller, "/devices/k1/modules/m")["managedBy"] == "iotEdge"


@pytest.mark.parametrize(
    "body",
    [
        {"deviceId": "else"},
        {"status": "sleeping"},
        {"statusReason": "x" * 129},
        with_keys(secondaryKey=""),
        with_keys(primaryKey="not base64!"),
        with_keys(primaryKey=b64encode(b"short").decode()),
        {"authentication": {"type": "magic"}},
        {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "xyz"}}},
        {"capabilities": []},
        [],
        b"",
        b"{",
        b'{"statusReason":"\xff"}',
        b'{"statusReason":"\\ud800"}',
        b'{"statusReason":"a\\u0000b"}',
        b'{"parentScopes":["a\\u0000b"]}',
        b'{"deviceScope":"\\u0000"}',
        b"[" * 100_000,
    ],
)
def test_identities_that_are_refused(shared: RunningHub, body: Any) -> None:
    """400 with a reason, and nothing is created."""
    with Caller(shared) as caller:
        for path in ("/devices/bad", "/devices/bad%20id", f"/devices/{'x' * 129}"):
            assert caller.ask("PUT", path, body).status == 400
        assert caller.ask("PUT", "/devices/bad%20id", {}).status == 400
        assert caller.ask("GET", "/devices/bad").status == 404


def test_empty_keys_are_generated(shared: RunningHub) -> None:
    """`symmetricKey: {}`, empty strings, null and absent all ask for new ones."""
    with Caller(shared) as caller:
        for number, keys in enumerate(({}, {"primaryKey": "", "secondaryKey": ""}, {"primaryKey": None}, None)):
            body = {"authentication": {"symmetricKey": keys, "type": "sas"}}
            answer = json.loads(caller.ask("PUT", f"/devices/empty{number}", body).body)
            made = answer["authentication"]["symmetricKey"]
            assert made["primaryKey"] != made["secondaryKey"] and all(made.values())


@pytest.mark.parametrize("store", ["shared", "kept"])
def test_lists(store: str, request: pytest.FixtureRequest) -> None:
    """All or the first `top`, with and without a trailing slash; the modules of a device."""
    hub: RunningHub = request.getfixturevalue(store)
    with Caller(hub) as caller:
        for number in range(5):
            caller.ask("PUT", f"/devices/list{number}", {})
        for module_id in ("b", "a"):
            caller.ask("PUT", f"/devices/list0/modules/{module_id}", {})
        ids = [each["deviceId"] for each in json.loads(caller.ask("GET", "/devices").body)]
        assert [each for each in ids if each.startswith("list")] == [f"list{number}" for number in range(5)]
        assert len(json.loads(caller.ask("GET", "/devices/?top=2").body)) == 2
        for top in ("0", "1001", "-1", "x", "9" * 5000):
            assert error_name(caller, "GET", f"/devices?top={top}") == "ArgumentInvalid"
        modules = json.loads(caller.ask("GET", "/devices/list0/modules/").body)
        assert [each["moduleId"] for each in modules] == ["a", "b"]
        assert error_name(caller, "GET", "/devices/unknown/modules") == "DeviceNotFound"


def test_a_device_has_so_many_modules_and_no_more(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "hub", modules_per_device=2) as hub, Caller(hub) as caller:
        hub.create_device("d1")
        for number, status in enumerate((200, 200, 413)):
            assert caller.ask("PUT", f"/devices/d1/modules/m{number}", {}).status == status


# --- what changes do to connections ------------------------------------------------------------------------------


def connected_by(hub: RunningHub, key: str, policy: str | None = None) -> Device:
    expiry = int(hub.hub.clock.wall()) + 600
    device = Device(hub, "c1", token=build_token(f"{hub.address}/devices/c1", key, expiry, policy))
    assert device.connect() == (0, 0)
    device.subscribe()
    return device


@pytest.mark.parametrize("used", ["primaryKey", "secondaryKey", "policy"])
@pytest.mark.parametrize("changed", ["primaryKey", "secondaryKey"])
def test_a_new_key_closes_what_used_the_old_one_and_only_that(shared: RunningHub, used: str, changed: str) -> None:
    """The connection that came by the key goes with its calls; by the other key, or a policy's, it stays."""
    policy = shared.hub.policies.get("device")
    assert policy is not None
    key = policy.primary_key if used == "policy" else KEYS[used]
    with Caller(shared) as caller, Caller(shared) as calling:
        caller.ask("DELETE", "/devices/c1")
        assert caller.ask("PUT", "/devices/c1", with_keys()).status == 200
        with connected_by(shared, key, "device" if used == "policy" else None) as device:
            calling.send(calling.call("c1"))
            request = device.request()
            assert caller.ask("PUT", "/devices/c1", with_keys(**{changed: OTHER_KEY}), If_Match="*").status == 200
            if used == changed:
                assert device.is_closed()
                assert calling.response().code == 404104
                with Device(shared, "c1", token="") as again:
                    again.token = build_token(f"{shared.address}/devices/c1", key, int(shared.hub.clock.wall()) + 600)
                    assert again.connect() == (0, 5)
            else:
                device.answer(request)
                assert calling.response().status == 200
                # The identity in memory is the new one: a second change judges by it.
                assert caller.ask("PUT", "/devices/c1", {"statusReason": "x"}, If_Match="*").status == 200
                device.ping()


@pytest.mark.parametrize("store", ["shared", "kept"])
@pytest.mark.parametrize("how", ["DELETE", "disable"])
def test_deleting_or_disabling_a_device_closes_its_modules_too(
    how: str, store: str, request: pytest.FixtureRequest
) -> None:
    """Sessions and waiting calls of both go along; another device does not notice."""
    hub: RunningHub = request.getfixturevalue(store)
    name = f"x-{how}"
    hub.create_device(name)
    hub.create_module(name, "m")
    hub.create_device(f"{name}-other")
    with (
        Caller(hub) as caller,
        Caller(hub) as waiting,
        ready_device(hub, f"{name}-other") as other,
        Device(hub, name) as device,
        Device(hub, name, "m") as module,
    ):
        for each in (device, module):
            assert each.connect(clean=False) == (0, 0)
            each.subscribe("$iothub/methods/POST/only/#")
        waiting.send(waiting.call(f"{name}/modules/m", "another", connectTimeoutInSeconds=300))
        hub.until(lambda: len(hub.hub.methods.open) == 1)
        if how == "DELETE":
            assert caller.ask("DELETE", f"/devices/{name}").status == 204
        else:
            assert caller.ask("PUT", f"/devices/{name}", {"status": "disabled"}, If_Match="*").status == 200
        assert device.is_closed() and module.is_closed()
        assert waiting.response().code == 404001
        assert caller.invoke(name).code == 404001
        assert caller.invoke(f"{name}/modules/m").code == 404001
        other.ping()
        if how == "DELETE":
            for path in (name, f"{name}/modules/m"):
                caller.ask("PUT", f"/devices/{path}", {})
        else:
            assert caller.ask("PUT", f"/devices/{name}", {"status": "enabled"}, If_Match="*").status == 200
        for module_id in ("", "m"):
            with Device(hub, name, module_id) as again:
                assert again.connect(clean=False) == (0 if how == "DELETE" else 1, 0)


def test_deleting_a_module_leaves_its_device(shared: RunningHub) -> None:
    shared.create_device("md")
    shared.create_module("md", "m")
    with ready_device(shared, "md") as device, ready_device(shared, "md", "m") as module, Caller(shared) as caller:
        assert caller.ask("DELETE", "/devices/md/modules/m").status == 204
        assert module.is_closed()
        assert caller.invoke("md/modules/m").code == 404010
        caller.send(caller.call("md"))
        device.answer(device.request())
        assert caller.response().status == 200


def test_an_unknown_id_that_is_created_is_found_at_once(shared: RunningHub) -> None:
    """A create empties what memory knows of ids that were not there."""
    with Caller(shared) as caller:
        for target in ("fresh", "fresh/modules/m"):
            assert caller.invoke(target).status == 404
            assert caller.ask("PUT", f"/devices/{target}", {}).status == 200
            assert caller.invoke(target).code == 404103


# --- presence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
def test_connection_states_are_true_when_read(tmp_path: Path, in_memory: bool) -> None:
    """Before they are written, while they are, and afterwards; of a device and of a module, single and in lists."""
    with RunningHub(tmp_path / "hub", ManualClock(), in_memory=in_memory) as hub, Caller(hub) as caller:
        hub.create_device("p1")
        hub.create_module("p1", "m")

        def state(path: str) -> tuple[str, str, str]:
            parent = path.rpartition("/")[0]
            one = read(caller, path)
            (listed,) = json.loads(caller.ask("GET", parent).body)
            found = [
                (each["connectionState"], each["connectionStateUpdatedTime"][11:19], each["lastActivityTime"][11:19])
                for each in (one, listed)
            ]
            assert found[0] == found[1]
            return found[0]

        for path, module_id in (("/devices/p1", ""), ("/devices/p1/modules/m", "m")):
            begin = int(hub.hub.clock.wall())
            with Device(hub, "p1", module_id) as device:
                device.connect()
                assert state(path) == ("Connected", clock_text(begin), clock_text(begin))
                hub.advance(3)
                device.ping()
                hub.advance(4)
                for _ in range(3):  # before, while and after it is written
                    assert state(path) == ("Connected", clock_text(begin), clock_text(begin + 3))
                    hub.advance(0)
            hub.until(lambda: not len(hub.hub.table))
            for seconds in (0, 2, 2):
                hub.advance(seconds)
                assert state(path) == ("Disconnected", clock_text(begin + 7), clock_text(begin + 3))


def clock_text(seconds: int) -> str:
    seconds %= 86_400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def test_a_device_made_anew_has_never_been_connected(timed: RunningHub) -> None:
    """What was to be written of the former one is not told of this one."""
    with Caller(timed) as caller:
        timed.create_device("n1")
        with ready_device(timed, "n1") as device:
            assert caller.ask("DELETE", "/devices/n1").status == 204
            assert device.is_closed()
        timed.create_device("n1")
        for seconds in (0, 2):
            timed.advance(seconds)
            assert read(caller, "/devices/n1")["connectionStateUpdatedTime"] == "0001-01-01T00:00:00"
