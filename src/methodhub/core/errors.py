"""The one error catalogue. The HTTP status follows from the code; no other place chooses one."""

from __future__ import annotations

from enum import IntEnum


class ErrorCode(IntEnum):
    """A number and a name that clients know (`wire/service.md` 1.7); the name is the header value."""

    GenericBadRequest = 400000
    InvalidProtocolVersion = 400001
    ArgumentInvalid = 400004
    IotHubFormatError = 400006
    ConnectionForcefullyClosedOnNewConnection = 400027
    IotHubUnauthorizedAccess = 401002
    DeviceMaximumInflightMethodExceeded = 403800
    GenericNotFound = 404000
    DeviceNotFound = 404001
    ModuleNotFound = 404010
    DeviceNotOnline = 404103
    DeviceConnectionClosedRemotely = 404104
    GenericMethodNotAllowed = 405000
    GenericConflict = 409000
    DeviceAlreadyExists = 409001
    ModuleAlreadyExistsOnDevice = 409301
    PreconditionFailed = 412001
    MessageTooLarge = 413001
    TooManyModulesOnDevice = 413003
    GenericUnsupportedMediaType = 415000
    ThrottlingException = 429001
    ServerError = 500001
    InvalidDeviceResponse = 502000
    ServiceUnavailable = 503001
    ConnectionUnavailable = 503101
    GatewayTimeout = 504101

    @property
    def http_status(self) -> int:
        return int(self) // 1000


MEANINGS: dict[ErrorCode, str] = {
    ErrorCode.GenericBadRequest: "The request could not be understood. Correct it; sending it again will not help.",
    ErrorCode.InvalidProtocolVersion: "The query parameter api-version is missing or malformed. Add one, such as "
    "?api-version=2021-04-12.",
    ErrorCode.ArgumentInvalid: "A value is missing, outside its range or too large. The message names it.",
    ErrorCode.IotHubFormatError: "The body is not the JSON that this route expects. The message says where.",
    ErrorCode.ConnectionForcefullyClosedOnNewConnection: "The device connected again while the call was open, which "
    "closed the connection that had received it. The device may have acted; ask it before you repeat the call.",
    ErrorCode.IotHubUnauthorizedAccess: "The credential is missing, wrong, expired, or lacks the right that this "
    "route demands. The hub's log names the reason.",
    ErrorCode.DeviceMaximumInflightMethodExceeded: "The device has too many unanswered calls, or too many bytes that "
    "it has not read yet. Wait for answers before you call again.",
    ErrorCode.GenericNotFound: "There is no such route, or nothing of that name. Compare the path with the "
    "reference of routes.",
    ErrorCode.DeviceNotFound: "No device has this id, or the device is disabled. Create it, or enable it.",
    ErrorCode.ModuleNotFound: "The device exists, but it has no module of this id. Create the module.",
    ErrorCode.DeviceNotOnline: "The device was not connected, or had not subscribed to this method, within the connect "
    "timeout. Start the device, or give the call a connect timeout.",
    ErrorCode.DeviceConnectionClosedRemotely: "The device's connection ended after the call was handed over and before "
    "it answered. The device may have acted; ask it before you repeat the call.",
    ErrorCode.GenericMethodNotAllowed: "The route exists, but not for this HTTP verb.",
    ErrorCode.GenericConflict: "Something of this name exists already. Remove it first, or choose another name.",
    ErrorCode.DeviceAlreadyExists: "A device of this id exists. To change it, send If-Match with its etag or *.",
    ErrorCode.ModuleAlreadyExistsOnDevice: "The device has a module of this id. To change it, send If-Match with its "
    "etag or *.",
    ErrorCode.PreconditionFailed: "If-Match names another version than the stored one. Read the identity again and "
    "repeat your change on it.",
    ErrorCode.MessageTooLarge: "The body is larger than this route takes.",
    ErrorCode.TooManyModulesOnDevice: "The device holds as many modules as one device may have.",
    ErrorCode.GenericUnsupportedMediaType: "The Content-Encoding is not understood. Send gzip, or no encoding.",
    ErrorCode.ThrottlingException: "The hub holds as many open calls as it accepts. Wait, then call again.",
    ErrorCode.ServerError: "The hub failed in a way that it did not expect. Its log has the details under the "
    "tracking id; please report it.",
    ErrorCode.InvalidDeviceResponse: "The device answered with something that is no valid result: not exactly one JSON "
    "value in UTF-8, too large, or with a status that is no 32-bit integer.",
    ErrorCode.ServiceUnavailable: "The hub is stopping, or a part of it is away. The call did not reach the device; "
    "it is safe to repeat it.",
    ErrorCode.ConnectionUnavailable: "A part of the hub is away, so that it cannot tell whether the device is "
    "connected. The call did not reach the device; it is safe to repeat it.",
    ErrorCode.GatewayTimeout: "The device received the call and did not answer within the response timeout. It may "
    "have acted; ask it before you repeat the call.",
}


class HubError(Exception):
    """A failure that a caller is told about.

    `code` and `message` go onto the wire; `info` joins them where the original has it (404103, 504101).
    `reason` is for the log and the operator only, never for a peer.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, info: dict[str, str] | None = None, reason: str | None = None
    ) -> None:
        super().__init__(f"{int(code)} {code.name}: {message}")
        self.code = code
        self.message = message
        self.info = info
        self.reason = reason
