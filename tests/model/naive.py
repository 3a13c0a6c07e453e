"""A naive model of the hub: what each call comes to, told by lists and plain sentences. Knows nothing of the hub's own
ledgers, waiters and deadlines."""

from __future__ import annotations

from dataclasses import dataclass, field

from methodhub.core.identity import Target
from tests.rooms.world import ALL

EARLIEST, LATEST = 0.25, 0.05
"""A timer ends at least and at most so many seconds before its nominal time."""

OPEN, RESULT = -1, 0


@dataclass(eq=False)
class Line:
    """A connection as the model sees it."""

    target: Target
    methods: set[str]

    def takes(self, method: str) -> bool:
        return ALL in self.methods or method in self.methods


@dataclass(eq=False)
class ModelCall:
    target: Target
    method: str
    connect_until: float
    response_timeout: float
    code: int = OPEN
    line: Line | None = None
    """Whom it was delivered to."""
    answer_until: float = 0.0


@dataclass(eq=False)
class Model:
    calls_per_device: int
    calls_per_hub: int
    now: float = 0.0
    enabled: dict[Target, bool] = field(default_factory=dict)
    lines: dict[Target, Line] = field(default_factory=dict)
    calls: list[ModelCall] = field(default_factory=list)

    def open_calls(self) -> list[ModelCall]:
        return [call for call in self.calls if call.code == OPEN]

    def missing(self, target: Target) -> int | None:
        if not self.enabled.get(target.device):
            return 404001
        if target not in self.enabled:
            return 404010
        return None if self.enabled[target] else 404001

    def call(self, target: Target, method: str, connect: float, response: float) -> ModelCall:
        call = ModelCall(target, method, self.now + connect, response)
        open_calls = len(self.open_calls())
        self.calls.append(call)
        missing = self.missing(target)
        if open_calls >= self.calls_per_hub:
            call.code = 429001
        elif missing is not None:
            call.code = missing
        else:
            self.try_deliver(call)
            if call.code == OPEN and call.line is None and connect == 0:
                call.code = 404103
        return call

    def try_deliver(self, call: ModelCall) -> None:
        line = self.lines.get(call.target)
        if line is None or not line.takes(call.method) or call.line is not None or call.code != OPEN:
            return
        if sum(each.line is line for each in self.open_calls()) >= self.calls_per_device:
            call.code = 403800
        else:
            call.line = line
            call.answer_until = self.now + call.response_timeout

    def subscribed(self, line: Line) -> None:
        for call in self.open_calls():
            if call.target == line.target:
                self.try_deliver(call)

    def connect(self, target: Target, methods: set[str]) -> Line:
        self.drop(self.lines.get(target), 400027)
        line = self.lines[target] = Line(target, methods)
        self.subscribed(line)
        return line

    def drop(self, line: Line | None, code: int = 404104) -> None:
        if line is None or self.lines.get(line.target) is not line:
            return
        del self.lines[line.target]
        for call in self.open_calls():
            if call.line is line:
                call.code = code

    def revoke(self, target: Target) -> None:
        """Deleted or disabled, with a device its modules."""
        for each in [each for each in self.enabled if target in (each, each.device)]:
            self.drop(self.lines.get(each))
            for call in self.open_calls():
                if call.target == each and call.line is None:
                    call.code = 404001

    def delete(self, target: Target) -> None:
        self.revoke(target)
        self.enabled = {each: on for each, on in self.enabled.items() if target not in (each, each.device)}

    def advance(self, now: float) -> list[tuple[ModelCall, int]]:
        """The calls that may time out now, and with what. Those that must are ended."""
        self.now = now
        may: list[tuple[ModelCall, int]] = []
        for call in self.open_calls():
            until, code = (call.connect_until, 404103) if call.line is None else (call.answer_until, 504101)
            if until - LATEST <= now:
                call.code = code
            elif until - EARLIEST <= now:
                may.append((call, code))
        return may
