"""Bodies of the service's REST interface: method calls, results and the error formats (`wire/service.md` 1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from msgspec import UNSET, UnsetType

from methodhub.core.calls import MethodRequest, MethodResult
from methodhub.core.errors import ErrorCode, HubError
from methodhub.iothub.payload import json_error

METHOD_NAME = re.compile(r"[!%&'*\-.0-9A-Z^_`a-z|~]{1,128}")
"""[HUB-method-name] Printable US-ASCII but the separators of the documents, and neither # nor +, which MQTT forbids
in a topic."""

NEVER = "0001-01-01T00:00:00"
API_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
OLDEST_API_VERSION = "2016-11-14"


@dataclass(frozen=True, slots=True)
class MethodRules:
    """Ranges and defaults of a call; seconds and bytes."""

    response_timeout_min: int = 5
    response_timeout_max: int = 300
    response_timeout_default: int = 30
    connect_timeout_max: int = 300
    connect_timeout_default: int = 0
    payload_limit: int = 131_072
    paste_invalid_answers: bool = False


class _MethodBody(msgspec.Struct, rename="camel"):
    method_name: str | None = None
    payload: msgspec.Raw | UnsetType = UNSET
    response_timeout_in_seconds: int | None = None
    connect_timeout_in_seconds: int | None = None


_decode_method_body = msgspec.json.Decoder(_MethodBody).decode


def parse_method_request(body: bytes, rules: MethodRules) -> MethodRequest:
    """The call that a body asks for. Unknown keys are ignored. Raises 400004 or 400006."""
    try:
        fields = _decode_method_body(body)
    except msgspec.ValidationError as error:
        raise HubError(ErrorCode.ArgumentInvalid, f"The body is not a method call: {error}.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is not JSON: {error}.") from None
    payload = None if isinstance(fields.payload, UnsetType) else bytes(fields.payload)
    return _checked_request(
        fields.method_name, payload, fields.response_timeout_in_seconds, fields.connect_timeout_in_seconds, rules
    )


def component_method(component: str | None, name: str) -> str:
    """What a device calls a method of one of its components."""
    return name if component is None else f"{component}*{name}"


def method_request(name: str, payload: bytes | None, query: bytes, rules: MethodRules) -> MethodRequest:
    """The same from a request whose timeouts stand in its query, and whose body is the payload. Raises 400004."""
    response, connect = (_seconds(query, key) for key in (b"responsetimeoutinseconds", b"connecttimeoutinseconds"))
    return _checked_request(name, payload, response, connect, rules)


def _seconds(query: bytes, key: bytes) -> int | None:
    text = query_value(query, key)
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise HubError(ErrorCode.ArgumentInvalid, f"{key.decode()} is {text[:40]!r}, no number of seconds.")
    return int(text)


def _checked_request(
    name: str | None, payload: bytes | None, response: int | None, connect: int | None, rules: MethodRules
) -> MethodRequest:
    if not name:
        raise HubError(ErrorCode.ArgumentInvalid, "methodName is null or empty.")
    if METHOD_NAME.fullmatch(name) is None:
        raise _invalid_name(name)
    if response is None:
        response = rules.response_timeout_default
    elif not rules.response_timeout_min <= response <= rules.response_timeout_max:
        raise _out_of_range("responseTimeoutInSeconds", rules.response_timeout_min, rules.response_timeout_max)
    if connect is None:
        connect = rules.connect_timeout_default
    elif not 0 <= connect <= rules.connect_timeout_max:
        raise _out_of_range("connectTimeoutInSeconds", 0, rules.connect_timeout_max)
    if payload is not None:
        _check_payload(payload, rules.payload_limit)
    return MethodRequest(name, payload, response, connect)


def _invalid_name(name: str) -> HubError:
    if len(name) > 128:
        return HubError(ErrorCode.ArgumentInvalid, f"methodName has {len(name)} characters of at most 128.")
    return HubError(
        ErrorCode.ArgumentInvalid,
        f"methodName {name!r} holds a character other than printable US-ASCII without the separators "
        '$ ( ) < > @ , ; : \\ " / [ ] ? = { } # + space and tab.',
    )


def _out_of_range(key: str, least: int, most: int) -> HubError:
    return HubError(ErrorCode.ArgumentInvalid, f"{key} must be within [{least}; {most}].")


def _check_payload(payload: bytes, limit: int) -> None:
    """[HUB-payload-limit]"""
    if len(payload) > limit:
        raise HubError(ErrorCode.ArgumentInvalid, f"payload has {len(payload)} bytes of at most {limit}.")
    wrong = json_error(payload)
    if wrong is not None:
        raise HubError(ErrorCode.IotHubFormatError, f"payload cannot be taken: {wrong}.")


def method_result(status: int | None, payload: bytes, rules: MethodRules) -> MethodResult | HubError:
    """The outcome that a device's answer is: a result, or 502000 for one that is none [HUB-invalid-answer]."""
    if status is None:
        return _invalid_answer("its status is no 32-bit integer")
    if len(payload) > rules.payload_limit:
        return _invalid_answer(f"its payload has {len(payload)} bytes of at most {rules.payload_limit}")
    if payload and not rules.paste_invalid_answers:
        wrong = json_error(payload)
        if wrong is not None:
            return _invalid_answer(f"its payload cannot be taken: {wrong}")
    return MethodResult(status, payload)


def _invalid_answer(why: str) -> HubError:
    return HubError(ErrorCode.InvalidDeviceResponse, f"The device's answer is invalid: {why}.")


def result_body(result: MethodResult) -> bytes:
    """`{"status":..,"payload":..}` with the payload's own bytes; `null` where the device sent none."""
    return b'{"status":%d,"payload":%b}' % (result.status, result.payload or b"null")


# --- errors ------------------------------------------------------------------------------------------------------


def error_body_nested(error: HubError, request_id: str, now: float) -> bytes:
    """Format F1, of `/twins/**`: a JSON text inside `Message`, and `ExceptionMessage` empty, else Java loses the
    code. `info` only where the original has it, since it hides the code from C#."""
    inner: dict[str, Any] = {
        "errorCode": int(error.code),
        "trackingId": tracking_id(request_id, now),
        "message": error.message,
    }
    if error.info is not None:
        inner["info"] = error.info
    inner["timestampUtc"] = timestamp(now)
    return msgspec.json.encode({"Message": msgspec.json.encode(inner).decode(), "ExceptionMessage": ""})


def error_body_listed(error: HubError, request_id: str, now: float) -> bytes:
    """Format F2, of everything else: `ErrorCode:Name;text`."""
    return msgspec.json.encode(
        {
            "Message": f"ErrorCode:{error.code.name};{error.message}",
            "ExceptionMessage": f"Tracking ID:{tracking_id(request_id, now)}",
        }
    )


def error_body_routing(message: str) -> bytes:
    """Format F4, of a route or verb that does not exist."""
    return msgspec.json.encode({"Message": message})


def tracking_id(request_id: str, now: float) -> str:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%m/%d/%Y %H:%M:%S")
    return f"{request_id.replace('-', '')}-TimeStamp:{stamp}"


def timestamp(seconds: float | None) -> str:
    """ISO 8601 with seven digits and Z; the year 1 for never."""
    if seconds is None:
        return NEVER
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def query_value(query: bytes, name: bytes) -> str | None:
    """The first value of a query parameter, whose name counts in any case."""
    for pair in query.split(b"&"):
        key, separator, value = pair.partition(b"=")
        if separator and unquote_plus(key.decode("latin-1")).lower() == name.decode():
            return unquote_plus(value.decode("latin-1"))
    return None


def check_api_version(text: str | None) -> None:
    """Every version from 2016-11-14 on. Raises 400001."""
    if text is None or not API_VERSION.fullmatch(text) or text[:10] < OLDEST_API_VERSION:
        shown = "is missing" if text is None else f"{text[:40]!r} is no version from {OLDEST_API_VERSION} on"
        raise HubError(ErrorCode.InvalidProtocolVersion, f"The query parameter api-version {shown}.")
