"""The nouns of coderl, and no logic: standard library only, importable anywhere in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Outcome(IntEnum):
    """What became of a program on its unit tests; the number is the critic's column.

    Source: CodeRL section 3.3.1. There is no member for an infrastructure fault on purpose: see `SandboxError`.
    """

    COMPILE_ERROR = 0
    """The text does not compile, or lacks the function the problem asks for."""
    RUNTIME_ERROR = 1
    """It compiles, and on some test raises, exits badly or exceeds a limit."""
    FAILED_TEST = 2
    """It runs on every test, and some answer is wrong."""
    PASSED_TEST = 3
    """Every test ran and every answer matched."""


class ProgramKind(StrEnum):
    """Where the text of a program comes from."""

    SAMPLE = "sample"
    """Drawn from the actor: W^s."""
    BASELINE = "baseline"
    """The actor's greedy program: W^b."""
    SOLUTION = "solution"
    """A reference solution of the data set: W."""
    REFINED = "refined"
    """Continued from the best prefix of a program that passed the example tests."""
    REPAIRED = "repaired"
    """Drawn from the repair model for a program that failed the example tests."""
    BRANCHED = "branched"
    """Written greedily after one token of another program was exchanged."""


@dataclass(frozen=True, slots=True)
class StdinTest:
    """A test of a whole program: what it reads and what it must print."""

    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class CallTest:
    """A test of one function (or method of `class Solution`): positional arguments and the value it must return."""

    args: tuple[Any, ...]
    """JSON values (None, bool, int, float, str, list, dict)."""
    expected: Any
    is_wrapped: bool = False
    """The data set holds `[expected]`, as APPS does for many problems; APPS' own comparison takes either."""


@dataclass(frozen=True, slots=True)
class AssertTest:
    """A test written as Python that calls the function under test and asserts (MBPP, HumanEval)."""

    code: str
    """Runs where the program cannot see it; only the arguments of its calls reach the program."""
    setup: str = ""
    """Runs in the program's process, after the program, before `code` (MBPP `test_setup_code`)."""


UnitTest = StdinTest | CallTest | AssertTest


@dataclass(frozen=True, slots=True)
class Problem:
    """What a generator may see of a problem: D. It has no hidden tests and no solutions, by construction."""

    problem_id: str
    """Unique in its data set; safe as a file name."""
    description: str
    difficulty: str = "unknown"
    """`introductory`, `interview`, `competition` (APPS), or the data set's own word."""
    fn_name: str | None = None
    """The function under test; None for a program that reads stdin."""
    starter_code: str = ""
    example_tests: tuple[UnitTest, ...] = ()
    """Tests that the problem statement itself shows."""
    prelude: str = ""
    """What the data set runs before every program, in its process: imports, classes such as LeetCode's `ListNode`."""


@dataclass(frozen=True, slots=True)
class LabelledProblem:
    """A problem with what only training and grading may see.

    It holds a `Problem` and is not one: handing hidden tests to a generator is a type error.
    """

    problem: Problem
    hidden_tests: tuple[UnitTest, ...] = ()
    solutions: tuple[str, ...] = ()
    checker: str | None = None
    """Source of `check(stdin, expected, printed) -> bool` for problems with many right answers; None to compare."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of one problem, with the tokens it was made of."""

    problem_id: str
    index: int
    """Position among the programs of its problem in its table."""
    code: str
    kind: ProgramKind = ProgramKind.SAMPLE
    tokens: tuple[int, ...] = ()
    """As drawn, end of sequence included; empty where the text did not come from a model."""

    @property
    def key(self) -> ProgramKey:
        """What names it in its stage."""
        return ProgramKey(self.problem_id, self.kind, self.index)


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """What names a program among those of a stage: the columns by which tables about programs are joined."""

    problem_id: str
    kind: ProgramKind
    index: int


@dataclass(frozen=True, slots=True)
class Score:
    """What a critic of U outcomes says of one program."""

    program_probs: tuple[float, ...]
    """p(u | W, D) for each outcome u; the last is `passed`."""
    token_probs: tuple[tuple[float, ...], ...]
    """p(u | w_1..w_t, D), one row a program token."""

    @property
    def program_value(self) -> float:
        """The probability that the program passes: q(W)."""
        return self.program_probs[-1]

    @property
    def prefix_values(self) -> tuple[float, ...]:
        """The probability of passing after each token."""
        return tuple(row[-1] for row in self.token_probs)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sandbox said of one program: an outcome, or a fault of the sandbox itself, which is never one."""

    outcome: Outcome | None
    """None exactly where `fault` says why there is none."""
    error_subtype: str | None = None
    """Exception class name in lower case, or `timeout`, `memory_limit`, `output_limit`, `killed`, `exit`."""
    message: str = ""
    """The last line of the error, for repair prompts and people."""
    error_line: int | None = None
    """1-based line of the program in which the error arose, where known."""
    test_outcomes: tuple[Outcome | None, ...] = ()
    """One a test, in order; None where the test did not run because an earlier one settled the outcome."""
    isolation: str = ""
    """The sandbox level it ran under: `strong`, `portable` or `unsafe`; empty where it did not run."""
    fault: str | None = None
    """What kept the sandbox from an outcome; such a program is left out of training and counted."""
    cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """A program of which it is known what became of it: what networks learn from."""

    program: Program
    verdict: Verdict
    score: Score | None = None
    """Of the critic, where it was asked."""
    sampling_log_probs: tuple[float, ...] = ()
    """log p of each token under the distribution it was drawn from, where the engine told."""
    is_cut: bool = False
    """True where the program was cut at the longest length."""

    @property
    def outcome(self) -> Outcome:
        """What became of it: a rollout has no fault."""
        assert self.verdict.outcome is not None
        return self.verdict.outcome


class SandboxError(RuntimeError):
    """The sandbox, not the program, failed, so that everything stops; of one program it is `Verdict.fault`."""


class InputError(ValueError):
    """What a person gave (a file, a flag, a recipe) cannot be used; the message is the one line they read."""
