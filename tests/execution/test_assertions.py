"""Which assertions are comparisons, so that the answer stays with us."""

import pytest

from coderl.execution.assertions import Comparison, holds, split
from coderl.types import AssertTest, InputError


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("assert f(1, [2]) == (3, {'a'})", Comparison("f(1, [2])", (3, {"a"}))),
        ("assert f(x) == -1.5, 'message'", Comparison("f(x)", -1.5)),
        ("assert f(1)", Comparison("not not (f(1))", True)),
        ("assert not f(1)", Comparison("not not (f(1))", False)),
        ("assert f(1) == y", None),
        ("assert f(1) != 2", None),
        ("assert 2 == f(1)", None),
        ("assert set(f(1)) == {1}", None),
        ("assert f(1) == 1 == 1", None),
        ("import math\nassert f(1) == 1", None),
        ("check(f)", None),
    ],
)
def test_only_a_call_against_a_literal_is_a_comparison(code: str, expected: Comparison | None) -> None:
    assert split(AssertTest(code), "f") == expected


def test_a_test_that_is_not_python_is_named() -> None:
    with pytest.raises(InputError, match="not Python"):
        split(AssertTest("assert f( == 1"), "f")


def test_equality_is_pythons() -> None:
    assert holds(1.0, 1)
    assert holds([1, True], [1, 1])
    assert not holds([1], (1,))
    assert not holds(float("nan"), float("nan"))
