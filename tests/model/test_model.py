"""Random sequences of events against the naive model: every call comes to exactly the one end that it predicts, and
nothing is left of any."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from methodhub.core.connections import DeviceLimits
from methodhub.core.identity import Target
from methodhub.core.methods import CallLimits
from tests.model.naive import OPEN, Line, Model, ModelCall
from tests.rooms.world import ALL, Caller, FakeDevice, World

DEVICES = [Target("a"), Target("b")]
TARGETS = [*DEVICES, Target("a", "m")]
METHODS = ["x", "y"]
PER_DEVICE, PER_HUB = 3, 6

targets = st.sampled_from(TARGETS)
methods = st.sampled_from(METHODS)
picks = st.integers(0, 10**6)


class Hub(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(DeviceLimits(open_calls=PER_DEVICE), CallLimits(hub_open_calls=PER_HUB))
        self.model = Model(PER_DEVICE, PER_HUB, self.world.clock.monotonic())
        self.calls: list[tuple[Caller, ModelCall]] = []
        self.devices: list[tuple[FakeDevice, Line]] = []

    def teardown(self) -> None:
        for line in list(self.model.lines.values()):
            self.model.drop(line)
        for device, _ in self.devices:
            device.drop()
        self.advance(700)
        self.check()
        assert not self.model.open_calls()
        assert self.world.is_idle()
        assert sum(self.world.metrics.calls.values()) == len(self.calls)
        self.world.__exit__()

    @initialize()
    def begin(self) -> None:
        for target in DEVICES:
            self.create(target)

    # --- identities ----------------------------------------------------------------------------------------------

    @rule(whom=targets)
    def create(self, whom: Target) -> None:
        if whom not in self.model.enabled and (whom == whom.device or whom.device in self.model.enabled):
            self.world.create(whom)
            self.model.enabled[whom] = True

    @rule(whom=targets)
    def delete(self, whom: Target) -> None:
        if whom in self.model.enabled:
            self.world.delete(whom)
            self.model.delete(whom)

    @rule(whom=targets, on=st.booleans())
    def enable(self, whom: Target, on: bool) -> None:
        if whom in self.model.enabled:
            self.world.enable(whom, on)
            self.model.enabled[whom] = on
            if not on:
                self.model.revoke(whom)

    # --- devices -------------------------------------------------------------------------------------------------

    @rule(whom=targets, subscribed=st.sets(st.sampled_from([*METHODS, ALL]), max_size=2))
    def connect(self, whom: Target, subscribed: set[str]) -> None:
        """Also as a takeover; with methods at once where a session is restored."""
        if self.model.missing(whom) is None:
            device = self.world.connect(whom, *sorted(subscribed))
            self.devices.append((device, self.model.connect(whom, set(subscribed))))

    @precondition(lambda self: self.devices)
    @rule(pick=picks, method=methods)
    def subscribe(self, pick: int, method: str) -> None:
        """Also on a connection that has ended: its SUBSCRIBE was under way."""
        device, line = self.devices[pick % len(self.devices)]
        device.subscribe(method)
        line.methods.add(method)
        if self.model.lines.get(line.target) is line:
            self.model.subscribed(line)

    @precondition(lambda self: self.devices)
    @rule(pick=picks, method=methods)
    def unsubscribe(self, pick: int, method: str) -> None:
        device, line = self.devices[pick % len(self.devices)]
        device.unsubscribe(method)
        line.methods.discard(method)

    @precondition(lambda self: self.devices)
    @rule(pick=picks)
    def drop(self, pick: int) -> None:
        """Also the end of one that was replaced long ago."""
        device, line = self.devices[pick % len(self.devices)]
        device.drop()
        self.model.drop(line)

    @precondition(lambda self: any(device.delivered for device, _ in self.devices))
    @rule(pick=picks, on=picks)
    def answer(self, pick: int, on: int) -> None:
        """Any request that was ever delivered, by the connection that got it or by any other."""
        requests = [(rid, owner) for owner, _ in self.devices for rid, _ in owner.delivered]
        rid, owner = requests[pick % len(requests)]
        device, line = self.devices[on % len(self.devices)] if on % 4 == 0 else self.of(owner)
        open_before = [call for call in self.model.open_calls() if call.line is line]
        late = self.world.metrics.late_answers
        device.answer(rid)
        settled = [call for caller, call in self.calls if call in open_before and caller.outcomes]
        assert len(settled) + (self.world.metrics.late_answers - late) == 1
        if device is not owner:
            assert not settled, "an answer met a call of another connection"
        for call in settled:
            call.code = 0

    @precondition(lambda self: any(call.line for call in self.model.open_calls()))
    @rule(pick=picks)
    def answer_an_open_call(self, pick: int) -> None:
        delivered = [(caller, call) for caller, call in self.calls if call.code == OPEN and call.line]
        caller, call = delivered[pick % len(delivered)]
        device = next(device for device, line in self.devices if line is call.line)
        (rid,) = [rid for rid, request in device.delivered if request is caller.invocation.request]
        device.answer(rid)
        call.code = 0

    def of(self, device: FakeDevice) -> tuple[FakeDevice, Line]:
        return next(pair for pair in self.devices if pair[0] is device)

    # --- callers -------------------------------------------------------------------------------------------------

    @rule(whom=targets, method=methods, connect=st.sampled_from([0, 0, 1, 5, 60]), response=st.sampled_from([5, 30]))
    def call(self, whom: Target, method: str, connect: int, response: int) -> None:
        caller = self.world.call(whom, method, connect=connect, response=response)
        self.calls.append((caller, self.model.call(whom, method, connect, response)))

    @precondition(lambda self: self.calls)
    @rule(pick=picks)
    def hang_up(self, pick: int) -> None:
        caller, call = self.calls[pick % len(self.calls)]
        ended = list(caller.outcomes)
        caller.invocation.cancel()
        assert caller.outcomes == ended
        if call.code == OPEN:
            self.calls.remove((caller, call))
            self.model.calls.remove(call)
            self.calls_hung_up()

    def calls_hung_up(self) -> None:
        metrics = self.world.metrics.calls
        metrics["cancelled"] -= 1
        assert metrics["cancelled"] == 0, "a call was cancelled twice"

    # --- time ----------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.7, 1, 4.8, 5, 29, 60]))
    def advance(self, seconds: float) -> None:
        if not self.model.open_calls():  # nothing can come of it step by step
            self.world.clock.advance(seconds)
            self.world.deadlines.expire(self.world.clock.monotonic())
        else:
            self.world.advance(seconds)
        for call, code in self.model.advance(self.world.clock.monotonic()):
            caller = next(caller for caller, each in self.calls if each is call)
            if caller.outcomes:
                call.code = code

    # --- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        for caller, call in self.calls:
            assert caller.code == call.code, call
        open_calls = self.model.open_calls()
        world = self.world
        assert {caller.invocation for caller, call in self.calls if call.code == OPEN} == world.methods.open
        pending = {attachment.target: len(attachment.pending) for attachment in world.table}
        assert pending == {
            target: sum(call.line is line for call in open_calls) for target, line in self.model.lines.items()
        }
        if not open_calls:
            assert world.is_idle()


TestHub = Hub.TestCase
TestHub.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
