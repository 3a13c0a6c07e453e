"""Several identities on one connection, each with its own token and end; and a target that connects again, over
whatever protocol."""

from __future__ import annotations

import pytest

from methodhub.core.identity import Target
from methodhub.iothub.sas import build_token
from methodhub.wire.amqp import frames
from tests.amqp.peers import AmqpDevice, AmqpPeer, Methods, Refused, methods_address
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device, ready_device

UNAUTHORIZED = "amqp:unauthorized-access"
EXPIRED = Refused(UNAUTHORIZED, "Token Invalid.")
NEW_KEY = "bmV3LWtleS1uZXcta2V5LW5ldy1rZXk="


@pytest.fixture
def crowd(timed: RunningHub) -> RunningHub:
    for name in ("d1", "d2", "d3"):
        timed.create_device(name)
    timed.create_module("d1", "m1")
    return timed


def call(caller: Caller, methods: Methods, path: str) -> None:
    caller.send(caller.call(path, "ping"))
    request = methods.request()
    assert request.name == "ping"
    methods.answer(request, f'"{path}"'.encode())
    assert caller.response().body == f'{{"status":200,"payload":"{path}"}}'.encode()


def call_once(hub: RunningHub, methods: Methods, path: str) -> None:
    """On a connection of its own: time has passed since the last call."""
    with Caller(hub) as caller:
        call(caller, methods, path)


def pass_time(hub: RunningHub, seconds: int, peer: AmqpDevice) -> None:
    """All the while something is heard of the peer, as of any SDK: else it counts as dead after eight minutes."""
    while seconds > 0:
        step = min(seconds, 400)
        hub.advance(step)
        seconds -= step
        peer.round_trip()


def update(hub: RunningHub, device_id: str, **fields: object) -> None:
    with hub.admin() as client:
        identity = client.get(f"/devices/{device_id}").json()
        response = client.put(f"/devices/{device_id}", json={**identity, **fields}, headers={"If-Match": "*"})
        response.raise_for_status()


def delete(hub: RunningHub, device_id: str) -> None:
    with hub.admin() as client:
        client.delete(f"/devices/{device_id}", headers={"If-Match": "*"}).raise_for_status()


def other_keys(hub: RunningHub, device_id: str) -> None:
    keys = {"primaryKey": NEW_KEY, "secondaryKey": NEW_KEY}
    update(hub, device_id, authentication={"type": "sas", "symmetricKey": keys})


class Crowd(AmqpDevice):
    """d1 and its module, d2 and d3 on one connection; d3 in a session of its own with the same link names."""

    def __init__(self, hub: RunningHub) -> None:
        super().__init__(hub, "d1")
        for device_id, module_id in (("d1", "m1"), ("d2", ""), ("d3", "")):
            self.know(device_id, module_id)
        second = self.begin(1)
        self.by_path = {
            "d1": self.methods,
            "d1/modules/m1": Methods(self, self.session, "d1", "m1"),
            "d2": Methods(self, self.session, "d2"),
            "d3": Methods(self, second, "d3"),
        }

    def call_each(self, caller: Caller, *paths: str) -> None:
        for path in paths or self.by_path:
            call(caller, self.by_path[path], path)


def test_each_identity_of_a_connection_takes_its_own_calls(crowd: RunningHub) -> None:
    """A module's calls never reach the device, nor the other way round."""
    with Crowd(crowd) as peer, Caller(crowd) as caller:
        peer.call_each(caller)
        peer.call_each(caller, *reversed(peer.by_path))
        for methods in peer.by_path.values():
            assert methods.receiver.count == 2


@pytest.mark.parametrize(
    ("end", "condition"), [(update, UNAUTHORIZED), (delete, "amqp:not-found"), (other_keys, UNAUTHORIZED)]
)
def test_one_that_is_revoked_loses_its_links_alone(crowd: RunningHub, end: object, condition: str) -> None:
    """[HUB-one-of-many] And its token: links of its own are refused from then on."""
    with Crowd(crowd) as peer, Caller(crowd) as caller:
        if end is update:
            update(crowd, "d2", status="disabled")
        else:
            end(crowd, "d2")  # type: ignore[operator]
        assert {peer.detached().condition, peer.detached().condition} == {condition}
        for link in (peer.by_path["d2"].sender, peer.by_path["d2"].receiver):
            peer.detach(link)
        peer.call_each(caller, "d1", "d1/modules/m1", "d3")
        refusal = peer.refused(peer.session, "sender", methods_address("d2")).condition
        assert refusal in {UNAUTHORIZED, "amqp:not-found"}
        if end is update:
            update(crowd, "d2", status="enabled")
            assert peer.refused(peer.session, "sender", methods_address("d2")).condition == UNAUTHORIZED
        peer.call_each(caller, "d1")


def test_a_deleted_device_takes_its_modules_along_and_the_last_one_the_connection(crowd: RunningHub) -> None:
    """[HUB-one-of-many]"""
    with Crowd(crowd) as peer, Caller(crowd) as caller:
        delete(crowd, "d1")
        assert [peer.detached().condition for _ in range(4)] == ["amqp:not-found"] * 4
        peer.call_each(caller, "d2", "d3")
        delete(crowd, "d2")
        assert [peer.detached().condition for _ in range(2)] == ["amqp:not-found"] * 2
        peer.call_each(caller, "d3")
        delete(crowd, "d3")
        closed = peer.ended()
        assert closed is not None and closed.condition == "amqp:not-found"


def test_a_connection_waits_for_an_identity_that_has_a_token_and_no_links_yet(crowd: RunningHub) -> None:
    """[HUB-one-of-many] Its last is not gone as long as another one may still attach."""
    with AmqpDevice(crowd) as peer, Caller(crowd) as caller:
        peer.know("d2")
        delete(crowd, "d1")
        assert peer.detached().condition == peer.detached().condition == "amqp:not-found"
        call(caller, Methods(peer, peer.session, "d2"), "d2")
        delete(crowd, "d2")
        assert peer.ended() is not None


# --- time --------------------------------------------------------------------------------------------------------


def test_a_token_that_expires_ends_its_links_after_five_minutes_of_grace(crowd: RunningHub) -> None:
    """[HUB-token-expired]"""
    with AmqpDevice(crowd) as peer:
        peer.know("d2", seconds=1_000)
        short = Methods(peer, peer.session, "d2")
        pass_time(crowd, 1_299, peer)
        call_once(crowd, short, "d2")
        crowd.advance(2)
        assert [peer.detached() for _ in range(2)] == [EXPIRED] * 2
        with Caller(crowd) as caller:
            assert caller.invoke("d2").code == 404103
        call_once(crowd, peer.methods, "d1")
        assert peer.refused(peer.session, "receiver", methods_address("d2")).condition == UNAUTHORIZED
        peer.know("d2")
        call_once(crowd, Methods(peer, peer.session, "d2"), "d2")


def test_the_connection_ends_with_its_last_token(crowd: RunningHub) -> None:
    """[HUB-token-expired] Used or not."""
    with AmqpDevice(crowd) as peer, AmqpPeer(crowd) as unused:
        cbs = unused.open_cbs(unused.open())
        assert unused.claim(cbs, crowd.device_token("d2", seconds=-100))[0] == 200
        pass_time(crowd, 201, peer)
        assert unused.ended() == EXPIRED
        pass_time(crowd, 3_698, peer)
        call_once(crowd, peer.methods, "d1")
        crowd.advance(2)
        assert peer.ended() == EXPIRED


def test_a_token_of_a_policy_stands_in_and_ends_the_connection_with_itself(crowd: RunningHub) -> None:
    """[HUB-token-expired]"""
    with AmqpDevice(crowd) as peer:
        assert peer.claim(peer.cbs, crowd.token("device", 7_200)) == (200, "OK")
        pass_time(crowd, 3_901, peer)
        call_once(crowd, peer.methods, "d1")
        pass_time(crowd, 3_598, peer)
        call_once(crowd, peer.methods, "d1")
        crowd.advance(2)
        assert peer.ended() == EXPIRED


def test_a_renewed_token_replaces_the_older_on_the_same_links(crowd: RunningHub) -> None:
    """[HUB-token-renewal]"""
    with AmqpDevice(crowd) as peer:
        for _ in range(3):
            pass_time(crowd, 1_000, peer)
            peer.know("d1", seconds=800)
            call_once(crowd, peer.methods, "d1")
        pass_time(crowd, 1_099, peer)
        call_once(crowd, peer.methods, "d1")
        crowd.advance(2)
        assert peer.detached() == EXPIRED


def test_a_token_of_the_other_key_keeps_the_links_when_the_first_goes(crowd: RunningHub) -> None:
    """[HUB-token-renewal] As an operator rolls the keys of a device that is connected."""
    with crowd.admin() as client:
        keys = client.get("/devices/d1").json()["authentication"]["symmetricKey"]
    with AmqpDevice(crowd) as peer:
        expiry = int(crowd.hub.clock.wall()) + 3_600
        token = build_token(f"{crowd.address}/devices/d1", keys["secondaryKey"], expiry)
        assert peer.claim(peer.cbs, token)[0] == 200
        new = {"primaryKey": NEW_KEY, "secondaryKey": keys["secondaryKey"]}
        update(crowd, "d1", authentication={"type": "sas", "symmetricKey": new})
        call_once(crowd, peer.methods, "d1")
        update(crowd, "d1", authentication={"type": "sas", "symmetricKey": {**new, "secondaryKey": NEW_KEY}})
        closed = peer.ended()
        assert closed is not None and closed.condition == UNAUTHORIZED


def test_a_token_is_judged_again_at_the_link(crowd: RunningHub) -> None:
    """[HUB-token-renewal] The key was changed between put-token and ATTACH: what it signed holds no more."""
    with AmqpPeer(crowd) as peer:
        session = peer.open()
        cbs = peer.open_cbs(session)
        assert peer.claim(cbs, crowd.device_token("d1"))[0] == 200
        other_keys(crowd, "d1")
        assert peer.refused(session, "sender", methods_address("d1")).condition == UNAUTHORIZED
        assert peer.claim(cbs, crowd.device_token("d1"))[0] == 200
        peer.attach(session, "sender", methods_address("d1"))


# --- takeover ----------------------------------------------------------------------------------------------------


def test_the_newest_connection_wins_whatever_it_speaks(crowd: RunningHub) -> None:
    """MQTT, AMQP, AMQP, MQTT: each ends the one before, and what that was asked is 400027."""
    with Caller(crowd) as caller, Caller(crowd) as asking:
        with ready_device(crowd, "d1") as mqtt:
            asking.send(asking.call("d1"))
            mqtt.request()
            with AmqpDevice(crowd) as first:
                assert asking.response().code == 400027
                assert mqtt.is_closed()
                call(caller, first.methods, "d1")
                asking.send(asking.call("d1"))
                first.methods.request()
                with AmqpDevice(crowd) as second:
                    assert asking.response().code == 400027
                    assert {first.detached().condition, first.detached().condition} == {"amqp:link:stolen"}
                    closed = first.ended()
                    assert closed is not None and closed.condition == "amqp:link:stolen"
                    call(caller, second.methods, "d1")
                    with Device(crowd, "d1") as last:
                        assert last.connect() == (0, 0)
                        assert last.subscribe() == [0]
                        assert second.ended() is not None
                        caller.send(caller.call("d1"))
                        last.answer(last.request(), b"1")
                        assert caller.response().status == 200
        crowd.until(lambda: crowd.hub.table.get(Target("d1")) is None)


def test_one_of_many_that_connects_elsewhere_leaves_the_others(crowd: RunningHub) -> None:
    """[HUB-one-of-many]"""
    with Crowd(crowd) as peer, ready_device(crowd, "d2") as mqtt, Caller(crowd) as caller:
        assert [peer.detached().condition for _ in range(2)] == ["amqp:link:stolen"] * 2
        peer.call_each(caller, "d1", "d3", "d1/modules/m1")
        caller.send(caller.call("d2"))
        mqtt.answer(mqtt.request())
        assert caller.response().status == 200
        peer.know("d2")
        call(caller, Methods(peer, peer.session, "d2"), "d2")
        assert mqtt.is_closed()


def test_only_an_authenticated_peer_pushes_another_out(crowd: RunningHub) -> None:
    with AmqpDevice(crowd) as device, AmqpPeer(crowd) as stranger, Caller(crowd) as caller:
        session = stranger.open()
        assert stranger.refused(session, "receiver", methods_address("d1")).condition == UNAUTHORIZED
        call(caller, device.methods, "d1")


def test_a_call_ends_with_the_links_it_needs(crowd: RunningHub) -> None:
    """The device detaches one of the pair, then its session: what it was asked is 404104, and it may come back."""
    with AmqpDevice(crowd) as device, Caller(crowd) as caller:
        device.attach(device.session, "sender", "/devices/d1/messages/events")
        for link in ("sender", "receiver"):
            caller.send(caller.call("d1"))
            device.methods.request()
            device.detach(getattr(device.methods, link))
            assert caller.response().code == 404104
            device.expect(frames.DETACH)
            assert caller.invoke("d1").code == 404103
            other = "receiver" if link == "sender" else "sender"
            device.detach(getattr(device.methods, other))
            device.expect(frames.DETACH)
            device.methods = Methods(device, device.session, "d1")
            call(caller, device.methods, "d1")
    crowd.until(lambda: not len(crowd.hub.table))
