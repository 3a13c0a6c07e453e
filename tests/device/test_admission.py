"""CONNECT over the pure rooms: what is refused and how, and that nothing is done for who was not let in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from methodhub.core.identity import Target
from methodhub.core.ports import Session
from methodhub.iothub.sas import build_token
from methodhub.wire.mqtt.packets import ConnAck, Connect, PingReq
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
