"""Groups of documents as rows: how a value becomes columns that can be grouped and ordered, and a value again."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import ColumnElement, Double, Integer, Text, case, func, literal

from methodhub.core.query.continuation import Position
from methodhub.core.query.page import OutOfRange
from methodhub.core.query.tree import UNDEFINED
from methodhub.iothub.rest import timestamp
from methodhub.store.query.documents import Documents, Kind
from methodhub.store.query.values import NEVER, Value

WIDTH = 3
"""Columns of one value: its rank, and its number or text (0 and empty where it is of another kind)."""
ABSENT, NULL, BOOLEAN, NUMBER, TEXT, TIME = range(6)
EXACT = 2.0**53
"""Below it, a double that is a whole number is told as one."""


def columns_of(documents: Documents, value: Value) -> list[ColumnElement[Any]]:
    """Objects and arrays count as absent: only primitives are grouped."""
    ranks: list[tuple[ColumnElement[bool], ColumnElement[int]]] = []
    if Kind.NULL in value.kinds:
        ranks.append((value.is_kind(Kind.NULL), literal(NULL, Integer)))
    numbers: list[ColumnElement[Any]] = []
    for rank, each in ((BOOLEAN, value.boolean), (NUMBER, value.number), (TEXT, value.text), (TIME, value.time)):
        if each is not None:
            ranks.append((each.is_not(None), literal(rank, Integer)))
    if value.boolean is not None:
        numbers.append(case((value.boolean, literal(1.0, Double)), (~value.boolean, literal(0.0, Double))))
    numbers += [each for each in (value.number, value.time) if each is not None]
    text: ColumnElement[str] = literal("", Text) if value.text is None else func.coalesce(value.text, "", type_=Text)
    return [
        case(*ranks, else_=literal(ABSENT, Integer)) if ranks else literal(ABSENT, Integer),
        func.coalesce(*numbers, literal(0.0, Double), type_=Double) if numbers else literal(0.0, Double),
        documents.ordered(text),
    ]


def value_of(rank: int, number: float, text: str) -> Any:
    """The value, or UNDEFINED."""
    match rank:
        case 1:
            return None
        case 2:
            return number == 1
        case 3:
            return number_of(number)
        case 4:
            return text
        case 5:
            return timestamp(None if number == NEVER * 1e6 else number / 1e6)
        case _:
            return UNDEFINED


def values_of(key: Position) -> list[Any]:
    """The values that the columns of a group's key stand for."""
    parts: list[Any] = list(key)
    return [value_of(*parts[at : at + WIDTH]) for at in range(0, len(parts), WIDTH)]


def number_of(value: float | int) -> float | int:
    """As JSON tells it. Raises OutOfRange for what is no number any more."""
    if not math.isfinite(value):
        raise OutOfRange
    return int(value) if float(value).is_integer() and abs(value) < EXACT else float(value)
