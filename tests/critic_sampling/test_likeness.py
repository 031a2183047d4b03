"""Programs that differ in names, comments or layout only."""

import pytest

from coderl.critic_sampling.likeness import idle_positions, normal_form
from coderl.types import Program

CODE = "def f(a, b):\n    # add\n    total = a + b\n    return total\n"


@pytest.mark.parametrize(
    "same",
    [
        "def f(x, y):\n    s = x + y\n    return s\n",
        'def f(a,b):\n  """Add."""\n  total=(a+b)  # ok\n\n  return total\n',
        "def f(b, a):\n    total = b + a\n    return total\n",
    ],
)
def test_names_comments_and_layout_do_not_count(same):
    assert normal_form(same, keep="f") == normal_form(CODE, keep="f")


@pytest.mark.parametrize(
    "other",
    [
        "def f(a, b):\n    total = b + a\n    return total\n",
        "def f(a, b):\n    total = a + a\n    return total\n",
        "def f(a, b):\n    total = a - b\n    return total\n",
        "def g(a, b):\n    total = a + b\n    return total\n",
        "def f(a, b):\n    total = a + b\n    return sum\n",
        "def f(a, b):\n    total = a + b\n    return total.real\n",
    ],
)
def test_every_decision_counts(other):
    assert normal_form(other, keep="f") != normal_form(CODE, keep="f")


def test_what_does_not_parse_is_its_own_form():
    assert normal_form("def f(:\n") == "def f(:\n"
    assert normal_form("x = '\0'") == "x = '\0'"


class Characters:
    """A tokenizer of single characters."""

    def decode(self, tokens):
        return "".join(map(chr, tokens))


def idle_text(written, code, keep="f"):
    """The characters that stand in idle places; a dot stands for each of the others."""
    program = Program("p", 0, code, tokens=tuple(map(ord, written)))
    found = idle_positions(program, Characters(), keep=keep)
    return "".join(c if i in found else "." for i, c in enumerate(written))


def test_the_idle_places_of_a_program():
    """The comment and the first mention of a, b and total; not f, which the problem asks for, nor later mentions."""
    assert idle_text(CODE, CODE) == "......a..b.......#.add.....total".ljust(len(CODE), ".")


def test_what_is_written_around_the_code_is_idle():
    written = "Sure:\n```\nx = 1\n```\nDone"
    assert idle_text(written, "x = 1\n").replace(".", "") == "Sure:```x```Done"


def test_names_behind_wide_characters_are_found():
    code = "s = 'é'; n = 2\n"
    assert idle_text(code, code) == "s........n....."


def test_nothing_is_idle_in_what_does_not_parse():
    assert idle_text("a = (\n", "a = (\n").replace(".", "") == ""
