"""What a device connection needs from the rest of the hub, and how a device proves who it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from methodhub.core.access import AuthenticationError, Credential, Policies, check_device_token
from methodhub.core.bearer.tokens import BearerTokens
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.certificates.rules import check_certificate
from methodhub.core.clock import Clock
from methodhub.core.connections import ConnectionTable
from methodhub.core.deadlines import Deadlines
from methodhub.core.identity import Identity, Target
from methodhub.core.ports import HubStore
from methodhub.core.registry import Registry
from methodhub.core.throttles.throttles import Throttles
from methodhub.core.twins.twins import Twins
from methodhub.iothub.rest import MethodRules
from methodhub.iothub.sas import MalformedToken, parse_token
from methodhub.metrics import Metrics


@dataclass(frozen=True, slots=True)
class DeviceServices:
    registry: Registry
    policies: Policies
    table: ConnectionTable
    store: HubStore
    deadlines: Deadlines
    clock: Clock
    metrics: Metrics
    rules: MethodRules
    authorities: CertificateAuthorities
    twins: Twins
    bearer: BearerTokens | None = None
    throttles: Throttles | None = None
    next_generation: Callable[[], Awaitable[int]] | None = None
    """Orders the connections of a target over all nodes; None where there is one."""

    async def generation(self) -> int | None:
        """Of a connection that has just authenticated [HUB-takeover]. Raises StoreUnavailable."""
        return None if self.next_generation is None else await self.next_generation()


def token_path(target: Target) -> tuple[str, ...]:
    """The path that a device token must cover."""
    if target.module_id:
        return ("devices", target.device_id, "modules", target.module_id)
    return ("devices", target.device_id)


def authenticate_with_token(services: DeviceServices, identity: Identity, text: str) -> tuple[Credential, float]:
    """The credential behind a token and its expiry (seconds since 1970, UTC). Raises AuthenticationError."""
    try:
        token = parse_token(text)
    except MalformedToken as error:
        raise AuthenticationError(f"the token cannot be read: {error}") from None
    # A module's own key signs for the module; its device's key does not [HUB-module-key].
    credential = check_device_token(
        token, token_path(identity.target), identity.authentication, services.policies, services.clock.wall()
    )
    return credential, token.expiry


def authenticate_with_certificate(
    services: DeviceServices, identity: Identity, certificates: tuple[bytes, ...]
) -> Credential:
    """The credential behind the chain that a peer showed (`Peer.certificates`). It does not expire while the device is
    connected (`wire/device.md` 1.6). Raises AuthenticationError."""
    return check_certificate(
        certificates, identity.target, identity.authentication, services.authorities.vouch, services.clock.wall()
    )
