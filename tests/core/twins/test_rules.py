"""Changes of twins as RFC 7396 has them, their versions and metadata, and the limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.twins.model import FRESH_VERSION, Twin
from methodhub.core.twins.rules import (
    MAX_INTEGER,
    TwinUpdate,
    created,
    difference,
    merged,
    patched,
    reported,
    size,
    updated,
)

D = Target("d")
THEN, NOW = "2027-01-15T08:00:00.0000000Z", "2027-01-15T08:00:01.5000000Z"

KEYS = st.text("abc", min_size=1, max_size=2)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text("xy", max_size=2)
VALUES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=2), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)


def rfc_7396(target: Any, patch: Any) -> Any:
    """MergePatch of the RFC, section 2, to the letter."""
    if isinstance(patch, dict):
        result = dict(target) if isinstance(target, dict) else {}
        for name, value in patch.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = rfc_7396(result.get(name), value)
        return result
    return patch


def wrong(change: Any) -> str:
    """The text of the 400004 that a change is refused with."""
    with pytest.raises(HubError) as refused:
        change()
    assert refused.value.code is ErrorCode.ArgumentInvalid
    return refused.value.message


def nested(levels: int) -> dict[str, Any]:
    """`levels` objects, one in the other, the innermost with a property."""
    value: dict[str, Any] = {"p": 1}
    for _ in range(levels - 1):
        value = {"o": value}
    return value


@given(OBJECTS, OBJECTS)
def test_patches_merge_as_the_rfc_says(old: dict[str, Any], patch: dict[str, Any]) -> None:
    before = rfc_7396({}, old)
    assert merged(before, patch) == rfc_7396(before, patch)
    assert before == rfc_7396({}, old), "the old value is not touched"


@given(OBJECTS, OBJECTS)
def test_a_replacement_told_as_a_patch_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = rfc_7396({}, old), rfc_7396({}, new)
    assert merged(before, difference(before, after)) == after


@given(OBJECTS, OBJECTS)
def test_metadata_has_the_shape_of_the_values(old: dict[str, Any], patch: dict[str, Any]) -> None:
    twin = reported(reported(Twin(D), old, 0.0), patch, 1.0)

    def check(values: Any, metadata: dict[str, Any]) -> None:
        assert "$lastUpdated" in metadata
        keys = values.keys() if isinstance(values, dict) else set()
        assert metadata.keys() - {"$lastUpdated"} == keys
        for key in keys:
            check(values[key], metadata[key])

    check(twin.reported.values, twin.reported.metadata)
    assert (twin.version, twin.reported.version, twin.desired.version) == (3, 3, 1)


def test_desired_metadata_tells_when_and_at_which_version() -> None:
    twin = patched(Twin(D), None, {"a": {"b": 1, "c": 2}, "d": [1]}, 1_800_000_000.0)
    twin = patched(twin, None, {"a": {"b": 3}, "d": None}, 1_800_000_001.5)
    old, new = {"$lastUpdated": THEN, "$lastUpdatedVersion": 2}, {"$lastUpdated": NOW, "$lastUpdatedVersion": 3}
    assert twin.desired.values == {"a": {"b": 3, "c": 2}}
    assert twin.desired.metadata == {**new, "a": {**new, "b": new, "c": old}}
    assert (twin.desired.version, twin.version) == (3, 3)


def test_reported_metadata_tells_no_version() -> None:
    assert reported(Twin(D), {"a": 1}, 1_800_000_000.0).reported.metadata == {
        "$lastUpdated": THEN,
        "a": {"$lastUpdated": THEN},
    }


def test_a_twin_that_is_created_with_values_is_fresh() -> None:
    twin = created(D, {"site": "north"}, {"a": 1}, 1_800_000_000.0)
    assert (twin.version, twin.desired.version, twin.reported.version) == (FRESH_VERSION,) * 3
    assert twin.desired.metadata["a"] == {"$lastUpdated": THEN, "$lastUpdatedVersion": 1}
    assert twin.etag == "AAAAAAAAAAE="
    assert created(D, None, None, 0.0) == Twin(D)
    assert created(D, {"t": 1}, None, 0.0) == Twin(D, tags={"t": 1})


def test_the_etag_is_of_what_back_ends_change() -> None:
    """[HUB-twin-etag]"""
    twin = patched(Twin(D), {"a": 1}, None, 0.0)
    told = reported(twin, {"b": 1}, 0.0)
    assert told.version > twin.version
    assert told.etag == twin.etag
    assert Twin(D).etag != twin.etag != patched(told, {"a": 2}, None, 0.0).etag


def test_what_changes_nothing_is_no_change() -> None:
    twin = created(D, {"a": 1}, {"b": 1}, 0.0)
    for update in (TwinUpdate(), TwinUpdate({}, {})):
        assert updated(twin, update, 1.0) == (twin, None)
    assert updated(Twin(D), TwinUpdate(replaces=True), 1.0) == (Twin(D), None)
    assert reported(twin, {}, 1.0).reported.version == 2, "a device that reports is always answered a new version"


def test_a_replacement_replaces_both_sections_and_tells_the_device_what_went() -> None:
    twin = created(D, {"a": 1, "b": {"c": 1}}, {"x": {"y": 1, "z": 2}, "w": 1}, 0.0)
    after, patch = updated(twin, TwinUpdate({"b": 2}, {"x": {"y": 5}}, replaces=True), 1.0)
    assert (after.tags, after.desired.values) == ({"b": 2}, {"x": {"y": 5}})
    assert patch == {"x": {"y": 5, "z": None}, "w": None}
    after, patch = updated(after, TwinUpdate(tags={"t": 1}, replaces=True), 2.0)
    assert (after.tags, after.desired.values, patch) == ({"t": 1}, {}, {"x": None})


def test_tags_alone_leave_the_properties_alone() -> None:
    twin, patch = updated(Twin(D), TwinUpdate({"a": 1}), 1.0)
    assert (twin.version, twin.desired, patch) == (2, Twin(D).desired, None)


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        ({}, 0),
        ({"key": 1}, 3 + 8),
        ({"key": 1.5}, 3 + 8),
        ({"key": True}, 3 + 4),
        ({"key": "value"}, 3 + 5),
        ({"schlüssel": "wärt"}, 10 + 5),
        ({"a": {"b": {"c": False}}}, 3 + 4),
        ({"a": [1, "xy", {"k": True}, None]}, 1 + 8 + 2 + 1 + 4 + 4),
    ],
)
def test_size_counts_names_and_values(value: dict[str, Any], counted: int) -> None:
    """[HUB-twin-size]"""
    assert size(value) == counted


@pytest.mark.parametrize(("section", "limit"), [("tags", 8_192), ("desired", 32_768), ("reported", 32_768)])
def test_sections_are_bounded_by_the_size_that_they_would_have(section: str, limit: int) -> None:
    """[HUB-twin-size] What was there counts; metadata does not."""

    def change(twin: Twin, patch: dict[str, Any]) -> Twin:
        if section == "reported":
            return reported(twin, patch, 0.0)
        return patched(twin, patch if section == "tags" else None, patch if section == "desired" else None, 0.0)

    twin = Twin(D)
    for number in range(limit // 1024):
        twin = change(twin, {f"{number:04}": "x" * 1020})
    assert "at most" in wrong(lambda: change(twin, {"k": True}))
    assert change(twin, {"0000": None, "k": True}).version == limit // 1024 + 2


def test_depth_is_bounded() -> None:
    """[HUB-twin-limits] Ten levels below the section."""
    assert patched(Twin(D), nested(11), None, 0.0).tags == nested(11)
    assert "tags.o.o.o.o.o.o.o.o.o.o.o" in wrong(lambda: patched(Twin(D), nested(12), None, 0.0))
    arrays: Any = 1
    for _ in range(500):
        arrays = [arrays]
    assert "deeper than 10" in wrong(lambda: reported(Twin(D), {"a": arrays}, 0.0))


@pytest.mark.parametrize(
    "key", ["", "a.b", "a$", "$version", "a b", "\x00", "a\x1f", "\x7f", "\x85", "\ud800", "k" * 1025, "ü" * 513]
)
def test_names_are_checked(key: str) -> None:
    """[HUB-twin-limits]"""
    assert "properties.reported.o" in wrong(lambda: reported(Twin(D), {"o": {key: 1}}, 0.0))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (MAX_INTEGER + 1, "4503599627370497"),
        (-MAX_INTEGER - 1, "4503599627370496]"),
        (10**40, "must be within"),
        ("x" * 4_097, "4097 bytes of at most 4096"),
        ("ü" * 2_049, "4098 bytes"),
        ("a\x00b", "'\\x00'"),
        ("\ud800", "'\\ud800'"),
    ],
)
def test_values_are_checked_also_in_arrays(value: Any, told: str) -> None:
    """[HUB-twin-limits] With the path of what is wrong."""
    message = wrong(lambda: patched(Twin(D), None, {"a": {"b": [0, value]}}, 0.0))
    assert "properties.desired.a.b[1] " in message
    assert told in message


def test_values_at_their_limits_are_taken() -> None:
    values = {
        "k" * 1024: "x" * 4_096,
        "ü-_/:": [MAX_INTEGER, -MAX_INTEGER, 1e300, -0.5, None, True, "\U0001f600\t"],
        "__t": "c",
    }
    assert reported(Twin(D), values, 0.0).reported.values == values
