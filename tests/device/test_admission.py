"""CONNECT over the pure rooms: what is refused and how, and that nothing is done for who was not let in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from methodhub.core.identity import Target
from methodhub.core.ports import Session
from methodhub.iothub.sas import build_token
from methodhub.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Packet,
    PingReq,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    serialize,
)
from tests.contract.lines import HUB, MqttLine
from tests.rooms.world import World

D = Target("d")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.create(D)
        yield world


def connect_packet(world: World, **changes: object) -> Connect:
    key = world.run(world.registry.get(D)).authentication.keys[0]
    fields: dict[str, object] = {
        "client_id": "d",
        "clean_session": True,
        "keep_alive": 60,
        "user_name": f"{HUB}/d/?api-version=2021-04-12",
        "password": build_token(f"{HUB}/devices/d", key, int(world.clock.wall()) + 60).encode(),
        "will": None,
    }
    return Connect(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": ""}, 2),
        ({"client_id": "D"}, 5),
        ({"client_id": "d/m"}, 5),
        ({"user_name": None, "password": None}, 5),
        ({"user_name": f"{HUB}/e/?api-version=2021-04-12", "client_id": "e"}, 5),
        ({"user_name": f"{HUB}/d/m/?api-version=2021-04-12", "client_id": "d/m"}, 5),
        ({"user_name": "other.hub/d/?api-version=2021-04-12"}, 5),
        ({"password": None}, 5),
        ({"password": b""}, 5),
        ({"password": b"\xff\xfe"}, 5),
        ({"password": b"SharedAccessSignature sr=x&sig=YQ==&se=99999999999"}, 5),
    ],
)
def test_who_is_refused_is_told_and_closed(world: World, changes: dict[str, object], code: int) -> None:
    """[HUB-connack] [MQTT-3.1.3-8] [MQTT-3.2.2-5] CONNACK with the code is the last that it hears."""
    line = MqttLine(world, D)
    world.run(line.send(connect_packet(world, **changes)))
    world.run(line.send(PingReq()))
    assert line.answers == [ConnAck(False, code)]
    assert line.stream.is_closed
    assert not line.stream.is_authenticated
    assert len(world.table) == 0
    assert world.is_idle()
    assert world.metrics.connects_refused == {code: 1}


def test_a_disabled_device_may_come_back_later(world: World) -> None:
    """[HUB-connack]"""
    world.enable(D, False)
    line = MqttLine(world, D)
    world.run(line.send(connect_packet(world)))
    assert line.answers == [ConnAck(False, 3)]
    world.enable(D)
    line = MqttLine(world, D)
    world.run(line.send(connect_packet(world)))
    assert line.answers == [ConnAck(False, 0)]
    assert line.stream.is_authenticated


@pytest.mark.parametrize("away", ["registry", "sessions"])
def test_when_a_store_is_away_it_may_come_back_later(world: World, away: str) -> None:
    class Away:
        async def get(self, *_: object) -> None:
            raise OSError("no disk")

        session = get

    line = MqttLine(world, D)
    packet = connect_packet(world)
    if away == "registry":
        world.registry._cache.clear()
        world.registry._store = Away()  # type: ignore[assignment]
    else:
        object.__setattr__(line.services, "store", Away())
    world.run(line.send(packet))
    assert line.answers == [ConnAck(False, 3)]


def test_clean_session_drops_what_was_stored_and_the_other_finds_it(world: World) -> None:
    """[MQTT-3.1.2-4] [MQTT-3.1.2-6] [HUB-session]"""
    generation = world.run(world.registry.get(D)).generation_id
    world.run(world.hub_store.save_session(D, generation, Session((("$iothub/methods/POST/#", 0),))))
    found = []
    for clean in (False, True, False):
        line = MqttLine(world, D)
        world.run(line.send(connect_packet(world, clean_session=clean)))
        found.append((line.answers[0], line.connection.accepts("x")))
    assert found == [(ConnAck(True, 0), True), (ConnAck(False, 0), False), (ConnAck(False, 0), False)]


def test_packets_that_come_together_are_handled_in_their_order(world: World) -> None:
    """Each waits for the store before the next one's turn."""
    line = MqttLine(world, D)
    saved: list[Session] = []

    class SlowStore(type(world.hub_store)):  # type: ignore[misc]
        async def save_session(self, target: Target, generation_id: str, session: Session) -> None:
            for _ in range(3 - len(saved)):  # the first takes the longest
                await asyncio.sleep(0)
            saved.append(session)

    object.__setattr__(line.services, "store", SlowStore(world.hub_store._tables))
    filters = [f"$iothub/methods/POST/{name}/#" for name in ("a", "b", "c")]
    packets: list[Packet] = [connect_packet(world, clean_session=False)]
    packets += [Subscribe(number, ((name, 0),)) for number, name in enumerate(filters, 1)]
    packets += [Unsubscribe(4, (filters[0],)), Subscribe(5, ((filters[1], 0),))]

    async def send() -> None:
        line.connection.data_received(b"".join(serialize(packet) for packet in packets))
        await line.turn()

    world.run(send())
    assert line.received == [
        ConnAck(False, 0),
        *(SubAck(number, (0,)) for number in (1, 2, 3)),
        UnsubAck(4),
        SubAck(5, (0,)),
    ]
    assert [[name for name, _ in session.subscriptions] for session in saved] == [
        filters[:1],
        filters[:2],
        filters,
        filters[1:],
    ]
    assert line.stream.is_reading
