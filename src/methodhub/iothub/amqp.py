"""Addresses, properties and SASL texts of the AMQP dialect (`wire/device.md` 3)."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, NamedTuple
from urllib.parse import unquote
from uuid import UUID

from methodhub.core.identity import ID_PATTERN, Target
from methodhub.core.ports import CloseReason

CBS_ADDRESS = "$cbs"
METHOD_NAME = "IoThub-methodname"
STATUS = "IoThub-status"
MODEL_ID = "com.microsoft:model-id"
DESIRED_NOTIFICATIONS = "/notifications/twin/properties/desired"
SAS_TOKEN_TYPE = "servicebus.windows.net:sastoken"  # noqa: S105 - the name of a kind of token
TOKEN_TYPES = (SAS_TOKEN_TYPE, "bearer", "jwt")
"""Node gives a bearer token the first of them, Python the second: what a token is, it says itself."""

MAX_PUT_TOKEN_IDENTITIES = 1_000
"""Identities, and tokens, that one authenticated connection may have."""
MAX_SESSIONS = MAX_PUT_TOKEN_IDENTITIES + 2
MAX_LINKS = 8 * MAX_PUT_TOKEN_IDENTITIES + 2
"""An identity has up to six: telemetry, messages, two of methods and two of its twin; and some SDKs a session each."""

UNAUTHORIZED = "amqp:unauthorized-access"
NOT_FOUND = "amqp:not-found"
NOT_ALLOWED = "amqp:not-allowed"
NOT_IMPLEMENTED = "amqp:not-implemented"
RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
THROTTLED = "com.microsoft:device-container-throttled"
LINK_STOLEN = "amqp:link:stolen"
DETACH_FORCED = "amqp:link:detach-forced"

CLOSE_CONDITIONS: dict[CloseReason, tuple[str, str]] = {
    CloseReason.TAKEN_OVER: (LINK_STOLEN, "The same identity connected again."),
    CloseReason.DELETED: (NOT_FOUND, "The identity was deleted."),
    CloseReason.DISABLED: (UNAUTHORIZED, "The identity was disabled."),
    CloseReason.CREDENTIALS_CHANGED: (UNAUTHORIZED, "Token Invalid."),
    CloseReason.TOKEN_EXPIRED: (UNAUTHORIZED, "Token Invalid."),
    CloseReason.KEEP_ALIVE: (RESOURCE_LIMIT, "Nothing was heard for too long."),
    CloseReason.PROTOCOL_ERROR: (NOT_ALLOWED, "The protocol was broken."),
    CloseReason.SLOW_READER: (RESOURCE_LIMIT, "Too much is unread."),
    CloseReason.STOPPING: (DETACH_FORCED, "Server busy, please retry operation"),
}
"""What a device is told when the hub ends its links: `wire/device.md` 3.8, and no more than it may know."""


class Node(Enum):
    """What an address stands for."""

    CBS = auto()
    METHODS = auto()
    TWIN = auto()
    TELEMETRY = auto()
    """`messages/events`: telemetry where the peer sends, inputs of a module where it receives."""
    DEVICE_BOUND = auto()
    """`messages/devicebound`: messages from the cloud, of which there are none."""
    SERVICE_SEND = auto()
    SERVICE_RECEIVE = auto()


class Address(NamedTuple):
    node: Node
    target: Target | None = None
    as_written: Target | None = None
    """The ids before they were url-decoded, where that made a difference: some SDKs encode them, others do not."""


_DEVICE_NODES = {
    ("methods", "devicebound"): Node.METHODS,
    ("twin",): Node.TWIN,
    ("messages", "events"): Node.TELEMETRY,
    ("messages", "devicebound"): Node.DEVICE_BOUND,
}
_SERVICE_NODES = {
    ("messages", "devicebound"): Node.SERVICE_SEND,
    ("messages", "servicebound", "feedback"): Node.SERVICE_RECEIVE,
    ("messages", "servicebound", "filenotifications"): Node.SERVICE_RECEIVE,
}


def parse_address(text: str | None) -> Address | None:
    """[HUB-link-address] Full URI or path, keywords in any case, ids url-decoded; None for any other."""
    if not text or len(text) > 2_048:
        return None
    if text.lower() == CBS_ADDRESS:
        return Address(Node.CBS)
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in {"amqps", "amqp"}:
        _, _, text = rest.partition("/")
    segments = text.strip("/").split("/")
    lower = tuple(segment.lower() for segment in segments)
    service = _SERVICE_NODES.get(lower)
    if service is not None:
        return Address(service)
    if len(segments) < 3 or lower[0] != "devices":
        return None
    written = segments[1:2]
    rest_of_path = lower[2:]
    if lower[2] == "modules" and len(segments) > 4:
        written.append(segments[3])
        rest_of_path = lower[4:]
    ids = [unquote(each) for each in written]
    node = _DEVICE_NODES.get(rest_of_path)
    if node is None or not all(ID_PATTERN.fullmatch(each) for each in ids):
        return None
    is_other = ids != written and all(ID_PATTERN.fullmatch(each) for each in written)
    return Address(node, Target(*ids), Target(*written) if is_other else None)


class PlainCredentials(NamedTuple):
    """What SASL PLAIN said: who, and the token. `target` is None for a policy of the hub."""

    target: Target | None
    token: str


def parse_sasl_plain(response: bytes) -> PlainCredentials:
    """`authzid NUL authcid NUL password`: authcid `{device}[/modules/{module}]@sas.{hub}` or
    `{policy}@sas.root.{hub}` (`wire/device.md` 3.1). Raises ValueError."""
    parts = response.decode("utf-8").split("\0")
    if len(parts) != 3:
        raise ValueError("the response is not authzid, authcid and password")
    name, separator, realm = parts[1].rpartition("@sas.")
    if not separator or not name or not realm:
        raise ValueError("the user name is not name@sas.hub or policy@sas.root.hub")
    if realm.lower().startswith("root."):
        return PlainCredentials(None, parts[2])
    device, slash, module = name.partition("/")
    keyword, _, module_id = module.partition("/")
    if slash and keyword.lower() != "modules":
        raise ValueError("the user name is not device/modules/module@sas.hub")
    ids = [unquote(device)] + ([unquote(module_id)] if slash else [])
    if not all(ID_PATTERN.fullmatch(each) for each in ids):
        raise ValueError("the user name holds no valid id")
    return PlainCredentials(Target(*ids), parts[2])


# --- request ids -------------------------------------------------------------------------------------------------

_VERSION, _VARIANT = 0x4000 << 32, 0x8000 << 16
"""Of a version 4 UUID, within its first 96 bits."""

_RANDOM_BITS = ((1 << 96) - 1) & ~(0xF000 << 32) & ~(0xC000 << 16)


def uuid_prefix(random_96_bits: int) -> int:
    """What the ids of one connection begin with: 96 bits that make a version 4 UUID of it. One SDK answers with a
    string where an id is none."""
    return random_96_bits & _RANDOM_BITS | _VERSION | _VARIANT


def correlation_id(prefix: int, rid: int) -> UUID:
    """[HUB-correlation-id] One SDK takes nothing but a UUID."""
    return UUID(int=prefix << 32 | rid & 0xFFFF_FFFF)


def rid_of(prefix: int, correlation: object) -> int | None:
    """The request that an answer belongs to; None for one of another connection, or none at all."""
    match correlation:
        case UUID():
            value = correlation.int
        case str() | bytes():
            try:
                text = correlation if isinstance(correlation, str) else correlation.decode("ascii")
                value = UUID(text).int
            except ValueError:
                if not isinstance(correlation, bytes) or len(correlation) != 16:
                    return None
                value = int.from_bytes(correlation)
        case _:
            return None
    return value & 0xFFFF_FFFF if value >> 32 == prefix else None


def status_of(properties: dict[str, Any]) -> int | None:
    """[HUB-answer-status] A 32-bit integer of any width, or None."""
    value = properties.get(STATUS)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**31) <= value < 2**31 else None
