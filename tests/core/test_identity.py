"""Targets and ids: what may be an id, and how a target is written."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.identity import ID_PATTERN, Authentication, Target

ALLOWED = string.ascii_letters + string.digits + "-:.+%_#*?!(),=@;$'"


@given(st.text(st.sampled_from(ALLOWED), min_size=1, max_size=128))
def test_ids_of_the_allowed_characters(text: str) -> None:
    assert ID_PATTERN.fullmatch(text)


@given(st.text(st.characters(exclude_characters=ALLOWED), min_size=1, max_size=1), st.text(st.sampled_from(ALLOWED)))
def test_one_other_character_spoils_an_id(bad: str, rest: str) -> None:
    assert not ID_PATTERN.fullmatch(bad + rest)
    assert not ID_PATTERN.fullmatch(rest + bad)


@pytest.mark.parametrize("text", ["", "a" * 129, "a/b", "a b", "a\n", "ä", "a\0"])
def test_what_is_no_id(text: str) -> None:
    assert not ID_PATTERN.fullmatch(text)


def test_a_module_lives_under_its_device() -> None:
    assert str(Target("d")) == "d"
    assert str(Target("d", "m")) == "d/m"
    assert Target("d", "m").device == Target("d").device == Target("d")


def test_keys_are_those_that_are_there_and_are_not_shown() -> None:
    authentication = Authentication(primary_key="first-secret", secondary_key="second-secret")
    assert authentication.keys == ("first-secret", "second-secret")
    assert Authentication(secondary_key="x").keys == ("x",)
    assert "secret" not in repr(authentication)
