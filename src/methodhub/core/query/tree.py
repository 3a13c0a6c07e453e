"""The syntax tree of a query, and its text. Knows neither the parser nor what runs it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

PLAIN_NAME = re.compile(r"[^\W\d]\w*|\$\w+")
"""A step of a path that needs no brackets. It may be a keyword."""


class Collection(StrEnum):
    DEVICES = "devices"
    MODULES = "devices.modules"
    JOBS = "devices.jobs"


class Undefined:
    """What a property that is not there evaluates to: neither true nor false, and equal to nothing."""

    def __repr__(self) -> str:
        return "UNDEFINED"


UNDEFINED = Undefined()

Constant = str | float | bool | Undefined | None
"""A literal. Every number is a double, as in JSON."""


DOCUMENTS = {"tags", "properties"}
"""What a path begins with that leads into a document."""


@dataclass(frozen=True, slots=True)
class Path:
    """A property, without the name of its collection. System names are spelled in camelCase."""

    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    value: Constant


@dataclass(frozen=True, slots=True)
class Negative:
    """Unary minus."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class Not:
    operand: Expression


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    operator: str  # + - * / %
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Comparison:
    operator: str  # = != < <= > >=
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Membership:
    """IN, or if `negated` NIN."""

    operand: Expression
    choices: tuple[Constant, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function by its name in capitals."""

    name: str
    arguments: tuple[Expression, ...]


Expression = Path | Literal | Negative | Not | And | Or | Arithmetic | Comparison | Membership | Call


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`name` is count, avg, sum, min or max; only count has no path."""

    name: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A value of the answer and its key there."""

    value: Path | Aggregate
    key: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Which targets are meant: those of a collection for which `where` is true, or all."""

    collection: Collection
    where: Expression | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """`columns` is None for `SELECT *`; `top` for all rows."""

    condition: Condition
    columns: tuple[Column, ...] | None = None
    group_by: tuple[Path, ...] = ()
    top: int | None = None

    @property
    def is_grouped(self) -> bool:
        """Whether rows are groups of documents, not documents."""
        return bool(self.group_by) or any(isinstance(column.value, Aggregate) for column in self.columns or ())


def count_paths(expression: Expression) -> int:
    """How many properties of documents an expression names, each as often as it does; others are columns."""
    match expression:
        case Path(steps):
            return steps[0] in DOCUMENTS
        case Negative(operand) | Not(operand) | Membership(operand):
            return count_paths(operand)
        case And(operands) | Or(operands) | Call(_, operands):
            return sum(map(count_paths, operands))
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            return count_paths(left) + count_paths(right)
        case _:
            return 0


# --- its text ----------------------------------------------------------------------------------------------------


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
