"""The words of MiniAPPS: operations on a list of integers or on a text, and the reductions that end a pipeline.

Each entry says three things that must agree and are written independently: what it is called in English (`phrases`),
how Python programs do it in three styles (`code`), and what it means (`apply`). Expected outputs come from `apply`
alone; the tests run every reference program against them. In phrases and code `{k}` stands for the constant, or for
the variable `k` where the problem reads it from its input.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Values = Any
"""What flows through a pipeline: a list of integers, or a text."""
Constant = int | str | None
STYLES = ("comprehension", "functional", "loop")
VOWELS = "aeiouAEIOU"


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a pipeline: values in, values of the same domain out."""

    name: str
    phrases: tuple[str, ...]
    """Imperatives without a full stop; the first is the usual one."""
    code: tuple[str, str, str]
    """Statements that rebind the domain's variable, one text a style, in the order of `STYLES`."""
    apply: Callable[[Values, Any], Values]
    constants: tuple[int | str, ...] = ()
    """What `{k}` may be; empty where the operation has none."""
    may_empty: bool = False
    """Whether it can turn something into nothing."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """The end of a pipeline: values in, the answer out."""

    name: str
    phrases: tuple[str, ...]
    """What follows `print` or `return`; the first is the usual one."""
    code: tuple[str, str, str]
    """An expression a style."""
    apply: Callable[[Values, Any], Any]
    constants: tuple[int | str, ...] = ()
    needs: str = ""
    """The condition, in Python, without which there is no answer; empty where there always is one."""
    is_defined: Callable[[Values, Any], bool] = lambda values, k: True
    """The same condition, as a meaning."""
    default_code: str = ""
    """An expression with `{default}` that needs no guard, where Python has one (functional style)."""
    is_fallible: bool = False
    """Whether even an unfiltered input may lack an answer (the k-th of fewer)."""
    is_whole: bool = False
    """Whether the answer is the values themselves."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a problem is given, and how its values follow from that."""

    name: str
    phrase: str
    argument: str
    """The name of what is given: `a` (list), `n` (number) or `s` (text)."""
    code: tuple[str, str, str]
    """Statements that make the domain's variable from the argument, a text a style; empty where they are the same."""
    apply: Callable[[Any], Values]


@dataclass(frozen=True, slots=True)
class Domain:
    """A kind of values with its variable in programs, its operations and its reductions."""

    name: str
    variable: str
    operations: tuple[Operation, ...]
    reductions: tuple[Reduction, ...]
    sources: tuple[Source, ...]
    """The first is the usual one."""


# ------------------------------------------------------------------------------------------- operations on integers


def _filter(
    name: str, condition: str, phrases: tuple[str, ...], keep: Callable[[int, Any], bool], *constants: int
) -> Operation:
    code = (
        f"a = [x for x in a if {condition}]",
        f"a = list(filter(lambda x: {condition}, a))",
        f"b = []\nfor x in a:\n    if {condition}:\n        b.append(x)\na = b",
    )
    return Operation(name, phrases, code, lambda a, k: [x for x in a if keep(x, k)], constants, may_empty=True)


def _map(
    name: str, expression: str, phrases: tuple[str, ...], change: Callable[[int, Any], int], *constants: int
) -> Operation:
    code = (
        f"a = [{expression} for x in a]",
        f"a = list(map(lambda x: {expression}, a))",
        f"b = []\nfor x in a:\n    b.append({expression})\na = b",
    )
    return Operation(name, phrases, code, lambda a, k: [change(x, k) for x in a], constants)


def _same(statement: str) -> tuple[str, str, str]:
    return (statement, statement, statement)


def _first_seen(a: list[int], k: Any) -> list[int]:
    seen: list[int] = []
    for x in a:
        if x not in seen:
            seen.append(x)
    return seen


def _pairwise(change: Callable[[int, int], int]) -> Callable[[list[int], Any], list[int]]:
    return lambda a, k: [change(a[i - 1], a[i]) for i in range(1, len(a))]


_SMALL = (1, 2)
INTS = (
    _filter("keep_even", "x % 2 == 0", ("keep only even numbers", "remove odd numbers"), lambda x, k: not x & 1),
    _filter("keep_odd", "x % 2 == 1", ("keep only odd numbers", "remove even numbers"), lambda x, k: bool(x & 1)),
    _filter(
        "keep_greater",
        "x > {k}",
        ("keep only numbers greater than {k}", "remove numbers that are at most {k}"),
        lambda x, k: x > k,
        0,
        2,
        5,
    ),
    _filter(
        "keep_less",
        "x < {k}",
        ("keep only numbers less than {k}", "remove numbers that are at least {k}"),
        lambda x, k: x < k,
        3,
        5,
        8,
    ),
    _filter("keep_multiple", "x % {k} == 0", ("keep only multiples of {k}",), lambda x, k: x % k == 0, 3, 5),
    _filter(
        "drop_value", "x != {k}", ("remove every {k}", "delete numbers equal to {k}"), lambda x, k: x != k, 0, 1, 2
    ),
    _map("square", "x * x", ("square each number", "replace each number by its square"), lambda x, k: x**2),
    _map("add", "x + {k}", ("add {k} to each number", "increase each number by {k}"), lambda x, k: x + k, 1, 2, 5),
    _map(
        "subtract",
        "x - {k}",
        ("subtract {k} from each number", "decrease each number by {k}"),
        lambda x, k: x - k,
        1,
        3,
    ),
    _map("multiply", "x * {k}", ("multiply each number by {k}",), lambda x, k: x * k, 2, 3, 5),
    _map("absolute", "abs(x)", ("take absolute values", "drop the sign of each number"), lambda x, k: max(x, -x)),
    _map("negate", "-x", ("negate each number", "flip the sign of each number"), lambda x, k: 0 - x),
    _map("remainder", "x % {k}", ("take each number modulo {k}",), lambda x, k: x - k * (x // k), 3, 4, 10),
    Operation(
        "sort",
        ("sort in ascending order", "sort from smallest to largest"),
        ("a = sorted(a)", "a = sorted(a)", "a.sort()"),
        lambda a, k: sorted(a),
    ),
    Operation(
        "sort_descending",
        ("sort in descending order", "sort from largest to smallest"),
        ("a = sorted(a, reverse=True)", "a = sorted(a, reverse=True)", "a.sort(reverse=True)"),
        lambda a, k: sorted(a, key=lambda x: -x),
    ),
    Operation(
        "reverse",
        ("reverse the order", "put the numbers in reverse order"),
        ("a = a[::-1]", "a = list(reversed(a))", "a.reverse()"),
        lambda a, k: [a[i] for i in range(len(a) - 1, -1, -1)],
    ),
    Operation(
        "distinct",
        ("remove duplicates", "keep only the first copy of each number"),
        (
            "a = list(dict.fromkeys(a))",
            "a = list(dict.fromkeys(a))",
            "b = []\nfor x in a:\n    if x not in b:\n        b.append(x)\na = b",
        ),
        _first_seen,
    ),
    Operation(
        "running_sums",
        ("take running sums", "replace each number by the sum so far"),
        (
            "a = [sum(a[:i + 1]) for i in range(len(a))]",
            "a = [sum(a[:i + 1]) for i in range(len(a))]",
            "t = 0\nb = []\nfor x in a:\n    t += x\n    b.append(t)\na = b",
        ),
        lambda a, k: list(itertools.accumulate(a)),
    ),
    Operation(
        "differences",
        ("take differences of neighbours", "subtract each number from the next one"),
        (
            "a = [y - x for x, y in zip(a, a[1:])]",
            "a = [y - x for x, y in zip(a, a[1:])]",
            "b = []\nfor i in range(1, len(a)):\n    b.append(a[i] - a[i - 1])\na = b",
        ),
        _pairwise(lambda x, y: y - x),
        may_empty=True,
    ),
    Operation(
        "take",
        ("take the first {k}", "keep at most {k} from the start"),
        _same("a = a[:{k}]"),
        lambda a, k: [x for i, x in enumerate(a) if i < k],
        (3, 4),
    ),
    Operation(
        "drop",
        ("drop the first {k}", "skip {k} at the start"),
        _same("a = a[{k}:]"),
        lambda a, k: [x for i, x in enumerate(a) if i >= k],
        _SMALL,
        may_empty=True,
    ),
    Operation(
        "drop_last",
        ("drop the last {k}", "skip {k} at the end"),
        _same("a = a[:-{k}]"),
        lambda a, k: [x for i, x in enumerate(a) if i < len(a) - k],
        _SMALL,
        may_empty=True,
    ),
    Operation(
        "odd_places",
        ("take every second number from the first",),
        _same("a = a[::2]"),
        lambda a, k: [x for i, x in enumerate(a) if i % 2 == 0],
    ),
)


def _at_least_one(values: Values, k: Any) -> bool:
    return len(values) > 0


def _needing(name: str, expression: str, phrases: tuple[str, ...], apply: Callable[[Values, Any], Any]) -> Reduction:
    return Reduction(name, phrases, _same(expression), apply, needs="a", is_defined=_at_least_one)


def _yes(holds: bool) -> str:
    return "YES" if holds else "NO"


INT_REDUCTIONS = (
    Reduction("sum", ("the sum", "the total"), _same("sum(a)"), lambda a, k: sum(a)),
    Reduction(
        "largest",
        ("the largest", "the maximum"),
        _same("max(a)"),
        lambda a, k: sorted(a)[-1],
        needs="a",
        is_defined=_at_least_one,
        default_code="max(a, default={default})",
    ),
    Reduction(
        "smallest",
        ("the smallest", "the minimum"),
        _same("min(a)"),
        lambda a, k: sorted(a)[0],
        needs="a",
        is_defined=_at_least_one,
        default_code="min(a, default={default})",
    ),
    Reduction("count", ("how many there are", "their count"), _same("len(a)"), lambda a, k: sum(1 for _ in a)),
    Reduction(
        "num_distinct", ("how many different there are",), _same("len(set(a))"), lambda a, k: len(_first_seen(a, k))
    ),
    _needing("average", "sum(a) // len(a)", ("the average rounded down",), lambda a, k: int(sum(a) // len(a))),
    _needing("last", "a[-1]", ("the last one",), lambda a, k: next(reversed(a))),
    Reduction(
        "kth",
        ("number {k} of the list",),
        _same("a[{k} - 1]"),
        lambda a, k: next(x for i, x in enumerate(a, 1) if i == k),
        (2, 3),
        needs="len(a) >= {k}",
        is_defined=lambda a, k: len(a) >= k,
        is_fallible=True,
    ),
    Reduction(
        "all", ("all of them",), _same("a"), lambda a, k: list(a), needs="a", is_defined=_at_least_one, is_whole=True
    ),
    Reduction(
        "contains",
        ("YES if {k} is there, else NO",),
        _same('"YES" if {k} in a else "NO"'),
        lambda a, k: _yes(any(x == k for x in a)),
        (0, 1, 2, 3),
    ),
)

# ------------------------------------------------------------------------------------------------ operations on text


def _keep_letters(
    name: str, condition: str, phrases: tuple[str, ...], keep: Callable[[str, Any], bool], *constants: str
):
    code = (
        f's = "".join(c for c in s if {condition})',
        f's = "".join(filter(lambda c: {condition}, s))',
        f't = ""\nfor c in s:\n    if {condition}:\n        t += c\ns = t',
    )
    meaning = lambda s, k: "".join([c for c in s if keep(c, k)])  # noqa: E731
    return Operation(name, phrases, code, meaning, constants, may_empty=True)


def _text(
    name: str, statement: str, phrases: tuple[str, ...], apply: Callable[[str, Any], str], *constants: int, **more
):
    return Operation(name, phrases, _same(statement), apply, constants, **more)


TEXTS = (
    _text("upper", "s = s.upper()", ("change all letters to upper case",), lambda s, k: "".join(c.upper() for c in s)),
    _text("reverse_text", "s = s[::-1]", ("reverse it", "put it in reverse order"), lambda s, k: "".join(reversed(s))),
    _text("sort_text", 's = "".join(sorted(s))', ("sort its characters",), lambda s, k: "".join(sorted(s, key=ord))),
    _text(
        "distinct_text",
        's = "".join(dict.fromkeys(s))',
        ("remove duplicates", "keep only the first copy of each character"),
        lambda s, k: "".join(c for i, c in enumerate(s) if c not in s[:i]),
    ),
    _keep_letters(
        "drop_vowels", f'c not in "{VOWELS}"', ("remove vowels",), lambda c, k: c.lower() not in set("aeiou")
    ),
    _keep_letters("drop_digits", "not c.isdigit()", ("remove digits",), lambda c, k: c not in "0123456789"),
    _keep_letters("drop_letter", 'c != "{k}"', ("remove every {k}",), lambda c, k: c != k, *"abc"),
    Operation(
        "double",
        ("write each character twice",),
        (
            's = "".join(c * 2 for c in s)',
            's = "".join(map(lambda c: c * 2, s))',
            't = ""\nfor c in s:\n    t += c * 2\ns = t',
        ),
        lambda s, k: "".join(s[i // 2] for i in range(2 * len(s))),
    ),
    _text("take_text", "s = s[:{k}]", ("take the first {k}",), lambda s, k: "".join(list(s)[:k]), 3, 4),
    _text(
        "drop_last_text",
        "s = s[:-{k}]",
        ("drop the last {k}",),
        lambda s, k: "".join(c for i, c in enumerate(s) if i + k < len(s)),
        *_SMALL,
        may_empty=True,
    ),
)

TEXT_REDUCTIONS = (
    Reduction(
        "text",
        ("it", "the result"),
        _same("s"),
        lambda s, k: str(s),
        needs="s",
        is_defined=_at_least_one,
        is_whole=True,
    ),
    Reduction("length", ("its length",), _same("len(s)"), lambda s, k: sum(1 for _ in s)),
    Reduction(
        "num_letter",
        ("how many {k} it has",),
        _same('s.count("{k}")'),
        lambda s, k: sum(c == k for c in s),
        tuple("abc"),
    ),
    Reduction(
        "last_text", ("its last character",), _same("s[-1]"), lambda s, k: s[-1:], needs="s", is_defined=_at_least_one
    ),
    Reduction(
        "palindrome",
        ("YES if it is a palindrome, else NO",),
        _same('"YES" if s == s[::-1] else "NO"'),
        lambda s, k: _yes(all(s[i] == s[len(s) - 1 - i] for i in range(len(s)))),
    ),
)


# ----------------------------------------------------------------------------------------------- where values come from


LIST_SOURCES = (
    Source("list", "a list of integers", "a", _same(""), lambda given: list(given)),
    Source(
        "digits",
        "the digits of n",
        "n",
        ("a = [int(c) for c in str(n)]", "a = list(map(int, str(n)))", "a = [int(c) for c in str(n)]"),
        lambda given: [given // 10**i % 10 for i in range(len(str(given)) - 1, -1, -1)],
    ),
    Source(
        "range",
        "the numbers from 1 to n",
        "n",
        _same("a = list(range(1, n + 1))"),
        lambda given: [i + 1 for i in range(given)],
    ),
)
TEXT_SOURCES = (Source("text", "a text", "s", _same(""), lambda given: str(given)),)

LISTS = Domain("list", "a", INTS, INT_REDUCTIONS, LIST_SOURCES)
TEXT = Domain("text", "s", TEXTS, TEXT_REDUCTIONS, TEXT_SOURCES)
DOMAINS = (LISTS, TEXT)
