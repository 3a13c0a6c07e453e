"""A device's connection from CONNECT to its end, on raw MQTT over TLS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from methodhub.core.calls import MethodRequest, MethodResult, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.iothub.sas import build_token
from tests.harness import RunningHub
from tests.hub.peers import (
    ALL_METHODS,
    Caller,
    Device,
    connect_packet,
    packet,
    publish_packet,
    ready_device,
    subscribe_packet,
    text,
)

TWIN_RESPONSES = "$iothub/twin/res/#"


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    for device_id in ("d1", "d2", "other"):
        shared.create_device(device_id)
    shared.create_device("off", status="disabled")
    for device_id in ("d1", "off"):
        shared.create_module(device_id, "m1")


# --- CONNECT -----------------------------------------------------------------------------------------------------

REFUSALS: list[tuple[str, Callable[[RunningHub, Device], None], int]] = [
    ("unknown device", lambda hub, device: rename(device, "unknown"), 5),
    ("client id of another", lambda hub, device: setattr(device, "client_id", "d2"), 5),
    ("client id in other letters", lambda hub, device: setattr(device, "client_id", "D1"), 5),
    ("no client id", lambda hub, device: setattr(device, "client_id", ""), 2),
    ("no user name", lambda hub, device: setattr(device, "user_name", "d1"), 5),
    ("another host", lambda hub, device: setattr(device, "user_name", "else.where/d1/?api-version=2021-04-12"), 5),
    ("no token", lambda hub, device: setattr(device, "token", ""), 5),
    ("no token at all", lambda hub, device: setattr(device, "token", "secret"), 5),
    ("the device's token for its module", lambda hub, device: rename(device, "d1/m1"), 5),
    ("token of another device", lambda hub, device: setattr(device, "token", hub.device_token("d2")), 5),
    ("expired token", lambda hub, device: setattr(device, "token", hub.device_token("d1", seconds=-301)), 5),
    ("policy without the right", lambda hub, device: setattr(device, "token", hub.token("service")), 5),
    ("disabled device", lambda hub, device: become(hub, device, "off"), 3),
    ("module of a disabled device", lambda hub, device: become(hub, device, "off", "m1"), 3),
    ("disabled device without its key", lambda hub, device: rename(device, "off"), 5),
]


def become(hub: RunningHub, device: Device, device_id: str, module_id: str = "") -> None:
    rename(device, f"{device_id}/{module_id}" if module_id else device_id)
    device.token = hub.device_token(device_id, module_id)


def rename(device: Device, client_id: str) -> None:
    device.user_name = device.user_name.replace("/d1/", f"/{client_id}/")
    device.client_id = client_id


@pytest.mark.parametrize(("change", "code"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_connack_codes(shared: RunningHub, change: Callable[[RunningHub, Device], None], code: int) -> None:
    """[HUB-connack] [HUB-module-key] 5 for a wrong credential, 3 for come back later; then the connection ends."""
    with Device(shared, "d1") as device:
        change(shared, device)
        assert device.connect() == (0, code)
        assert device.is_closed()


@pytest.mark.parametrize("seconds", [3600, -290])
def test_a_token_is_good_within_five_minutes_of_its_end(shared: RunningHub, seconds: int) -> None:
    """[HUB-clock-skew]"""
    with Device(shared, "d1", token=shared.device_token("d1", seconds=seconds)) as device:
        assert device.connect() == (0, 0)


@pytest.mark.parametrize(
    "form",
    [
        "{host}/{id}/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28x%3B%29",
        "{host}/{id}/api-version=2018-06-30/DeviceClientType=x",
        "{host}/{id}/?model-id=dtmi:a:b;1&api-version=2016-11-14",
        "{HOST}/{id}/?api-version=2021-04-12",
        "{host}:8883/{id}/?api-version=2021-04-12",
        "localhost/{id}/?api-version=2021-04-12",
        "{host}/{id}/",
        "{host}/{id}",
    ],
)
def test_user_names_in_every_form(shared: RunningHub, form: str) -> None:
    """Of a device and of a module; any name of the hub will do."""
    if form.startswith("localhost"):
        form = form.replace("localhost", shared.address)
    for device_id, module_id in (("d1", ""), ("d1", "m1")):
        with Device(shared, device_id, module_id) as device:
            device.user_name = form.format(host=shared.address, HOST=shared.address.upper(), id=device.client_id)
            assert device.connect() == (0, 0)


def test_a_policy_token_lets_any_device_in(shared: RunningHub) -> None:
    """The policy `device`, either key; also one scoped to a device, which lets in no other."""
    policy = shared.hub.policies.get("device")
    assert policy is not None
    expiry = int(shared.hub.clock.wall()) + 60
    for key in (policy.primary_key, policy.secondary_key):
        for device_id in ("d1", "d2"):
            token = build_token(f"{shared.address}/devices/d1", key, expiry, "device")
            with Device(shared, device_id, token=token) as device:
                assert device.connect() == (0, 0 if device_id == "d1" else 5)
    with Device(shared, "d1", "m1", token=shared.token("device")) as module:
        assert module.connect() == (0, 0)


def test_level_five_is_told_that_it_is_not_spoken(shared: RunningHub) -> None:
    with Device(shared, "d1") as device:
        device.send(connect_packet("d1", device.user_name, device.token, True, level=5))
        assert device.connack() == (0, 1)
        assert device.is_closed()


def test_connect_subscribe_and_publish_in_one_write(shared: RunningHub) -> None:
    """What follows CONNECT waits for CONNACK, and is answered in its order."""
    with Device(shared, "d1") as device, Caller(shared) as caller:
        telemetry = publish_packet("devices/d1/messages/events/", b"1", qos=1, packet_id=9)
        device.send(device.hello() + subscribe_packet(7, ALL_METHODS, TWIN_RESPONSES) + telemetry)
        assert device.packet() == (0x20, b"\x00\x00")
        assert device.packet() == (0x90, b"\x00\x07\x00\x00")
        assert device.packet() == (0x40, b"\x00\x09")
        caller.send(caller.call("d1", payload=[1]))
        device.answer(device.request())
        assert caller.response().status == 200


# --- time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep_alive", "patience"), [(60, 90), (1177, 1765.5), (1740, 1767), (0, 1767)])
def test_keep_alive(timed: RunningHub, keep_alive: int, patience: float) -> None:
    """One and a half times what the device said, at most 1,767 s; any packet begins it anew."""
    timed.create_device("d1")
    with Device(timed, "d1", token=timed.device_token("d1", seconds=86_400)) as device:
        assert device.connect(keep_alive=keep_alive) == (0, 0)
        timed.advance(patience - 1)
        device.ping()
        timed.advance(patience - 1)
        device.subscribe()
        timed.advance(patience - 1)
        assert device.is_quiet()
        timed.advance(1.5)
        assert device.is_closed()


def test_a_token_ends_with_five_minutes_of_grace(timed: RunningHub) -> None:
    """[HUB-clock-skew] The connection is closed then, whatever it does meanwhile."""
    timed.create_device("d1")
    with Device(timed, "d1", token=timed.device_token("d1", seconds=60)) as device:
        device.connect()
        for _ in range(359):
            timed.advance(1)
        device.ping()
        timed.advance(1.5)
        assert device.is_closed()


def test_silence_after_connect_does_not_end_it_but_before_does(timed: RunningHub) -> None:
    timed.create_device("d1")
    with Device(timed, "d1") as silent, ready_device(timed) as device:
        timed.advance(30.5)
        assert silent.is_closed()
        device.ping()


# --- what closes a connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        publish_packet("devices/d1/messages/events/", b"1", qos=2),
        publish_packet("devices/other/messages/events/", b"1"),
        publish_packet("$iothub/methods/POST/m/?$rid=1", b"1"),
        publish_packet("anything", b"1"),
        subscribe_packet(1, "#"),
        subscribe_packet(1, "$iothub/#"),
        subscribe_packet(1, "devices/other/messages/devicebound/#"),
        subscribe_packet(1, ALL_METHODS, "foreign/#"),
        subscribe_packet(1, *(f"$iothub/methods/POST/m{number}/#" for number in range(51))),
        packet(0x82, b"\x00\x01"),
        packet(0x10, b"again"),
        packet(0xF0, b""),
    ],
)
def test_what_the_hub_does_not_take_closes_the_connection(shared: RunningHub, data: bytes) -> None:
    """QoS 2, foreign topics and filters, too many, packets that are none: never a SUBACK with 0x80, just the end."""
    with ready_device(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        device.request()
        device.send(data)
        assert device.is_closed()
        assert caller.response().code == 404104


def test_takeover(shared: RunningHub) -> None:
    """[HUB-takeover] The older connection goes once the newer is authenticated, and takes its calls along."""
    with ready_device(shared) as old, Caller(shared) as caller, Device(shared, "d1", token="x") as impostor:
        assert impostor.connect() == (0, 5)
        old.ping()
        caller.send(caller.call("d1"))
        request = old.request()
        with ready_device(shared) as new:
            assert old.is_closed()
            assert caller.response().code == 400027
            caller.send(caller.call("d1", "next"))
            late = shared.hub.metrics.late_answers
            new.answer(request, b'"late"')  # an application that answers on its new connection
            answered = new.request()
            assert answered.name == "next"
            new.answer(answered, b'"right"')
            assert json.loads(caller.response().body)["payload"] == "right"
            assert shared.hub.metrics.late_answers == late + 1
            assert json.loads(caller.ask("GET", "/devices/d1").body)["connectionState"] == "Connected"


# --- methods -----------------------------------------------------------------------------------------------------


def test_a_call_right_after_suback_is_never_404103(shared: RunningHub) -> None:
    """[HUB-suback] The claim comes before SUBACK: two hundred times."""
    token = shared.device_token("d2")
    with Caller(shared) as caller:
        for _ in range(200):
            with Device(shared, "d2", token=token) as device:
                device.send(device.hello() + subscribe_packet(1, ALL_METHODS))
                assert device.connack() == (0, 0)
                assert device.packet()[0] == 0x90
                caller.send(caller.call("d2"))
                device.answer(device.request(), b"1")
                assert caller.response().status == 200


def test_narrower_filters_are_matched_per_call(shared: RunningHub) -> None:
    """[HUB-suback] One method, one level, both; a method that none takes is not online for it."""
    with Device(shared, "d1") as device, Caller(shared) as caller:
        device.connect()
        assert caller.invoke("d1", "one").code == 404103
        assert device.subscribe("$iothub/methods/POST/one/#", qos=2) == [1]
        assert caller.invoke("d1", "two").code == 404103
        caller.send(caller.call("d1", "two", connectTimeoutInSeconds=30) + caller.call("d1", "one"))
        shared.until(lambda: len(shared.hub.methods.open) == 1)
        device.subscribe("$iothub/methods/POST/two/+")  # the call that waited follows SUBACK
        names = set()
        for _ in range(2):
            request = device.request()
            names.add(request.name)
            device.answer(request)
            assert caller.response().status == 200
        assert names == {"one", "two"}
        device.send(packet(0xA2, b"\x00\x09" + text("$iothub/methods/POST/one/#")))
        assert device.packet() == (0xB0, b"\x00\x09")
        assert caller.invoke("d1", "one").code == 404103


def test_payloads_and_rids_on_the_wire(shared: RunningHub) -> None:
    """[HUB-rid] Absent, null and "" kept apart, bytes unchanged; ids count up in lower-case hex from anywhere."""
    sent = [b"", b', "payload": null', b', "payload": ""', b', "payload": {"b" : 1e2,\n"a": "\\u00e4"}']
    with ready_device(shared) as device, Caller(shared) as caller:
        rids = []
        for part, expected in zip(sent, (b"", b"null", b'""', b'{"b" : 1e2,\n"a": "\\u00e4"}'), strict=True):
            body = b'{"methodName": "%%41*x"%b}' % part
            caller.send(caller.request("POST", "/twins/d1/methods", body))
            request = device.request()
            assert (request.name, request.payload) == ("%41*x", expected)
            rids.append(request.rid)
            device.answer(request, b' {"z":1.50} ')
            assert caller.response().body == b'{"status":200,"payload": {"z":1.50} }'
    assert [int(rid, 16) - int(rids[0], 16) for rid in rids] == [0, 1, 2, 3]
    assert all(rid == f"{int(rid, 16):x}" for rid in rids)


def test_connect_timeout(timed: RunningHub) -> None:
    """[HUB-connect-timeout] Connected *and* subscribed; again when the device comes and goes; until it is used up."""
    timed.create_device("d1")
    with Caller(timed) as early, Caller(timed) as late:
        early.send(early.call("d1", connectTimeoutInSeconds=20))
        late.send(late.call("d1", connectTimeoutInSeconds=60))
        timed.until(lambda: len(timed.hub.methods.open) == 2)
        with Device(timed, "d1") as device:
            device.connect()
            timed.advance(19.5)
            assert early.is_quiet()
            timed.advance(0.45)
            assert early.response().code == 404103
        timed.until(lambda: not len(timed.hub.table))
        with ready_device(timed) as device:
            request = device.request()
            timed.advance(29.5)
            assert late.is_quiet()  # responseTimeout, 30 s, began at delivery
            device.answer(request)
            assert late.response().status == 200


def test_delete_and_disable_end_the_wait(shared: RunningHub) -> None:
    """[HUB-connect-timeout] 404001 at once, also for a module whose device is deleted or disabled."""
    with Caller(shared) as admin:
        for number, target in enumerate(["{}", "{}/modules/m", "{}", "{}/modules/m"]):
            device_id = f"gone{number}"
            shared.create_device(device_id)
            shared.create_module(device_id, "m")
            with Caller(shared) as caller:
                caller.send(caller.call(target.format(device_id), connectTimeoutInSeconds=300))
                shared.until(lambda: len(shared.hub.methods.open) == 1)
                if number < 2:
                    assert admin.ask("DELETE", f"/devices/{device_id}").status == 204
                else:
                    assert admin.ask("PUT", f"/devices/{device_id}", {"status": "disabled"}, If_Match="*").status == 200
                assert caller.response().code == 404001


def test_an_answer_that_comes_late_is_acknowledged_and_counted(timed: RunningHub) -> None:
    """[HUB-late-answer] [HUB-response-timeout] So is a second one, and one that nobody asked for."""
    timed.create_device("d1")
    metrics = timed.hub.metrics
    with ready_device(timed) as device, Caller(timed) as caller:
        caller.send(caller.call("d1", responseTimeoutInSeconds=5))
        request = device.request()
        timed.advance(4.95)
        answer = caller.response()
        assert (answer.status, answer.code) == (504, 504101)
        assert json.loads(json.loads(answer.body)["Message"])["info"] == {"timeout": "00:00:05"}
        for rid in (request.rid, request.rid, "nonsense", "ffffffff"):
            device.send(publish_packet(f"$iothub/methods/res/200/?$rid={rid}", b"1", qos=1, packet_id=5))
            assert device.packet() == (0x40, b"\x00\x05")
        assert metrics.late_answers == 4


def test_a_device_that_does_not_read(shared: RunningHub) -> None:
    """16 MiB unsent are its limit: then 403800 to the caller, while what was delivered may still be answered."""
    hub = shared.hub
    request = MethodRequest("m", b'"%b"' % (b"x" * 131_000), 300, 0)
    ends: list[Outcome] = []
    with ready_device(shared) as device, Caller(shared) as caller:
        given = 0
        while not ends:
            shared.on_loop(lambda: hub.methods.invoke(Target("d1"), request, ends.append))
            given += 1
        assert given * 131_000 > 16 * 1024 * 1024
        assert isinstance(ends[0], HubError) and ends[0].code == ErrorCode.DeviceMaximumInflightMethodExceeded
        assert caller.invoke("d1", payload="x" * 131_000).code == 403800
        device.answer(device.request())
        shared.until(lambda: len(ends) == 2)
        assert ends[1] == MethodResult(200, b"{}")


def test_a_device_with_a_thousand_open_calls(shared: RunningHub) -> None:
    """One more is refused with 403800; when its connection ends, so do they all."""
    hub = shared.hub
    ends: list[Outcome] = []
    with ready_device(shared), Caller(shared) as caller:
        request = MethodRequest("m", None, 300, 0)
        for _ in range(1000):
            shared.on_loop(lambda: hub.methods.invoke(Target("d1"), request, ends.append))
        assert not ends
        assert caller.invoke("d1").code == 403800
    shared.until(lambda: len(ends) == 1000)
    assert {end.code for end in ends if isinstance(end, HubError)} == {404104}


# --- what else apps do -------------------------------------------------------------------------------------------


def test_telemetry_is_acknowledged_and_dropped(shared: RunningHub) -> None:
    for device_id, module_id, topic in (
        ("d1", "", "devices/d1/messages/events/a=1&b"),
        ("d1", "m1", "devices/d1/modules/m1/messages/events/"),
    ):
        with Device(shared, device_id, module_id) as device:
            device.connect()
            before = shared.hub.metrics.telemetry_messages
            device.send(publish_packet(topic, b"\xff" * 200_000, qos=1, packet_id=77))
            device.send(publish_packet(topic, b"", qos=0))
            assert device.packet() == (0x40, b"\x00\x4d")
            device.ping()
            assert shared.hub.metrics.telemetry_messages == before + 2


def test_twin_requests_are_answered(shared: RunningHub) -> None:
    """The twin, and 204 with a version that counts; tests/twins has the rest."""
    with Device(shared, "d1") as device:
        device.connect()
        device.subscribe(TWIN_RESPONSES)

        def ask(topic: str, body: bytes) -> bytes:
            device.send(publish_packet(topic, body))
            kind, answer = device.packet()
            assert kind == 0x30
            return answer[2:]

        got = ask("$iothub/twin/GET/?$rid=a-1", b" ")
        assert got == b'$iothub/twin/res/200/?$rid=a-1{"desired":{"$version":1},"reported":{"$version":1}}'
        patch = "$iothub/twin/PATCH/properties/reported/?$rid="
        assert ask(patch + "2", b'{"x":1}') == b"$iothub/twin/res/204/?$rid=2&$version=2"
        assert ask(patch + "3", b'{"x":null}') == b"$iothub/twin/res/204/?$rid=3&$version=3"
        assert ask(patch + "4", b"[]").startswith(b"$iothub/twin/res/400/?$rid=4{")
        assert b'"reported":{"$version":3}' in ask("$iothub/twin/GET/?$rid=5", b"")


# --- sessions ----------------------------------------------------------------------------------------------------


def test_sessions_outlive_connections_and_the_hub(tmp_path: Path) -> None:
    """[HUB-session] CleanSession=0 after a restart: a call right after CONNACK finds the device, which subscribed
    in an earlier life. CleanSession=1 ends it; so does an identity that was made anew."""
    address = ""
    for life in range(2):
        with RunningHub(tmp_path / "hub", in_memory=False, address=address or None) as hub:
            address = hub.address
            if life == 0:
                hub.create_device("d1")
            with Device(hub, "d1") as device:
                assert device.connect(clean=False) == (life, 0)
                if life == 0:
                    device.subscribe()
            hub.until(lambda hub=hub: not len(hub.hub.table))  # type: ignore[misc]
            with Device(hub, "d1") as device, Caller(hub) as caller:
                caller.send(caller.call("d1", connectTimeoutInSeconds=30))
                assert device.connect(clean=False) == (1, 0)
                device.answer(device.request())
                assert caller.response().status == 200
    with RunningHub(tmp_path / "hub", in_memory=False, address=address) as hub, Caller(hub) as caller:
        assert caller.ask("DELETE", "/devices/d1").status == 204
        hub.create_device("d1")
        with Device(hub, "d1") as device:
            assert device.connect(clean=False) == (0, 0)
            assert caller.invoke("d1").code == 404103
            device.subscribe()
        for clean, present in ((True, 0), (False, 0)):
            with Device(hub, "d1") as device:
                assert device.connect(clean=clean) == (present, 0)
