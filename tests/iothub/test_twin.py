"""The empty twin: it answers, counts, and refuses what is no object."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.iothub.twin import EmptyTwin


def test_it_counts_the_versions_of_what_was_reported() -> None:
    twin = EmptyTwin()
    assert [twin.patch_reported(patch) for patch in (b"{}", b'{"a":null}')] == [(204, 2, b""), (204, 3, b"")]
    status, version, body = twin.get()
    assert (status, version) == (200, None)
    assert json.loads(body) == {"desired": {"$version": 1}, "reported": {"$version": 3}}
    assert json.loads(EmptyTwin().get()[2])["reported"] == {"$version": 1}


@pytest.mark.parametrize("patch", [b"", b" ", b"[]", b"null", b"1", b"{", b"{}{}", b'{"\xff":1}', b'{"a":' * 50_000])
def test_a_patch_is_a_json_object(patch: bytes) -> None:
    twin = EmptyTwin()
    assert twin.patch_reported(patch) == (400, None, b"")
    assert twin.patch_reported(b"{}") == (204, 2, b"")


@given(st.binary())
def test_any_patch_is_answered(patch: bytes) -> None:
    assert EmptyTwin().patch_reported(patch) in {(400, None, b""), (204, 2, b"")}
