"""Logs: where they go, how they look, and that no secret survives in them."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methodhub import log
from methodhub.core.access import Policy, Right
from methodhub.iothub.sas import build_token
from tests.harness import log_to_output


@pytest.fixture
def restored() -> Iterator[None]:
    """The process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    log_to_output()


@pytest.fixture(params=["json", "console"])
def stream(request: pytest.FixtureRequest, restored: None) -> io.StringIO:
    target = io.StringIO()
    log.configure("debug", request.param, target)
    return target


@pytest.fixture
def lines(restored: None) -> Callable[[], list[dict[str, Any]]]:
    target = io.StringIO()
    log.configure("info", "json", target)
    return lambda: [json.loads(line) for line in target.getvalue().splitlines()]


def test_a_line_has_time_level_logger_event_and_fields(lines: Callable[[], list[dict[str, Any]]]) -> None:
    log.get_logger("methodhub.net").info("connection closed", device="d1", seconds=1.5)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "connection closed",
        "level": "info",
        "logger": "methodhub.net",
        "device": "d1",
        "seconds": 1.5,
    }


def test_the_standard_library_uvicorn_and_warnings_take_the_same_way(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    logging.getLogger("uvicorn.error").warning("bad request from %s", "sig=abc&se=1")
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("anyone").debug("too quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("SharedAccessKey=abc", stacklevel=1)
    first, second = lines()
    assert (first["logger"], first["event"]) == ("uvicorn.error", "bad request from sig=***&se=1")
    assert second["logger"] == "py.warnings"
    assert "SharedAccessKey=***" in second["event"]


def test_below_the_level_nothing_is_written(lines: Callable[[], list[dict[str, Any]]]) -> None:
    log.get_logger("x").debug("no")
    log.get_logger("x").warning("yes")
    assert [line["event"] for line in lines()] == ["yes"]


def test_an_exception_has_its_traceback_without_local_variables(stream: io.StringIO) -> None:
    def fail() -> None:
        innocent_name = "zw" + "zw" * 10
        raise RuntimeError(f"{len(innocent_name)} with SharedAccessKey=abcdef;")

    try:
        fail()
    except RuntimeError:
        log.get_logger("x").exception("failed")
        logging.getLogger("y").exception("failed")
    text = stream.getvalue()
    assert text.count("RuntimeError: 22 with SharedAccessKey=***") == 2
    assert "in fail" in text
    assert "zwzw" not in text
    assert "abcdef" not in text


def test_nothing_is_configured_at_import() -> None:
    script = (
        "import logging, structlog; import methodhub.log;"
        "assert not logging.getLogger().handlers; assert not structlog.is_configured()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_stderr_is_where_logs_go_unless_told(restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.get_logger("methodhub.x").info("here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "here" in captured.err
    assert "\x1b" not in captured.err


KEYS = st.binary(min_size=16, max_size=48).map(lambda raw: base64.b64encode(raw).decode())

SHAPES: dict[str, Callable[[str], dict[str, object]]] = {
    "connection string": lambda key: {"text": f"HostName=h;DeviceId=d;SharedAccessKey={key}"},
    "quoted": lambda key: {"text": f'"HostName=h;SharedAccessKeyName=service;SharedAccessKey={key}" is wrong'},
    "token": lambda key: {"text": build_token("h/devices/d", key, 99), "second": (build_token("h", key, 1, "p"),)},
    "token in bytes": lambda key: {"packet": [b"\x00\xff" + build_token("h", key, 1).encode()]},
    "raw token": lambda key: {"text": f"SharedAccessSignature sr=h/devices/a'b&sig={quote(key, safe='')}&se=1"},
    "sig first": lambda key: {"query": f"?sig={quote(key, safe='')}&se=1&sr=h"},
    "encoded query": lambda key: {"query": "?t=" + quote(f"SharedAccessSignature sr=h&sig={key}&se=1", safe="")},
    "bearer": lambda key: {"header": f"authorization: Bearer {key}"},
    "by name": lambda key: {"primary_key": key, "Password": key.encode(), "sas_token": [key], "Authorization": key},
    "nested": lambda key: {"body": {"authentication": {"symmetricKey": {"primaryKey": key}}}},
    "json text": lambda key: {"body": json.dumps({"primaryKey": key, "secondaryKey": key})},
    "repr": lambda key: {"body": repr({"primary_key": key, "sharedAccessKey": key})},
    "dict in a list": lambda key: {"headers": [{"authorization": key}]},
    "an object": lambda key: {
        "policy": Policy("p", Right.SERVICE_CONNECT, key, key),
        "raised": ValueError(f"sig={key}"),
    },
    "an exception": lambda key: {"error": RuntimeError(f"password={key}, more")},
    "spaces": lambda key: {"text": f"SharedAccessKey = {key}"},
}


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
def test_no_key_survives_in_any_shape(stream: io.StringIO, shape: str, key: str) -> None:
    stream.seek(0)
    stream.truncate()
    fields = SHAPES[shape](key)
    log.get_logger("x").info("fields", **fields)
    log.get_logger("x").info(f"in the event {fields}")
    logging.getLogger("y").warning("as an argument %s", fields)
    text = stream.getvalue()
    assert "as an argument" in text
    assert log.MASK in text
    secrets = {key, quote(key, safe=""), key.rstrip("=")}
    if "token" in shape:
        token = build_token("h/devices/d", key, 99)
        secrets |= {token.partition("&sig=")[2].partition("&")[0]}
    assert not any(secret in text for secret in secrets)


def test_no_private_key_survives_whole_cut_or_escaped() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    body = pem.splitlines()[1]
    for text in (pem, pem[:90], repr(pem), json.dumps({"x": pem}), f"before {pem} after"):
        masked = log.mask_text(text)
        assert body[:10] not in masked
        assert log.MASK in masked
    assert log.mask_text(f"before {pem}after") == "before ***\nafter"


def test_what_is_no_secret_stays_readable() -> None:
    for text in (
        "device d1 signed in with policy service",
        "the token expired 40 seconds ago",
        "HostName=h;DeviceId=d1",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
        "POST /twins/d1/methods?api-version=2021-04-12",
        "$iothub/methods/POST/reboot/?$rid=1f",
        "design=a; resign=b",
    ):
        assert log.mask_text(text) == text
    assert log.mask_text("sr=h&sig=abc&se=1&skn=service") == "sr=h&sig=***&se=1&skn=service"
    assert log.mask_text("SharedAccessKeyName=service;SharedAccessKey=abc") == (
        "SharedAccessKeyName=service;SharedAccessKey=***"
    )
    assert log.mask_value({"key": None, "keys_checked": True, "n": 1}) == {"key": None, "keys_checked": True, "n": 1}


@pytest.mark.parametrize("part", ["a", "-----BEGIN ", "Bearer ", "sig ", "key", "password ", "SharedAccessSignature"])
def test_a_long_text_of_a_peer_costs_linear_time(part: str) -> None:
    """With quadratic time this would not end."""
    text = part * 200_000
    assert len(log.mask_text(text)) <= len(text)


def test_what_libraries_tell_of_their_work_is_not_logged(stream: io.StringIO) -> None:
    """[HUB-no-keys] At level debug, too: statements carry keys that look like nothing in particular."""
    log.get_logger("methodhub.store").debug("ours")
    for name in ("aiosqlite", "sqlalchemy.engine", "anyone"):
        logging.getLogger(name).info("executing INSERT with zw+zwzwzwzwzwzwzwzwzwzw=")
    assert "ours" in stream.getvalue() and "INSERT" not in stream.getvalue()


def test_a_bearer_token_never_stands_in_a_log() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl-_"
    for text in (f"Bearer {token}", f"authorization: bearer  {token}", f"{{'Authorization': 'Bearer {token}'}}"):
        assert token not in log.mask_text(text)
        assert token not in str(log.mask_value({"header": text.encode()}))
