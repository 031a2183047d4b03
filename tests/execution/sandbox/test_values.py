"""Values cross the border unchanged, or not at all."""

import collections
import datetime
import decimal
import enum
import fractions
import http
import json
import math
from typing import Any, NamedTuple

import numpy as np
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


class Color(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    low: int
    high: list[int]


class Reducer:
    def __reduce__(self) -> Any:
        raise AssertionError("nothing may be pickled")


@pytest.mark.parametrize("value", [Reducer(), object(), len, (x for x in ()), Liar])
def test_other_types_arrive_as_a_name_that_equals_nothing(value: Any) -> None:
    for got in (there_and_back(value), there_and_back([value])[0]):
        assert isinstance(got, values.Opaque)
        assert got.type_name == type(value).__name__
        assert got not in (0, [1])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Liar(5), 5),
        (Color.RED, 1),
        (Word.YES, "yes"),
        (Pair(1, [Liar(2)]), (1, [2])),
        (type("list", (list,), {})([1]), [1]),
        (type("dict", (dict,), {"__missing__": lambda *_: 0})(a=1), {"a": 1}),
        ([http.HTTPStatus.OK, True], [200, True]),
        (np.int64(7), 7),
        (np.bool_(True), True),
        ([np.float64(0.5), np.float32(0.25)], [0.5, 0.25]),
        ({"a": 1}.keys(), {"a"}),
        ({"a": 1}.items(), {("a", 1)}),
        (np.array(3), 3),
        (datetime.date(2020, 2, 29), datetime.date(2020, 2, 29)),
        (datetime.timedelta(1, 2, 3), datetime.timedelta(1, 2, 3)),
        (slice(1, None, 2), slice(1, None, 2)),
        (int, int),
        (collections.Counter, collections.Counter),
    ],
)
def test_a_value_arrives_as_the_plain_value_that_it_equals(value: Any, plain: Any) -> None:
    got = there_and_back(value)
    assert got == plain
    assert type(got) is type(plain) or isinstance(value, type({}.keys()) | type({}.items()))


def test_an_array_is_a_list_that_answers_as_an_array() -> None:
    got = there_and_back(np.array([[1, 2], [3, 4]]))
    assert list(got) == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="ambiguous"):
        got == [[1, 2], [3, 4]]  # noqa: B015
    assert there_and_back(np.array([5])) == [5]


@pytest.mark.parametrize("tag", ["set", "frozenset", "dict_keys"])
def test_members_made_to_collide_are_refused_and_not_built(tag: str) -> None:
    """Integers a multiple of 2 ** 61 - 1 apart have one hash; a set of them takes the square of their number."""
    prime = (1 << 61) - 1
    values.decode({"t": tag, "v": [n * prime for n in range(60)]})
    with pytest.raises(ValueError, match="collide"):
        values.decode({"t": tag, "v": [n * prime for n in range(100_000)]})
    with pytest.raises(ValueError, match="collide"):
        values.decode({"t": "dict", "v": [[n * prime, 0] for n in range(100_000)]})


@pytest.mark.parametrize("forged", [{"t": "Fraction", "v": ["0x" + "f" * (1 << 22), "0x" + "e" * (1 << 22)]},
                                    {"t": "Decimal", "v": "1" * (1 << 22)}])  # fmt: skip
def test_numbers_of_a_size_that_no_honest_child_sends_are_refused(forged: Any) -> None:
    with pytest.raises(ValueError, match="so many digits"):
        values.decode(forged)


def test_a_value_that_contains_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_DEPTH", 50)  # the type checks of the tests take frames of their own
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


def test_what_stays_where_it_is_can_be_named() -> None:
    """An object crosses as its type and a number; on its way back the number is the object again."""
    kept: list[object] = []

    def keep(value: object) -> int:
        kept.append(value)
        return len(kept) - 1

    thing = object()
    data = json.loads(values.dumps(values.encode([1, thing], keep)))
    named = values.decode(data, lambda tag, content, handle: values.Opaque(content, handle))
    back = json.loads(values.dumps(values.encode(named)))
    assert values.decode(back, lambda tag, content, handle: kept[content[1]]) == [1, thing]
