"""Bearer tokens against the keys of their issuers: verified at once from memory, the keys fetched behind the scenes and
once more for a key that is not known. How they are fetched is the owner's to say."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import structlog

from methodhub.core.access import AuthenticationError, Principal
from methodhub.core.bearer.claims import check_claims, parse_bearer
from methodhub.core.bearer.issuers import Issuer
from methodhub.core.bearer.keys import KeysUnavailable, VerificationKey, find_key, read_keys, verify
from methodhub.core.clock import Clock

log = structlog.get_logger()

REFRESH_SECONDS = 3_600.0
"""Age at which the keys of an issuer are fetched anew."""

RETRY_SECONDS = 60.0
"""Between two attempts while they cannot be had, and between two fetches for keys that are not known."""

MAX_VERIFIED = 1_000
"""Tokens that are known again; of 16 KiB at most each."""

Fetch = Callable[[Issuer], Awaitable[bytes]]
"""The JWKS document of an issuer. Raises KeysUnavailable; bounds time and size."""


class KeysWanted(Exception):
    """Who holds a token can be told only when its issuer's keys have been fetched, which has begun."""

    def __init__(self, fetching: asyncio.Task[None]) -> None:
        super().__init__("the keys of the token's issuer are being fetched")
        self.fetching = fetching


class _Held:
    """An issuer and what is known of its keys. Times are of the monotonic clock."""

    __slots__ = ("due", "fetching", "issuer", "keys", "wanted_again")

    def __init__(self, issuer: Issuer, now: float) -> None:
        self.issuer = issuer
        self.keys: frozenset[VerificationKey] | None = None
        self.due = now
        self.wanted_again = now
        """From when on an unknown key may cost another fetch."""
        self.fetching: asyncio.Task[None] | None = None


class BearerTokens:
    """`forget` is called when keys of an issuer changed: nothing that was verified before is to be believed unseen."""

    def __init__(self, issuers: Iterable[Issuer], fetch: Fetch, clock: Clock, forget: Callable[[], None]) -> None:
        now = clock.monotonic()
        self._issuers = {issuer.url: _Held(issuer, now) for issuer in issuers}
        self._fetch = fetch
        self._clock = clock
        self._forget = forget
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()

    def authenticate(self, header: bytes) -> Principal:
        """The principal of an Authorization header `Bearer <token>`. Raises AuthenticationError, or KeysWanted."""
        now = self._clock.wall()
        known = self._verified.get(header)
        if known is not None and known.expiry >= now:
            return known
        token = parse_bearer(header)
        url = token.claims.get("iss")
        held = self._issuers.get(url) if isinstance(url, str) else None
        if held is None:
            raise AuthenticationError(f"the bearer token is of the issuer {str(url)[:500]!r}, whom nobody configured")
        if token.algorithm not in held.issuer.algorithms:
            raise AuthenticationError(f"the bearer token is signed with {token.algorithm[:20]!r}, which is not taken")
        # First what costs little: the signature decides only about what would be accepted.
        principal = check_claims(token.claims, held.issuer, now)
        key = find_key(held.keys, token) if held.keys is not None else None
        if key is None:
            self._want_keys(held, token.key_id)
        verify(token, key)
        self._verified[header] = principal
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return principal

    async def authenticate_later(self, header: bytes) -> Principal:
        """The same, after a wait for the keys where they are wanted; it is as long as the fetch takes. Raises
        AuthenticationError."""
        try:
            return self.authenticate(header)
        except KeysWanted as wanted:
            await asyncio.wait([wanted.fetching])  # not cancelled with its caller: others wait for it, too
        try:
            return self.authenticate(header)
        except KeysWanted:
            raise AuthenticationError("the keys of the bearer token's issuer cannot be had at this time") from None

    def _want_keys(self, held: _Held, key_id: str | None) -> NoReturn:
        """[HUB-bearer-unknown-key] One fetch a minute and issuer, whoever shows however many unknown keys; those who
        ask while it runs share it."""
        if held.fetching is None:
            if held.keys is not None and key_id is None:
                raise AuthenticationError("the bearer token names no key, and no single one suits it")
            now = self._clock.monotonic()
            if now < held.wanted_again:
                state = "has no such key" if held.keys is not None else "could not be asked for its keys"
                raise AuthenticationError(
                    f"the bearer token is signed with the key {str(key_id)[:100]!r}; its issuer {state} a moment ago"
                )
            held.wanted_again = now + RETRY_SECONDS
            self._begin_fetch(held)
        assert held.fetching is not None
        raise KeysWanted(held.fetching)

    # --- keys ----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Fetch the keys of every issuer for whom it is time. Meant to be called every few seconds."""
        now = self._clock.monotonic()
        due = [held for held in self._issuers.values() if held.due <= now and held.fetching is None]
        for held in due:
            self._begin_fetch(held)
        fetching = [held.fetching for held in due if held.fetching is not None]
        if fetching:
            await asyncio.wait(fetching)

    def stop(self) -> None:
        for held in self._issuers.values():
            if held.fetching is not None:
                held.fetching.cancel()

    def _begin_fetch(self, held: _Held) -> None:
        held.fetching = asyncio.get_running_loop().create_task(self._fetch_keys(held))

    async def _fetch_keys(self, held: _Held) -> None:
        """[HUB-bearer-last-good] What was fetched last stays while the issuer cannot be asked."""
        try:
            keys = read_keys(await self._fetch(held.issuer))
        except KeysUnavailable as error:
            log.warning("keys of the issuer could not be fetched", issuer=held.issuer.url, problem=str(error))
            held.due = self._clock.monotonic() + RETRY_SECONDS
        except Exception:
            log.exception("keys of the issuer could not be fetched", issuer=held.issuer.url)
            held.due = self._clock.monotonic() + RETRY_SECONDS
        else:
            held.due = self._clock.monotonic() + REFRESH_SECONDS
            if keys != held.keys:
                log.info("keys of the issuer", issuer=held.issuer.url, count=len(keys))
                held.keys = keys
                self._verified.clear()
                self._forget()
        finally:
            held.fetching = None
