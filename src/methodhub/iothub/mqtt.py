"""User names, topics and filters of the MQTT dialect (`wire/device.md` 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple
from urllib.parse import unquote

from methodhub.core.calls import RID_START_LIMIT
from methodhub.core.identity import ID_PATTERN, Target

METHOD_FILTER_ROOT = "$iothub/methods/POST/"
ALL_METHODS = "$iothub/methods/POST/#"
TWIN_RESPONSES = "$iothub/twin/res/#"
DESIRED_PROPERTIES = "$iothub/twin/PATCH/properties/desired/#"
MAX_SUBSCRIPTIONS = 50
"""Filters of one session. The documents say 5 and do not enforce it; a bound there must be."""

_RESPONSE_PREFIX = "$iothub/methods/res/"
_TWIN_GET_PREFIX = "$iothub/twin/GET/"
_TWIN_PATCH_PREFIX = "$iothub/twin/PATCH/properties/reported/"
_MAX_TWIN_RID = 256
_MODEL_ID = re.compile(r"[/?&]model-id=([^&]+)", re.IGNORECASE)
MAX_MODEL_ID = 256
"""Characters of a device's model that are kept."""


class ConnectReturnCode:
    """The CONNACK codes of `wire/device.md` 1.5: 5 for a wrong credential, 3 for come back later (and disabled)."""

    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    NOT_AUTHORIZED = 5


@dataclass(frozen=True, slots=True)
class UserName:
    """What a CONNECT's user name says: the hub's name (lower case) and who connects."""

    host: str
    target: Target
    model_id: str | None = None


def parse_user_name(text: str) -> UserName:
    """`host/device[/module]/[?]api-version=...`; unknown properties are ignored. Raises ValueError."""
    model = _MODEL_ID.search(text)
    host, *rest = text.split("/")
    host = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    # The last segment holds the properties, with or without '?'; some clients omit it, some write "a/b" in it.
    for index, segment in enumerate(rest):
        if index > 0 and _is_properties(segment):
            rest = rest[:index]
            break
    ids = [segment for segment in rest if segment]
    if not host or not 1 <= len(ids) <= 2 or not all(ID_PATTERN.fullmatch(part) for part in ids):
        raise ValueError("the user name is not host/deviceId[/moduleId]/?api-version=...")
    return UserName(host.lower(), Target(*ids), unquote(model[1])[:MAX_MODEL_ID] if model else None)


def _is_properties(segment: str) -> bool:
    known = ("?", "api-version=", "deviceclienttype=", "model-id=", "auth-chain=")
    return "&" in segment or segment.lower().startswith(known)  # no id holds '&'


def client_id_of(target: Target) -> str:
    return str(target)


# --- what a device subscribes to ---------------------------------------------------------------------------------


def is_known_filter(topic_filter: str, target: Target) -> bool:
    """Whether the hub grants this filter; it closes the connection on any other (`wire/device.md` 1.8)."""
    if topic_filter.startswith(METHOD_FILTER_ROOT):
        return True
    if topic_filter in {TWIN_RESPONSES, DESIRED_PROPERTIES}:
        return True
    root = f"devices/{target.device_id}/"
    if target.module_id:
        root += f"modules/{target.module_id}/"
        return topic_filter in {f"{root}#", f"{root}inputs/#", f"{root}messages/devicebound/#"}
    return topic_filter == f"{root}messages/devicebound/#"


def is_method_filter(topic_filter: str) -> bool:
    return topic_filter.startswith(METHOD_FILTER_ROOT)


def filter_takes_method(topic_filter: str, method_name: str) -> bool:
    """Whether a filter below `$iothub/methods/POST/` matches the topic of a call to this method, whatever its rid.

    [MQTT-4.7.1-2] `#` also matches its parent level, [MQTT-4.7.1-3] `+` exactly one level. The rid is not known
    before the call, so a last level is matched only by a wildcard.
    """
    wanted = topic_filter[len(METHOD_FILTER_ROOT) :].split("/")
    if wanted[0] == "#":
        return True
    return wanted[0] in {"+", method_name} and wanted[1:] in (["#"], ["+"], ["+", "#"])


# --- what the hub sends ------------------------------------------------------------------------------------------


def method_topic(method_name: str, rid: int) -> bytes:
    """[HUB-rid] lower-case hexadecimal, the only parameter, nothing behind it."""
    return f"$iothub/methods/POST/{method_name}/?$rid={rid:x}".encode()


def twin_response_topic(status: int, rid: str, version: int | None = None) -> bytes:
    text = f"$iothub/twin/res/{status}/?$rid={rid}"
    return (text if version is None else f"{text}&$version={version}").encode()


def desired_topic(version: int) -> bytes:
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}".encode()


# --- what a device publishes -------------------------------------------------------------------------------------


class MethodAnswer(NamedTuple):
    """An answer to a call. `status` is None where the topic holds no 32-bit integer; `rid` None where it has none."""

    status: int | None
    rid: int | None


@dataclass(frozen=True, slots=True)
class TwinGet:
    rid: str


@dataclass(frozen=True, slots=True)
class TwinPatch:
    rid: str


class Other(Enum):
    TELEMETRY = auto()
    FOREIGN = auto()
    """A topic that is no business of this identity: the connection is closed."""


_FAST_ANSWER = re.compile(r"\$iothub/methods/res/(-?[0-9]{1,10})/\?\$rid=([0-9a-fA-F]{1,8})")
_STATUS = re.compile(r"[+-]?[0-9]{1,10}")
_RID = re.compile(r"[0-9a-fA-F]{1,8}")

Published = MethodAnswer | TwinGet | TwinPatch | Other


def parse_topic(topic: str, target: Target) -> Published:
    """What a PUBLISH of this identity to `topic` means."""
    match = _FAST_ANSWER.fullmatch(topic)
    if match is not None:
        status = int(match[1])
        return MethodAnswer(status if _is_32_bit(status) else None, int(match[2], 16))
    lower = topic.lower()
    if lower.startswith(_RESPONSE_PREFIX):
        return _parse_answer(topic[len(_RESPONSE_PREFIX) :])
    if lower.startswith(_TWIN_GET_PREFIX.lower()):
        rid = _rid_text(topic[len(_TWIN_GET_PREFIX) :])
        return TwinGet(rid) if len(rid) <= _MAX_TWIN_RID else Other.FOREIGN
    if lower.startswith(_TWIN_PATCH_PREFIX.lower()):
        rid = _rid_text(topic[len(_TWIN_PATCH_PREFIX) :])
        return TwinPatch(rid) if len(rid) <= _MAX_TWIN_RID else Other.FOREIGN
    root = f"devices/{target.device_id}/"
    if target.module_id:
        root += f"modules/{target.module_id}/"
    if topic.startswith(f"{root}messages/events"):
        return Other.TELEMETRY
    return Other.FOREIGN


def _parse_answer(rest: str) -> MethodAnswer:
    status, _, query = rest.partition("/") if "/" in rest else rest.partition("?")
    rid = unquote(_rid_text(query))
    return MethodAnswer(_status(status), int(rid, 16) if _RID.fullmatch(rid) else None)


def _status(text: str) -> int | None:
    """[HUB-answer-status] A 32-bit integer or nothing."""
    if not _STATUS.fullmatch(text):
        return None
    value = int(text)
    return value if _is_32_bit(value) else None


def _is_32_bit(value: int) -> bool:
    return -0x8000_0000 <= value <= 0x7FFF_FFFF


def _rid_text(query: str) -> str:
    """As it stands: what comes back in a topic was fit to stand in one [MQTT-3.3.2-2]."""
    for pair in query.lstrip("/?").split("&"):
        name, _, value = pair.partition("=")
        if unquote(name).lower() == "$rid":
            return value
    return ""


assert RID_START_LIMIT <= 16**8
