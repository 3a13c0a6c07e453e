"""Exactly one JSON value in UTF-8: the same verdict as the standard library's, and never another exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from methodhub.iothub.payload import json_error

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
)
PIECES = st.lists(
    st.sampled_from(
        [*'[]{}:,"\\ \n\t01e+-.', "null", "true", "false", "NaN", "Infinity", '"a"', "\\u", "d800", "\x00", "ä"]
    )
).map("".join)


def judge(payload: bytes) -> bool:
    """RFC 8259 by the standard library: its NaN and Infinity, which are no JSON, are taken away."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(payload.decode("utf-8"), parse_constant=refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_what_the_standard_library_writes_is_json(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert json_error(text.encode()) is None


@given(PIECES)
@example('"\\ud800"')
@example("1e999")
@example("-0")
@example("01")
@example("\ufeff1")
@example("1" * 5000)
@example('{"a":1,"a":2}')
@example('"\x1f"')
@example('"\x7f"')
@example("\u00a01")
@example('"\\/\\b\\f\\u0000"')
@example('"\\x"')
def test_the_verdict_on_any_text_is_that_of_the_standard_library(text: str) -> None:
    payload = text.encode()
    assert (json_error(payload) is None) == judge(payload)


@given(VALUES, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), min_size=1, max_size=3))
def test_the_verdict_on_json_that_was_damaged(value: object, damages: list[tuple[int, bytes]]) -> None:
    payload = json.dumps(value, ensure_ascii=False).encode()
    for place, damage in damages:
        at = place % (len(payload) + 1)
        payload = payload[:at] + damage + payload[at + 1 :]
    assert (json_error(payload) is None) == judge(payload)


@given(st.binary())
def test_any_bytes_have_a_verdict(payload: bytes) -> None:
    assert (json_error(payload) is None) == judge(payload)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "it is not one JSON value"),
        (b" ", "it is not one JSON value"),
        (b"{} {}", "it is not one JSON value"),
        (b"{'a':1}", "it is not one JSON value"),
        (b"NaN", "it is not one JSON value"),
        (b'"\xff"', "it is not UTF-8 (byte 1)"),
        (b'"\xed\xa0\x80"', "it is not UTF-8"),
        (b"\xff\xfe1\x00", "it is not"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b"[" * 50_000 + b"]" * 50_000, "it is nested too deeply"),
        (b"[1e999," + b"[" * 50_000 + b"]" * 50_000 + b"]", "it is n"),
    ],
)
def test_the_complaint_says_what_is_wrong(payload: bytes, error: str) -> None:
    assert (json_error(payload) or "fine").startswith(error)


def test_a_depth_that_people_use_is_fine() -> None:
    assert json_error(b"[" * 100 + b"]" * 100) is None
