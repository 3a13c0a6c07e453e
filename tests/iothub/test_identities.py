"""Identities as JSON: what a PUT says, what REST tells, and that reading what was written changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.iothub.identities import identity_json, parse_identity

D, M = Target("d"), Target("d", "m")


def parse(body: object, target: Target = D) -> Identity:
    return parse_identity(json.dumps(body).encode(), target)


def code_of(body: bytes | object, target: Target = D) -> int:
    with pytest.raises(HubError) as caught:
        parse_identity(body if isinstance(body, bytes) else json.dumps(body).encode(), target)
    return int(caught.value.code)


FULL = Identity(
    D,
    "",
    "",
    Authentication(AuthenticationType.SAS, "cDE=", "cDI=", "A" * 40, "B" * 64),
    enabled=False,
    status_reason="ünder repair",
    iot_edge=True,
    device_scope="scope",
    parent_scopes=("a", "b"),
)


def test_the_least_a_put_says() -> None:
    assert parse({}) == parse({"deviceId": "d", "etag": "x", "unknown": 1}) == Identity(D, "", "", Authentication())
    assert parse({"deviceId": "d", "moduleId": "m"}, M).target == M


@pytest.mark.parametrize("kind", AuthenticationType)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
def test_authentication_types_in_any_case(kind: AuthenticationType, spell: type[str]) -> None:
    assert parse({"authentication": {"type": spell(kind.value)}}).authentication.type is kind


def test_without_a_type_a_thumbprint_makes_it_self_signed() -> None:
    for thumbprints in ({"primaryThumbprint": "A" * 40}, {"secondaryThumbprint": "A" * 40}):
        made = parse({"authentication": {"x509Thumbprint": thumbprints}}).authentication
        assert made.type is AuthenticationType.SELF_SIGNED
    empty = {"x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": ""}, "symmetricKey": None}
    assert parse({"authentication": empty}).authentication == Authentication()


@pytest.mark.parametrize(("status", "enabled"), [(None, True), ("", True), ("Enabled", True), ("DISABLED", False)])
def test_status_in_any_case(status: str | None, enabled: bool) -> None:
    assert parse({"status": status}).enabled is enabled


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"deviceId": "e"}, 400004),
        ({"deviceId": "D"}, 400004),
        ({"moduleId": "m"}, 400004),
        ({"status": "off"}, 400004),
        ({"status": 1}, 400004),
        ({"authentication": {"type": "password"}}, 400004),
        ({"authentication": []}, 400004),
        ({"capabilities": {"iotEdge": "yes"}}, 400004),
        ([], 400004),
        (None, 400004),
        (b"", 400006),
        (b"{", 400006),
        (b'{"deviceId":"\xff"}', 400006),
        (b'{"x":' + b"[" * 50_000, 400006),
    ],
)
def test_what_is_no_identity(body: object, code: int) -> None:
    assert code_of(body) == code


def test_a_device_is_told_whole() -> None:
    shown = identity_json(replace(FULL, generation_id="1", etag="e", connected=True, last_activity_time=0.5))
    assert shown == {
        "deviceId": "d",
        "generationId": "1",
        "etag": "e",
        "connectionState": "Connected",
        "connectionStateUpdatedTime": "0001-01-01T00:00:00",
        "lastActivityTime": "1970-01-01T00:00:00.5000000Z",
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {"primaryKey": "cDE=", "secondaryKey": "cDI="},
            "x509Thumbprint": {"primaryThumbprint": "A" * 40, "secondaryThumbprint": "B" * 64},
            "type": "sas",
        },
        "status": "disabled",
        "statusReason": "ünder repair",
        "statusUpdatedTime": "0001-01-01T00:00:00",
        "capabilities": {"iotEdge": True},
        "parentScopes": ["a", "b"],
        "deviceScope": "scope",
    }
    assert "deviceScope" not in identity_json(replace(FULL, device_scope=None))


def test_a_module_has_a_manager_and_no_status() -> None:
    shown = identity_json(Identity(M, "1", "e", Authentication(), managed_by="edge"))
    assert (shown["deviceId"], shown["moduleId"], shown["managedBy"]) == ("d", "m", "edge")
    assert shown["connectionState"] == "Disconnected"
    assert not {"status", "capabilities", "statusReason", "parentScopes"} & set(shown)


TEXTS = st.one_of(st.none(), st.text(min_size=1, max_size=5))


@given(
    st.builds(
        Identity,
        st.just(D),
        st.just(""),
        st.just(""),
        st.builds(Authentication, st.sampled_from(AuthenticationType), TEXTS, TEXTS, TEXTS, TEXTS),
        enabled=st.booleans(),
        status_reason=TEXTS,
        iot_edge=st.booleans(),
        device_scope=TEXTS,
        parent_scopes=st.lists(st.text(max_size=3), max_size=3).map(tuple),
    )
)
def test_what_is_told_can_be_put_back(identity: Identity) -> None:
    """Tools read an identity, change one thing and write it."""
    assert parse(identity_json(identity)) == identity


@given(st.binary())
def test_any_bytes_are_an_identity_or_a_bad_request(body: bytes) -> None:
    try:
        parse_identity(body, D)
    except HubError as error:
        assert error.code in (ErrorCode.ArgumentInvalid, ErrorCode.IotHubFormatError)


KEYS = st.sampled_from(["deviceId", "status", "authentication", "type", "symmetricKey", "capabilities", "parentScopes"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just("sas")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, JSON))
def test_any_object_is_an_identity_or_a_bad_request(body: dict[str, object]) -> None:
    try:
        assert parse(body).target == D
    except HubError as error:
        assert error.code == ErrorCode.ArgumentInvalid
