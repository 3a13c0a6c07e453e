"""The columns of a query out of a document. Knows no store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from methodhub.core.query.tree import UNDEFINED, Column, Path, Undefined


def value_at(document: object, path: Path) -> Any:
    """What stands at a path of a JSON document, or UNDEFINED."""
    for step in path.steps:
        if not isinstance(document, dict) or step not in document:
            return UNDEFINED
        document = document[step]
    return document


def project(document: dict[str, Any], columns: Iterable[Column]) -> dict[str, Any]:
    """The object that a query answers for a document. A column that is undefined there is left out."""
    row = {}
    for column in columns:
        assert isinstance(column.value, Path)
        value = value_at(document, column.value)
        if not isinstance(value, Undefined):
            row[column.key] = value
    return row
