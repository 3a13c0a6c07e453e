"""What a bearer token says, before and apart from who signed it: its parts, its claims, its principal. Pure; the
time is an argument."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from methodhub.core.access import CLOCK_SKEW, EVERYWHERE, AuthenticationError, Principal
from methodhub.core.bearer.issuers import Issuer

SCHEME = b"bearer "
MAX_TOKEN_LENGTH = 16_384
MAX_NAME_LENGTH = 256

_COMPACT = re.compile(r"([\w-]+)\.([\w-]+)\.[\w-]+", re.ASCII)

_NAME_CLAIMS = ("sub", "appid", "azp", "oid")


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """`text`: the compact form. Nothing in it is to be believed before its signature was checked."""

    text: str
    algorithm: str
    key_id: str | None
    claims: dict[str, Any]


def is_bearer(header: bytes) -> bool:
    return header[:7].lower() == SCHEME


def parse_bearer(header: bytes) -> UnverifiedToken:
    """The token of `Bearer <token>`. Raises AuthenticationError.

    [HUB-bearer-header] Of the header only `alg` and `kid` count: `jku`, `x5u`, `jwk` and `x5c`, by which a token would
    bring its own key, are not looked at; one that says it must not be read without an extension is refused.
    """
    if len(header) > MAX_TOKEN_LENGTH:
        raise AuthenticationError(f"the bearer token is longer than {MAX_TOKEN_LENGTH} bytes")
    text = header[len(SCHEME) :].strip().decode("latin-1")
    match = _COMPACT.fullmatch(text)
    if match is None:
        raise AuthenticationError("the bearer token is no signed JWT")
    head, claims = _decode(match[1]), _decode(match[2])
    algorithm, key_id = head.get("alg"), head.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        raise AuthenticationError("the bearer token names no algorithm, or a key id that is no text")
    if "crit" in head or "b64" in head:
        raise AuthenticationError("the bearer token demands an extension of JWS")
    return UnverifiedToken(text, algorithm, key_id, claims)


def _decode(part: str) -> dict[str, Any]:
    try:
        return _decode_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        raise AuthenticationError("a part of the bearer token is no JSON object in base64url") from None


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


def check_claims(claims: dict[str, Any], issuer: Issuer, now: float) -> Principal:
    """Who the claims say it is. Raises AuthenticationError unless they are meant for this hub and hold now.

    [HUB-bearer-audience] [HUB-bearer-time] with five minutes of skew.
    """
    audiences = _texts(claims.get("aud"))
    if not issuer.audiences.intersection(audiences):
        raise AuthenticationError(f"the bearer token is for {', '.join(audiences)[:500]!r}, not for this hub")
    expiry = _time(claims, "exp")
    if expiry is None:
        raise AuthenticationError("the bearer token has no expiry")
    if expiry + CLOCK_SKEW < now:
        raise AuthenticationError(f"the bearer token expired {now - expiry:.0f} seconds ago")
    begin = _time(claims, "nbf")
    if begin is not None and begin - CLOCK_SKEW > now:
        raise AuthenticationError(f"the bearer token becomes valid in {begin - now:.0f} seconds")
    names = [claims[claim] for claim in _NAME_CLAIMS if isinstance(claims.get(claim), str) and claims[claim]]
    if not names:
        raise AuthenticationError("the bearer token names no principal (sub, appid, azp or oid)")
    granted = [issuer.grants[role] for role in _roles(claims, issuer) if role in issuer.grants]
    return Principal(names[0][:MAX_NAME_LENGTH], frozenset().union(*granted), EVERYWHERE, expiry)


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _roles(claims: dict[str, Any], issuer: Issuer) -> list[str]:
    """A list names each as it is; a text names several, with spaces between."""
    found: list[str] = []
    for claim in issuer.claims:
        value = claims.get(claim)
        found += value.split() if isinstance(value, str) else _texts(value)
    return found


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise AuthenticationError(f"the claim {name} of the bearer token is no time")
    return float(value)
