"""Which programs people see, with which values, and how often the critic's fall is the failing line."""

import pytest

from coderl.evaluation.illustrations import Illustration, crashes, illustrate, located, one_of_each
from coderl.types import Outcome, Problem, Program, ProgramKind, Verdict

PASSED, FAILED, CRASHED = Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.RUNTIME_ERROR


class Letters:
    """A token is the number of its letter."""

    def decode(self, tokens):
        return "".join(map(chr, tokens))


def judged(code, outcome, *, difficulty="easy", problem="p", line=None, index=0, text=None):
    tokens = tuple(map(ord, code if text is None else text))
    program = Program(problem, index, code, tokens=tokens)
    return Problem(problem, "Do it.", difficulty), program, Verdict(outcome, "valueerror", "bad", line)


def test_one_program_of_each_outcome_and_difficulty_best_first():
    given = [
        judged("a", FAILED),
        judged("b", FAILED, index=1),
        judged("c", PASSED, difficulty="hard"),
        judged("d", PASSED),
        judged("e", None),  # a fault of the sandbox
        judged("f", CRASHED, text=""),  # not drawn from a model
    ]
    assert [program.code for _, program, _ in one_of_each(given)] == ["d", "c", "a"]
    assert [program.code for _, program, _ in one_of_each(given, limit=1)] == ["d"]


def test_crashes_are_distinct_programs_of_several_lines_with_a_known_line():
    given = [
        judged("a\nb", CRASHED, line=2),
        judged("a\nb", CRASHED, line=2, index=1),
        judged("a\nb", CRASHED, line=2, problem="q"),
        judged("a\nb", CRASHED),
        judged("a\n", CRASHED, line=1),
        judged("a\nb", FAILED, line=1),
    ]
    assert [program.problem_id for _, program, _ in crashes(given)] == ["p", "q"]
    assert len(crashes(given, limit=1)) == 1


def test_the_failing_line_is_that_of_the_text_shown():
    """The code's second line stands on the text's fourth: two lines of prose and fence come before it."""
    shown = illustrate(
        judged("x\ny\n", CRASHED, line=2, text="So:\n```\nx\ny\n```\n"), [0.5] * 15, 0.25, Letters(), "round-00"
    )
    assert (shown.error_line, shown.where, shown.kind, shown.program_value) == (4, "round-00", ProgramKind.SAMPLE, 0.25)
    assert "".join(shown.texts) == "So:\n```\nx\ny\n```\n"
    assert illustrate(judged("x", FAILED), [0.5], 0.5, Letters(), "").error_line is None


def crash(line, values):
    texts = ("a", "\n", "b", "\n", "c")
    return Illustration("p", "easy", "", "", ProgramKind.SAMPLE, 0, CRASHED, None, "", line, texts, values, None)


def test_the_steepest_fall_is_compared_with_the_failing_line_and_with_chance():
    """Values at the ends of the three lines: 0.9, 0.8, 0.2 (falls most on line 3), and 0.9, 0.1, 0.1 (line 2)."""
    rows = [crash(3, (0.5, 0.9, 0.5, 0.8, 0.2)), crash(3, (0.5, 0.9, 0.5, 0.1, 0.1)), crash(None, (0.5,) * 5)]
    assert located(rows) == {
        "num_located": 2,
        "located_share": 0.5,
        "located_by_chance": pytest.approx(1 / 3),
    }
    assert located([])["num_located"] == 0
