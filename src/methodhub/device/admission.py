"""Letting a device in over MQTT: CONNECT as a list of steps, each of which may refuse (`wire/device.md` 1.2 to 1.6)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from methodhub.core.access import AuthenticationError, Credential
from methodhub.core.errors import HubError
from methodhub.core.identity import Identity, Target
from methodhub.core.ports import Session, StoreUnavailable
from methodhub.core.throttles.throttles import Throttles
from methodhub.device.services import DeviceServices, authenticate_with_certificate, authenticate_with_token
from methodhub.iothub.mqtt import ConnectReturnCode, UserName, client_id_of, parse_user_name
from methodhub.net.stream import Peer
from methodhub.wire.mqtt.packets import Connect

log = structlog.get_logger()

ATTEMPTS = 3
"""How often admission starts anew when the identity changes under it."""


class Refused(Exception):
    """A CONNECT that is not accepted: the CONNACK code for the device, and the reason for the log."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Admitted:
    identity: Identity
    device: Identity
    credential: Credential
    token_expiry: float | None
    """Seconds since 1970, UTC; None for a certificate, which does not end a connection."""
    session: Session | None
    """What is stored for CleanSession=0."""
    model_id: str | None = None
    """What the device says it is."""
    generation: int | None = None
    """Orders this connection among those to other nodes."""


async def admit(services: DeviceServices, connect: Connect, peer: Peer) -> Admitted:
    """Everything between CONNECT and its acceptance. Raises Refused."""
    user_name = read_user_name(connect)
    check_client_id(connect, user_name)
    check_host(services, user_name)
    for attempt in range(ATTEMPTS):
        identity, device = await find_identity(services, user_name.target)
        versions = services.authorities.version, services.policies.version
        credential, expiry = check_credential(services, identity, connect, peer)
        check_enabled(identity, device)
        if services.throttles is not None and attempt == 0:
            await wait_turn(services.throttles)
        session = await recall_session(services, identity, connect.clean_session)
        generation = await draw_generation(services)
        now = services.authorities.version, services.policies.version
        if services.registry.is_current(identity, device) and now == versions:
            return Admitted(identity, device, credential, expiry, session, user_name.model_id, generation)
    raise Refused(ConnectReturnCode.SERVER_UNAVAILABLE, "the identity kept changing while the device connected")


async def draw_generation(services: DeviceServices) -> int | None:
    try:
        return await services.generation()
    except StoreUnavailable as error:
        log.warning("a device's connection could not be numbered", error=str(error))
        raise Refused(ConnectReturnCode.SERVER_UNAVAILABLE, "the store is away") from None


def read_user_name(connect: Connect) -> UserName:
    try:
        return parse_user_name(connect.user_name or "")
    except ValueError as error:
        raise Refused(ConnectReturnCode.NOT_AUTHORIZED, str(error)) from None


def check_client_id(connect: Connect, user_name: UserName) -> None:
    """The client id is the identity, to the letter. [MQTT-3.1.3-8] none at all has a code of its own."""
    if not connect.client_id:
        raise Refused(ConnectReturnCode.IDENTIFIER_REJECTED, "the client id is empty")
    if connect.client_id != client_id_of(user_name.target):
        raise Refused(
            ConnectReturnCode.NOT_AUTHORIZED,
            f"the client id {connect.client_id[:260]!r} is not the identity {str(user_name.target)!r} of the user name",
        )


def check_host(services: DeviceServices, user_name: UserName) -> None:
    if user_name.host not in services.policies.hub_names:
        raise Refused(
            ConnectReturnCode.NOT_AUTHORIZED,
            f"the user name is for the host {user_name.host[:255]!r}, which is none of this hub's names; "
            "if it should be, start the hub with --hostname for it",
        )


@contextmanager
def asking(failure: str, target: Target, reason: str) -> Iterator[None]:
    """[HUB-connack] Where the store cannot tell, the device is to come again."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        if isinstance(error, StoreUnavailable):
            log.warning(failure, target=str(target), error=str(error))
        else:
            log.exception(failure, target=str(target))
        raise Refused(ConnectReturnCode.SERVER_UNAVAILABLE, reason) from None


async def find_identity(services: DeviceServices, target: Target) -> tuple[Identity, Identity]:
    with asking("identity look-up failed", target, "the identity registry is away"):
        device = await services.registry.find(target.device)
        identity = await services.registry.find(target) if target.module_id else device
    if device is None or identity is None:
        raise Refused(ConnectReturnCode.NOT_AUTHORIZED, f"there is no identity {str(target)!r}")
    return identity, device


def check_enabled(identity: Identity, device: Identity) -> None:
    """[HUB-connack] Unknown is 5; disabled is 3, so that the device's own retry finds it enabled again. Told only to
    whoever has the key."""
    if not (device.enabled and identity.enabled):
        raise Refused(
            ConnectReturnCode.SERVER_UNAVAILABLE, f"the identity {str(identity.target)!r} or its device is disabled"
        )


def check_credential(
    services: DeviceServices, identity: Identity, connect: Connect, peer: Peer
) -> tuple[Credential, float | None]:
    """[HUB-credential] A password is a token; without one the certificate counts (`wire/device.md` 1.4)."""
    try:
        if connect.password:
            return authenticate_with_token(services, identity, connect.password.decode("utf-8", "replace"))
        if not peer.certificates:
            raise AuthenticationError("there is neither a token in the password nor a client certificate")
        return authenticate_with_certificate(services, identity, peer.certificates), None
    except AuthenticationError as error:
        raise Refused(ConnectReturnCode.NOT_AUTHORIZED, str(error)) from None


async def wait_turn(throttles: Throttles) -> None:
    """[HUB-throttle-connections] CONNACK waits; a device that would wait too long is told to come again."""
    try:
        await throttles.connections.wait()
    except HubError as error:
        raise Refused(ConnectReturnCode.SERVER_UNAVAILABLE, error.message) from None


async def recall_session(services: DeviceServices, identity: Identity, clean: bool) -> Session | None:
    """[MQTT-3.1.2-4] [MQTT-3.1.2-6] The stored session, or with CleanSession=1 none and what was stored is dropped."""
    with asking("device session could not be read", identity.target, "the session store is away"):
        session = await services.store.session(identity.target, identity.generation_id)
        if session is not None and clean:
            await services.store.delete_session(identity.target)
            return None
    return session
