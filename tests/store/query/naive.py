"""What a query answers, worked out the plain way: in Python, on the documents themselves. Slow, and obviously right."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from methodhub.core.query.columns import project, value_at
from methodhub.core.query.tree import (
    UNDEFINED,
    Aggregate,
    And,
    Arithmetic,
    Call,
    Comparison,
    Expression,
    Literal,
    Membership,
    Negative,
    Not,
    Or,
    Path,
    Query,
)

TIMES = {("lastActivityTime",), ("statusUpdateTime",)}
KINDS = {
    "NULL": "null",
    "BOOL": "boolean",
    "NUMBER": "number",
    "STRING": "string",
    "OBJECT": "object",
    "ARRAY": "array",
}


class Time(str):
    """A text that the hub knows to be a time."""

    __slots__ = ()


def kind(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", dict: "object", list: "array", type(None): "null"}
    return "string" if isinstance(value, str) else names[type(value)]


def read(document: dict[str, Any], path: Path) -> Any:
    value = value_at(document, path)
    if path.steps in TIMES:
        return Time(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def evaluate(expression: Expression, document: dict[str, Any]) -> Any:
    match expression:
        case Path():
            return read(document, expression)
        case Literal(value):
            return value.replace("\0", "\ufffd") if isinstance(value, str) else value
        case Negative(operand):
            number = evaluate(operand, document)
            return -number if number is not UNDEFINED and kind(number) == "number" else UNDEFINED
        case Not(operand):
            truth = boolean(operand, document)
            return UNDEFINED if truth is UNDEFINED else not truth
        case And(operands):
            return combine([boolean(each, document) for each in operands], decisive=False)
        case Or(operands):
            return combine([boolean(each, document) for each in operands], decisive=True)
        case Arithmetic(operator, left, right):
            return calculate(operator, evaluate(left, document), evaluate(right, document))
        case Comparison(operator, left, right):
            return comparison(operator, left, right, document)
        case Membership(operand, choices, negated):
            found = combine([comparison("=", operand, Literal(choice), document) for choice in choices], decisive=True)
            return found if found is UNDEFINED or not negated else not found
        case Call(name, arguments):
            return call(name, [evaluate(each, document) for each in arguments], arguments)


def boolean(expression: Expression, document: dict[str, Any]) -> Any:
    value = evaluate(expression, document)
    return value if isinstance(value, bool) else UNDEFINED


def combine(values: list[Any], *, decisive: bool) -> Any:
    """AND is decided by a false, OR by a true; else an undefined one makes it undefined."""
    if any(value is decisive for value in values):
        return decisive
    return UNDEFINED if any(value is UNDEFINED for value in values) else not decisive


def calculate(operator: str, left: Any, right: Any) -> Any:
    if UNDEFINED in (left, right) or {kind(left), kind(right)} != {"number"}:
        return UNDEFINED
    left, right = float(left), float(right)
    if operator == "%":
        whole = int(abs(left)) % int(abs(right)) if int(right) else None
        return UNDEFINED if whole is None else float(whole if left >= 0 else -whole)
    if operator == "/":
        return left / right if right else UNDEFINED
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def comparison(operator: str, left: Expression, right: Expression, document: dict[str, Any]) -> Any:
    if Literal(None) in (left, right):
        other = evaluate(right if left == Literal(None) else left, document)
        if other is UNDEFINED or operator not in ("=", "!="):
            return UNDEFINED
        return (other is None) == (operator == "=")
    one, two = evaluate(left, document), evaluate(right, document)
    if UNDEFINED in (one, two) or kind(one) != kind(two) or kind(one) in ("object", "array"):
        return UNDEFINED
    if isinstance(one, Time) or isinstance(two, Time):
        # Only with another time, or a literal that tells one.
        if not all(isinstance(value, Time) or isinstance(side, Literal) for value, side in ((one, left), (two, right))):
            return UNDEFINED
        one, two = instant(one), instant(two)
        if one is None or two is None:
            return UNDEFINED
    return compare(operator, one, two)


def compare(operator: str, one: Any, two: Any) -> Any:
    match operator:
        case "=":
            return one == two
        case "!=":
            return one != two
    if one is None:
        return UNDEFINED
    if isinstance(one, str):
        one, two = one.encode(), two.encode()
    return bool({"<": one < two, "<=": one <= two, ">": one > two, ">=": one >= two}[operator])


def call(name: str, values: list[Any], arguments: Iterable[Expression]) -> Any:
    if name == "IS_DEFINED":
        return values[0] is not UNDEFINED
    if name.startswith("IS_"):
        return values[0] is not UNDEFINED and kind(values[0]) == KINDS[name.removeprefix("IS_")]
    if not all(isinstance(value, str) and not isinstance(value, Time) for value in values):
        return UNDEFINED
    whole, part = values
    return {"STARTSWITH": whole.startswith(part), "ENDSWITH": whole.endswith(part), "CONTAINS": part in whole}[name]


# --- whole queries -----------------------------------------------------------------------------------------------


def matching(where: Expression | None, documents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [document for document in documents if where is None or evaluate(where, document) is True]


def answer(query: Query, documents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the documents; groups in no order, and all of them whatever TOP says."""
    found = matching(query.condition.where, documents)
    if query.is_grouped:
        return groups(query, found)
    found = found if query.top is None else found[: query.top]
    return found if query.columns is None else [project(document, query.columns) for document in found]


def groups(query: Query, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    members: dict[str, list[dict[str, Any]]] = {} if query.group_by else {"[]": []}
    keys: dict[str, list[Any]] = {"[]": []}
    for document in documents:
        key = [group_key(read(document, path)) for path in query.group_by]
        name = json.dumps([["absent"] if part is UNDEFINED else part for part in key])
        members.setdefault(name, []).append(document)
        keys[name] = key
    rows = []
    for name, group in members.items():
        values = dict(zip(query.group_by, keys[name], strict=True))
        row = {}
        for column in query.columns or ():
            value = aggregate(column.value, group) if isinstance(column.value, Aggregate) else values[column.value]
            if value is not UNDEFINED:
                row[column.key] = value
        rows.append(row)
    return rows


def group_key(value: Any) -> Any:
    if value is UNDEFINED or isinstance(value, dict | list):
        return UNDEFINED
    return float(value) if kind(value) == "number" else value


def aggregate(wanted: Aggregate, group: list[dict[str, Any]]) -> Any:
    if wanted.path is None:
        return len(group)
    found = [read(document, wanted.path) for document in group]
    numbers = [float(value) for value in found if value is not UNDEFINED and kind(value) == "number"]
    if not numbers:
        return UNDEFINED
    if wanted.name == "avg":
        return sum(numbers) / len(numbers)
    if wanted.name == "sum":
        return sum(numbers)
    return min(numbers) if wanted.name == "min" else max(numbers)
