"""What the tokens of one AMQP connection allow: whom it may speak for, and whether it is a back end's."""

from __future__ import annotations

from dataclasses import dataclass

from methodhub.core.access import (
    ACTIONS_OF_RIGHT,
    CLOCK_SKEW,
    AuthenticationError,
    Credential,
    KeyCredential,
    Right,
    SasToken,
    check_device_token,
    is_still_valid,
    is_within_any,
)
from methodhub.core.bearer.claims import is_bearer
from methodhub.core.errors import HubError
from methodhub.core.identity import Identity, Target
from methodhub.device.admission import ATTEMPTS
from methodhub.device.services import DeviceServices, authenticate_with_certificate, token_path
from methodhub.iothub.sas import MalformedToken, parse_token


class TooManyTokens(Exception):
    """The connection holds as many tokens as one may."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that was accepted. `target`: whose key signed it; None for a policy's, which covers what `paths` do, and
    for a bearer token, which is no `credential` of any device."""

    target: Target | None
    paths: tuple[tuple[str, ...], ...]
    credential: Credential | None
    rights: Right
    expiry: float


def target_of(paths: tuple[tuple[str, ...], ...]) -> list[Target]:
    """Whom the readings of a token's path may name."""
    targets = []
    for path in paths:
        if len(path) == 2 and path[0].lower() == "devices":
            targets.append(Target(path[1]))
        elif len(path) == 4 and path[0].lower() == "devices" and path[2].lower() == "modules":
            targets.append(Target(path[1], path[3]))
    return targets


def named_by(text: str) -> str:
    """Whom a token says it is for, for the log; empty where it cannot be read."""
    try:
        return ", ".join(map(str, target_of(parse_token(text).paths[:1])))
    except MalformedToken:
        return ""


class Grants:
    """The tokens of one connection, by what they are for: a newer one for the same replaces it [HUB-token-renewal]."""

    def __init__(self, services: DeviceServices, limit: int) -> None:
        self._services = services
        self._limit = limit
        self._grants: dict[tuple[str | None, tuple[tuple[str, ...], ...]], Grant] = {}

    def __bool__(self) -> bool:
        return bool(self._grants)

    async def put(self, text: str) -> Grant:
        """Accept a token. Raises AuthenticationError, HubError 404001 or 404010 for an identity that does not exist,
        and TooManyTokens."""
        if is_bearer(text.encode()):
            name, grant = await self._bearer_grant(text)
            return self._keep((name, ()), grant)
        try:
            token = parse_token(text)
        except MalformedToken as error:
            raise AuthenticationError(f"the token cannot be read: {error}") from None
        policy = self._services.policies.get(token.policy_name) if token.policy_name else None
        grant = self._policy_grant(token) if policy is not None else await self._identity_grant(token)
        return self._keep((token.policy_name, token.paths), grant)

    def _keep(self, key: tuple[str | None, tuple[tuple[str, ...], ...]], grant: Grant) -> Grant:
        if key not in self._grants and len(self._grants) >= self._limit:
            raise TooManyTokens
        self._grants[key] = grant
        return grant

    def _policy_grant(self, token: SasToken) -> Grant:
        policy, key = self._services.policies.verify(token, self._services.clock.wall())
        if not policy.rights & (Right.DEVICE_CONNECT | Right.SERVICE_CONNECT):
            raise AuthenticationError(f"policy {policy.name!r} has neither DeviceConnect nor ServiceConnect")
        return Grant(None, token.paths, KeyCredential(policy.name, key), policy.rights, token.expiry)

    async def _bearer_grant(self, text: str) -> tuple[str, Grant]:
        """[HUB-bearer-amqp] Whose it is, and that it lets a back end in: nobody speaks for a device with it."""
        bearer = self._services.bearer
        if bearer is None:
            raise AuthenticationError("no issuer of bearer-tokens is configured")
        principal = await bearer.authenticate_later(text.encode("latin-1", "replace"))
        if not principal.actions & ACTIONS_OF_RIGHT[Right.SERVICE_CONNECT]:
            raise AuthenticationError(f"{principal.name!r} may do nothing that a back end does over AMQP")
        return f"Bearer {principal.name}", Grant(None, (), None, Right.SERVICE_CONNECT, principal.expiry)

    async def _identity_grant(self, token: SasToken) -> Grant:
        refusal: HubError | None = None
        for target in target_of(token.paths):
            try:
                identity, _ = await self._services.registry.active(target)
            except HubError as error:
                refusal = refusal or error
                continue
            credential = check_device_token(
                token,
                token_path(target),
                identity.authentication,
                self._services.policies,
                self._services.clock.wall(),
            )
            return Grant(target, token.paths, credential, Right.DEVICE_CONNECT, token.expiry)
        if refusal is not None:
            raise refusal
        raise AuthenticationError("the token is for no device or module, and signed by no policy")

    def names_anybody(self) -> bool:
        """Whether a token of an identity's own is among them."""
        return any(grant.target is not None for grant in self._grants.values())

    def drop(self, target: Target) -> None:
        """Forget the token of one identity; a policy's stays, since it speaks for others, too."""
        self._grants = {key: grant for key, grant in self._grants.items() if grant.target != target}

    def expired(self, now: float) -> list[Grant]:
        """Those that are over, with their grace, and those of policies' keys that are gone; they are dropped."""
        over = {
            key: grant
            for key, grant in self._grants.items()
            if grant.expiry + CLOCK_SKEW <= now or self._is_revoked(grant)
        }
        for key in over:
            del self._grants[key]
        return list(over.values())

    def _is_revoked(self, grant: Grant) -> bool:
        credential = grant.credential
        if not isinstance(credential, KeyCredential) or credential.policy_name is None:
            return False
        return not self._services.policies.is_valid(credential)

    def next_expiry(self) -> float | None:
        """Seconds since 1970, UTC, grace included."""
        return min((grant.expiry for grant in self._grants.values()), default=None)

    def is_service(self) -> bool:
        """Whether a back end's token is among them."""
        return any(grant.rights & Right.SERVICE_CONNECT and grant.target is None for grant in self._grants.values())

    def find(self, target: Target) -> Grant | None:
        """The token by which the connection may speak for a target: its own, else a policy's."""
        found = [
            grant
            for grant in self._grants.values()
            if grant.target == target
            or (
                grant.target is None
                and grant.rights & Right.DEVICE_CONNECT
                and is_within_any(grant.paths, token_path(target))
            )
        ]
        return max(found, key=lambda grant: (grant.target is not None, grant.expiry), default=None)


async def authorize_target(
    services: DeviceServices, grants: Grants, target: Target, certificates: tuple[bytes, ...]
) -> tuple[Identity, Identity, Credential, int | None]:
    """Identity, device and the credential by which a connection speaks for it: a token, else its certificate; and the
    generation that orders it among those to other nodes.

    [HUB-throttle-connections] Raises AuthenticationError; HubError 404001 or 404010, 429002 or 429003.
    """
    for attempt in range(ATTEMPTS):
        identity, device = await services.registry.active(target)
        check_grant(services, grants, identity, certificates)
        if services.throttles is not None and attempt == 0:
            await services.throttles.connections.wait()
        generation = await services.generation()
        if services.registry.is_current(identity, device):
            # Once more: a policy or an authority may have changed meanwhile.
            return identity, device, check_grant(services, grants, identity, certificates), generation
    raise AuthenticationError("the identity kept changing while its link was attached")


def check_grant(
    services: DeviceServices, grants: Grants, identity: Identity, certificates: tuple[bytes, ...]
) -> Credential:
    """The credential that the connection holds for an identity, judged as it is now: its key may have been changed
    since the token was put. Raises AuthenticationError."""
    grant = grants.find(identity.target)
    if grant is not None and grant.credential is not None:
        if not is_still_valid(grant.credential, identity.authentication, services.policies, services.authorities):
            raise AuthenticationError("what signed the connection's token is none of the identity's keys")
        return grant.credential
    if certificates:
        return authenticate_with_certificate(services, identity, certificates)
    raise AuthenticationError("the connection holds neither a token nor a certificate for it")
