"""Who may do what: shared access policies, tokens, principals and the rights that a route demands."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, AuthenticationType

CLOCK_SKEW = 300
"""Seconds by which a peer's clock may differ (`wire/device.md` 5.1)."""


class Right(Flag):
    """A permission of a policy (`wire/service.md` 2.2)."""

    REGISTRY_READ = auto()
    REGISTRY_WRITE = auto()
    SERVICE_CONNECT = auto()
    DEVICE_CONNECT = auto()


RIGHT_NAMES = {
    Right.REGISTRY_READ: "RegistryRead",
    Right.REGISTRY_WRITE: "RegistryWrite",
    Right.SERVICE_CONNECT: "ServiceConnect",
    Right.DEVICE_CONNECT: "DeviceConnect",
}

ALL_RIGHTS = Right.REGISTRY_READ | Right.REGISTRY_WRITE | Right.SERVICE_CONNECT | Right.DEVICE_CONNECT


class Action(StrEnum):
    """What a route lets its caller do; the last part of a data action's name (`wire/service.md` 2.3)."""

    DEVICES_READ = "devices/read"
    DEVICES_WRITE = "devices/write"
    DEVICES_DELETE = "devices/delete"
    TWINS_READ = "twins/read"
    TWINS_WRITE = "twins/write"
    JOBS_READ = "jobs/read"
    JOBS_WRITE = "jobs/write"
    JOBS_DELETE = "jobs/delete"
    METHODS_INVOKE = "directMethods/invoke/action"
    STATISTICS_READ = "statistics/read"
    PURGE_MESSAGES = "cloudToDeviceMessages/queue/purge/action"


ACTIONS_OF_RIGHT: dict[Right, frozenset[Action]] = {
    Right.REGISTRY_READ: frozenset({Action.DEVICES_READ, Action.STATISTICS_READ}),
    Right.REGISTRY_WRITE: frozenset({Action.DEVICES_WRITE, Action.DEVICES_DELETE}),
    Right.SERVICE_CONNECT: frozenset(
        {
            Action.TWINS_READ,
            Action.TWINS_WRITE,
            Action.JOBS_READ,
            Action.JOBS_WRITE,
            Action.JOBS_DELETE,
            Action.METHODS_INVOKE,
            Action.PURGE_MESSAGES,
        }
    ),
    Right.DEVICE_CONNECT: frozenset(),
}
"""What a policy's right lets its holder do (`wire/service.md` 2.2)."""


def actions_of(rights: Iterable[Right]) -> frozenset[Action]:
    return frozenset().union(*(ACTIONS_OF_RIGHT[right] for right in rights))


DEFAULT_POLICIES = {
    "iothubowner": ALL_RIGHTS,
    "service": Right.SERVICE_CONNECT,
    "device": Right.DEVICE_CONNECT,
    "registryRead": Right.REGISTRY_READ,
    "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A named pair of keys and the rights they give. Keys are base64 text."""

    name: str
    rights: Right
    primary_key: str = field(repr=False)
    secondary_key: str = field(repr=False)


def generate_key() -> str:
    """A new random key: base64 of 32 bytes."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def default_policies() -> list[Policy]:
    return [Policy(name, rights, generate_key(), generate_key()) for name, rights in DEFAULT_POLICIES.items()]


@dataclass(frozen=True, slots=True)
class SasToken:
    """A parsed token. `signed_text` is the raw resource, a line feed and the expiry: what the signature covers."""

    host: str
    """Lower case, without a port."""
    paths: tuple[tuple[str, ...], ...]
    """The readings of the segments behind the host: decoded once and, where they differ, twice and not at all."""
    expiry: float
    """Seconds since 1970, UTC."""
    policy_name: str | None
    signature: bytes = field(repr=False)
    signed_text: bytes = field(repr=False)


EVERYWHERE: tuple[tuple[str, ...], ...] = ((),)


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated back end: what it may do, and the paths below which it may (empty path: everywhere)."""

    name: str
    actions: frozenset[Action]
    scopes: tuple[tuple[str, ...], ...] = EVERYWHERE
    expiry: float = field(default=0.0, compare=False)
    """Of its token, in seconds since 1970, UTC."""


ADMINISTRATOR = Principal("administrator", frozenset(Action))
"""Whoever may open the UNIX socket of the data directory."""


class AuthenticationError(Exception):
    """A credential that does not hold. The text is for the log and never contains the credential."""


def sign(key: str, text: bytes) -> bytes:
    """HMAC-SHA256 with a base64 key. Raises ValueError if the key is not base64."""
    return hmac.digest(base64.b64decode(key, validate=True), text, hashlib.sha256)


def check_token(token: SasToken, keys: Iterable[str], hub_names: frozenset[str], now: float) -> str:
    """The one of the keys that signed the token. Raises AuthenticationError unless the token is meant for this hub,
    still valid and signed with one of them.

    [HUB-sas-signature] over the raw resource text, in constant time; [HUB-clock-skew] five minutes.
    """
    if token.host not in hub_names:
        raise AuthenticationError(f"the token is for the host {token.host!r}, which is none of this hub's names")
    if token.expiry + CLOCK_SKEW < now:
        raise AuthenticationError(f"the token expired {now - token.expiry:.0f} seconds ago")
    matched = None
    for key in keys:
        try:
            signed = sign(key, token.signed_text)
        except (binascii.Error, ValueError):
            continue
        if hmac.compare_digest(signed, token.signature):
            matched = key
    if matched is None:
        raise AuthenticationError("the signature matches neither the primary nor the secondary key")
    return matched


def is_within(scope: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether `path` lies below `scope`, by whole segments; keywords in any case, ids exactly."""
    if len(scope) > len(path):
        return False
    return all(
        part.lower() == own.lower() if index % 2 == 0 else part == own
        for index, (part, own) in enumerate(zip(scope, path, strict=False))
    )


def is_within_any(scopes: Iterable[tuple[str, ...]], path: tuple[str, ...]) -> bool:
    return any(is_within(scope, path) for scope in scopes)


class Policies:
    """The hub's policies in memory, and a bounded cache of tokens that were verified against them."""

    def __init__(self, hub_names: frozenset[str], cache_size: int = 10_000) -> None:
        self.hub_names = hub_names
        self.version = 0
        """Counts up with each change of what callers are verified against."""
        self._policies: dict[str, Policy] = {}
        self._cache: OrderedDict[bytes, Principal] = OrderedDict()
        self._cache_size = cache_size
        self.watchers: set[Callable[[], None]] = set()
        """Whoever holds tokens of policies beyond one request, and asks again whether they hold."""

    def load(self, policies: Iterable[Policy]) -> None:
        """Take these policies. What was verified against the former ones is forgotten."""
        self._policies = {policy.name: policy for policy in policies}
        self.forget()

    def forget(self) -> None:
        """Nothing that was verified before, against policies or otherwise, is to be believed unseen."""
        self.version += 1
        self._cache.clear()

    def tell_watchers(self) -> None:
        """The policies were changed: every token that is held is looked at once more."""
        for watcher in list(self.watchers):
            watcher()

    def is_valid(self, credential: KeyCredential) -> bool:
        """Whether the key is still one of the policy's that it was of."""
        policy = self._policies.get(credential.policy_name or "")
        return policy is not None and credential.key in {policy.primary_key, policy.secondary_key}

    def all(self) -> list[Policy]:
        return list(self._policies.values())

    def get(self, name: str) -> Policy | None:
        return self._policies.get(name)

    def cached(self, text: bytes, now: float) -> Principal | None:
        """The principal of a token text that was verified before and still holds."""
        principal = self._cache.get(text)
        return None if principal is None or principal.expiry < now else principal

    def authenticate(self, text: bytes, token: SasToken, now: float) -> Principal:
        """The principal of a policy token. `text` is the header value it was parsed from.

        Raises AuthenticationError.
        """
        policy, _ = self.verify(token, now)
        principal = Principal(policy.name, actions_of(policy.rights), token.paths, token.expiry)
        self._cache[text] = principal
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return principal

    def verify(self, token: SasToken, now: float) -> tuple[Policy, str]:
        """The policy that signed the token, and its key that did. Raises AuthenticationError."""
        if token.policy_name is None:
            raise AuthenticationError("the token names no policy (skn)")
        policy = self._policies.get(token.policy_name)
        if policy is None:
            raise AuthenticationError(f"there is no policy {token.policy_name!r}")
        return policy, check_token(token, (policy.primary_key, policy.secondary_key), self.hub_names, now)


def unauthorized(reason: str) -> HubError:
    """[HUB-unauthorized] The peer learns only that it may not; the reason is for the log."""
    return HubError(ErrorCode.IotHubUnauthorizedAccess, "Unauthorized", reason=reason)


def authorize(principal: Principal, action: Action, path: tuple[str, ...]) -> None:
    """Raise 401002 unless the principal may do this at this path."""
    if action not in principal.actions:
        raise unauthorized(f"{principal.name!r} may not do {action}")
    if principal.scopes != EVERYWHERE and not is_within_any(principal.scopes, path):
        raise unauthorized(f"the token of {principal.name!r} is scoped to /{'/'.join(principal.scopes[0])}")


@dataclass(frozen=True, slots=True)
class KeyCredential:
    """A key that let a device connect: its own, or one of the policy named here."""

    policy_name: str | None
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CertificateCredential:
    """A certificate that let a device connect: its digests, and the SHA-256 of the authority that vouched for it, or
    None where its thumbprint did."""

    sha1: bytes
    sha256: bytes
    authority: bytes | None = None


Credential = KeyCredential | CertificateCredential


def check_device_token(
    token: SasToken,
    path: tuple[str, ...],
    authentication: Authentication,
    policies: Policies,
    now: float,
) -> Credential:
    """The credential by which the token lets the identity at `path` connect. Raises AuthenticationError.

    [HUB-certificate-only] No token, of a policy neither, stands in for a certificate.
    """
    if authentication.type.is_certificate:
        raise AuthenticationError(f"the identity proves itself by {authentication.type.value}, not by a token")
    if not is_within_any(token.paths, path):
        raise AuthenticationError(f"the token is scoped to /{'/'.join(token.paths[0])}")
    if token.policy_name is not None and policies.get(token.policy_name) is not None:
        policy, key = policies.verify(token, now)
        if not policy.rights & Right.DEVICE_CONNECT:
            raise AuthenticationError(f"policy {policy.name!r} lacks the right DeviceConnect")
        return KeyCredential(policy.name, key)
    if not authentication.keys:
        raise AuthenticationError("the identity has no keys")
    return KeyCredential(None, check_token(token, authentication.keys, policies.hub_names, now))


def matches_thumbprint(shown: CertificateCredential, authentication: Authentication) -> bool:
    """[HUB-thumbprint] SHA-1 or SHA-256, primary or secondary, in any case; whoever issued it."""
    wanted = (authentication.primary_thumbprint, authentication.secondary_thumbprint)
    pins = [bytes.fromhex(text) for text in wanted if text]
    compared = [hmac.compare_digest(pin, digest) for pin in pins for digest in (shown.sha1, shown.sha256)]
    return any(compared)


def is_still_valid(
    credential: Credential, authentication: Authentication, policies: Policies, authorities: Container[bytes]
) -> bool:
    """Whether a credential that let a device connect would still do so. `authorities`: digests of those that vouch."""
    if isinstance(credential, CertificateCredential):
        if credential.authority is None:
            is_pinned = authentication.type is AuthenticationType.SELF_SIGNED
            return is_pinned and matches_thumbprint(credential, authentication)
        is_signed = authentication.type is AuthenticationType.CERTIFICATE_AUTHORITY
        return is_signed and credential.authority in authorities
    if authentication.type.is_certificate:
        return False
    if credential.policy_name is None:
        return credential.key in authentication.keys
    return policies.is_valid(credential)
