"""Text of a query to its syntax tree. Whatever the text, the outcome is a tree or an error that says where and why."""

from __future__ import annotations

from functools import cache
from pathlib import Path as File
from typing import TYPE_CHECKING

from methodhub.core.query.builder import Builder, Part, failed, wrong
from methodhub.core.query.tree import Condition, Query

if TYPE_CHECKING:
    from lark import Lark, Token, UnexpectedToken

MAX_LENGTH = 8_192
"""Characters of a query (`wire/service.md` 5)."""

SHOWN = {
    **{name: name.removeprefix("_") for name in ("_SELECT", "_TOP", "_FROM", "_AS", "_WHERE", "_GROUP", "_BY")},
    **{name: name.removeprefix("_") for name in ("_OR", "_AND", "NOT", "IN", "NIN", "TRUE", "FALSE", "NULL")},
    **{"COMMA": "','", "DOT": "'.'", "LPAR": "'('", "RPAR": "')'", "LSQB": "'['", "RSQB": "']'", "STAR": "'*'"},
    **{"PLUS": "'+'", "MINUS": "'-'", "SLASH": "'/'", "PERCENT": "'%'", "UNDEFINED": "UNDEFINED"},
    "NAME": "a name",
    "BRACKETED": "'[['",
    "STRING": "a text in quotes",
    "NUMBER": "a number",
    "COMPARED": "a comparison",
    "$END": "the end",
}
"""What an error calls a token. One that is not here goes without saying."""


def parse_query(text: str) -> Query:
    """The tree of a query. Raises 400004 with line, column and what was expected there."""
    query = _parse("query", text)
    assert isinstance(query, Query)
    return query


def parse_condition(text: str) -> Condition:
    """The targets that a job means: what stands behind WHERE, or `*`, or `FROM devices.modules WHERE ...`.

    Raises 400004 as `parse_query` does."""
    condition = _parse("condition", text)
    assert isinstance(condition, Condition)
    return condition


def _parse(start: str, text: str) -> object:
    from lark import UnexpectedCharacters, UnexpectedToken  # noqa: PLC0415 - slow, and most hubs are never asked

    if len(text) > MAX_LENGTH:
        raise failed(f"The query has {len(text)} characters of at most {MAX_LENGTH}.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise failed("The query is no Unicode text.")
    try:
        part: object = _parsers().parse(text, start=start)
    except UnexpectedCharacters as error:
        expected = _expected(error.allowed or set())
        # A quote or bracket that nothing closes is no token at all.
        raise wrong(error.line, error.column, f"expected {expected}; found {error.char!r}") from None
    except UnexpectedToken as error:
        line, column, found = _place(error.token, text)
        raise wrong(line, column, f"expected {_expected(_accepted(error))}; found {found}") from None
    assert isinstance(part, Part)
    return part.value


@cache
def _parsers() -> Lark:
    from lark import Lark  # noqa: PLC0415

    grammar = File(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    # The builder is told of each rule as it is recognised: no tree of Lark's is made, and nothing recurses.
    return Lark(grammar, parser="lalr", start=["query", "condition"], transformer=Builder(), maybe_placeholders=False)


def _accepted(error: UnexpectedToken) -> set[str]:
    # What is expected after the rules that may end here have ended; the error itself names too much.
    parser = error.interactive_parser
    assert parser is not None
    accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]
    return accepted


def _expected(terminals: set[str]) -> str:
    names = sorted({SHOWN[name] for name in terminals if name in SHOWN})
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1] if names else "nothing more")))


def _place(token: Token, text: str) -> tuple[int, int, str]:
    if token.type != "$END":
        return token.line or 1, token.column or 1, repr(str(token)[:40])
    lines = text.split("\n")
    return len(lines), len(lines[-1]) + 1, "the end of the text"
