"""Bulk requests as JSON: any bytes give items or an error of the catalogue; each item keeps what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.registry.items import BulkItem, ImportMode
from methodhub.iothub.bulk import bulk_result, parse_bulk, parse_item, parse_regeneration

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["id", "ID", "moduleId", "importMode", "eTag", "twinETag", "status", "authentication", "tags", "properties"]
)


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    for parse in (parse_bulk, parse_regeneration):
        try:
            parse(body)
        except HubError as error:
            assert error.code.http_status == 400


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_item(item: dict[str, Any]) -> None:
    parsed = parse_item(item)
    assert parsed.error is None or parsed.error.code is ErrorCode.ArgumentInvalid
    if parsed.error is None and parsed.mode in {ImportMode.CREATE, ImportMode.UPDATE, ImportMode.UPDATE_IF_MATCH}:
        assert parsed.identity is not None and parsed.identity.target == parsed.target


@pytest.mark.parametrize("mode", list(ImportMode))
@pytest.mark.parametrize("spell", [str, str.lower, str.upper, str.title])
def test_every_mode_in_any_case(mode: ImportMode, spell: Any) -> None:
    assert parse_item({"id": "a", "importMode": spell(mode.value)}).mode is mode


def test_what_a_reader_sends_back() -> None:
    """Reported properties, and what the hub writes of the desired ones, are not a back end's to write."""
    properties = {"desired": {"a": 1, "$version": 7, "$metadata": {}}, "reported": {"b": 2, "$version": 1}}
    item = parse_item({"id": "a", "moduleId": "m", "importMode": "updateTwin", "properties": properties})
    assert (item.target, item.desired, item.tags, item.error) == (Target("a", "m"), {"a": 1}, None, None)


@pytest.mark.parametrize("item", [None, 1, "a", [], {}, {"id": 1}, {"id": ""}, {"id": "a/b"}, {"id": "a" * 129}])
def test_an_item_without_a_name(item: Any) -> None:
    [parsed] = parse_bulk(json.dumps([item]).encode())
    assert parsed.error is not None and parsed.error.code is ErrorCode.ArgumentInvalid


def test_a_result_names_what_failed() -> None:
    items = [BulkItem(Target("a"), ImportMode.CREATE), BulkItem(Target("b", "m"), ImportMode.DELETE)]
    error = HubError(ErrorCode.ModuleNotFound, "There is none.")
    assert bulk_result(items, [None, None]) == {"isSuccessful": True, "errors": [], "warnings": []}
    assert bulk_result(items, [None, error])["errors"] == [
        {
            "deviceId": "b",
            "moduleId": "m",
            "errorCode": "ModuleNotFound",
            "errorStatus": "There is none.",
            "operation": "delete",
        }
    ]
