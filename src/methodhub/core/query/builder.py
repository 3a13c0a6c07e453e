"""What each rule of the grammar makes of its parts, and what a query must keep to beyond the grammar. Holds no state:
one parser serves every thread."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.query import tree
from methodhub.core.query.names import canonical
from methodhub.core.query.tree import UNDEFINED, Aggregate, Collection, Expression, Literal, Path

if TYPE_CHECKING:
    from lark import Token

MAX_NESTING = 16
"""Levels. SQLite's parser holds 100 symbols, and a level of a query is several."""
MAX_PATHS = 150
"""[HUB-query-size] Tags and properties that a condition may name; each is several KB of the database's text."""
MAX_GROUPS = 16
"""[HUB-query-size] Properties to group by, and aggregates."""
MAX_TOP = 2**31 - 1
FUNCTIONS = {
    "IS_DEFINED": 1,
    "IS_NULL": 1,
    "IS_BOOL": 1,
    "IS_NUMBER": 1,
    "IS_STRING": 1,
    "IS_OBJECT": 1,
    "IS_ARRAY": 1,
    "STARTSWITH": 2,
    "ENDSWITH": 2,
    "CONTAINS": 2,
}
"""How many arguments each takes."""
AGGREGATES = ("count", "avg", "sum", "min", "max")
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def failed(text: str) -> HubError:
    """[HUB-query-error]"""
    return HubError(ErrorCode.ArgumentInvalid, text)


def wrong(line: int, column: int, text: str) -> HubError:
    return failed(f"The query is wrong at line {line}, column {column}: {text}.")


class Part(NamedTuple):
    """Something that was recognised, how deep it is, and where it begins."""

    value: Any
    depth: int
    line: int
    column: int

    def wrong(self, text: str) -> HubError:
        return wrong(self.line, self.column, text)


def joined(value: object, first: Part | Token, parts: Sequence[Part]) -> Part:
    """[HUB-query-nesting] A part made of others. Raises 400004 where they are nested too deeply."""
    depth = 1 + max((part.depth for part in parts), default=0)
    made = Part(value, depth, first.line or 1, first.column or 1)
    if depth > MAX_NESTING:
        raise made.wrong(f"the expression is nested deeper than {MAX_NESTING} levels")
    return made


def leaf(value: object, token: Token) -> Part:
    return Part(value, 1, token.line or 1, token.column or 1)


class Builder:
    """One method for each rule, with what the rule is made of."""

    # --- whole texts ---------------------------------------------------------------------------------------------

    def query(self, parts: list[Part]) -> Part:
        top, columns, collection, where, group_by = parts
        condition = self._condition(collection, where)
        group = tuple(canonical(part.value.steps, collection.value) for part in group_by.value)
        query = tree.Query(condition, self._columns(columns.value, collection.value), group, top.value)
        self._check(query, columns, group_by)
        return top._replace(value=query)

    def _columns(self, parts: list[tuple[Part, str | None]] | None, collection: Collection) -> Any:
        if parts is None:
            return None
        columns: dict[str, tree.Column] = {}
        for part, alias in parts:
            value = part.value
            if isinstance(value, Path):
                value = canonical(value.steps, collection)
            elif value.path is not None:
                value = replace(value, path=canonical(value.path.steps, collection))
            key = alias or (value.steps[-1] if isinstance(value, Path) else value.name)
            if key in columns:
                raise part.wrong(f"two columns are named {key!r}; name one of them with AS")
            columns[key] = tree.Column(value, key)
        return tuple(columns.values())

    def _check(self, query: tree.Query, columns: Part, group_by: Part) -> None:
        if query.condition.collection is Collection.JOBS and (query.columns is not None or query.group_by):
            raise (group_by if query.columns is None else columns).wrong("of devices.jobs, SELECT * is all there is")
        if not query.is_grouped:
            return
        for part, count in ((group_by, len(query.group_by)), (columns, len(query.columns or ()))):
            if count > MAX_GROUPS:
                raise part.wrong(f"a query of groups names {count} columns; at most {MAX_GROUPS} are allowed")
        if query.columns is None:
            raise columns.wrong("SELECT * and GROUP BY do not go together")
        for (part, _), column in zip(columns.value, query.columns, strict=True):
            if isinstance(column.value, Path) and column.value not in query.group_by:
                raise part.wrong("beside an aggregate, a column must stand in GROUP BY")

    def all_of(self, parts: list[Token]) -> Part:
        return leaf(tree.Condition(Collection.DEVICES), parts[0])

    def only_condition(self, parts: list[Part]) -> Part:
        return parts[0]._replace(value=self._condition(parts[0]._replace(value=Collection.DEVICES), parts[0]))

    def from_condition(self, parts: list[Part]) -> Part:
        collection, where = parts
        if collection.value is Collection.JOBS:
            raise collection.wrong("expected devices or devices.modules; found devices.jobs")
        return collection._replace(value=self._condition(collection, where))

    def _condition(self, collection: Part, where: Part) -> tree.Condition:
        given = where.value
        if given is None:
            return tree.Condition(collection.value)
        found = named(given, collection.value)
        paths = tree.count_paths(found)
        if paths > MAX_PATHS:
            raise where.wrong(f"the condition names {paths} tags and properties; at most {MAX_PATHS} are allowed")
        return tree.Condition(collection.value, found)

    # --- clauses -------------------------------------------------------------------------------------------------

    def top(self, parts: list[Token]) -> Part:
        if not parts:
            return Part(None, 1, 1, 1)
        if not parts[0].isdecimal() or len(parts[0]) > 10 or not 1 <= int(parts[0]) <= MAX_TOP:
            raise leaf(None, parts[0]).wrong(f"TOP must be a whole number within [1; {MAX_TOP}]")
        return leaf(int(parts[0]), parts[0])

    def all_columns(self, parts: list[Token]) -> Part:
        return leaf(None, parts[0])

    def some_columns(self, parts: list[Part]) -> Part:
        return parts[0]._replace(value=[part.value for part in parts])

    def column(self, parts: list[Any]) -> Part:
        value: Part = parts[0]
        return value._replace(value=(value, str(parts[1]) if len(parts) > 1 else None))

    def aggregate(self, parts: list[Any]) -> Part:
        name = parts[0].lower()
        if name not in AGGREGATES:
            raise leaf(None, parts[0]).wrong(f"expected {', '.join(AGGREGATES)} or a property; found {parts[0][:40]!r}")
        if (name == "count") != (len(parts) == 1):
            takes = "takes nothing" if name == "count" else "takes a property"
            raise leaf(None, parts[0]).wrong(f"{name} {takes}")
        return leaf(Aggregate(name, parts[1].value if len(parts) > 1 else None), parts[0])

    def collection(self, parts: list[Token]) -> Part:
        name = ".".join(parts).lower()
        if name not in set(Collection):
            raise leaf(None, parts[0]).wrong(f"expected {', '.join(Collection)}; found {name[:40]!r}")
        return leaf(Collection(name), parts[0])

    def where(self, parts: list[Part]) -> Part:
        return parts[0] if parts else Part(None, 1, 1, 1)

    def group_by(self, parts: list[Part]) -> Part:
        return parts[0]._replace(value=parts) if parts else Part([], 1, 1, 1)

    # --- expressions ---------------------------------------------------------------------------------------------

    def disjunction(self, parts: list[Part]) -> Part:
        return joined(tree.Or(tuple(part.value for part in parts)), parts[0], parts)

    def conjunction(self, parts: list[Part]) -> Part:
        return joined(tree.And(tuple(part.value for part in parts)), parts[0], parts)

    def negation(self, parts: list[Any]) -> Part:
        return joined(tree.Not(parts[1].value), parts[0], parts[1:])

    def comparison(self, parts: list[Any]) -> Part:
        left, operator, right = parts
        spelled = "!=" if operator == "<>" else str(operator)
        return joined(tree.Comparison(spelled, left.value, right.value), left, [left, right])

    def membership(self, parts: list[Any]) -> Part:
        operand, word, *choices = parts
        listed = tuple(choice.value.value for choice in choices)
        return joined(tree.Membership(operand.value, listed, word.upper() == "NIN"), operand, [operand])

    def arithmetic(self, parts: list[Any]) -> Part:
        left, operator, right = parts
        return joined(tree.Arithmetic(str(operator), left.value, right.value), left, [left, right])

    def negative(self, parts: list[Any]) -> Part:
        sign, operand = parts
        if isinstance(operand.value, Literal) and isinstance(operand.value.value, float):
            return joined(Literal(-operand.value.value), sign, [operand])
        return joined(tree.Negative(operand.value), sign, [operand])

    def parentheses(self, parts: list[Part]) -> Part:
        return joined(parts[0].value, parts[0], parts)

    def call(self, parts: list[Any]) -> Part:
        token, arguments = parts[0], parts[1:]
        name = token.upper()
        if name not in FUNCTIONS:
            raise leaf(None, token).wrong(f"expected one of {', '.join(FUNCTIONS)}; found {token[:40]!r}")
        if len(arguments) != FUNCTIONS[name]:
            takes = "one argument" if FUNCTIONS[name] == 1 else "two arguments"
            raise leaf(None, token).wrong(f"{name} takes {takes}, not {len(arguments)}")
        return joined(tree.Call(name, tuple(part.value for part in arguments)), token, arguments)

    def path(self, parts: list[Any]) -> Part:
        steps = (str(parts[0]), *(part.value for part in parts[1:]))
        return joined(Path(steps), parts[0], [Part(None, len(parts) - 1, 1, 1)])

    def name_step(self, parts: list[Token]) -> Part:
        return leaf(str(parts[0]), parts[0])

    def bracketed_step(self, parts: list[Token]) -> Part:
        return leaf(str(parts[0])[2:-2], parts[0])

    def text_step(self, parts: list[Token]) -> Part:
        return leaf(unescaped(parts[0]), parts[0])

    # --- literals ------------------------------------------------------------------------------------------------

    def text(self, parts: list[Token]) -> Part:
        return leaf(Literal(unescaped(parts[0])), parts[0])

    def number(self, parts: list[Token]) -> Part:
        value = float(parts[0])
        if not math.isfinite(value):
            raise leaf(None, parts[0]).wrong("the number is too large")
        return leaf(Literal(value), parts[0])

    def hexadecimal(self, parts: list[Token]) -> Part:
        try:
            return leaf(Literal(float(int(parts[0], 16))), parts[0])
        except OverflowError:
            raise leaf(None, parts[0]).wrong("the number is too large") from None

    def true(self, parts: list[Token]) -> Part:
        return leaf(Literal(True), parts[0])

    def false(self, parts: list[Token]) -> Part:
        return leaf(Literal(False), parts[0])

    def null(self, parts: list[Token]) -> Part:
        return leaf(Literal(None), parts[0])

    def undefined(self, parts: list[Token]) -> Part:
        return leaf(Literal(UNDEFINED), parts[0])


def unescaped(token: Token) -> str:
    """The text within quotes. `\\'`, `\\"`, `\\\\` and `\\uXXXX` are all the escapes that there are."""

    def character(found: re.Match[str]) -> str:
        if found[1] is not None:
            return chr(int(found[1], 16))
        if found[2] in "'\"\\":
            return found[2]
        raise leaf(None, token).wrong("a backslash in a text stands before ', \", \\ or u and four hexadecimal digits")

    text = ESCAPE.sub(character, token[1:-1])
    try:
        # Two escapes may stand for the two halves of one character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise leaf(None, token).wrong("the text holds half of a character") from None


def named(expression: Expression, collection: Collection) -> Expression:
    """The expression with its paths as they are in this collection."""

    def each(expressions: tuple[Expression, ...]) -> tuple[Expression, ...]:
        return tuple(named(one, collection) for one in expressions)

    match expression:
        case Path(steps):
            return canonical(steps, collection)
        case tree.Not(operand) | tree.Negative(operand) | tree.Membership(operand):
            return replace(expression, operand=named(operand, collection))
        case tree.And(operands) | tree.Or(operands):
            return replace(expression, operands=each(operands))
        case tree.Arithmetic(_, left, right) | tree.Comparison(_, left, right):
            return replace(expression, left=named(left, collection), right=named(right, collection))
        case tree.Call(name, arguments):
            return tree.Call(name, each(arguments))
        case _:
            return expression
