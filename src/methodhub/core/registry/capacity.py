"""How many devices the hub may hold, judged without counting them at each creation."""

from __future__ import annotations

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import IdentityStore

MAX_DEVICES = 1_000_000
SHARE = 10
"""A count is good for one part in this many of the room it found; several nodes then cannot overshoot together."""


class Capacity:
    def __init__(self, store: IdentityStore, most: int) -> None:
        self._store = store
        self._most = most
        self._allowance = 0

    async def take(self, devices: int) -> None:
        """[HUB-max-devices] Make sure that this many devices more may be created. Raises 403002."""
        if devices > self._allowance:
            room = self._most - (await self._store.statistics()).total
            if devices > room:
                raise HubError(
                    ErrorCode.IotHubQuotaExceeded,
                    f"The hub has room for {max(room, 0)} devices more, of at most {self._most}.",
                )
            self._allowance = max(room // SHARE, devices)
        self._allowance -= devices
