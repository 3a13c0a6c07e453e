"""The syntax tree of a query. Knows neither the parser nor what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
