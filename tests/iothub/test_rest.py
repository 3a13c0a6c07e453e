"""Bodies of calls, results and errors, as back ends write and read them."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.calls import MethodRequest, MethodResult
from methodhub.core.errors import ErrorCode, HubError
from methodhub.iothub.rest import (
    MethodRules,
    check_api_version,
    error_body_listed,
    error_body_nested,
    error_body_routing,
    method_result,
    parse_method_request,
    query_value,
    result_body,
    timestamp,
    tracking_id,
)

RULES = MethodRules()


def parse(body: bytes | str, rules: MethodRules = RULES) -> MethodRequest:
    return parse_method_request(body.encode() if isinstance(body, str) else body, rules)


def error_of(body: bytes | str, rules: MethodRules = RULES) -> HubError:
    with pytest.raises(HubError) as caught:
        parse(body, rules)
    return caught.value


# --- what callers send -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ('{"methodName":"m","payload":""}', MethodRequest("m", b'""', 30, 0)),  # Python
        (  # Node
            '{"methodName":"m","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}',
            MethodRequest("m", b"null", 30, 0),
        ),
        ('{"methodName":"m","payload":null,"timeoutInSeconds":7}', MethodRequest("m", b"null", 30, 0)),
        (  # Java
            '{"methodName":"m","responseTimeoutInSeconds":200,"connectTimeoutInSeconds":200,"payload":{"a":1}}',
            MethodRequest("m", b'{"a":1}', 200, 200),
        ),
        (  # C
            '{"methodName":"m","responseTimeoutInSeconds":5,"connectTimeoutInSeconds":60}',
            MethodRequest("m", None, 5, 60),
        ),
        ('{"methodName":"component*command","payload":[1, 2 ]}', MethodRequest("component*command", b"[1, 2 ]", 30, 0)),
        ('{"methodName":"m","responseTimeoutInSeconds":null}', MethodRequest("m", None, 30, 0)),
    ],
)
def test_calls_of_every_client(body: str, request_: MethodRequest) -> None:
    assert parse(body) == request_


@pytest.mark.parametrize(
    "payload",
    [
        "null",
        '""',
        "{}",
        "0",
        "-1.50e+10",
        "true",
        '"\\u00e4\\/"',
        '"ä😀"',
        '{ "b" : 1 , "a":\t2 }',
        "[[[]]]",
        "12345678901234567890123456789",
        "1e400",
        '{"a":1,"a":2}',
        '"a b {c} $"',
    ],
)
def test_payloads_pass_through_unchanged(payload: str) -> None:
    for body in (f'{{"methodName":"m","payload":{payload}}}', f'{{"payload": {payload} , "methodName":"m"}}'):
        assert parse(body).payload == payload.encode()


@pytest.mark.parametrize("response", [5, 300])
@pytest.mark.parametrize("connect", [0, 300])
def test_the_bounds_of_timeouts_are_allowed(response: int, connect: int) -> None:
    body = {"methodName": "m", "responseTimeoutInSeconds": response, "connectTimeoutInSeconds": connect}
    assert parse(json.dumps(body)) == MethodRequest("m", None, response, connect)


@pytest.mark.parametrize("value", [4, 301, 0, -1, 10**30])
def test_a_response_timeout_out_of_range(value: int) -> None:
    error = error_of(f'{{"methodName":"m","responseTimeoutInSeconds":{value}}}')
    assert error.code == ErrorCode.ArgumentInvalid
    if value < 10**18:
        assert error.message == "responseTimeoutInSeconds must be within [5; 300]."


@pytest.mark.parametrize("value", [-1, 301])
def test_a_connect_timeout_out_of_range(value: int) -> None:
    error = error_of(f'{{"methodName":"m","connectTimeoutInSeconds":{value}}}')
    assert (error.code, error.message) == (
        ErrorCode.ArgumentInvalid,
        "connectTimeoutInSeconds must be within [0; 300].",
    )


@pytest.mark.parametrize("value", ['"30"', "30.5", "true", "[]", "{}", '""'])
@pytest.mark.parametrize("key", ["responseTimeoutInSeconds", "connectTimeoutInSeconds"])
def test_a_timeout_is_an_integer(key: str, value: str) -> None:
    assert error_of(f'{{"methodName":"m","{key}":{value}}}').code == ErrorCode.ArgumentInvalid


def test_rules_are_settings() -> None:
    rules = MethodRules(1, 9, 2, 8, 3, 4)
    assert parse('{"methodName":"m"}', rules) == MethodRequest("m", None, 2, 3)
    assert "[1; 9]" in error_of('{"methodName":"m","responseTimeoutInSeconds":10}', rules).message
    assert "[0; 8]" in error_of('{"methodName":"m","connectTimeoutInSeconds":9}', rules).message
    assert "5 bytes of at most 4" in error_of('{"methodName":"m","payload":12345}', rules).message


SEPARATORS = '$()<>@,;:\\"/[]?={} \t#+'
NAME_CHARACTERS = "".join(c for c in string.printable if 33 <= ord(c) <= 126 and c not in SEPARATORS)


@given(st.text(st.sampled_from(NAME_CHARACTERS), min_size=1, max_size=128))
def test_method_names(name: str) -> None:
    """[HUB-method-name]"""
    assert parse(json.dumps({"methodName": name})).method_name == name


@given(
    st.characters(exclude_characters=NAME_CHARACTERS, exclude_categories=["Cs"]),
    st.text(st.sampled_from(NAME_CHARACTERS), max_size=5),
)
def test_one_other_character_spoils_a_method_name(bad: str, rest: str) -> None:
    """[HUB-method-name]"""
    for name in (bad + rest, rest + bad):
        error = error_of(json.dumps({"methodName": name}))
        assert error.code == ErrorCode.ArgumentInvalid
        assert error.message.startswith("methodName ")


@pytest.mark.parametrize("body", ["{}", '{"methodName":""}', '{"methodName":null}', '{"methodname":"m"}'])
def test_without_a_method_name(body: str) -> None:
    error = error_of(body)
    assert (error.code, error.message) == (ErrorCode.ArgumentInvalid, "methodName is null or empty.")


def test_a_method_name_may_be_so_long() -> None:
    parse('{"methodName":"%s"}' % ("x" * 128))
    assert "129 characters" in error_of('{"methodName":"%s"}' % ("x" * 129)).message
    assert len(error_of('{"methodName":"%s"}' % ("x" * 100_000)).message) < 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", 400006),
        ("{", 400006),
        ('{"methodName":"m"} x', 400006),
        ("{'methodName':'m'}", 400006),
        (b'{"methodName":"\xff"}', 400006),
        (b'\xff\xfe{\x00"', 400006),
        ("null", 400004),
        ("[]", 400004),
        ('"m"', 400004),
        ('{"methodName":5}', 400004),
        ('{"methodName":"m","payload":}', 400006),
        ('{"methodName":"m","payload":nul}', 400006),
        (b'{"methodName":"m","payload":"\xff"}', 400006),
        (b'{"methodName":"m","payload":"\xed\xa0\x80"}', 400006),
        ('{"methodName":"m","payload":NaN}', 400006),
        ('{"methodName":"m","payload":"\\ud800"}', 400006),  # half a pair is no character
    ],
)
def test_bodies_that_are_no_call(body: bytes | str, code: int) -> None:
    assert int(error_of(body).code) == code


@pytest.mark.parametrize("deep", ["[" * 5_000 + "]" * 5_000, '{"a":' * 5_000 + "1" + "}" * 5_000, "[" * 60_000])
@pytest.mark.parametrize("key", ["payload", "unknown", "methodName"])
def test_deep_json_is_a_bad_request(key: str, deep: str) -> None:
    assert error_of(f'{{"methodName":"m","{key}":{deep}}}').code.http_status == 400


def test_the_payload_may_be_so_large() -> None:
    """[HUB-payload-limit] 131,072 bytes of its own text."""
    largest = f'"{"ä" * 65_535}"'
    assert len(largest.encode()) == RULES.payload_limit == 131_072
    assert parse(f'{{"methodName":"m","payload":{largest}}}').payload == largest.encode()
    error = error_of(f'{{"methodName":"m","payload":{largest[:-1]}a"}}')
    assert (error.code, error.message) == (
        ErrorCode.ArgumentInvalid,
        "payload has 131073 bytes of at most 131072.",
    )


@given(st.binary())
def test_any_bytes_are_a_call_or_a_bad_request(body: bytes) -> None:
    assert error_of(body).code in (ErrorCode.ArgumentInvalid, ErrorCode.IotHubFormatError)


KEYS = st.sampled_from(
    ["methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds", "timeoutInSeconds", "x"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10, 400), st.floats(), st.text(max_size=3), st.just("m")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, JSON))
def test_any_object_is_a_call_or_a_bad_request(body: dict[str, object]) -> None:
    try:
        request = parse(json.dumps(body))
    except HubError as error:
        assert error.code in (ErrorCode.ArgumentInvalid, ErrorCode.IotHubFormatError)
        return
    assert request.method_name == body["methodName"]
    assert (request.payload is None) == ("payload" not in body)
    assert request.payload is None or json.loads(request.payload) == body["payload"]
    assert request.response_timeout == (30 if (given := body.get("responseTimeoutInSeconds")) is None else given)
    assert request.connect_timeout == (body.get("connectTimeoutInSeconds") or 0)


# --- what devices answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", b' "\xc3\xa4" ', b"1" * 131_072, b"1e999"])
@pytest.mark.parametrize("status", [200, 0, -1, 2**31 - 1, 501])
def test_an_answer_comes_back_as_it_was(status: int, payload: bytes) -> None:
    result = method_result(status, payload, RULES)
    assert result == MethodResult(status, payload)
    assert isinstance(result, MethodResult)
    assert result_body(result) == b'{"status":%d,"payload":%b}' % (status, payload or b"null")


@pytest.mark.parametrize(
    ("status", "payload", "complaint"),
    [
        (None, b"{}", "its status is no 32-bit integer"),
        (200, b"1" * 131_073, "131073 bytes of at most 131072"),
        (200, b"{'a':1}", "not one JSON value"),
        (200, b"1 2", "not one JSON value"),
        (200, b"\xff", "not UTF-8"),
        (200, b"[" * 100_000, "nested too deeply"),
    ],
)
def test_an_answer_that_is_none_is_502000(status: int | None, payload: bytes, complaint: str) -> None:
    """[HUB-invalid-answer]"""
    error = method_result(status, payload, RULES)
    assert isinstance(error, HubError)
    assert error.code == ErrorCode.InvalidDeviceResponse
    assert complaint in error.message


def test_a_setting_pastes_what_is_no_json_but_no_more_of_it() -> None:
    rules = MethodRules(paste_invalid_answers=True)
    result = method_result(200, b"{'a':1}", rules)
    assert isinstance(result, MethodResult)
    assert result_body(result) == b'{"status":200,"payload":{\'a\':1}}'
    assert isinstance(method_result(200, b"x" * 131_073, rules), HubError)
    assert isinstance(method_result(None, b"{}", rules), HubError)


# --- errors ------------------------------------------------------------------------------------------------------

NOW = 1_710_409_789.653656
REQUEST_ID = "aa761f96-e917-4d0e-849c-96a8b2e10a8c"
TRACKING = "aa761f96e9174d0e849c96a8b2e10a8c-TimeStamp:03/14/2024 09:49:49"


@pytest.mark.parametrize("info", [None, {"timeout": "00:00:30"}])
def test_format_1_is_json_inside_json(info: dict[str, str] | None) -> None:
    error = HubError(ErrorCode.DeviceNotOnline, 'say "no"', info=info, reason="secret")
    outer = json.loads(error_body_nested(error, REQUEST_ID, NOW))
    assert list(outer) == ["Message", "ExceptionMessage"]
    assert outer["ExceptionMessage"] == ""
    inner = json.loads(outer["Message"])
    assert inner == {
        "errorCode": 404103,
        "trackingId": TRACKING,
        "message": 'say "no"',
        **({"info": info} if info else {}),
        "timestampUtc": "2024-03-14T09:49:49.6536560Z",
    }


def test_format_2_is_a_list() -> None:
    error = HubError(ErrorCode.DeviceNotFound, "d;1", reason="secret")
    assert json.loads(error_body_listed(error, REQUEST_ID, NOW)) == {
        "Message": "ErrorCode:DeviceNotFound;d;1",
        "ExceptionMessage": f"Tracking ID:{TRACKING}",
    }
    assert json.loads(error_body_routing("no")) == {"Message": "no"}
    assert tracking_id(REQUEST_ID, NOW) == TRACKING


@given(st.text())
def test_any_message_fits_into_both_formats(message: str) -> None:
    error = HubError(ErrorCode.ServerError, message)
    outer = json.loads(error_body_nested(error, REQUEST_ID, NOW))
    assert json.loads(outer["Message"])["message"] == message
    assert json.loads(error_body_listed(error, REQUEST_ID, NOW))["Message"].endswith(message)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "0001-01-01T00:00:00"),
        (0, "1970-01-01T00:00:00.0000000Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.5000000Z"),
    ],
)
def test_timestamps_have_seven_digits(seconds: float | None, text: str) -> None:
    assert timestamp(seconds) == text


@given(st.floats(0, 4e9))
def test_every_timestamp_has_the_same_form(seconds: float) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}0Z", timestamp(seconds))


# --- queries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version",
    ["2016-11-14", "2018-06-30", "2019-03-30", "2020-09-30", "2021-04-12", "2024-03-31", "2017-11-08-preview"],
)
def test_api_versions_since_2016_11_14(version: str) -> None:
    check_api_version(version)


@pytest.mark.parametrize(
    "version", [None, "", "2016-11-13", "2015-08-15-preview", "21-04-12", "2021-04-12-beta", "x" * 99]
)
def test_other_api_versions_are_400001(version: str | None) -> None:
    with pytest.raises(HubError) as caught:
        check_api_version(version)
    assert caught.value.code == ErrorCode.InvalidProtocolVersion
    assert len(caught.value.message) < 150


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"api-version=2021-04-12", "2021-04-12"),
        (b"x=1&API-Version=2021%2D04%2d12&api-version=2", "2021-04-12"),
        (b"api-version=a+b", "a b"),
        (b"api-version=", ""),
        (b"api-version", None),
        (b"xapi-version=1", None),
        (b"", None),
    ],
)
def test_a_query_parameter(query: bytes, value: str | None) -> None:
    assert query_value(query, b"api-version") == value


@given(st.binary())
def test_any_query_has_a_value_or_none(query: bytes) -> None:
    assert isinstance(query_value(b"v=" + query, b"v"), str)
    query_value(query, b"v")
