"""What the service's routes need from the rest of the hub, and how a back end proves who it is."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from methodhub.core.access import ADMINISTRATOR, AuthenticationError, Policies, Principal, unauthorized
from methodhub.core.bearer.claims import is_bearer
from methodhub.core.bearer.tokens import BearerTokens
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.jobs.jobs import Jobs
from methodhub.core.methods import Methods
from methodhub.core.policies import PolicyChanges
from methodhub.core.presence import Presence
from methodhub.core.query.answers import Answers
from methodhub.core.query.continuation import Continuations
from methodhub.core.registry import Registry
from methodhub.core.registry.bulk import Bulk
from methodhub.core.throttles.throttles import Throttles
from methodhub.core.twins.twins import Twins
from methodhub.iothub.rest import MethodRules
from methodhub.iothub.sas import MalformedToken, parse_token
from methodhub.metrics import Metrics


class RequestIds:
    """Ids for `x-ms-request-id`: GUIDs whose first part is random per hub, and whose last counts."""

    def __init__(self) -> None:
        random = secrets.token_hex(10)
        self._prefix = f"{random[:8]}-{random[8:12]}-{random[12:16]}-{random[16:20]}-".encode()
        self._count = 0

    def next(self) -> bytes:
        self._count += 1
        return b"%b%012x" % (self._prefix, self._count)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bytes and seconds of one request (`body` counts both packed and unpacked)."""

    body: int = 262_144
    head: int = 65_536
    keep_alive: float = 120.0
    request_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class HubFacts:
    """What the hub tells an administrator about itself."""

    version: str
    hostnames: tuple[str, ...]
    https_port: int | None
    mqtt_port: int | None
    amqp_port: int | None
    ca_file: str


@dataclass(frozen=True, slots=True)
class ApiServices:
    registry: Registry
    twins: Twins
    bulk: Bulk
    answers: Answers
    continuations: Continuations
    jobs: Jobs
    presence: Presence
    policies: Policies
    policy_changes: PolicyChanges
    authorities: CertificateAuthorities
    clock: Clock
    metrics: Metrics
    rules: MethodRules
    limits: HttpLimits
    facts: Callable[[], HubFacts]
    is_ready: Callable[[], bool]
    deadlines: Deadlines
    methods: Methods | None = None
    """None where no hub runs: the data alone can be administered."""
    bearer: BearerTokens | None = None
    """None where no issuer of bearer tokens is configured."""
    throttles: Throttles | None = None
    is_basic_tier: bool = False
    metrics_of_workers: Callable[[], Awaitable[bytes]] | None = None
    """Where several processes are this hub: what all of them count, as Prometheus text."""
    request_ids: RequestIds = field(default_factory=RequestIds)


def authenticate(services: ApiServices, header: bytes | None) -> Principal:
    """The principal of an Authorization header. Raises 401002, whose reason is for the log; KeysWanted for a bearer
    token whose issuer must be asked first: `authenticate_later` does."""
    if header is None:
        raise unauthorized("there is no Authorization header")
    now = services.clock.wall()
    principal = services.policies.cached(header, now)
    if principal is not None:
        return principal
    try:
        if is_bearer(header):
            if services.bearer is None:
                raise AuthenticationError("no issuer of bearer-tokens is configured")
            return services.bearer.authenticate(header)
        return services.policies.authenticate(header, parse_token(header.decode("latin-1")), now)
    except (MalformedToken, AuthenticationError) as error:
        raise unauthorized(str(error)) from None


async def authenticate_later(services: ApiServices, header: bytes) -> Principal:
    """The same for a bearer token, after a bounded wait for its issuer. Raises 401002."""
    assert services.bearer is not None
    try:
        return await services.bearer.authenticate_later(header)
    except AuthenticationError as error:
        raise unauthorized(str(error)) from None


__all__ = ["ADMINISTRATOR", "ApiServices", "HttpLimits", "HubFacts", "RequestIds", "authenticate", "authenticate_later"]
