"""Rights, scopes, tokens and their keys. Tokens are built by hand here: their text is the dialect's matter."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.access import (
    ADMINISTRATOR,
    ALL_RIGHTS,
    CLOCK_SKEW,
    DEFAULT_POLICIES,
    Action,
    AuthenticationError,
    KeyCredential,
    Policies,
    Policy,
    Principal,
    Right,
    SasToken,
    actions_of,
    authorize,
    check_device_token,
    check_token,
    default_policies,
    generate_key,
    is_still_valid,
    is_within,
    sign,
)
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication

HUB = "hub.local"
NAMES = frozenset({HUB, "127.0.0.1"})
FIRST, SECOND, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
POLICY = Policy("service", Right.SERVICE_CONNECT, FIRST, SECOND)
NOW = 1_800_000_000.0


def token(
    key: str = FIRST,
    *path: str,
    expiry: float = NOW + 600,
    host: str = HUB,
    policy: str | None = None,
    also: tuple[str, ...] | None = None,
) -> SasToken:
    text = f"{host}/{'/'.join(path)}\n{expiry}".encode()
    paths = (path,) if also is None else (path, also)
    return SasToken(host, paths, expiry, policy, sign(key, text), text)


def policies(*more: Policy) -> Policies:
    made = Policies(NAMES)
    made.load([POLICY, *more])
    return made


# --- one token ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [FIRST, SECOND])
def test_either_key_signs(key: str) -> None:
    assert check_token(token(key), (FIRST, SECOND), NAMES, NOW) == key


@pytest.mark.parametrize("field", ["signature", "signed_text"])
def test_a_change_of_one_bit_spoils_a_token(field: str) -> None:
    """[HUB-sas-signature]"""
    whole = token()
    value = getattr(whole, field)
    changed = dataclasses.replace(whole, **{field: value[:-1] + bytes([value[-1] ^ 1])})
    with pytest.raises(AuthenticationError, match="signature"):
        check_token(changed, (FIRST, SECOND), NAMES, NOW)


@pytest.mark.parametrize("keys", [(), (OTHER,), ("not base64!", OTHER), ("ü",)])
def test_no_other_key_signs(keys: tuple[str, ...]) -> None:
    with pytest.raises(AuthenticationError, match="signature"):
        check_token(token(), keys, NAMES, NOW)


def test_a_signature_cut_short_is_none() -> None:
    for length in (0, 1, 31):
        with pytest.raises(AuthenticationError):
            check_token(dataclasses.replace(token(), signature=token().signature[:length]), (FIRST,), NAMES, NOW)


def test_a_token_holds_five_minutes_longer_for_clocks_that_differ() -> None:
    """[HUB-clock-skew]"""
    assert CLOCK_SKEW == 300
    check_token(token(expiry=NOW - 300), (FIRST,), NAMES, NOW)
    with pytest.raises(AuthenticationError, match="expired 301 seconds"):
        check_token(token(expiry=NOW - 301), (FIRST,), NAMES, NOW)


def test_a_token_is_for_one_of_the_hubs_names() -> None:
    check_token(token(host="127.0.0.1"), (FIRST,), NAMES, NOW)
    with pytest.raises(AuthenticationError, match="none of this hub's names"):
        check_token(token(host="other.local"), (FIRST,), NAMES, NOW)


def test_what_the_log_is_told_holds_no_key() -> None:
    texts = [repr(token()), repr(POLICY), repr(KeyCredential(None, FIRST))]
    with pytest.raises(AuthenticationError) as caught:
        check_token(token(OTHER), (FIRST,), NAMES, NOW)
    texts.append(str(caught.value))
    for text in texts:
        assert FIRST not in text
        assert "signature=" not in text


# --- scopes ------------------------------------------------------------------------------------------------------

PATH = ("devices", "Dev", "modules", "m")


@pytest.mark.parametrize(
    ("scope", "within"),
    [
        ((), True),
        (("devices",), True),
        (("DEVICES", "Dev"), True),
        (("devices", "Dev", "Modules"), True),
        (PATH, True),
        (("devices", "dev"), False),
        (("devices", "De"), False),
        (("devices", "Dev", "modules", "M"), False),
        (("twins",), False),
        ((*PATH, "x"), False),
    ],
)
def test_a_scope_covers_whole_segments(scope: tuple[str, ...], within: bool) -> None:
    assert is_within(scope, PATH) is within


@given(st.lists(st.text(max_size=3), max_size=5), st.integers(0, 5))
def test_every_prefix_of_a_path_covers_it(path: list[str], length: int) -> None:
    assert is_within(tuple(path[:length]), tuple(path))
    assert is_within((), tuple(path))


@pytest.mark.parametrize("action", Action)
def test_an_action_that_is_missing_is_401002_and_no_more_is_told(action: Action) -> None:
    """[HUB-unauthorized]"""
    path = ("twins", "d")
    authorize(ADMINISTRATOR, action, path)
    authorize(Principal("p", frozenset({action})), action, path)
    with pytest.raises(HubError) as caught:
        authorize(Principal("p", frozenset(Action) - {action}), action, path)
    assert (caught.value.code, caught.value.message) == (ErrorCode.IotHubUnauthorizedAccess, "Unauthorized")
    assert "may not" in (caught.value.reason or "")


def test_each_action_belongs_to_one_right_of_policies() -> None:
    assert actions_of(ALL_RIGHTS) == frozenset(Action)
    assert sum(len(actions_of([right])) for right in Right) == len(Action)


def test_a_scoped_principal_reaches_only_its_paths() -> None:
    principal = Principal("p", frozenset(Action), (("twins", "d%41"), ("twins", "dA")))
    for device in ("d%41", "dA"):
        authorize(principal, Action.METHODS_INVOKE, ("twins", device, "modules", "m"))
    with pytest.raises(HubError) as caught:
        authorize(principal, Action.METHODS_INVOKE, ("twins", "other"))
    assert "scoped to /twins/d%41" in (caught.value.reason or "")


# --- policies ----------------------------------------------------------------------------------------------------


def test_the_default_policies_have_the_documented_rights_and_keys_of_their_own() -> None:
    made = default_policies()
    assert {policy.name: policy.rights for policy in made} == DEFAULT_POLICIES
    assert DEFAULT_POLICIES["registryRead"] == Right.REGISTRY_READ
    assert DEFAULT_POLICIES["registryReadWrite"] == Right.REGISTRY_READ | Right.REGISTRY_WRITE
    keys = {key for policy in made for key in (policy.primary_key, policy.secondary_key)}
    assert len(keys) == 10
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {32}
    assert generate_key() not in keys


@pytest.mark.parametrize(("name", "complaint"), [(None, "names no policy"), ("Service", "there is no policy")])
def test_a_token_of_the_service_names_a_policy(name: str | None, complaint: str) -> None:
    with pytest.raises(AuthenticationError, match=complaint):
        policies().authenticate(b"text", token(policy=name), NOW)


def test_a_verified_token_is_remembered_until_it_expires() -> None:
    made = policies()
    principal = made.authenticate(b"text", token(policy="service", expiry=NOW + 10), NOW)
    assert principal == Principal("service", actions_of([Right.SERVICE_CONNECT]), ((),))
    assert made.cached(b"text", NOW + 10) is principal
    assert made.cached(b"text", NOW + 10.001) is None
    assert made.cached(b"texT", NOW) is None


def test_what_was_not_verified_is_not_remembered() -> None:
    made = policies()
    with pytest.raises(AuthenticationError):
        made.authenticate(b"text", token(OTHER, policy="service"), NOW)
    assert made.cached(b"text", NOW) is None


def test_a_change_of_policies_forgets_every_verified_token() -> None:
    made = policies()
    made.authenticate(b"text", token(policy="service"), NOW)
    made.load([dataclasses.replace(POLICY, primary_key=OTHER)])
    assert made.cached(b"text", NOW) is None
    with pytest.raises(AuthenticationError):
        made.authenticate(b"text", token(policy="service"), NOW)


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    made = Policies(NAMES, cache_size=3)
    made.load([POLICY])
    for number in range(5):
        made.authenticate(b"%d" % number, token(policy="service"), NOW)
    assert [made.cached(b"%d" % number, NOW) is not None for number in range(5)] == [False, False, True, True, True]


def test_policies_are_found_by_name() -> None:
    assert policies().get("service") is POLICY
    assert policies().get("SERVICE") is None
    assert policies().all() == [POLICY]


# --- devices -----------------------------------------------------------------------------------------------------

DEVICE_POLICY = Policy("device", Right.DEVICE_CONNECT, OTHER, SECOND)
OWN = Authentication(primary_key=FIRST, secondary_key=SECOND)
DEVICE = ("devices", "d")


@pytest.mark.parametrize("scope", [DEVICE, ("Devices", "d")])
def test_a_device_proves_itself_with_its_own_key(scope: tuple[str, ...]) -> None:
    for key in (FIRST, SECOND):
        credential = check_device_token(token(key, *scope), DEVICE, OWN, policies(), NOW)
        assert credential == KeyCredential(None, key)
        assert is_still_valid(credential, OWN, policies(), ())
        assert not is_still_valid(credential, Authentication(primary_key=OTHER), policies(), ())


@pytest.mark.parametrize("scope", [(), ("devices",), DEVICE])
def test_a_policy_that_may_connect_lets_a_device_in(scope: tuple[str, ...]) -> None:
    with_device = policies(DEVICE_POLICY)
    credential = check_device_token(token(OTHER, *scope, policy="device"), DEVICE, OWN, with_device, NOW)
    assert credential == KeyCredential("device", OTHER)
    assert is_still_valid(credential, Authentication(), with_device, ())
    assert not is_still_valid(credential, OWN, policies(), ())
    assert not is_still_valid(credential, OWN, policies(dataclasses.replace(DEVICE_POLICY, primary_key=FIRST)), ())


def test_either_reading_of_the_resource_may_name_the_device() -> None:
    doubly = token(FIRST, "devices", "d%2541", also=("devices", "d%41"))
    check_device_token(doubly, ("devices", "d%41"), OWN, policies(), NOW)
    check_device_token(doubly, ("devices", "d%2541"), OWN, policies(), NOW)


@pytest.mark.parametrize(
    ("bad", "authentication", "complaint"),
    [
        (token(FIRST, "devices", "e"), OWN, "scoped"),
        (token(FIRST, "devices", "d", "modules", "m"), OWN, "scoped"),
        (token(FIRST, *DEVICE, policy="service"), OWN, "lacks the right DeviceConnect"),
        (token(SECOND, *DEVICE, policy="device"), OWN, "signature"),
        (token(OTHER, *DEVICE), OWN, "signature"),
        (token(FIRST, *DEVICE), Authentication(), "no keys"),
        (token(FIRST, *DEVICE, expiry=NOW - 301), OWN, "expired"),
    ],
)
def test_what_lets_no_device_in(bad: SasToken, authentication: Authentication, complaint: str) -> None:
    device_policy = dataclasses.replace(DEVICE_POLICY, secondary_key=OTHER)
    with pytest.raises(AuthenticationError, match=complaint):
        check_device_token(bad, DEVICE, authentication, policies(device_policy), NOW)


def test_a_module_is_not_let_in_by_the_key_of_its_device() -> None:
    """[HUB-module-key] The module's own key signs: here it has other keys than its device."""
    path = (*DEVICE, "modules", "m")
    with pytest.raises(AuthenticationError, match="signature"):
        check_device_token(token(FIRST, *DEVICE), path, Authentication(primary_key=OTHER), policies(), NOW)
    check_device_token(token(OTHER, *path), path, Authentication(primary_key=OTHER), policies(), NOW)
