"""The catalogue: every code has a status and a meaning, and keeps the number and the name that SDKs know."""

from __future__ import annotations

import pytest

from methodhub.core.errors import MEANINGS, ErrorCode, HubError

# Numbers and names of `wire/service.md` 1.7, written out anew: SDKs compare both.
KNOWN = {
    400000: "GenericBadRequest",
    400001: "InvalidProtocolVersion",
    400004: "ArgumentInvalid",
    400006: "IotHubFormatError",
    400027: "ConnectionForcefullyClosedOnNewConnection",
    401002: "IotHubUnauthorizedAccess",
    403800: "DeviceMaximumInflightMethodExceeded",
    404001: "DeviceNotFound",
    404010: "ModuleNotFound",
    404103: "DeviceNotOnline",
    404104: "DeviceConnectionClosedRemotely",
    409001: "DeviceAlreadyExists",
    409301: "ModuleAlreadyExistsOnDevice",
    412001: "PreconditionFailed",
    413001: "MessageTooLarge",
    413003: "TooManyModulesOnDevice",
    429001: "ThrottlingException",
    500001: "ServerError",
    503001: "ServiceUnavailable",
    504101: "GatewayTimeout",
}


@pytest.mark.parametrize(("number", "name"), KNOWN.items())
def test_numbers_and_names_are_those_of_the_sdks(number: int, name: str) -> None:
    assert ErrorCode(number).name == name


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_status_and_a_meaning(code: ErrorCode) -> None:
    assert code.http_status == int(str(int(code))[:3])
    assert 400 <= code.http_status < 600
    assert MEANINGS[code].endswith(".")


def test_the_reason_is_not_for_the_peer() -> None:
    error = HubError(ErrorCode.IotHubUnauthorizedAccess, "Unauthorized", reason="the key is wrong")
    assert str(error) == "401002 IotHubUnauthorizedAccess: Unauthorized"
    assert (error.info, error.reason) == (None, "the key is wrong")
