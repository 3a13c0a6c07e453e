"""Twins in JSON: for back ends, for devices, and what a back end may change."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.twins.model import Section, Twin
from methodhub.core.twins.rules import TwinUpdate
from methodhub.iothub.twin_json import device_error, device_twin, parse_report, parse_update, twin_json, update_of

D = Target("d")


def test_a_device_reads_both_sections_and_their_versions() -> None:
    twin = Twin(D, 9, {"hidden": 1}, Section({"a": 1}, {"a": {}}, 4), Section({"b": 2.0}, {}, 5))
    assert device_twin(twin) == b'{"desired":{"a":1,"$version":4},"reported":{"b":2.0,"$version":5}}'


def test_a_back_end_reads_no_keys() -> None:
    """Whoever may read twins need not know credentials."""
    authentication = Authentication(AuthenticationType.SAS, "cHJpbWFyeQ==", "c2Vjb25kYXJ5")
    identity = Identity(D, "1", "etag", authentication, enabled=False, device_scope="scope", parent_scopes=("p",))
    text = json.dumps(twin_json(identity, Twin(D, model_id="dtmi:x;1")))
    assert "cHJpbWFyeQ" not in text
    found = json.loads(text)
    assert (found["status"], found["deviceScope"], found["parentScopes"]) == ("disabled", "scope", ["p"])
    assert (found["modelId"], found["deviceEtag"]) == ("dtmi:x;1", "etag")


def test_what_comes_back_from_a_get_is_no_change_of_what_is_not_a_back_ends() -> None:
    body = {
        "deviceId": "other",
        "etag": "x",
        "version": 7,
        "tags": {"a": 1},
        "properties": {"desired": {"b": 1, "$metadata": {}, "$version": 3}, "reported": {"c": 1}},
    }
    assert update_of(body) == TwinUpdate({"a": 1}, {"b": 1})
    assert parse_update(json.dumps(body).encode(), replaces=True) == TwinUpdate({"a": 1}, {"b": 1}, replaces=True)


@pytest.mark.parametrize(
    "body", [b"{}", b'{"tags":null}', b'{"properties":null}', b'{"properties":{"desired":null,"reported":{"a":1}}}']
)
def test_what_is_null_or_absent_stays(body: bytes) -> None:
    assert parse_update(body, replaces=False) == TwinUpdate()


def test_an_error_of_a_device_is_json() -> None:
    error = HubError(ErrorCode.ArgumentInvalid, 'say "no"')
    assert json.loads(device_error(error)) == {"errorCode": 400004, "message": 'say "no"'}


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_report(body), dict)
    except HubError as error:
        assert error.code in {ErrorCode.ArgumentInvalid, ErrorCode.IotHubFormatError}
