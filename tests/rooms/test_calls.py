"""A call from room 2 down and back up: the failure table of `docs/design.md`, row by row, and what surrounds it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methodhub.core.calls import MethodRequest, MethodResult
from methodhub.core.connections import DeviceLimits
from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.methods import CallLimits
from methodhub.core.ports import CloseReason
from tests.rooms.world import ALL, Caller, World

D, M, E = Target("d"), Target("d", "m"), Target("e")


def info_of(caller: Caller) -> dict[str, str] | None:
    assert isinstance(caller.outcome, HubError)
    return caller.outcome.info


# --- the result --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [D, M])
def test_a_call_reaches_the_device_and_its_answer_the_caller(world: World, target: Target) -> None:
    world.create(D, M)
    device = world.connect(target, ALL)
    caller = world.call(target, payload=b' {"a": 1.0} ')
    ((_, request),) = device.delivered
    assert (request.method_name, request.payload) == ("reboot", b' {"a": 1.0} ')
    assert caller.code == -1
    device.answer(status=-5, payload=b"[1 ]")
    assert caller.outcome == MethodResult(-5, b"[1 ]")
    assert world.is_idle()


def test_answers_find_their_calls_in_any_order(world: World) -> None:
    world.create(D)
    device = world.connect(D, ALL)
    callers = [world.call(D) for _ in range(5)]
    for position in (3, 0, 4, 1, 2):
        device.answer(device.delivered[position][0], status=position)
    assert [caller.outcome for caller in callers] == [MethodResult(position, b"{}") for position in range(5)]


def test_a_second_and_a_late_answer_are_counted_and_settle_nothing(world: World) -> None:
    """[HUB-late-answer]"""
    world.create(D)
    device = world.connect(D, ALL)
    answered, timed_out = world.call(D), world.call(D, response=5)
    first, second = (rid for rid, _ in device.delivered)
    device.answer(first)
    device.answer(first, status=500)
    world.advance(5)
    device.answer(second)
    assert answered.outcome == MethodResult(200, b"{}")
    assert timed_out.code == 504101
    assert world.metrics.late_answers == 2


def test_an_answer_to_an_earlier_connection_meets_no_call(world: World) -> None:
    """[HUB-rid] Device SDKs answer with the old id after they have connected again."""
    world.create(D)
    older = world.connect(D, ALL)
    lost = world.call(D)
    old_rid = older.rid
    older.drop()
    newer = world.connect(D, ALL)
    caller = world.call(D)
    newer.answer(old_rid)
    assert (lost.code, caller.code, world.metrics.late_answers) == (404104, -1, 1)
    newer.answer()
    assert caller.code == 0


# --- who is not there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", [0, 60])
def test_an_unknown_target_is_not_waited_for(world: World, connect: float) -> None:
    assert world.call(D, connect=connect).code == 404001
    assert world.call(M, connect=connect).code == 404001
    world.create(D)
    assert world.call(M, connect=connect).code == 404010


def test_a_disabled_device_is_404001_and_so_are_its_modules(world: World) -> None:
    world.create(D, M)
    world.connect(M, ALL)
    world.enable(D, False)
    assert world.call(D).code == world.call(M).code == 404001
    world.enable(D)
    assert world.call(M).code == 404103  # it was disconnected


def test_a_disabled_module_is_404001(world: World) -> None:
    world.create(D, M)
    world.connect(D, ALL)
    world.enable(M, False)
    assert world.call(M).code == 404001
    assert world.call(D).code == -1


def test_offline_or_not_subscribed_is_404103_at_once(world: World) -> None:
    world.create(D)
    assert info_of(world.call(D)) == {"timeout": "00:00:00"}
    device = world.connect(D)
    assert world.call(D).code == 404103
    device.subscribe("other")
    assert world.call(D).code == 404103
    device.subscribe("reboot")
    assert world.call(D).code == -1
    device.unsubscribe("reboot")
    assert world.call(D).code == 404103
    device.drop()
    assert world.call(D).code == 404103


# --- waiting to connect ------------------------------------------------------------------------------------------


def test_a_call_waits_until_the_device_is_subscribed_to_this_method(world: World) -> None:
    """[HUB-connect-timeout] Neither a connection nor another method is enough."""
    world.create(D)
    caller = world.call(D, connect=60)
    world.advance(10)
    device = world.connect(D)
    device.subscribe("other")
    assert (caller.code, device.delivered) == (-1, [])
    world.advance(10)
    device.subscribe("reboot")
    assert len(device.delivered) == 1
    device.answer()
    assert caller.code == 0


def test_a_restored_session_is_found_at_the_claim(world: World) -> None:
    world.create(D)
    caller = world.call(D, connect=60)
    world.connect(D, ALL).answer()
    assert caller.code == 0


def test_a_device_may_come_and_go_until_the_time_is_used_up(world: World) -> None:
    """[HUB-connect-timeout]"""
    world.create(D)
    caller = world.call(D, connect=60)
    for _ in range(3):
        world.advance(15)
        world.connect(D, "other").drop()
    assert caller.code == -1
    world.advance(15)
    assert info_of(caller) == {"timeout": "00:01:00"}
    assert caller.code == 404103
    assert not world.connect(D, ALL).delivered


def test_each_waiting_call_gets_its_own_method(world: World) -> None:
    world.create(D, E)
    first, second, other = (
        world.call(D, "first", connect=60),
        world.call(D, "second", connect=60),
        world.call(E, "first", connect=60),
    )
    device = world.connect(D, "second")
    assert [request.method_name for _, request in device.delivered] == ["second"]
    device.subscribe("first")
    assert [request.method_name for _, request in device.delivered] == ["second", "first"]
    for rid, _ in device.delivered:
        device.answer(rid)
    assert (first.code, second.code, other.code) == (0, 0, -1)


def test_once_delivered_only_the_response_timeout_counts(world: World) -> None:
    """[HUB-response-timeout] It starts at delivery."""
    world.create(D)
    caller = world.call(D, connect=20, response=30)
    world.advance(15)
    device = world.connect(D, ALL)
    world.advance(29)
    assert caller.code == -1
    assert len(device.delivered) == 1
    assert not world.bus.waiters.targets()  # connectTimeout is used up
    world.advance(1)
    assert caller.code == 504101


def test_a_delivered_call_is_not_delivered_again(world: World) -> None:
    world.create(D)
    caller = world.call(D, connect=60)
    device = world.connect(D, ALL)
    device.subscribe("more")
    assert len(device.delivered) == 1
    device.drop()
    assert caller.code == 404104
    assert not world.connect(D, ALL).delivered


@pytest.mark.parametrize("target", [D, M])
@pytest.mark.parametrize("end", ["delete", "disable", "delete the device", "disable the device"])
def test_delete_or_disable_ends_the_wait_with_404001(world: World, target: Target, end: str) -> None:
    world.create(D, M, E)
    waiting, other = world.call(target, connect=60), world.call(E, connect=60)
    revoked = D if end.endswith("device") else target
    if end.startswith("delete"):
        world.delete(revoked)
    else:
        world.enable(revoked, False)
    assert (waiting.code, other.code) == (404001, -1)


def test_a_change_of_keys_ends_no_wait(world: World) -> None:
    world.create(D)
    caller = world.call(D, connect=60)
    identity = world.run(world.registry.get(D))
    keys = type(identity.authentication)(primary_key="A" * 24, secondary_key="B" * 24)
    world.run(world.registry.update(type(identity)(D, "", "", keys), None))
    assert caller.code == -1


# --- lost on the way ---------------------------------------------------------------------------------------------


def test_a_lost_connection_is_404104_for_each_call_once(world: World) -> None:
    world.create(D)
    device = world.connect(D, ALL)
    callers = [world.call(D), world.call(D, connect=60)]
    device.drop()
    device.drop()
    world.advance(70)
    assert [caller.code for caller in callers] == [404104, 404104]
    assert world.is_idle()


def test_a_replaced_connection_is_400027_for_each_call_once(world: World) -> None:
    """[HUB-takeover] The newer connection is in place before the callers learn of it: one that calls again at once
    waits for the newer, and is handed to it."""
    world.create(D)
    older = world.connect(D, ALL)
    callers = [world.call(D), world.call(D)]
    again: list[Caller] = []
    settle = callers[0].invocation.settle

    def call_again(outcome: object) -> None:
        settle(outcome)  # type: ignore[arg-type]
        again.append(Caller(world, D, callers[0].invocation.request))

    callers[0].invocation.settle = call_again
    newer = world.connect(D, ALL)
    older.drop()
    assert [caller.code for caller in callers] == [400027, 400027]
    assert again[0].code == 404103  # the newer has not subscribed at that moment
    assert len(older.delivered) == 2
    assert not newer.delivered
    newer.drop()
    assert [caller.code for caller in callers] == [400027, 400027]


def test_a_waiting_call_survives_a_takeover(world: World) -> None:
    world.create(D)
    world.connect(D, "other")
    caller = world.call(D, connect=60)
    world.connect(D, ALL).answer()
    assert caller.code == 0


@pytest.mark.parametrize("end", ["delete", "disable"])
def test_delete_or_disable_after_delivery_is_404104(world: World, end: str) -> None:
    world.create(D)
    world.connect(D, ALL)
    caller = world.call(D)
    if end == "delete":
        world.delete(D)
    else:
        world.enable(D, False)
    assert caller.code == 404104


# --- limits ------------------------------------------------------------------------------------------------------


def test_so_many_calls_per_device_then_403800() -> None:
    with World(DeviceLimits(open_calls=3)) as world:
        world.create(D, E)
        waiting = [world.call(D, connect=60) for _ in range(2)]
        device = world.connect(D, ALL)
        third, fourth = world.call(D), world.call(D, connect=60)
        world.connect(E, ALL)
        assert [caller.code for caller in (*waiting, third, fourth)] == [-1, -1, -1, 403800]
        assert world.call(E).code == -1
        device.answer()
        assert third.code == 0
        assert world.call(D).code == -1


def test_waiting_calls_beyond_the_limit_are_403800_when_the_device_comes() -> None:
    with World(DeviceLimits(open_calls=2)) as world:
        world.create(D)
        waiting = [world.call(D, connect=60) for _ in range(3)]
        world.connect(D, ALL)
        assert [caller.code for caller in waiting] == [-1, -1, 403800]


def test_so_many_calls_per_hub_then_429001() -> None:
    with World(call_limits=CallLimits(hub_open_calls=2)) as world:
        world.create(D)
        device = world.connect(D, ALL)
        callers = [world.call(D), world.call(E), world.call(D, "x", connect=60), world.call(D)]
        assert [caller.code for caller in callers] == [-1, 404001, -1, 429001]
        device.answer()
        assert world.call(D).code == -1
        assert world.metrics.calls["ThrottlingException"] == 1


# --- the caller hangs up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "delivered", "waited and delivered"])
def test_a_caller_that_hangs_up_leaves_nothing(world: World, when: str) -> None:
    """[HUB-hang-up]"""
    world.create(D)
    device = world.connect(D, ALL) if when == "delivered" else None
    caller = world.call(D, connect=60)
    if when == "waited and delivered":
        device = world.connect(D, ALL)
    caller.invocation.cancel()
    assert world.is_idle()
    assert world.metrics.calls == {"cancelled": 1}
    if device is not None:
        device.answer()
        assert world.metrics.late_answers == 1
    caller.invocation.cancel()
    assert not caller.outcomes


def test_a_caller_that_hangs_up_during_the_look_up_leaves_nothing(world: World) -> None:
    world.create(D)

    async def hang_up() -> Caller:
        caller = Caller(world, D, MethodRequest("reboot", None, 30, 60))
        caller.invocation.cancel()
        await world._turn()
        return caller

    assert not world.run(hang_up()).outcomes
    assert world.is_idle()


# --- stopping ----------------------------------------------------------------------------------------------------


def test_a_stop_refuses_what_is_not_delivered_and_lets_the_rest_end(world: World) -> None:
    """[HUB-stop] 503001 says that the device got nothing: SDKs repeat those."""
    world.create(D, E)
    device = world.connect(D, ALL)
    delivered, waiting = world.call(D), world.call(E, connect=60)

    async def stop() -> None:
        stopping = asyncio.create_task(world.methods.stop())
        await asyncio.sleep(0)
        assert (delivered.code, waiting.code) == (-1, 503001)
        assert Caller(world, D, delivered.invocation.request).code == 503001
        assert not stopping.done()
        device.answer()
        await stopping

    world.run(stop())
    assert delivered.code == 0
    assert len(device.delivered) == 1


def test_what_is_still_open_after_the_grace_period_is_404104(world: World) -> None:
    """[HUB-stop] Never a 503 after delivery."""
    world.create(D)
    world.connect(D, ALL)
    delivered = world.call(D)

    async def stop() -> None:
        stopping = asyncio.create_task(world.methods.stop())
        await asyncio.sleep(0)
        world.table.close_all(CloseReason.STOPPING)
        await stopping

    world.run(stop())
    assert delivered.code == 404104


def test_a_stop_without_calls_returns(world: World) -> None:
    world.run(world.methods.stop())
    assert world.call(D).code == 503001


# --- time --------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.integers(0, 10**9).map(lambda ms: ms / 1000),
    st.integers(1, 300),
    st.floats(0, 0.05),
    st.sampled_from(["connect", "response"]),
)
def test_timers_end_50_to_250_ms_early_and_never_late(start: float, seconds: int, phase: float, timer: str) -> None:
    """[HUB-connect-timeout] [HUB-response-timeout] Some callers give up at the nominal time exactly."""
    with World(now=start) as world:
        world.create(D)
        if timer == "response":
            world.connect(D, ALL)
            caller = world.call(D, response=seconds)
        else:
            caller = world.call(D, connect=seconds)
        world.clock.advance(seconds - 0.4 + phase)
        world.deadlines.expire(world.clock.monotonic())
        assert caller.code == -1
        world.advance(0.4 - phase)
        assert caller.code == {"connect": 404103, "response": 504101}[timer]
        early = start + seconds - caller.ended_at
        assert 0.05 - 1e-6 <= early <= 0.25 + 1e-6
