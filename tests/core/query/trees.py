"""Any syntax tree, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from methodhub.core.query.builder import AGGREGATES, FUNCTIONS
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
    Constant,
    Expression,
    Literal,
    Membership,
    Negative,
    Not,
    Or,
    Path,
    Query,
)

TEXTS = ["", "a", "ab", "b", "A", "é", "\0", "a\0b", "5", "true", "null", "😀", "\\", "'", '"', "\\u0000", "a\nb"]
NUMBERS = [0.0, 1.0, -1.0, 1.5, 5.0, 0.1, 2.0**52, 0.001]
KEYS = ["a", "b", "c", 'q"x', "q\\x", "é", "", "select", "0", "a b", "]]", "'"]
SYSTEM = [
    *("deviceId", "etag", "deviceEtag", "status", "statusReason", "statusUpdateTime", "connectionState"),
    *("lastActivityTime", "cloudToDeviceMessageCount", "authenticationType", "version", "tags", "properties"),
    *("parentScopes", "deviceScope", "modelId", "moduleId", "x509Thumbprint", "capabilities", "unknown"),
]
NESTED = [
    ("capabilities", "iotEdge"),
    ("x509Thumbprint", "primaryThumbprint"),
    ("properties", "desired"),
    ("properties", "desired", "$version"),
    ("properties", "reported", "$metadata", "$lastUpdated"),
    ("properties", "desired", "$metadata", "a", "$lastUpdated"),
    ("properties", "unknown"),
    ("deviceId", "a"),
]
TIMES = ["2024-01-01", "2024-01-01T00:00:00Z", "2024-06-01T12:00:00.1234560Z", "0001-01-01T00:00:00"]

keys = st.sampled_from(KEYS)
roots = st.sampled_from([("tags",), ("properties", "desired"), ("properties", "reported")])
inner = st.builds(lambda root, steps: Path((*root, *steps)), roots, st.lists(keys, min_size=1, max_size=3))
paths = st.one_of(inner, st.builds(Path, st.sampled_from([*NESTED, *((name,) for name in SYSTEM)])))

constants: st.SearchStrategy[Constant] = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.just(UNDEFINED),
    st.sampled_from(TIMES),
)
literals = st.builds(Literal, constants)
any_constants: st.SearchStrategy[Constant] = st.one_of(
    constants, st.text(), st.floats(allow_nan=False, allow_infinity=False)
)
choices = st.lists(constants, min_size=1, max_size=4).map(tuple)


def operations(operands: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """An expression made of operands."""
    negatives = operands.filter(lambda one: not (isinstance(one, Literal) and isinstance(one.value, float)))
    calls = st.sampled_from(list(FUNCTIONS)).flatmap(
        lambda name: st.builds(Call, st.just(name), st.tuples(*[operands] * FUNCTIONS[name]))
    )
    lists = st.lists(operands, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Comparison, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), operands, operands),
        st.builds(Comparison, st.sampled_from(["=", "!=", "<", ">"]), paths, literals),
        st.builds(Membership, operands, choices, st.booleans()),
        calls,
        st.builds(And, lists),
        st.builds(Or, lists),
        st.builds(Not, operands),
        st.builds(Arithmetic, st.sampled_from("+-*/%"), operands, operands),
        st.builds(Negative, negatives),
    )


expressions: st.SearchStrategy[Expression] = st.recursive(st.one_of(paths, literals), operations, max_leaves=8)
any_expressions: st.SearchStrategy[Expression] = st.recursive(
    st.one_of(paths, st.builds(Literal, any_constants)), operations, max_leaves=12
)
aggregates = st.one_of(st.just(Aggregate("count")), st.builds(Aggregate, st.sampled_from(AGGREGATES[1:]), paths))


@st.composite
def columns_of(draw: st.DrawFn, values: st.SearchStrategy[Path | Aggregate]) -> tuple[Column, ...]:
    found = draw(st.lists(values, min_size=1, max_size=3))
    return tuple(Column(value, f"c{number}") for number, value in enumerate(found))


tops = st.none() | st.integers(1, 20)
twin_collections = st.sampled_from([Collection.DEVICES, Collection.MODULES])


@st.composite
def grouped(draw: st.DrawFn, where: st.SearchStrategy[Expression | None]) -> Query:
    group_by = tuple(draw(st.lists(paths, max_size=2, unique=True)))
    values: st.SearchStrategy[Path | Aggregate] = aggregates
    if group_by:
        values = st.one_of(aggregates, st.sampled_from(group_by))
    return Query(Condition(draw(twin_collections), draw(where)), draw(columns_of(values)), group_by, draw(tops))


def queries(where: st.SearchStrategy[Expression | None]) -> st.SearchStrategy[Query]:
    twins = st.builds(Condition, twin_collections, where)
    return st.one_of(
        st.builds(Query, twins, st.none() | columns_of(paths), top=tops),
        st.builds(Query, st.builds(Condition, st.just(Collection.JOBS), st.none()), top=tops),
        grouped(where),
    )
