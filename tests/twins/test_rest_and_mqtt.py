"""Twins of a running hub: back ends over REST, devices over MQTT, and both at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.identity import Target
from methodhub.core.ports import StoreUnavailable
from methodhub.core.twins.model import Twin
from methodhub.core.twins.rules import TwinUpdate
from methodhub.device.twins import MAX_WAITING
from methodhub.iothub.mqtt import DESIRED_PROPERTIES, TWIN_RESPONSES
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device, Response, publish_packet, ready_device

NEVER = "0001-01-01T00:00:00"
PATCH = "$iothub/twin/PATCH/properties/reported/?$rid="


@pytest.fixture(autouse=True)
def identities(request: pytest.FixtureRequest) -> Iterator[None]:
    """d1 with its module m1, and d2, fresh for each test."""
    running: RunningHub = request.getfixturevalue("shared")
    for name in ("d1", "d2"):
        running.create_device(name)
    running.create_module("d1", "m1")
    yield
    with running.admin() as client:
        for name in ("d1", "d2"):
            client.delete(f"/devices/{name}")


@pytest.fixture
def caller(shared: RunningHub) -> Iterator[Caller]:
    with Caller(shared, "service") as peer:
        yield peer


def desired(values: dict[str, Any], tags: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"properties": {"desired": values}, **({} if tags is None else {"tags": tags})}


def twin_of(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    twin: dict[str, Any] = json.loads(response.body)
    assert response.headers["etag"] == f'"{twin["etag"]}"'
    return twin


def told(device: Device) -> tuple[str, Any]:
    """Topic and JSON of the next PUBLISH; None without a body."""
    kind, body = device.packet()
    assert kind == 0x30, (kind, body)
    size = int.from_bytes(body[:2])
    payload = body[2 + size :]
    return body[2 : 2 + size].decode(), json.loads(payload) if payload else None


def twin_device(hub: RunningHub, *filters: str, device_id: str = "d1", module_id: str = "") -> Device:
    device = Device(hub, device_id, module_id)
    assert device.connect() == (0, 0)
    device.subscribe(*(filters or (TWIN_RESPONSES, DESIRED_PROPERTIES)))
    return device


def read_twin(device: Device, rid: str = "1") -> dict[str, Any]:
    device.send(publish_packet(f"$iothub/twin/GET/?$rid={rid}"))
    topic, body = told(device)
    assert topic == f"$iothub/twin/res/200/?$rid={rid}"
    assert isinstance(body, dict)
    return body


# --- a back end --------------------------------------------------------------------------------------------------


def test_a_fresh_twin_has_all_its_fields(caller: Caller) -> None:
    """`wire/service.md` 6; without generationId and connectionStateUpdatedTime."""
    fresh = {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1}
    twin = twin_of(caller.ask("GET", "/twins/d1"))
    assert twin.pop("deviceEtag")
    assert twin == {
        "deviceId": "d1",
        "etag": "AAAAAAAAAAE=",
        "status": "enabled",
        "statusReason": None,
        "statusUpdateTime": NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": "sas",
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "version": 1,
        "parentScopes": [],
        "tags": {},
        "properties": {"desired": fresh, "reported": fresh},
        "capabilities": {"iotEdge": False},
    }
    module = twin_of(caller.ask("GET", "/twins/d1/modules/m1/"))
    assert (module["deviceId"], module["moduleId"]) == ("d1", "m1")
    assert "parentScopes" not in module


def test_patch_merges_and_put_replaces(caller: Caller) -> None:
    """[HUB-twin-update] Both answer the whole twin."""
    twin = twin_of(caller.ask("PATCH", "/twins/d1", desired({"a": {"b": 1, "c": 2}}, {"site": "north", "row": 1})))
    assert twin["properties"]["desired"]["a"] == {"b": 1, "c": 2}
    assert (twin["version"], twin["properties"]["desired"]["$version"]) == (2, 2)
    assert twin["properties"]["desired"]["$metadata"]["a"]["b"]["$lastUpdatedVersion"] == 2
    twin = twin_of(caller.ask("PATCH", "/twins/d1/", desired({"a": {"b": None}}, {"row": None})))
    assert (twin["tags"], twin["properties"]["desired"]["a"]) == ({"site": "north"}, {"c": 2})
    twin["tags"]["level"] = 3
    written = twin_of(caller.ask("PUT", "/twins/d1", twin))  # with all that a GET tells
    assert written["tags"] == {"site": "north", "level": 3}
    assert written["properties"]["desired"]["a"] == {"c": 2}
    written = twin_of(caller.ask("PUT", "/twins/d1", {"tags": {"only": True}}))
    assert written["tags"] == {"only": True}
    assert written["properties"]["desired"].keys() == {"$metadata", "$version"}
    assert twin_of(caller.ask("GET", "/twins/d1")) == written


def test_a_post_may_stand_for_a_patch(caller: Caller) -> None:
    """[HUB-override] `wire/service.md` 10, 2."""
    twin = twin_of(caller.ask("POST", "/twins/d1", {"tags": {"a": 1}}, X_HTTP_Method_Override="PATCH"))
    assert twin["tags"] == {"a": 1}
    assert caller.ask("POST", "/twins/d1", {"tags": {"a": 1}}).status == 405
    assert caller.ask("DELETE", "/twins/d1").status == 405


@pytest.mark.parametrize("path", ["/twins/d1", "/twins/d1/modules/m1"])
def test_etags_guard_against_others(caller: Caller, path: str) -> None:
    """[HUB-if-match] In all spellings (`wire/service.md` 10, 1)."""
    etag = twin_of(caller.ask("GET", path))["etag"]
    for spelling in (f'"{etag}"', '"*"', "*"):
        etag = twin_of(caller.ask("PATCH", path, {"tags": {"a": etag}}, If_Match=spelling))["etag"]
    assert twin_of(caller.ask("PUT", path, {"tags": {"b": 1}}, If_Match=etag))["tags"] == {"b": 1}
    late = caller.ask("PATCH", path, {"tags": {"c": 1}}, If_Match=f'"{etag}"')
    assert (late.status, late.code, late.headers["iothub-errorcode"]) == (412, 412001, "PreconditionFailed")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", 400006, "The body cannot be taken"),
        (b"{", 400006, "The body cannot be taken"),
        (b'{"tags":{"a":"\\ud800"}}', 400006, "half a character"),
        (b"\xff", 400006, "not UTF-8"),
        (b"[" * 100_000, 400006, "nested too deeply"),
        (b"[]", 400004, "The body is no JSON object"),
        (b'{"tags":1}', 400004, "tags is no JSON object"),
        (b'{"properties":[]}', 400004, "properties is no JSON object"),
        (b'{"properties":{"desired":"x"}}', 400004, "properties.desired is no JSON object"),
        (b'{"properties":{"desired":{"a":{"b c":1}}}}', 400004, "properties.desired.a.b c is a name that holds"),
        (b'{"tags":{"a":[4503599627370497]}}', 400004, "tags.a[0] is 4503599627370497"),
        (b'{"tags":{"a":"\\u0000"}}', 400004, "tags.a is"),
        (b'{"tags":{"$version":1}}', 400004, "tags.$version is a name"),
        (json.dumps({"tags": {str(key): "x" * 4000 for key in range(3)}}).encode(), 400004, "of at most 8192"),
        (b" " * 262_145, 413001, "more than 262144 bytes"),
    ],
)
def test_what_a_twin_cannot_hold_is_refused_by_its_name(
    shared: RunningHub, body: bytes, code: int, message: str
) -> None:
    """[HUB-twin-limits] In the error format of twins, and nothing is changed."""
    with Caller(shared, "service") as caller:
        for verb in ("PATCH", "PUT"):
            refused = caller.ask(verb, "/twins/d1", body)
            assert (refused.code, refused.status) == (code, code // 1000), refused.body
            assert message in json.loads(json.loads(refused.body)["Message"])["message"]
            if code == 413001:
                return  # the hub hung up
        assert twin_of(caller.ask("GET", "/twins/d1"))["version"] == 1


def test_who_may_read_and_write_twins(shared: RunningHub) -> None:
    """`wire/service.md` 2.2: ServiceConnect."""
    for policy, allowed in (("service", True), ("iothubowner", True), ("registryReadWrite", False), ("device", False)):
        with Caller(shared, policy) as caller:
            for verb, body in (("GET", None), ("PATCH", {"tags": {}}), ("PUT", {})):
                answer = caller.ask(verb, "/twins/d1", body)
                assert (answer.status == 200) is allowed
                assert allowed or answer.code == 401002


@pytest.mark.parametrize(
    ("path", "code"), [("/twins/nobody", 404001), ("/twins/nobody/modules/m1", 404001), ("/twins/d1/modules/x", 404010)]
)
def test_there_is_no_twin_without_its_identity(caller: Caller, path: str, code: int) -> None:
    for verb, body in (("GET", None), ("PATCH", {"tags": {"a": 1}}), ("PUT", {"tags": {"a": 1}})):
        assert caller.ask(verb, path, body).code == code


def test_a_twin_ends_with_its_identity(shared: RunningHub, caller: Caller) -> None:
    twin_of(caller.ask("PATCH", "/twins/d2", {"tags": {"a": 1}}))
    with shared.admin() as client:
        assert client.delete("/devices/d2").status_code == 204
    shared.create_device("d2")
    assert twin_of(caller.ask("GET", "/twins/d2"))["tags"] == {}


def test_the_twin_of_a_disabled_device_is_read_and_written(shared: RunningHub, caller: Caller) -> None:
    with shared.admin() as client:
        body = {"deviceId": "d2", "status": "disabled", "statusReason": "sold"}
        assert client.put("/devices/d2", json=body, headers={"If-Match": "*"}).is_success
    twin = twin_of(caller.ask("PATCH", "/twins/d2", desired({"a": 1})))
    assert (twin["status"], twin["statusReason"]) == ("disabled", "sold")
    assert twin["statusUpdateTime"] > "2020"


# --- a device ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module_id", ["", "m1"])
def test_a_device_and_a_back_end_share_a_twin(shared: RunningHub, caller: Caller, module_id: str) -> None:
    path = "/twins/d1" + (f"/modules/{module_id}" if module_id else "")
    with twin_device(shared, module_id=module_id) as device:
        device.send(publish_packet(PATCH + "r1", b'{"fw":{"v":"1","old":true}}'))
        assert told(device) == ("$iothub/twin/res/204/?$rid=r1&$version=2", None)
        device.send(publish_packet(PATCH + "r2", b'{"fw":{"old":null}}'))
        assert told(device) == ("$iothub/twin/res/204/?$rid=r2&$version=3", None)
        twin = twin_of(caller.ask("PATCH", path, desired({"interval": 30}, {"hidden": 1})))
        topic, patch = told(device)
        assert (topic, patch) == (
            "$iothub/twin/PATCH/properties/desired/?$version=2",
            {"interval": 30, "$version": 2},
        )
        assert twin["connectionState"] == "Connected"
        assert twin["lastActivityTime"] > "2020"
        assert twin["properties"]["reported"]["fw"] == {"v": "1"}
        assert "$lastUpdatedVersion" not in twin["properties"]["reported"]["$metadata"]
        assert read_twin(device) == {
            "desired": {"interval": 30, "$version": 2},
            "reported": {"fw": {"v": "1"}, "$version": 3},
        }


@pytest.mark.parametrize(
    ("patch", "message"),
    [(b"", "The patch cannot"), (b"1", "no JSON object"), (b'{"a b":1}', "properties.reported.a b")],
)
def test_a_wrong_patch_of_a_device_is_answered_400(shared: RunningHub, patch: bytes, message: str) -> None:
    with twin_device(shared) as device:
        device.send(publish_packet(PATCH + "7", patch))
        topic, body = told(device)
        assert topic == "$iothub/twin/res/400/?$rid=7"
        assert message in body["message"]
        assert read_twin(device)["reported"] == {"$version": 1}


def test_pushes_go_to_whoever_asked_for_them(shared: RunningHub, caller: Caller) -> None:
    with twin_device(shared, TWIN_RESPONSES) as device, twin_device(shared, device_id="d2") as other:
        twin_of(caller.ask("PATCH", "/twins/d1", desired({"a": 1})))
        twin_of(caller.ask("PATCH", "/twins/d2", {"tags": {"no": "push"}}))
        twin_of(caller.ask("PATCH", "/twins/d2", desired({"a": 2})))
        assert told(other)[1] == {"a": 2, "$version": 2}
        device.ping()  # nothing before it
        other.ping()


def test_a_replacement_tells_what_went(shared: RunningHub, caller: Caller) -> None:
    with twin_device(shared) as device:
        caller.ask("PATCH", "/twins/d1", desired({"a": 1, "b": 2}))
        caller.ask("PUT", "/twins/d1", desired({"b": 3}))
        assert told(device)[1] == {"a": 1, "b": 2, "$version": 2}
        assert told(device)[1] == {"a": None, "b": 3, "$version": 3}


def test_two_writers_and_a_device_at_once_lose_nothing(shared: RunningHub) -> None:
    """[HUB-twin-versions] Versions grow by one, and are told in their order."""
    count = 30
    with twin_device(shared) as device, Caller(shared) as one, Caller(shared) as two:
        for number in range(count):
            for name, peer in (("one", one), ("two", two)):
                body = json.dumps(desired({f"{name}{number}": number})).encode()
                peer.send(peer.request("PATCH", "/twins/d1", body))
            device.send(publish_packet(f"{PATCH}{number}", json.dumps({f"r{number}": number}).encode()))
        for peer in (one, two):
            versions = [twin_of(peer.response())["properties"]["desired"]["$version"] for _ in range(count)]
            assert versions == sorted(set(versions))
        pushes, answers = [], []
        for _ in range(3 * count):
            topic, body = told(device)
            if topic.startswith("$iothub/twin/res/"):
                answers.append(topic)
            else:
                pushes.append(body["$version"])
        assert pushes == list(range(2, 2 * count + 2))
        assert answers == [f"$iothub/twin/res/204/?$rid={each}&$version={each + 2}" for each in range(count)]
        twin = read_twin(device, "last")
        assert (len(twin["desired"]), len(twin["reported"])) == (2 * count + 1, count + 1)


def test_the_model_of_a_device_is_in_its_twin(shared: RunningHub, caller: Caller) -> None:
    device = Device(shared, "d1")
    device.user_name += "&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1&DeviceClientType=x"
    with device:
        assert device.connect() == (0, 0)
        assert twin_of(caller.ask("GET", "/twins/d1"))["modelId"] == "dtmi:com:example:Thermostat;1"
    assert "modelId" not in twin_of(caller.ask("GET", "/twins/d2"))


# --- when the store is slow, or away -----------------------------------------------------------------------------


@pytest.fixture
def held(shared: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The store reads no twin until this is called."""
    gate = asyncio.Event()
    read = shared.hub.hub_store.twins

    async def wait_and_read(targets: Sequence[Target]) -> list[Twin]:
        await gate.wait()
        return await read(targets)

    monkeypatch.setattr(shared.hub.hub_store, "twins", wait_and_read)
    yield lambda: shared.on_loop(gate.set)
    shared.on_loop(gate.set)


def test_a_slow_store_holds_back_twin_requests_alone(shared: RunningHub, held: Callable[[], None]) -> None:
    """Calls go on meanwhile; then twin requests are answered in their order."""
    with Caller(shared) as caller, ready_device(shared) as device:
        device.subscribe(TWIN_RESPONSES)
        for number in range(3):
            device.send(publish_packet(f"{PATCH}{number}", b'{"n":%d}' % number))
        caller.send(caller.call("d1"))
        device.answer(device.request())
        assert caller.response().status == 200
        held()
        for number in range(3):
            assert told(device)[0] == f"$iothub/twin/res/204/?$rid={number}&$version={number + 2}"


def test_too_many_twin_requests_are_answered_429(shared: RunningHub, held: Callable[[], None]) -> None:
    """[HUB-twin-waiting] At once; those that wait are answered later."""
    with twin_device(shared) as device:
        for number in range(MAX_WAITING + 3):
            device.send(publish_packet(f"$iothub/twin/GET/?$rid={number}"))
        # The first is under way, or waits as well: reading tells.
        late = [told(device)[0] for _ in range(2)]
        assert all(topic.startswith("$iothub/twin/res/429/") for topic in late)
        held()
        rest = [told(device)[0] for _ in range(MAX_WAITING + 1)]
        assert {topic.split("/")[3] for topic in rest} <= {"200", "429"}
        assert len(set(rest + late)) == MAX_WAITING + 3


def test_bytes_that_wait_are_bounded_too(shared: RunningHub, held: Callable[[], None]) -> None:
    """[HUB-twin-waiting]"""
    body = json.dumps({"a": ["x" * 4_000] * 25}).encode()
    with twin_device(shared) as device:
        for number in range(5):
            device.send(publish_packet(f"{PATCH}{number}", body))
        assert told(device)[0].startswith("$iothub/twin/res/429/")
        held()


def test_a_store_that_is_away_is_told_as_503(shared: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(targets: Sequence[Target]) -> list[Twin]:
        raise StoreUnavailable("the disk is full")

    with twin_device(shared) as device, Caller(shared) as caller:
        monkeypatch.setattr(shared.hub.hub_store, "twins", away)
        assert caller.ask("GET", "/twins/d1").code == 503001
        device.send(publish_packet("$iothub/twin/GET/?$rid=1"))
        assert told(device)[0] == "$iothub/twin/res/503/?$rid=1"
        monkeypatch.undo()
        assert read_twin(device)["desired"] == {"$version": 1}


def test_a_device_that_went_is_answered_nothing(shared: RunningHub, held: Callable[[], None]) -> None:
    device = twin_device(shared)
    device.send(publish_packet(f"{PATCH}1", b'{"a":1}'))
    device.ping()
    device.close()
    shared.until(lambda: shared.hub.table.get(Target("d1")) is None)
    held()
    with twin_device(shared) as again:
        assert read_twin(again)["reported"] == {"a": 1, "$version": 2}
        again.ping()


# --- hubs of their own -------------------------------------------------------------------------------------------


def test_a_device_that_does_not_read_its_pushes_is_closed(tmp_path: Path) -> None:
    """[HUB-limits] Bytes of pushes count as unsent ones."""
    with RunningHub(tmp_path / "hub", device_unsent_bytes=262_144) as hub:
        hub.create_device("d1")
        target = Target("d1")
        update = TwinUpdate(desired={str(key): "x" * 4_000 for key in range(7)})
        with twin_device(hub):
            for _ in range(2_000):
                hub.run(hub.hub.twins.update(target, update))
                if hub.on_loop(lambda: hub.hub.table.get(target)) is None:
                    break
            assert hub.on_loop(lambda: hub.hub.table.get(target)) is None


def test_twins_outlive_the_hub(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "hub", in_memory=False) as hub:
        hub.create_device("d1")
        with twin_device(hub) as device, Caller(hub) as caller:
            before = twin_of(caller.ask("PATCH", "/twins/d1", desired({"a": {"b": "ä"}}, {"t": [1, 2.5, None]})))
            told(device)
            device.send(publish_packet(PATCH + "1", b'{"r":1e3}'))
            assert told(device)[0].startswith("$iothub/twin/res/204/")
    with RunningHub(tmp_path / "hub", in_memory=False, address=hub.address) as again, Caller(again) as caller:
        after = twin_of(caller.ask("GET", "/twins/d1"))
        assert after["tags"] == before["tags"] == {"t": [1, 2.5, None]}
        assert after["properties"]["desired"] == before["properties"]["desired"]
        assert after["properties"]["reported"]["r"] == 1000.0
        assert after["version"] == 3
