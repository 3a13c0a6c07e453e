"""Text to tree and back, and what a wrong text is told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.query.builder import MAX_GROUPS, MAX_PATHS
from methodhub.core.query.parser import MAX_LENGTH, parse_condition, parse_query
from methodhub.core.query.tree import (
    UNDEFINED,
    Aggregate,
    And,
    Arithmetic,
    Call,
    Collection,
    Column,
    Comparison,
    Condition,
    Expression,
    Literal,
    Membership,
    Negative,
    Not,
    Or,
    Path,
    Query,
)
from tests.core.query.text import condition_text, query_text
from tests.core.query.trees import any_expressions, queries

MAYBE = st.none() | any_expressions
ALL = Query(Condition(Collection.DEVICES))


def where(text: str) -> Expression:
    found = parse_query(f"SELECT * FROM devices WHERE {text}").condition.where
    assert found is not None
    return found


def path(text: str) -> tuple[str, ...]:
    found = where(text)
    assert isinstance(found, Path)
    return found.steps


def refusal(text: str) -> str:
    with pytest.raises(HubError) as caught:
        parse_query(text)
    assert caught.value.code is ErrorCode.ArgumentInvalid
    return caught.value.message


@given(queries(MAYBE))
def test_the_text_of_a_tree_is_parsed_to_the_same_tree(query: Query) -> None:
    again = parse_query(query_text(query))
    assert again == query
    assert repr(again) == repr(query)  # True equals 1.0


@given(any_expressions, st.sampled_from([Collection.DEVICES, Collection.MODULES]))
def test_the_text_of_a_condition_is_parsed_to_the_same_tree(expression: Expression, collection: Collection) -> None:
    condition = Condition(collection, expression)
    assert parse_condition(condition_text(condition)) == condition


WORDS = ["SELECT", "*", "FROM", "devices", ".", "WHERE", "tags", "(", ")", "[", "]", "[[", "]]", "'x'", '"', "5", "0x"]
WORDS += [
    "AND",
    "NOT",
    "=",
    "IN",
    "-",
    "GROUP",
    "BY",
    "count",
    "TOP",
    "9" * 5000,
    "1e999",
    "\\",
    "'\\ud800'",
    "\ud800",
    ",",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)))
def test_any_text_is_a_tree_or_an_error(text: str) -> None:
    """[HUB-query-error]"""
    for parse in (parse_query, parse_condition):
        try:
            parse(text)
        except HubError as error:
            assert error.code is ErrorCode.ArgumentInvalid
            assert len(error.message) < 400


@given(queries(MAYBE), st.data())
def test_a_cut_or_broken_query_is_a_tree_or_an_error(query: Query, data: st.DataObject) -> None:
    text = query_text(query)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.sampled_from(["", "'", "(", "]", " = ", "\0"])) + text[at + 1 :]
    try:
        parse_query(text)
    except HubError as error:
        assert "at line 1, column " in error.message


def test_every_clause() -> None:
    query = parse_query(
        "SELECT TOP 7 tags.a.b AS x, count() AS n FROM devices.modules WHERE status = 'enabled' GROUP BY tags.a.b"
    )
    place = Path(("tags", "a", "b"))
    assert query == Query(
        Condition(Collection.MODULES, Comparison("=", Path(("status",)), Literal("enabled"))),
        (Column(place, "x"), Column(Aggregate("count"), "n")),
        (place,),
        7,
    )


@pytest.mark.parametrize(
    "text",
    [
        "select * from devices",
        "SELECT * FROM DEVICES",
        "Select*From Devices",
        " \r\n\tSELECT\n*\nFROM\ndevices\n",
    ],
)
def test_keywords_count_in_any_case_and_space_does_not(text: str) -> None:
    assert parse_query(text) == ALL


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("DeviceId", ("deviceId",)),
        ("devices.DEVICEID", ("deviceId",)),
        ("devices.tags.Region", ("tags", "Region")),
        ("Tags.tags.devices", ("tags", "tags", "devices")),
        ("Properties.DESIRED.DeviceId", ("properties", "desired", "DeviceId")),
        ("properties.Other.X", ("properties", "Other", "X")),
        ("capabilities.IOTEDGE", ("capabilities", "iotEdge")),
        ("Other.DeviceId", ("Other", "DeviceId")),
        ("devices", ("devices",)),
        ("properties.reported.$metadata.x.$lastUpdated", ("properties", "reported", "$metadata", "x", "$lastUpdated")),
        ("tags.select.FROM.top.in.not.true", ("tags", "select", "FROM", "top", "in", "not", "true")),
        ("tags['a b'].c", ("tags", "a b", "c")),
        ('tags["it\'s"]', ("tags", "it's")),
        ("tags['']", ("tags", "")),
        ("tags[[a.b]].c", ("tags", "a.b", "c")),
        ("configurations.[[my-config]].status", ("configurations", "my-config", "status")),
        ("tags.größe", ("tags", "größe")),
    ],
)
def test_names_of_the_system_in_any_case_and_others_exactly(text: str, steps: tuple[str, ...]) -> None:
    assert path(text) == steps


def test_the_prefix_is_the_collection() -> None:
    modules = parse_condition("FROM devices.modules WHERE devices.modules.moduleID = devices.deviceid")
    assert modules.where == Comparison("=", Path(("moduleId",)), Path(("deviceId",)))
    jobs = parse_query("SELECT * FROM devices.jobs WHERE devices.jobs.JobId = 'x' AND JOBTYPE = 'y' AND tags.a = 1")
    assert jobs.condition.where == And(
        (
            Comparison("=", Path(("jobId",)), Literal("x")),
            Comparison("=", Path(("jobType",)), Literal("y")),
            Comparison("=", Path(("tags", "a")), Literal(1.0)),
        )
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it\\'s'", "it's"),
        ('"a\\"b"', 'a"b'),
        ("'\\\\'", "\\"),
        ("'\\u00e9\\ud83d\\ude00'", "é😀"),
        ("'é😀 \"'", 'é😀 "'),
        ("'\n'", "\n"),
        ("12", 12.0),
        ("1.5e3", 1500.0),
        ("0xFf", 255.0),
        ("-5", -5.0),
        ("- -5", 5.0),
        ("TRUE", True),
        ("False", False),
        ("NULL", None),
        ("Undefined", UNDEFINED),
    ],
)
def test_literals(text: str, value: object) -> None:
    found = where(text)
    assert found == Literal(value)  # type: ignore[arg-type]
    assert repr(found) == repr(Literal(value))  # type: ignore[arg-type]


def test_what_binds_more_tightly() -> None:
    a, b, c, d = (Path((name,)) for name in "abcd")
    assert where("a OR b AND c OR d") == Or((a, And((b, c)), d))
    assert where("NOT a = b AND c") == And((Not(Comparison("=", a, b)), c))
    assert where("NOT NOT a") == Not(Not(a))
    assert where("a + b * c - d") == Arithmetic("-", Arithmetic("+", a, Arithmetic("*", b, c)), d)
    assert where("-a * b") == Arithmetic("*", Negative(a), b)
    assert where("(a OR b) AND c") == And((Or((a, b)), c))
    assert where("a - 5 <> b") == Comparison("!=", Arithmetic("-", a, Literal(5.0)), b)
    assert where("a + 1 nin [1, -2, 'x', null]") == Membership(
        Arithmetic("+", a, Literal(1.0)), (1.0, -2.0, "x", None), negated=True
    )


def test_functions_in_any_case() -> None:
    assert where("startswith(devices.deviceId, 'x')") == Call("STARTSWITH", (Path(("deviceId",)), Literal("x")))
    assert where("Is_Defined(tags.x)") == Call("IS_DEFINED", (Path(("tags", "x")),))


def test_a_column_is_called_as_its_last_step() -> None:
    columns = parse_query("SELECT DEVICEID, tags.a['b c'], count AS count, top AS select FROM devices").columns
    assert columns is not None
    assert [column.key for column in columns] == ["deviceId", "b c", "count", "select"]


@pytest.mark.parametrize("text", ["*", " * "])
def test_a_star_means_all_devices(text: str) -> None:
    assert parse_condition(text) == Condition(Collection.DEVICES)


def test_a_condition_may_name_its_collection() -> None:
    assert parse_condition("deviceId = 'x'") == Condition(
        Collection.DEVICES, Comparison("=", Path(("deviceId",)), Literal("x"))
    )
    assert parse_condition("from devices.modules") == Condition(Collection.MODULES)
    with pytest.raises(HubError, match=r"line 1, column 6: expected devices or devices\.modules; found devices\.jobs"):
        parse_condition("FROM devices.jobs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected SELECT; found the end of the text"),
        ("SELECT", "line 1, column 7: expected '*', TOP or a name; found the end of the text"),
        ("SELECT * FROM gadgets", "line 1, column 15: expected devices, devices.modules, devices.jobs; found"),
        ("SELECT *\nFROM devices\nWHERE a == 5", "line 3, column 10: expected '(', '-', FALSE, NULL, TRUE"),
        ("SELECT * FROM devices ORDER BY deviceId", "line 1, column 23: expected '.', GROUP, WHERE or the end; found"),
        ("SELECT * FROM devices WHERE a = 'x", 'line 1, column 33: expected '),
        ("SELECT * FROM devices WHERE a IN []", "line 1, column 35: expected '-', FALSE, NULL"),
        ("SELECT * FROM devices WHERE UPPER(a) = 'X'", "line 1, column 29: expected one of IS_DEFINED"),
        ("SELECT * FROM devices WHERE CONTAINS(a)", "line 1, column 29: CONTAINS takes two arguments, not 1"),
        ("SELECT * FROM devices WHERE IS_NULL()", "line 1, column 29: IS_NULL takes one argument, not 0"),
        ("SELECT * FROM devices WHERE a = '\\n'", "line 1, column 33: a backslash in a text stands before"),
        ("SELECT * FROM devices WHERE a = '\\ud800'", "line 1, column 33: the text holds half of a character"),
        ("SELECT * FROM devices WHERE a = 1e999", "line 1, column 33: the number is too large"),
        ("SELECT * FROM devices WHERE a = 0x" + "f" * 300, "line 1, column 33: the number is too large"),
        ("SELECT TOP 0 * FROM devices", "line 1, column 12: TOP must be a whole number within [1; 2147483647]"),
        ("SELECT TOP 1.5 * FROM devices", "line 1, column 12: TOP must be a whole number"),
        (f"SELECT TOP {'9' * 5000} * FROM devices", "line 1, column 12: TOP must be a whole number"),
        ("SELECT median(a) FROM devices", "line 1, column 8: expected count, avg, sum, min, max or a property"),
        ("SELECT count(a) FROM devices", "line 1, column 8: count takes nothing"),
        ("SELECT avg() FROM devices", "line 1, column 8: avg takes a property"),
        ("SELECT a, count() FROM devices", "line 1, column 8: beside an aggregate, a column must stand in GROUP BY"),
        ("SELECT tags.a, b FROM devices GROUP BY tags.a", "line 1, column 16: beside an aggregate, a column must"),
        ("SELECT * FROM devices GROUP BY a", "line 1, column 8: SELECT * and GROUP BY do not go together"),
        ("SELECT tags.a, properties.desired.a FROM devices", "line 1, column 16: two columns are named 'a'"),
        ("SELECT count() FROM devices.jobs", "line 1, column 8: of devices.jobs, SELECT * is all there is"),
        ("SELECT * FROM devices.jobs GROUP BY status", "line 1, column 37: of devices.jobs, SELECT * is all there is"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_told_where_and_what_was_expected(text: str, message: str) -> None:
    """[HUB-query-error]"""
    assert refusal(text).startswith(f"The query is wrong at {message}")


def test_the_length_is_bounded() -> None:
    text = "SELECT * FROM devices WHERE a = '" + "x" * MAX_LENGTH
    assert parse_query(text[: MAX_LENGTH - 1] + "'")
    assert refusal(text[:MAX_LENGTH] + "'") == "The query has 8193 characters of at most 8192."


@pytest.mark.parametrize(
    "text",
    [
        lambda depth: "(" * depth + "a" + ")" * depth,
        lambda depth: "NOT " * depth + "a",
        lambda depth: "- " * depth + "a",
        lambda depth: " + ".join("a" * (depth + 1)),
        lambda depth: "IS_NULL(" * depth + "a" + ")" * depth,
        lambda depth: "tags" + ".a" * depth,
    ],
    ids=["parentheses", "not", "minus", "plus", "calls", "path"],
)
def test_nesting_is_bounded(text: object) -> None:
    """[HUB-query-nesting]"""
    assert callable(text)
    assert where(text(15))
    for depth in (17, 900):
        assert "nested deeper than 16 levels" in refusal(f"SELECT * FROM devices WHERE {text(depth)}")


def test_a_long_chain_is_no_nesting() -> None:
    found = where(" OR ".join(["a = 1"] * 900))
    assert isinstance(found, Or)
    assert len(found.operands) == 900


def test_what_a_condition_may_name_is_bounded() -> None:
    """[HUB-query-size] Each property is several KB of the database's text; system properties are columns."""
    assert where(" OR ".join(["tags.a = 1"] * MAX_PATHS)) is not None
    assert where(" OR ".join(["deviceId = 'd'"] * 400)) is not None
    for text in (
        " OR ".join(["tags.a = 1"] * (MAX_PATHS + 1)),
        " AND ".join(["NOT IS_DEFINED(properties.desired.a) OR -tags.b + 1 IN [1]"] * (MAX_PATHS // 2 + 1)),
    ):
        with pytest.raises(HubError, match="tags and properties; at most 150"):
            parse_query(f"SELECT * FROM devices WHERE {text}")


def test_what_groups_may_name_is_bounded() -> None:
    """[HUB-query-size]"""
    names = [f"tags.t{number}" for number in range(MAX_GROUPS + 1)]
    for text in (
        f"SELECT count() FROM devices GROUP BY {', '.join(names)}",
        f"SELECT {', '.join(f'max({name}) AS m{at}' for at, name in enumerate(names))} FROM devices",
    ):
        with pytest.raises(HubError, match="names 17 columns; at most 16"):
            parse_query(text)
    parse_query(f"SELECT count() FROM devices GROUP BY {', '.join(names[:-1])}")


def test_the_parser_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, methodhub.server, methodhub.core.query.answers; sys.exit('lark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_trees_are_values() -> None:
    assert {ALL, replace(ALL), parse_query("SELECT * FROM devices")} == {ALL}
