"""Expressions of the syntax tree as SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Double, and_, func

from methodhub.core.query.tree import (
    And,
    Arithmetic,
    Call,
    Collection,
    Comparison,
    Expression,
    Literal,
    Membership,
    Negative,
    Not,
    Or,
    Path,
)
from methodhub.store.query.documents import Documents, Kind
from methodhub.store.query.properties import property_of
from methodhub.store.query.values import (
    MISSING,
    NO_BOOLEAN,
    Value,
    balanced,
    boolean,
    compared,
    compared_with_null,
    constant,
    number,
    one_of,
)
from methodhub.store.tables import device_jobs, identities

KINDS = {
    "IS_NULL": Kind.NULL,
    "IS_BOOL": Kind.BOOLEAN,
    "IS_NUMBER": Kind.NUMBER,
    "IS_STRING": Kind.STRING,
    "IS_OBJECT": Kind.OBJECT,
    "IS_ARRAY": Kind.ARRAY,
}
LAST_ASCII = "\x7e"


class Expressions:
    """Of one collection, for one kind of database."""

    def __init__(self, documents: Documents, collection: Collection) -> None:
        self.documents = documents
        self._collection = collection

    def condition(self, expression: Expression) -> ColumnElement[bool]:
        """True for the rows that are meant; false or NULL for the others. What is no boolean is neither."""
        found = self.value(expression).boolean
        return NO_BOOLEAN if found is None else found

    def path(self, path: Path) -> Value:
        return property_of(self.documents, self._collection, path)

    def value(self, expression: Expression) -> Value:
        match expression:
            case Path():
                return self.path(expression)
            case Literal(value):
                return constant(value)
            case Negative(operand):
                inner = self.value(operand).number
                return MISSING if inner is None else number(-inner)
            case Arithmetic():
                return self._arithmetic(expression)
            case Comparison():
                return boolean(self._comparison(expression))
            case Membership(operand, choices, negated):
                if operand == Literal(None):  # null is compared with each of them
                    found = balanced([compared_with_null("=", constant(each)) for each in choices], is_or=True)
                else:
                    found = one_of(self.documents, self.value(operand), choices)
                return boolean(~found if negated else found)
            case Not(operand):
                return boolean(~self.condition(operand))
            case And(operands):
                return boolean(balanced([self.condition(each) for each in operands], is_or=False))
            case Or(operands):
                return boolean(balanced([self.condition(each) for each in operands], is_or=True))
            case Call():
                return boolean(self._call(expression))

    def _arithmetic(self, expression: Arithmetic) -> Value:
        left, right = self.value(expression.left).number, self.value(expression.right).number
        if left is None or right is None:
            return MISSING
        match expression.operator:
            case "+":
                return number(left + right)
            case "-":
                return number(left - right)
            case "*":
                return number(left * right)
            case "/":
                return number(left.op("/", return_type=Double())(func.nullif(right, 0.0)))
            case _:
                return number(self.documents.remainder(left, right))

    def _comparison(self, expression: Comparison) -> ColumnElement[bool]:
        for one, other in ((expression.left, expression.right), (expression.right, expression.left)):
            if one == Literal(None):
                return compared_with_null(expression.operator, self.value(other))
        return compared(self.documents, expression.operator, self.value(expression.left), self.value(expression.right))

    def _call(self, call: Call) -> ColumnElement[bool]:
        if call.name == "IS_DEFINED":
            return self.value(call.arguments[0]).defined
        if call.name in KINDS:
            return self.value(call.arguments[0]).is_kind(KINDS[call.name])
        whole, part = (self.value(argument).text for argument in call.arguments)
        if whole is None or part is None:
            return NO_BOOLEAN
        if call.name == "CONTAINS":
            return self.documents.position(whole, part) > 0
        if call.name == "ENDSWITH":
            start = func.length(whole) - func.length(part) + 1
            return and_(func.length(whole) >= func.length(part), func.substr(whole, start) == part)
        return self._starts_with(call, whole, part)

    def _starts_with(self, call: Call, whole: ColumnElement[Any], part: ColumnElement[Any]) -> ColumnElement[bool]:
        """[HUB-query-prefix] Of ids a range, which the primary key finds."""
        prefix = call.arguments[1]
        is_id = whole is identities.c.device_id or whole is device_jobs.c.device_id
        if is_id and isinstance(prefix, Literal) and isinstance(prefix.value, str):
            text = prefix.value
            if text and text.isascii() and text[-1] <= LAST_ASCII and "\0" not in text:
                return and_(whole >= text, whole < text[:-1] + chr(ord(text[-1]) + 1))
        return func.substr(whole, 1, func.length(part)) == part
