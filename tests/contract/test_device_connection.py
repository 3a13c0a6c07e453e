"""What every DeviceConnection does, whatever protocol its device speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from methodhub.core.calls import MethodResult
from methodhub.core.connections import DeviceLimits
from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason
from tests.contract.amqp_line import AmqpLine
from tests.contract.lines import MqttLine
from tests.rooms.world import ALL, World

Line = MqttLine | AmqpLine
ADAPTERS: dict[str, type[Line]] = {"mqtt": MqttLine, "amqp": AmqpLine}
mqtt_only = pytest.mark.parametrize("dial", ["mqtt"], indirect=True)
"""AMQP subscribes to all methods at once, and to nothing beyond the connection."""

TARGETS = [Target("d"), Target("d", "m"), Target("$'", "*"), Target("a.b%41#?")]


@pytest.fixture
def world() -> Iterator[World]:
    with World(DeviceLimits(open_calls=3, unsent_bytes=100)) as world:
        yield world
        world.table.close_all(CloseReason.STOPPING)
        world.settle()
        assert world.is_idle()


Dial = Callable[..., Line]


@pytest.fixture(params=ADAPTERS)
def dial(request: pytest.FixtureRequest, world: World) -> Dial:
    """Connects a device of this protocol; it is subscribed to nothing."""

    def connect(target: Target = TARGETS[0], clean: bool = True) -> Line:
        for each in (target.device, target):
            if world.run(world.registry.find(each)) is None:
                world.create(each)
        line = ADAPTERS[request.param](world, target)
        world.run(line.connect(world.run(world.registry.get(target)), clean))
        return line

    return connect


@pytest.mark.parametrize("target", TARGETS)
def test_a_call_goes_down_and_its_answer_comes_back(world: World, dial: Dial, target: Target) -> None:
    line = dial(target)
    assert line.connection.target == target
    assert world.call(target).code == 404103
    world.run(line.subscribe(ALL))
    caller = world.call(target, "a.b*c", payload=b' {"\xc3\xa4": 1.0} ')
    line.read()
    assert line.requests == [("a.b*c", b' {"\xc3\xa4": 1.0} ')]
    world.run(line.answer(status="-7", payload=b"[ 1]"))
    assert caller.outcome == MethodResult(-7, b"[ 1]")


@pytest.mark.parametrize(("payload", "received"), [(None, b""), (b"null", b"null"), (b'""', b'""')])
def test_no_payload_null_and_an_empty_text_differ(
    world: World, dial: Dial, payload: bytes | None, received: bytes
) -> None:
    line = dial()
    world.run(line.subscribe(ALL))
    caller = world.call(TARGETS[0], payload=payload)
    line.read()
    assert line.requests == [("reboot", received)]
    world.run(line.answer(payload=b""))
    assert caller.outcome == MethodResult(200, b"")


@mqtt_only
def test_it_accepts_the_methods_that_the_device_subscribed_to(world: World, dial: Dial) -> None:
    line = dial()
    assert not line.connection.accepts("x")
    world.run(line.subscribe("x", "y"))
    world.run(line.subscribe("z"))
    assert [line.connection.accepts(name) for name in ("x", "y", "z", "X", "w")] == [True, True, True, False, False]
    world.run(line.unsubscribe("x"))
    assert [line.connection.accepts(name) for name in ("x", "y")] == [False, True]
    assert world.call(TARGETS[0], "x").code == 404103


def test_a_call_waits_until_the_device_takes_calls(world: World, dial: Dial) -> None:
    line = dial()
    caller = world.call(TARGETS[0], "x", connect=60)
    assert caller.code == -1
    world.run(line.subscribe(ALL))
    assert [name for name, _ in line.requests] == ["x"]
    world.run(line.answer())
    assert caller.code == 0


def test_it_takes_no_calls_after_it_has_unsubscribed(world: World, dial: Dial) -> None:
    line = dial()
    world.run(line.subscribe(ALL))
    assert line.connection.accepts("x")
    world.run(line.unsubscribe(ALL))
    assert not line.connection.accepts("x")
    assert world.call(TARGETS[0]).code == 404103
    world.run(line.subscribe(ALL))
    caller = world.call(TARGETS[0])
    line.read()
    world.run(line.answer())
    assert caller.code == 0


@mqtt_only
def test_a_call_waits_for_the_subscription(world: World, dial: Dial) -> None:
    """[HUB-suback]"""
    line = dial()
    world.run(line.subscribe("other"))
    caller = world.call(TARGETS[0], "x", connect=60)
    world.run(line.subscribe("x"))
    assert [name for name, _ in line.requests] == ["x"]
    world.run(line.answer())
    assert caller.code == 0


def test_answers_find_their_calls_in_any_order_and_strangers_none(world: World, dial: Dial) -> None:
    """[HUB-late-answer]"""
    line = dial()
    world.run(line.subscribe(ALL))
    callers = [world.call(TARGETS[0]) for _ in range(3)]
    line.read()
    for number in (2, 0, 0, 1):
        world.run(line.answer(number, status=str(number)))
    assert [caller.outcome for caller in callers] == [MethodResult(number, b"{}") for number in range(3)]
    assert world.metrics.late_answers == 1


@pytest.mark.parametrize(("status", "payload"), [("200", b"{'a':1}"), ("200", b"\xff"), ("OK", b"{}"), ("200", b"1 2")])
def test_an_answer_that_is_none_is_502000_and_the_device_stays(
    world: World, dial: Dial, status: str, payload: bytes
) -> None:
    """[HUB-invalid-answer]"""
    line = dial()
    world.run(line.subscribe(ALL))
    caller = world.call(TARGETS[0])
    line.read()
    world.run(line.answer(status=status, payload=payload))
    assert caller.code == 502000
    assert not line.stream.is_closed
    assert world.metrics.invalid_answers == 1
    assert world.call(TARGETS[0]).code == -1


def test_a_lost_connection_ends_what_it_was_handed(world: World, dial: Dial) -> None:
    line = dial()
    world.run(line.subscribe(ALL))
    caller = world.call(TARGETS[0])
    world.run(line.lose())
    assert caller.code == 404104
    assert world.table.get(TARGETS[0]) is None
    assert world.call(TARGETS[0]).code == 404103


def test_a_newer_connection_replaces_it(world: World, dial: Dial) -> None:
    """[HUB-takeover]"""
    older = dial()
    world.run(older.subscribe(ALL))
    caller = world.call(TARGETS[0])
    newer = dial()
    world.run(newer.subscribe(ALL))
    assert caller.code == 400027
    assert older.stream.is_closed
    world.run(older.turn())
    caller = world.call(TARGETS[0])
    newer.read()
    world.run(newer.answer())
    assert caller.code == 0


@mqtt_only
def test_subscriptions_outlive_a_connection_with_a_session(world: World, dial: Dial) -> None:
    """[HUB-session] The Python SDK never subscribes again."""
    line = dial(clean=False)
    world.run(line.subscribe("x"))
    world.run(line.lose())
    caller = world.call(TARGETS[0], "x", connect=60)
    line = dial(clean=False)
    assert [name for name, _ in line.requests] == ["x"]
    world.run(line.answer())
    assert caller.code == 0
    world.run(line.lose())
    assert not dial(clean=True).connection.accepts("x")
    assert not dial(clean=False).connection.accepts("x")


@pytest.mark.parametrize("reason", CloseReason)
def test_close_ends_the_stream_and_the_calls(world: World, dial: Dial, reason: CloseReason) -> None:
    line = dial()
    world.run(line.subscribe(ALL))
    caller = world.call(TARGETS[0])

    async def close() -> None:
        line.connection.close(reason)
        await line.turn()

    world.run(close())
    assert line.stream.is_closed
    aborts = isinstance(line, MqttLine)  # AMQP counts all identities of a connection together, and aborts by itself
    assert line.stream.is_aborted == (aborts and reason is CloseReason.SLOW_READER)
    assert caller.code == 404104
    assert world.table.get(TARGETS[0]) is None


@pytest.mark.parametrize("end", ["delete", "disable"])
def test_a_revoked_device_is_closed(world: World, dial: Dial, end: str) -> None:
    line = dial()

    async def revoke() -> None:
        registry = world.registry
        if end == "delete":
            await registry.delete(TARGETS[0], None)
        else:
            identity = await registry.get(TARGETS[0])
            await registry.update(type(identity)(TARGETS[0], "", "", identity.authentication, enabled=False), None)
        await line.turn()

    world.run(revoke())
    assert line.stream.is_closed


def test_it_tells_what_the_device_has_not_read(world: World, dial: Dial) -> None:
    line = dial()
    world.run(line.subscribe(ALL))
    line.stream.unsent = 90
    assert line.connection.unsent_bytes() == 90
    assert world.call(TARGETS[0], payload=b"1" * 11).code == 403800
    assert world.call(TARGETS[0], payload=b"1" * 10).code == -1


def test_a_call_into_a_stream_that_is_closing_ends_with_it(world: World, dial: Dial) -> None:
    """`deliver` raises nothing: the end is on its way."""
    line = dial()
    world.run(line.subscribe(ALL))
    line.stream.is_closed = True
    caller = world.call(TARGETS[0])
    assert caller.code == -1
    world.run(line.lose())
    assert caller.code == 404104
