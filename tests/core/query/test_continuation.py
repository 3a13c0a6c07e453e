"""Continuation tokens say what they were told to, once for one list, and to nobody who makes them up."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.query.continuation import MAX_LENGTH, Continuations, Position

ours = Continuations(b"s" * 32)
scalars = st.one_of(
    st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
positions = st.lists(scalars, max_size=4).map(tuple)


def refused(subject: str, token: str, continuations: Continuations = ours) -> bool:
    with pytest.raises(HubError) as caught:
        continuations.position(subject, token)
    return caught.value.code is ErrorCode.ArgumentInvalid


@given(st.text(), positions)
def test_a_position_comes_back(subject: str, position: Position) -> None:
    token = ours.token(subject, position)
    assert ours.position(subject, token) == position
    assert token.isascii()
    assert token.isprintable()


@given(st.text(), st.text(), positions)
def test_a_token_is_of_one_list(subject: str, other: str, position: Position) -> None:
    """[HUB-continuation]"""
    if subject != other:
        assert refused(other, ours.token(subject, position))


@given(positions, st.data())
def test_a_changed_token_is_refused(position: Position, data: st.DataObject) -> None:
    """[HUB-continuation]"""
    raw = bytearray(base64.urlsafe_b64decode(ours.token("list", position)))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    assert refused("list", base64.urlsafe_b64encode(bytes(raw)).decode())


def test_another_hub_s_token_is_refused() -> None:
    assert refused("list", ours.token("list", ("a",)), Continuations(b"t" * 32))


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refused("list", token)


def test_a_token_has_its_length() -> None:
    """[HUB-continuation] Node takes 16 KB of headers at most; and none is given that would be refused."""
    values = ("я" * 4_096, "é" * 4_096, "\x00" * 4_096)
    assert ours.position("list", ours.token("list", values)) == values
    assert base64.urlsafe_b64decode(ours.token("list", (1, "é")))[32:] == b'[1,"\\u00e9"]'  # as 0.6.0 reads it
    with pytest.raises(HubError, match="cannot be continued"):
        ours.token("list", (secrets.token_hex(MAX_LENGTH),))
    assert refused("list", ours.token("list", (1,)) + "A" * MAX_LENGTH)
