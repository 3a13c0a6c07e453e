"""Whom the hub believes, and what a role or scope in a token of theirs lets its holder do (`wire/service.md` 2.3).
Knows no token and no key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from methodhub.core.access import Action

AUDIENCE = "https://iothubs.azure.net"
"""Whom SDKs ask their tokens for."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""All of them asymmetric: with HMAC, whoever knows the public key could sign [HUB-bearer-algorithm]."""

CLAIMS = ("roles", "scp", "scope")

PREFIX = "microsoft.devices/iothubs/"

_OTHER_ACTIONS = (
    "cloudToDeviceMessages/send/action",
    "cloudToDeviceMessages/feedback/action",
    "fileUpload/notifications/action",
    "configurations/read",
    "configurations/write",
    "configurations/delete",
    "configurations/applyToEdgeDevice/action",
    "configurations/testQueries/action",
)
"""Data actions of the original for which the hub has no routes: they may be named, and give nothing."""

_PATTERN = re.compile(r"(\*/)?[a-z]*(/[a-z]+)*/?\*?")

ROLES: Mapping[str, frozenset[Action]] = {
    "IoT Hub Data Contributor": frozenset(Action),
    "IoT Hub Data Reader": frozenset(action for action in Action if action.endswith("/read")),
    "IoT Hub Registry Contributor": frozenset(action for action in Action if action.startswith("devices/")),
    "IoT Hub Twin Contributor": frozenset(action for action in Action if action.startswith("twins/")),
}
"""The built-in roles of the original."""

DEFAULT_GRANTS: Mapping[str, frozenset[Action]] = {
    spelling: actions for name, actions in ROLES.items() for spelling in (name, name.replace(" ", ""))
}
"""The built-in roles by their names, also without spaces: a scope has none, nor has the value of an Entra app role."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """`url`: to the letter what its tokens say as `iss`. `claims`: where its tokens name roles or scopes, which
    `grants` turns into actions. `jwks_url`: where its keys are; None: its discovery document says so."""

    url: str
    audiences: frozenset[str] = frozenset({AUDIENCE})
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    claims: tuple[str, ...] = CLAIMS
    grants: Mapping[str, frozenset[Action]] = field(default_factory=lambda: DEFAULT_GRANTS)
    jwks_url: str | None = None


def actions_of_names(names: Iterable[str]) -> frozenset[Action]:
    """What data actions or built-in roles come to: `Microsoft.Devices/IotHubs/twins/read`, `twins/read`, `twins/*`,
    `*/read`, in any case. Raises ValueError for one that names nothing: it would quietly give nothing."""
    return frozenset().union(*(_actions_of_name(name.strip()) for name in names))


def _actions_of_name(name: str) -> frozenset[Action]:
    role = {known.lower(): actions for known, actions in DEFAULT_GRANTS.items()}.get(name.lower())
    if role is not None:
        return role
    pattern = name.lower().removeprefix(PREFIX)
    if not pattern or pattern.count("*") > 1 or not _PATTERN.fullmatch(pattern):
        raise ValueError(f"{name!r} is neither a data action nor a built-in role")
    start, star, end = pattern.partition("*")

    def is_meant(action: str) -> bool:
        action = action.lower()
        if not star:
            return action == start
        return action.startswith(start) and action.endswith(end)

    if not any(is_meant(action) for action in (*Action, *_OTHER_ACTIONS)):
        raise ValueError(f"{name!r} names no data action")
    return frozenset(action for action in Action if is_meant(action))
