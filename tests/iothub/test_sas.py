"""Tokens as text: how each SDK spells them, what is no token, and that what we write we read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.access import AuthenticationError, check_token
from methodhub.iothub.sas import MAX_TOKEN_LENGTH, MalformedToken, build_token, parse_resource, parse_token

KEY = base64.b64encode(b"0123456789abcdef").decode()
HUB = "hub.local"
NAMES = frozenset({HUB})
EXPIRY = 1_900_000_000
ID = "Dev#1%41+a"  # every character that encodings disagree about
PATH = ("devices", ID)


def signature(resource: str, expiry: object = EXPIRY) -> str:
    """As every SDK makes it: HMAC-SHA256 over what stands in the token, base64."""
    digest = hmac.digest(base64.b64decode(KEY), f"{resource}\n{expiry}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode()


def text(resource: str, order: str = "sr sig se", skn: str | None = None, sig: str | None = None) -> str:
    values = {
        "sr": resource,
        "sig": quote(signature(resource), safe="") if sig is None else sig,
        "se": str(EXPIRY),
        "skn": skn,
    }
    return "SharedAccessSignature " + "&".join(f"{name}={values[name]}" for name in order.split())


def csharp(value: str) -> str:
    """Its UrlEncode: lower-case escapes, a plus for a space."""
    return re.sub("%..", lambda escape: escape[0].lower(), quote_plus(value, safe="!()*-._"))


DEVICE_SPELLINGS = {
    "Python": text(quote(f"{HUB}/devices/{ID}", safe="")),
    "Node": text(quote(f"{HUB}/devices/{ID}", safe="")),
    "Node with a policy": text(quote(f"{HUB}/devices/{ID}", safe=""), "sr sig skn se", "device"),
    "C": text(f"{HUB}/devices/{ID}"),
    "C#": text(csharp(f"{HUB}/devices/{csharp(ID)}")),
    "Java": text(f"{HUB}/devices/{quote(ID, safe='')}", "sig se sr"),
    "az": text(quote(f"{HUB}/devices/{ID}", safe="").replace("%2F", "%2f"), "sr sig se skn", "device"),
    "VS Code": text(quote(f"{HUB}/devices/{ID}/api-version=2016-11-14", safe="")),
}
HUB_SPELLINGS = {
    "Python": text(quote_plus(HUB), "sr sig se skn", "service", signature(HUB)),
    "Java": text(quote(HUB), "sig se skn sr", "service"),
    "Node": text(HUB, "sr sig skn se", "service"),
    "C#": text(csharp(HUB), "sr sig se skn", "service"),
    "upper case": text("HUB.Local", "sr sig se skn", "service"),
    "with a port": text(quote("hub.local:8443", safe=""), "sr sig se skn", "service"),
    "a slash behind": text("hub.local%2F", "sr sig se skn", "service"),
    "a URL": text(quote("https://hub.local", safe=""), "sr sig se skn", "service"),
}


@pytest.mark.parametrize("sdk", DEVICE_SPELLINGS)
def test_every_sdk_names_a_device(sdk: str) -> None:
    """[HUB-sas-signature] The signature covers the text as it stands, in whatever encoding."""
    token = parse_token(DEVICE_SPELLINGS[sdk])
    assert token.host == HUB
    assert PATH in token.paths
    assert token.expiry == EXPIRY
    assert token.policy_name == ("device" if "skn" in DEVICE_SPELLINGS[sdk] else None)
    check_token(token, (KEY,), NAMES, EXPIRY)


@pytest.mark.parametrize("sdk", HUB_SPELLINGS)
def test_every_sdk_names_the_hub(sdk: str) -> None:
    token = parse_token(HUB_SPELLINGS[sdk])
    assert (token.host, token.paths, token.policy_name) == (HUB, ((),), "service")
    check_token(token, (KEY,), NAMES, EXPIRY)


def test_an_id_with_a_percent_sign_has_two_readings() -> None:
    assert parse_resource(f"{HUB}%2Fdevices%2Fa%2541") == (HUB, (("devices", "a%41"), ("devices", "aA")))
    assert parse_resource(f"{HUB}/devices/a%41") == (HUB, (("devices", "aA"), ("devices", "a%41")))
    assert parse_resource(f"{HUB}/devices/d") == parse_resource(f"{HUB}%2fdevices%2fd") == (HUB, (("devices", "d"),))
    assert parse_resource(f"{HUB}/devices/a+b") == (HUB, (("devices", "a+b"), ("devices", "a b")))
    assert parse_resource(f"{HUB}/devices/d%3Fapi-version=2020")[1][0] == ("devices", "d?api-version=2020")


@pytest.mark.parametrize("end", ["/", "/?x", "/api-version=2020"])
def test_a_raw_end_behind_what_is_encoded_widens_nothing(end: str) -> None:
    """Else the path would be read as empty, too, which is the whole hub."""
    host, paths = parse_resource(f"{HUB}%2Fdevices%2Fd1{end}")
    assert (host, paths) == (HUB, (("devices", "d1"),))


@pytest.mark.parametrize("odd", ["?x", "api-version=1", "?"])
def test_an_id_that_looks_like_a_query_keeps_its_scope(odd: str) -> None:
    """Cut off like a query, it would leave a scope over all devices."""
    for resource in (f"{HUB}/devices/{odd}", quote(f"{HUB}/devices/{odd}", safe="")):
        assert parse_resource(resource)[1][0] == ("devices", odd)
        assert parse_resource(f"{resource}/?api-version=2016-11-14")[1][0] == ("devices", odd)


@pytest.mark.parametrize(
    ("resource", "host"),
    [("Hub.Local:443", "hub.local"), ("[::1]:8443", "[::1]:8443"), ("::1", "::1"), ("amqps://h/devices", "h")],
)
def test_a_port_is_no_part_of_the_host(resource: str, host: str) -> None:
    assert parse_resource(resource)[0] == host


def test_base64_may_stand_raw() -> None:
    """Python leaves the slashes of the signature; a raw plus is no space either."""
    for number in range(200):
        resource = f"{HUB}/devices/d{number}"
        raw = signature(resource)
        if "/" in raw and "+" in raw:
            token = parse_token(text(resource, sig=raw))
            check_token(token, (KEY,), NAMES, EXPIRY)
            assert token == parse_token(text(resource))
            return
    pytest.fail("no signature with both characters")


@pytest.mark.parametrize("expiry", ["1900000000.5", "1900000000.0", "1900000000"])
def test_the_expiry_may_be_a_float_and_is_signed_as_it_stands(expiry: str) -> None:
    token = parse_token(f"SharedAccessSignature sr={HUB}&sig={quote(signature(HUB, expiry))}&se={expiry}")
    assert token.expiry == float(expiry)
    check_token(token, (KEY,), NAMES, EXPIRY)


def test_names_of_fields_in_any_case_and_a_policy_raw_or_encoded() -> None:
    sig = quote(signature(HUB), safe="")
    for text in (
        f"sharedaccesssignature SR={HUB}&SIG={sig}&Se={EXPIRY}&SKN=a%20b",
        f"  SharedAccessSignature   skn=a b&sr={HUB}&sig={sig}&se={EXPIRY}  ",
        f"SharedAccessSignature sr={HUB}&sig={sig}&se={EXPIRY}&skn=a b&more=x",
    ):
        assert parse_token(text).policy_name == "a b"
    assert parse_token(f"SharedAccessSignature sr={HUB}&sig={sig}&se={EXPIRY}&skn=").policy_name is None


GOOD = text(HUB)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        " ",
        "SharedAccessSignature",
        "SharedAccessSignature ",
        "Bearer abc",
        GOOD.removeprefix("SharedAccessSignature "),
        GOOD.replace(" ", ""),
        GOOD.replace("sr=", "xr="),
        GOOD.replace("sig=", "xig="),
        GOOD.replace("se=", "xe="),
        f"{GOOD}&sr={HUB}",
        f"{GOOD}&SE=1",
        f"{GOOD}&skn",
        f"{GOOD}&",
        text(HUB, sig="not base64!"),
        text(HUB, sig="YQ"),
        text(HUB, sig=signature(HUB) + "!"),
        text(HUB, sig="%C3%A4"),
        *(GOOD.replace(str(EXPIRY), value) for value in ("", "soon", "-1", "nan", "inf", "1e300", "1e12", "9" * 400)),
        GOOD + "&x=" + "y" * MAX_TOKEN_LENGTH,
    ],
)
def test_what_is_no_token_is_malformed_and_not_repeated(bad: str) -> None:
    with pytest.raises(MalformedToken) as caught:
        parse_token(bad)
    assert len(str(caught.value)) < 100
    assert signature(HUB)[:8] not in str(caught.value)


def test_the_longest_token_is_read() -> None:
    parse_token(GOOD + "&x=" + "y" * (MAX_TOKEN_LENGTH - len(GOOD) - 3))


@given(st.one_of(st.text(), st.text().map(lambda rest: f"SharedAccessSignature {rest}")))
def test_any_text_is_a_token_or_malformed(anything: str) -> None:
    with contextlib.suppress(MalformedToken):
        parse_token(anything)


@given(st.text(), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_any_fields_are_a_token_or_malformed(sr: str, sig: str, se: str, skn: str) -> None:
    for expiry, signed in ((se, sig), (str(EXPIRY), sig), (se, "YQ=="), (str(EXPIRY), "YQ==")):
        try:
            token = parse_token(f"SharedAccessSignature sr={sr}&sig={signed}&se={expiry}&skn={skn}")
        except MalformedToken:
            continue
        assert token.host == token.host.lower()
        assert all(token.paths) or token.paths == ((),)


IDS = st.text(st.sampled_from(string.ascii_letters + string.digits + "-:.+%_#*?!(),=@;$'"), min_size=1, max_size=20)


@given(IDS, IDS, st.binary(min_size=16, max_size=64), st.integers(0, 10**11), st.sampled_from([None, "p", "a-b.c"]))
def test_what_we_write_we_read(device: str, module: str, key: bytes, expiry: int, policy: str | None) -> None:
    encoded = base64.b64encode(key).decode()
    path = ("devices", device, "modules", module)
    token = parse_token(build_token("/".join((HUB, *path)), encoded, expiry, policy))
    assert (token.host, token.paths[0], token.expiry, token.policy_name) == (HUB, path, expiry, policy)
    assert check_token(token, (encoded,), NAMES, expiry) == encoded
    with pytest.raises(AuthenticationError):
        check_token(token, (KEY + KEY,), NAMES, expiry)


def test_a_key_that_is_not_base64_cannot_sign() -> None:
    with pytest.raises(ValueError, match=r"."):
        build_token(HUB, "no key", EXPIRY)
