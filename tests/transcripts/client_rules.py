"""What each service client makes of a response: its own parsing rule (`wire/service.md` 1.5, 1.7), written down as a
function from the raw response to one line of text. A response that the client could not take is an AssertionError."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from tests.transcripts.connection import Response

Rule = Callable[[Response], str]


def result(response: Response) -> str:
    """`{"status":..,"payload":..}`: a number, and both keys (1.5)."""
    value = response.json()
    assert type(value["status"]) is int, value
    assert "payload" in value, value
    return f"{value['status']} {json.dumps(value['payload'], separators=(',', ':'))}"


def is_json(response: Response) -> bool:
    return "application/json" in response.headers.get("content-type", "")


def python(response: Response) -> str:
    """msrest: one exception for all, whose text is the reason phrase. Another content type than JSON does not parse."""
    if response.status not in {200, 204}:
        return f"HttpOperationError: Operation returned an invalid status code '{response.reason}'"
    assert response.status == 204 or is_json(response), response.headers
    return result(response) if b'"payload"' in response.body else "ok"


NODE_ERRORS = {
    400: "ArgumentError",
    401: "UnauthorizedError",
    403: "TooManyDevicesError",
    408: "DeviceTimeoutError",
    409: "DeviceAlreadyExistsError",
    412: "InvalidEtagError",
    429: "ThrottlingError",
    500: "InternalServerError",
    502: "BadDeviceResponseError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
NODE_RETRIES = {429, 500, 503}
"""The POST is repeated for up to four minutes (1.8): what was delivered must end otherwise."""


def node(response: Response) -> str:
    """The class follows from the status; DeviceNotFoundError only from format F2. The body is parsed only as JSON."""
    assert response.status == 204 or is_json(response), response.headers
    if response.status == 204:
        return "ok"
    if response.status == 200:
        return result(response) if b'"payload"' in response.body else "ok"
    code = node_code(response)
    if response.status == 404:
        return "DeviceNotFoundError" if code == "DeviceNotFound" else "Error: Not found"
    retried = ", sent again" if response.status in NODE_RETRIES else ""
    return NODE_ERRORS[response.status] + (f" {code}" if code else "") + retried


def node_code(response: Response) -> str:
    """parseErrorBody: both parts around the first `;` of Message must be there."""
    first, _, message = str(response.json()["Message"]).partition(";")
    code = first.partition(":")[2].partition(":")[0]
    return code if code and message else ""


CSHARP_ERRORS = {
    400: "ArgumentException",
    401: "UnauthorizedException",
    403: "QuotaExceededException",
    404: "DeviceNotFoundException",
    409: "DeviceAlreadyExistsException",
    413: "MessageTooLargeException",
    429: "ThrottlingException",
    500: "ServerErrorException",
    503: "ServerBusyException",
}
CSHARP_CODES = {
    "400001": "InvalidProtocolVersion",
    "400004": "ArgumentInvalid",
    "400006": "IotHubFormatError",
    "400027": "ConnectionForcefullyClosedOnNewConnection",
    "401002": "IotHubUnauthorizedAccess",
    "403800": "DeviceMaximumInflightMethodExceeded",
    "404001": "DeviceNotFound",
    "404010": "ModuleNotFound",
    "404103": "DeviceNotOnline",
    "404104": "DeviceConnectionClosedRemotely",
    "409001": "DeviceAlreadyExists",
    "412001": "PreconditionFailed",
    "429001": "ThrottlingException",
    "503001": "ServiceUnavailable",
}
"""The list of 1.7. It has no name for 502000, and the enum no 504101."""


def csharp(response: Response) -> str:
    """`Code` is set only if body and header name the same member."""
    if response.status == 204:
        return "ok"
    if response.status == 200:
        return result(response) if b'"payload"' in response.body else "ok"
    in_body = csharp_body_code(response)
    code = in_body if in_body == response.headers.get("iothub-errorcode") else ""
    name = CSHARP_ERRORS.get(response.status, "IotHubException (transient)")
    return f"{name} {code or 'InvalidErrorCode'}"


def csharp_body_code(response: Response) -> str:
    """Message as a flat dictionary of strings, which an object in it breaks; else its first field, ErrorCode:Name."""
    message = str(response.json()["Message"])
    try:
        fields = json.loads(message)
    except ValueError:
        name, _, value = message.partition(";")[0].partition(":")
        return value if name == "ErrorCode" else ""
    if any(isinstance(value, dict | list) for value in fields.values()):
        return ""
    return CSHARP_CODES.get(str(fields["errorCode"]), "")


JAVA_ERRORS = {
    400: "IotHubBadFormatException",
    401: "IotHubUnauthorizedException",
    403: "IotHubTooManyDevicesException",
    404: "IotHubNotFoundException",
    409: "IotHubConflictException",
    412: "IotHubPreconditionFailedException",
    429: "IotHubTooManyRequestsException",
    500: "IotHubInternalServerErrorException",
    502: "IotHubBadGatewayException",
    503: "IotHubServerBusyException",
    504: "IotHubGatewayTimeoutException",
}


def java(response: Response) -> str:
    """ErrorMessageParser: ExceptionMessage is glued to Message; if the whole is no JSON, the code is the status."""
    if response.status == 204:
        return "ok"
    if response.status == 200:
        return result(response) if b'"payload"' in response.body else "ok"
    value = response.json()
    code = response.status
    with suppress(ValueError):
        code = int(json.loads(value["Message"] + value.get("ExceptionMessage", ""))["errorCode"])
    return f"{JAVA_ERRORS[response.status]} {code}"


def c(response: Response) -> str:
    """200 or not; a method's result must hold both keys. The registry takes up to 300."""
    if response.status == 200 and b'"payload"' in response.body:
        return result(response)
    return "ok" if response.status <= 300 else "error"


def az(response: Response) -> str:
    """400, 401, 403, 404 and 5xx have errors of their own; the parsed body is printed."""
    if response.status == 204:
        return "ok"
    if response.status == 200:
        return result(response) if b'"payload"' in response.body else "ok"
    value = response.json()
    known = response.status in {400, 401, 403, 404} or response.status >= 500
    return f"{response.status if known else 'other'}: {printed_code(str(value['Message']))}"


def explorer(response: Response) -> str:
    """A JSON body on every answer but 204; shows Message or else ExceptionMessage."""
    if response.status == 204:
        return "ok"
    value = response.json()
    if response.status == 200:
        return result(response) if b'"payload"' in response.body else "ok"
    return f"shows {printed_code(str(value['Message'] or value['ExceptionMessage']))}"


def printed_code(message: str) -> str:
    """What a person finds in the text: the number of format F1, the name of F2."""
    try:
        return str(json.loads(message)["errorCode"])
    except ValueError:
        return message.partition(";")[0].removeprefix("ErrorCode:")


RULES: dict[str, Rule] = {
    "python": python,
    "node": node,
    "csharp": csharp,
    "java": java,
    "c": c,
    "az": az,
    "explorer": explorer,
}
