"""Who waits for a target to be claimed. Knows not where the claim was made."""

from __future__ import annotations

from collections.abc import Callable

from methodhub.core.identity import Target


class Waiters:
    def __init__(self) -> None:
        self._waiters: dict[Target, dict[int, Callable[[], None]]] = {}
        self._next = 0

    def targets(self) -> set[Target]:
        return set(self._waiters)

    def add(self, target: Target, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` at each claim of the target, until the returned function is called."""
        waiters = self._waiters.setdefault(target, {})
        self._next += 1
        number = self._next
        waiters[number] = wake

        def forget() -> None:
            waiters.pop(number, None)
            if not waiters and self._waiters.get(target) is waiters:
                del self._waiters[target]

        return forget

    def wake(self, target: Target) -> None:
        waiters = self._waiters.get(target)
        for number in list(waiters or ()):
            wake = waiters.get(number) if waiters else None  # an earlier one may have made it forget
            if wake is not None:
                wake()

    def wake_all(self) -> None:
        """Any target may have been claimed."""
        for target in list(self._waiters):
            self.wake(target)
