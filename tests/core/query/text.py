"""The text of a query, which is parsed to the same tree."""

from __future__ import annotations

import json
import re

from methodhub.core.query.tree import (
    Aggregate,
    And,
    Arithmetic,
    Call,
    Column,
    Comparison,
    Condition,
    Constant,
    Expression,
    Literal,
    Membership,
    Negative,
    Not,
    Or,
    Path,
    Query,
    Undefined,
)

PLAIN_NAME = re.compile(r"[^\W\d]\w*|\$\w+")
"""A step of a path that needs no brackets. It may be a keyword."""


def query_text(query: Query) -> str:
    """The text of a query, which is parsed to the same tree."""
    top = "" if query.top is None else f"TOP {query.top} "
    columns = "*" if query.columns is None else ", ".join(_column_text(column) for column in query.columns)
    grouping = f" GROUP BY {', '.join(map(_path_text, query.group_by))}" if query.group_by else ""
    return f"SELECT {top}{columns} {condition_text(query.condition)}{grouping}"


def condition_text(condition: Condition) -> str:
    where = "" if condition.where is None else f" WHERE {expression_text(condition.where)}"
    return f"FROM {condition.collection}{where}"


def expression_text(expression: Expression) -> str:
    """Every operation within an operation stands in parentheses."""
    match expression:
        case Path():
            return _path_text(expression)
        case Literal(value):
            return _constant_text(value)
        case Negative(operand):
            return f"- {_inner(operand)}"
        case Not(operand):
            return f"NOT {_inner(operand)}"
        case And(operands):
            return " AND ".join(map(_inner, operands))
        case Or(operands):
            return " OR ".join(map(_inner, operands))
        case Arithmetic(operator, left, right) | Comparison(operator, left, right):
            return f"{_inner(left)} {operator} {_inner(right)}"
        case Membership(operand, choices, negated):
            listed = ", ".join(map(_constant_text, choices))
            return f"{_inner(operand)} {'NIN' if negated else 'IN'} [{listed}]"
        case Call(name, arguments):
            return f"{name}({', '.join(map(expression_text, arguments))})"


def _inner(expression: Expression) -> str:
    text = expression_text(expression)
    return text if isinstance(expression, Path | Literal | Call) else f"({text})"


def _path_text(path: Path) -> str:
    return path.steps[0] + "".join(map(_step_text, path.steps[1:]))


def _step_text(step: str) -> str:
    return f".{step}" if PLAIN_NAME.fullmatch(step) else f"[{_quoted(step)}]"


def _column_text(column: Column) -> str:
    value = column.value
    if isinstance(value, Aggregate):
        shown = f"{value.name}({'' if value.path is None else _path_text(value.path)})"
    else:
        shown = _path_text(value)
    return f"{shown} AS {column.key}"


def _constant_text(value: Constant) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Undefined):
        return "undefined"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + re.sub(r"[\x00-\x1f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + "'"
