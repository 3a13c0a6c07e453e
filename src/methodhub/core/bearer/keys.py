"""The public keys of an issuer, and what they signed: JWKS and JWS by joserfc, which is loaded at the first use."""

# ruff: noqa: PLC0415 - joserfc takes a tenth of a second to load, and only hubs with an issuer need it

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from methodhub.core.access import AuthenticationError
from methodhub.core.bearer.claims import UnverifiedToken

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

MAX_KEYS = 100
RSA_BITS = (2_048, 8_192)
MAX_NUMBER = 2_048
"""Characters of one number of a key."""

MAX_HEADER = 4_096

_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
"""What makes a public key. Nothing else of an entry is read, certificates and private parts neither."""


class KeysUnavailable(Exception):
    """The keys of an issuer cannot be had. The text says why."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    key_id: str | None
    algorithm: str | None
    material: tuple[str, ...]
    key: RSAKey | ECKey = field(compare=False, repr=False)

    def suits(self, algorithm: str) -> bool:
        """[HUB-bearer-algorithm] A key is for its own kind of algorithm, whatever a token says."""
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        if self.material[0] == "EC":
            return self.material[1] == _CURVES.get(algorithm)
        return algorithm.startswith(("RS", "PS"))


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_KeySet).decode


def read_keys(document: bytes) -> frozenset[VerificationKey]:
    """The keys of a JWKS document that can verify. Raises KeysUnavailable if it is none, or holds none or too many."""
    try:
        entries = _decode(document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise KeysUnavailable(f"the document is no JWKS: {error}") from None
    if len(entries) > MAX_KEYS:
        raise KeysUnavailable(f"the document holds {len(entries)} keys; at most {MAX_KEYS} are taken")
    keys = frozenset(key for entry in entries if (key := _read_key(entry)) is not None)
    if not keys:
        raise KeysUnavailable("the document holds no RSA or EC key for signatures")
    return keys


def _read_key(entry: Mapping[str, Any]) -> VerificationKey | None:
    """None for what is no key for signatures, or none that can be used: there may be keys for others among them."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    kind, key_id, algorithm = entry.get("kty"), entry.get("kid"), entry.get("alg")
    if kind not in _MEMBERS or entry.get("use", "sig") != "sig":
        return None
    if not all(each is None or isinstance(each, str) for each in (key_id, algorithm)):
        return None
    material: dict[str, str | list[str]] = {}
    for name in _MEMBERS[kind]:
        value = entry.get(name)
        if not isinstance(value, str) or len(value) > MAX_NUMBER:
            return None
        material[name] = value
    if kind == "EC" and material["crv"] not in _CURVES.values():
        return None
    try:
        key = RSAKey.import_key(material) if kind == "RSA" else ECKey.import_key(material)
        if isinstance(key, RSAKey) and not RSA_BITS[0] <= key.raw_value.key_size <= RSA_BITS[1]:
            return None
    except (JoseError, ValueError, TypeError):
        return None
    return VerificationKey(key_id, algorithm, tuple(map(str, material.values())), key)


def find_key(keys: frozenset[VerificationKey], token: UnverifiedToken) -> VerificationKey | None:
    """The key that a token names, or the only one that suits it if it names none."""
    suitable = [key for key in keys if key.suits(token.algorithm)]
    if token.key_id is not None:
        return next((key for key in suitable if key.key_id == token.key_id), None)
    return suitable[0] if len(suitable) == 1 else None


def verify(token: UnverifiedToken, key: VerificationKey) -> None:
    """Raises AuthenticationError unless the key signed the token."""
    from joserfc.errors import JoseError
    from joserfc.jws import JWSRegistry, deserialize_compact

    registry = JWSRegistry(algorithms=[token.algorithm], strict_check_header=False)
    registry.max_header_length = MAX_HEADER
    try:
        deserialize_compact(token.text, key.key, registry=registry)
    except (JoseError, ValueError, RecursionError) as error:
        raise AuthenticationError(f"the signature of the bearer token does not hold: {error}") from None
