"""Values within JSON text, as each database reads them. Both give the same: a value has one kind, and a number is a
double. Knows no column of ours."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Text,
    case,
    cast,
    collate,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH

PLAIN_KEY = re.compile(r"[\x20-\x7e]+")
"""A key that stands in JSON text as it is, save the quote and the backslash."""


class Kind(StrEnum):
    NULL = "null"
    BOOLEAN = "boolean"
    NUMBER = "number"
    STRING = "string"
    OBJECT = "object"
    ARRAY = "array"


def without_nul(text: str) -> str:
    """[HUB-query-nul] Neither database compares texts behind a U+0000: it counts as U+FFFD."""
    return text.replace("\0", "\ufffd")


class Documents(ABC):
    """What stands at `steps` of a document of JSON text. Each answer is NULL where it is of another kind."""

    @abstractmethod
    def kind(self, document: ColumnElement[str], steps: tuple[str, ...], kind: Kind) -> ColumnElement[bool]: ...

    @abstractmethod
    def defined(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]: ...

    @abstractmethod
    def number(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[float]: ...

    @abstractmethod
    def text(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[str]: ...

    @abstractmethod
    def boolean(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]: ...

    @abstractmethod
    def ordered(self, text: ColumnElement[str]) -> ColumnElement[str]:
        """The text, to be ordered by its bytes."""

    @abstractmethod
    def position(self, text: ColumnElement[str], part: ColumnElement[str]) -> ColumnElement[int]:
        """Where the part begins, from 1; 0 if it is not there."""

    @abstractmethod
    def remainder(self, left: ColumnElement[float], right: ColumnElement[float]) -> ColumnElement[float]:
        """Of the whole parts; NULL by zero."""

    def readable(self, column: ColumnElement[str]) -> ColumnElement[str]:
        """A column of JSON text without NUL. Escaped backslashes are spelled out first: none then stands before the
        NUL's own."""
        spelled = func.replace(column, r"\\", r"\u005c", type_=Text)
        has_nul = self.position(column, literal(r"\u0000", Text)) > 0
        return case((has_nul, func.replace(spelled, r"\u0000", r"\ufffd", type_=Text)), else_=column)


class SqliteDocuments(Documents):
    TYPES: ClassVar = {
        Kind.NULL: ("null",),
        Kind.BOOLEAN: ("true", "false"),
        Kind.NUMBER: ("integer", "real"),
        Kind.STRING: ("text",),
        Kind.OBJECT: ("object",),
        Kind.ARRAY: ("array",),
    }

    def kind(self, document: ColumnElement[str], steps: tuple[str, ...], kind: Kind) -> ColumnElement[bool]:
        return self._at(document, steps, "type").in_(self.TYPES[kind])

    def defined(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]:
        return self._at(document, steps, "type").is_not(None)

    def number(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[float]:
        return cast(self._of_kind(document, steps, Kind.NUMBER), Double)

    def text(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[str]:
        return self._of_kind(document, steps, Kind.STRING)

    def boolean(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]:
        return cast(self._of_kind(document, steps, Kind.BOOLEAN), Boolean)

    def ordered(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return text

    def position(self, text: ColumnElement[str], part: ColumnElement[str]) -> ColumnElement[int]:
        return func.instr(text, part)

    def remainder(self, left: ColumnElement[float], right: ColumnElement[float]) -> ColumnElement[float]:
        whole = cast(left, BigInteger).op("%", return_type=BigInteger())(func.nullif(cast(right, BigInteger), 0))
        return cast(whole, Double)

    def _of_kind(self, document: ColumnElement[str], steps: tuple[str, ...], kind: Kind) -> ColumnElement[Any]:
        return case((self.kind(document, steps, kind), self._at(document, steps, "value")))

    def _at(self, document: ColumnElement[str], steps: tuple[str, ...], what: str) -> ColumnElement[Any]:
        """SQLite's paths have no escapes, and compare a key with its escapes in the text: odd keys are searched for."""
        if all(PLAIN_KEY.fullmatch(step) and not {'"', "\\"} & set(step) for step in steps):
            path = "$" + "".join(f'."{step}"' for step in steps)
            function = func.json_type if what == "type" else func.json_extract
            return function(document, path, type_=Text)
        *parents, last = steps
        for step in parents:
            document = self._search(document, step, "object")
        return self._search(document, last, what)

    def _search(self, document: ColumnElement[str], step: str, what: str) -> ColumnElement[Any]:
        members = func.json_each(document).table_valued("key", "value", "type")
        columns: dict[str, ColumnElement[Any]] = {
            "type": members.c.type,
            "value": members.c.value,
            "object": case((members.c.type == "object", members.c.value)),
        }
        # An array's keys are numbers, which equal no text.
        return select(columns[what]).where(members.c.key == literal(step, Text)).limit(1).scalar_subquery()


class PostgresDocuments(Documents):
    def kind(self, document: ColumnElement[str], steps: tuple[str, ...], kind: Kind) -> ColumnElement[bool]:
        return func.jsonb_typeof(self._at(document, steps), type_=Text) == literal(kind.value, Text)

    def defined(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]:
        return self._at(document, steps).is_not(None)

    def number(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[float]:
        return cast(self._at(document, steps, Kind.NUMBER), Double)

    def text(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[str]:
        found = self._at(document, steps, Kind.STRING)
        return found.op("#>>", return_type=Text())(cast(literal("{}", Text), ARRAY(Text)))

    def boolean(self, document: ColumnElement[str], steps: tuple[str, ...]) -> ColumnElement[bool]:
        return cast(self._at(document, steps, Kind.BOOLEAN), Boolean)

    def ordered(self, text: ColumnElement[str]) -> ColumnElement[str]:
        return collate(text, "C")

    def position(self, text: ColumnElement[str], part: ColumnElement[str]) -> ColumnElement[int]:
        return func.strpos(text, part)

    def remainder(self, left: ColumnElement[float], right: ColumnElement[float]) -> ColumnElement[float]:
        wholes = [cast(func.trunc(part), BigInteger) for part in (left, right)]
        return cast(func.mod(wholes[0], func.nullif(wholes[1], 0)), Double)

    def _at(self, document: ColumnElement[str], steps: tuple[str, ...], kind: Kind | None = None) -> ColumnElement[Any]:
        """One pass over the text, whatever the depth. Strict: a step into an array finds nothing."""
        path = "strict $" + "".join(f".{json.dumps(step)}" for step in steps)
        if kind is not None:
            path += f' ? (@.type() == "{kind}")'
        return func.jsonb_path_query_first(
            cast(document, JSONB),
            cast(literal(path, Text), JSONPATH),
            cast(literal("{}", Text), JSONB),
            literal(True, Boolean),
            type_=JSONB,
        )


DOCUMENTS: dict[str, Documents] = {"sqlite": SqliteDocuments(), "postgresql": PostgresDocuments()}
"""By the name of SQLAlchemy's dialect."""
