"""What a part of a query evaluates to, as SQL: one expression for each kind that it may be of. What is undefined is
NULL in all of them, so that SQL's three values are the language's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Double, Text, and_, case, cast, false, func, literal, null, true
from sqlalchemy.sql.elements import False_, Grouping, True_, UnaryExpression

from methodhub.core.query.tree import Constant
from methodhub.store.query.documents import Documents, Kind, without_nul

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = -62_135_596_800.0
"""The year 1, in seconds since 1970: when something happened that never did."""


@dataclass(frozen=True, slots=True)
class Value:
    """`number`, `text`, `boolean` and `time` are NULL where the value is of another kind, or None where it never is of
    this one. A time is microseconds since 1970: a string to the caller, but compared as a time.
    """

    defined: ColumnElement[bool]
    kinds: Mapping[Kind, ColumnElement[bool]] = field(default_factory=dict)
    number: ColumnElement[float] | None = None
    text: ColumnElement[str] | None = None
    boolean: ColumnElement[bool] | None = None
    time: ColumnElement[float] | None = None

    def is_kind(self, kind: Kind) -> ColumnElement[bool]:
        """Never NULL."""
        return func.coalesce(self.kinds[kind], false()) if kind in self.kinds else false()


MISSING = Value(false())
NO_BOOLEAN: ColumnElement[bool] = cast(null(), Boolean)
"""Neither true nor false."""


def boolean(expression: ColumnElement[bool]) -> Value:
    if isinstance(expression, True_ | False_):
        # SQLAlchemy's constants are words of SQL, which cannot be compared with anything.
        expression = literal(isinstance(expression, True_), Boolean)
    elif isinstance(expression, UnaryExpression):
        expression = Grouping(expression)  # SQL reads `NOT x IS NULL` as `NOT (x IS NULL)`, SQLAlchemy writes it so
    defined = expression.is_not(None)
    return Value(defined, {Kind.BOOLEAN: defined}, boolean=expression)


def number(double: ColumnElement[Any]) -> Value:
    given = double.is_not(None)
    return Value(given, {Kind.NUMBER: given}, number=double)


def whole_number(column: ColumnElement[Any]) -> Value:
    return number(cast(column, Double))


def text(expression: ColumnElement[str]) -> Value:
    """Of a column that is never NULL."""
    return Value(true(), {Kind.STRING: true()}, text=expression)


def optional_text(column: ColumnElement[str | None], *, has_null: bool) -> Value:
    """Where the column is NULL, the property is null or not there."""
    given = column.is_not(None)
    expression: ColumnElement[Any] = column
    if has_null:
        return Value(true(), {Kind.STRING: given, Kind.NULL: column.is_(None)}, text=expression)
    return Value(given, {Kind.STRING: given}, text=expression)


def time(column: ColumnElement[Any], *, has_never: bool) -> Value:
    """Of a column of seconds. Where it is NULL, it never happened, or the property is not there."""
    seconds = func.coalesce(column, NEVER, type_=Double) if has_never else column
    given = seconds.is_not(None)
    microseconds = func.round(cast(seconds, Double) * literal(1e6, Double), type_=Double)
    return Value(given, {Kind.STRING: given}, time=microseconds)


def container(kind: Kind) -> Value:
    return Value(true(), {kind: true()})


def within(documents: Documents, document: ColumnElement[str], steps: tuple[str, ...]) -> Value:
    """What stands in a document of JSON text."""
    steps = tuple(map(without_nul, steps))
    return Value(
        documents.defined(document, steps),
        {kind: documents.kind(document, steps, kind) for kind in Kind},
        number=documents.number(document, steps),
        text=documents.text(document, steps),
        boolean=documents.boolean(document, steps),
    )


def constant(value: Constant) -> Value:
    match value:
        case None:
            return container(Kind.NULL)
        case bool():
            return Value(true(), {Kind.BOOLEAN: true()}, boolean=literal(value, Boolean))
        case float():
            return Value(true(), {Kind.NUMBER: true()}, number=literal(value, Double))
        case str():
            at = microseconds_of(value)
            return Value(
                true(),
                {Kind.STRING: true()},
                text=literal(without_nul(value), Text),
                time=None if at is None else literal(at, Double),
            )
        case _:
            return MISSING


def microseconds_of(value: str) -> float | None:
    """Since 1970, of a time in ISO 8601 (UTC where it does not say); None if it is none."""
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
    return float(since // timedelta(microseconds=1))


# --- operations --------------------------------------------------------------------------------------------------

COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def compared(documents: Documents, operator: str, left: Value, right: Value) -> ColumnElement[bool]:
    """[HUB-query-types] NULL unless both are of one kind, and that is primitive. A time is compared with a text that
    tells one."""
    compare = COMPARISONS[operator]
    outcomes: list[ColumnElement[bool]] = []
    if left.text is not None and right.text is not None:
        texts = [left.text, right.text]
        if operator not in ("=", "!="):
            texts = [documents.ordered(each) for each in texts]
        outcomes.append(compare(*texts))
    for one, other in ((left.number, right.number), (left.time, right.time), (left.boolean, right.boolean)):
        if one is not None and other is not None:
            outcomes.append(compare(one, other))
    if operator in ("=", "!=") and Kind.NULL in left.kinds and Kind.NULL in right.kinds:
        both = and_(left.kinds[Kind.NULL], right.kinds[Kind.NULL])
        outcomes.append(case((both, literal(operator == "=", Boolean))))
    return first_of(outcomes)


def compared_with_null(operator: str, value: Value) -> ColumnElement[bool]:
    """[HUB-query-null] `= null` and `!= null` ask of whatever is defined if it is null."""
    if operator not in ("=", "!="):
        return NO_BOOLEAN
    is_null = value.is_kind(Kind.NULL)
    return case((value.defined, is_null if operator == "=" else ~is_null))


def one_of(documents: Documents, value: Value, choices: Iterable[Constant]) -> ColumnElement[bool]:
    """`x IN [a, b]` is `x = a OR x = b`. [HUB-query-types] What x can never be compared with makes that undefined,
    unless x is one of the others."""
    choices = list(choices)
    constants = [each for each in choices if isinstance(each, str | float | bool)]
    groups: list[tuple[ColumnElement[Any] | None, list[Any]]] = [
        (value.text, [without_nul(each) for each in constants if isinstance(each, str)]),
        (value.number, [each for each in constants if isinstance(each, float)]),
        (value.boolean, [each for each in constants if isinstance(each, bool)]),
        (value.time, [at for each in constants if isinstance(each, str) and (at := microseconds_of(each)) is not None]),
    ]
    outcomes: list[ColumnElement[bool]] = [one.in_(some) for one, some in groups if one is not None and some]
    if not all(each is None or is_comparable(value, each) for each in choices):
        outcomes.append(NO_BOOLEAN)
    if any(each is None for each in choices):
        outcomes.append(compared_with_null("=", value))
    return balanced(outcomes, is_or=True) if outcomes else NO_BOOLEAN


def is_comparable(value: Value, constant: Constant) -> bool:
    if isinstance(constant, str):
        return value.text is not None or (value.time is not None and microseconds_of(constant) is not None)
    if isinstance(constant, bool):
        return value.boolean is not None
    return isinstance(constant, float) and value.number is not None


def first_of(outcomes: list[ColumnElement[bool]]) -> ColumnElement[bool]:
    """The one that is not NULL: a value is of one kind."""
    if not outcomes:
        return NO_BOOLEAN
    return outcomes[0] if len(outcomes) == 1 else func.coalesce(*outcomes, type_=Boolean)


def balanced(operands: list[ColumnElement[bool]], *, is_or: bool) -> ColumnElement[bool]:
    """Joined by AND or OR as a tree as low as can be: SQLite takes no more than 1,000 levels."""
    while len(operands) > 1:
        pairs = [operands[at : at + 2] for at in range(0, len(operands), 2)]
        operands = [pair[0] if len(pair) == 1 else _pair(*pair, is_or=is_or) for pair in pairs]
    return operands[0]


def _pair(left: ColumnElement[bool], right: ColumnElement[bool], *, is_or: bool) -> ColumnElement[bool]:
    # SQLAlchemy would join equal operators to one flat list again.
    joined = left | right if is_or else left & right
    return Grouping(joined)
