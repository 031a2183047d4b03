"""Which assertions are comparisons, so that the answer stays with us."""

import pytest

from coderl.execution.assertions import Comparison, split
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
        ("assert f(1) is True", Comparison("f(1)", True, is_identity=True)),
        ("assert f(1) is y", None),
        ("assert abs(f(1) - 2.0 / 8) < 1e-6", Comparison("f(1)", 0.25, tolerance=1e-6)),
        ("assert abs(f(1) - y) < 1e-6", None),
        ("import math\nassert f(1) == 1", None),
        ("check(f)", None),
    ],
)
def test_only_a_call_against_a_literal_is_a_comparison(code: str, expected: Comparison | None) -> None:
    assert split(AssertTest(code), "f") == (None if expected is None else (expected,))


CHECK = "METADATA = {}\n\ndef check(candidate):\n    %s\n\ncheck(f)"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("assert candidate(1) == 2\n    assert True, 'note'\n    assert not candidate(x=3)",
         (Comparison("f(1)", 2), Comparison("not not (f(x=3))", False))),
        ("for n in (1, 2):\n        assert candidate(n) == n", None),
        ("assert candidate(1) == 2\n    return", None),
        ("assert True", None),
    ],
)  # fmt: skip
def test_the_assertions_of_a_check_function_are_comparisons_in_order(body: str, expected: object) -> None:
    assert split(AssertTest(CHECK % body), "f") == expected


@pytest.mark.parametrize(
    "code", ["assert f(1) == " + "-" * 100_000 + "1", "assert f(1) == '\0", "assert f(1)\0", "return"]
)
def test_a_test_that_the_compiler_gives_up_on_is_refused(code: str) -> None:
    with pytest.raises(InputError, match="not Python"):
        split(AssertTest(code), "f")


def test_a_test_that_is_not_python_is_named() -> None:
    with pytest.raises(InputError, match="not Python"):
        split(AssertTest("assert f( == 1"), "f")


def test_equality_is_pythons() -> None:
    def holds(got: object, expected: object) -> bool:
        return Comparison("f()", expected).holds(got)

    assert holds(1.0, 1)
    assert holds([1, True], [1, 1])
    assert not holds([1], (1,))
    assert not holds(float("nan"), float("nan"))
    assert Comparison("f()", 0.25, tolerance=1e-6).holds(0.2500009)
    assert not Comparison("f()", 0.25, tolerance=1e-6).holds(0.250002)
    assert not Comparison("f()", 0.25, tolerance=1e-6).holds("0.25")
    assert Comparison("f()", True, is_identity=True).holds(True)
    assert not Comparison("f()", True, is_identity=True).holds(1)
