"""Values cross the border unchanged, or not at all."""

import collections
import decimal
import fractions
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.execution.sandbox import values

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=6)
PLAIN = st.recursive(
    HASHABLE,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(HASHABLE, inner) | st.sets(HASHABLE),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    return values.decode(json.loads(values.dumps(values.encode(value))))


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left == right and repr(left) == repr(right)


@given(PLAIN)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize(
    "value",
    [
        -(2**64),
        -0.0,
        5e-324,
        math.inf,
        1 + 2j,
        range(3, 10, 2),
        collections.Counter("hello"),
        collections.OrderedDict([(2, 1), (1, 2)]),
        collections.deque([1, (2,)]),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        bytearray(b"x"),
        "\ud800",
        [[1, [2.5, "x"]], {1: [None]}, {(1, 2): {3}}],
    ],
)
def test_the_usual_containers_keep_their_type(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_an_integer_longer_than_python_prints_crosses_too() -> None:
    assert there_and_back([10**5000])[0] == 10**5000


def test_nan_survives() -> None:
    assert math.isnan(there_and_back(math.nan))


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Reducer:
    def __reduce__(self) -> Any:
        raise AssertionError("nothing may be pickled")


@pytest.mark.parametrize("value", [Liar(0), Reducer(), object(), len, (x for x in ()), type("list", (list,), {})([1])])
def test_other_types_arrive_as_a_name_that_equals_nothing(value: Any) -> None:
    for got in (there_and_back(value), there_and_back([value])[0]):
        assert isinstance(got, values.Opaque)
        assert got.type_name == type(value).__name__
        assert got not in (0, [1])


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert isinstance(there_and_back(loop), list)


@pytest.mark.parametrize(
    "forged",
    [
        {"t": "os.system", "v": "true"},
        {"t": "int", "v": 7},
        {"t": "Fraction", "v": ["0x1", "0x0"]},
        {"t": "dict", "v": [[[1], 2]]},
        {"t": "range", "v": [1, 2, 3, 4]},
        {"v": 1},
        {"t": ["x"], "v": 1},
        {"t": "set", "v": [{"t": "dict", "v": []}]},
    ],
)
def test_forged_data_is_an_error_and_nothing_else(forged: Any) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        values.decode(forged)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff"])
def test_bytes_that_are_no_message_are_told_from_one(raw: bytes) -> None:
    with pytest.raises(values.MalformedError):
        values.loads(raw)


def test_a_remote_thing_is_resolved_where_it_lives() -> None:
    data = json.loads(values.dumps(values.encode([values.Remote("root.left")])))
    assert values.decode(data, {"root.left": 5}.__getitem__) == [5]
