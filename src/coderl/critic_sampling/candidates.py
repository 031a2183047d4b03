"""The nouns of critic sampling: what a search asks of the models and the sandbox, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from coderl.critic_sampling.ranking import rank
from coderl.types import (
    Outcome,
    Problem,
    Program,
    Score,
    Verdict,
)

# ----------------------------------------------------------------------------------------------- what others provide


class PrefixRequest(NamedTuple):
    """Draw `num_samples` programs of `problem` that begin with `prefix_tokens`, which may be empty."""

    problem: Problem
    prefix_tokens: tuple[int, ...]
    num_samples: int


class RepairRequest(NamedTuple):
    """Draw `num_samples` repairs of `program`, which did not pass the example tests."""

    problem: Problem
    program: Program
    result: Verdict
    num_samples: int


@runtime_checkable
class Generator(Protocol):
    """The actor."""

    def continue_prefixes(self, requests: Sequence[PrefixRequest], *, seed: int) -> Sequence[Sequence[Program]]:
        """Return the programs drawn for each request, tokens of the prefix included; kind and index are set here."""
        ...


@runtime_checkable
class Repairer(Protocol):
    """The repair model."""

    def repair(self, requests: Sequence[RepairRequest], *, seed: int) -> Sequence[Sequence[Program]]:
        """Return the programs drawn for each request; kind and index are set here."""
        ...


class WriteRequest(NamedTuple):
    """Write the likeliest program of `problem` that begins with `prefix_tokens`, token by token."""

    problem: Problem
    prefix_tokens: tuple[int, ...]
    failed: tuple[Program, Verdict] | None = None
    """What to repair; None to write from the problem alone."""


class Written(NamedTuple):
    """A program, and what the model found likeliest at each position after the prefix."""

    program: Program
    likeliest: Int[np.ndarray, "T K"]
    log_probs: Float[np.ndarray, "T K"]


@runtime_checkable
class Writer(Protocol):
    """An actor, or a repair model, that writes its likeliest programs."""

    def write(self, requests: Sequence[WriteRequest]) -> Sequence[Written | None]:
        """Return what is written for each request; None where what is to be repaired is too long for a prompt."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of some tokens."""
        ...


@runtime_checkable
class PrefixCritic(Protocol):
    """A critic, best a binary one trained to tell programs that pass the example tests."""

    def score(self, items: Sequence[tuple[Problem, Program]]) -> Sequence[Score]:
        """Return one score an item, in order."""
        ...


TestRunner = Callable[[list[tuple[Problem, Program]]], Sequence[Verdict]]
"""Runs programs on the *example* tests of their problem."""


@dataclass(frozen=True)
class Tools:
    """The models and the sandbox of a search."""

    generator: Generator
    critic: PrefixCritic | None
    """Without one all values are even."""
    repairer: Repairer | None
    """Without one nothing is repaired."""
    run_example_tests: TestRunner
    writer: Writer | None = None
    """The actor, where the search begins with its greedy program."""
    repair_writer: Writer | None = None
    """The repair model, for the same."""
    watch: Callable[[list[SearchResult]], None] | None = None
    """Told after each round near the greedy program what every search has come to."""


# ------------------------------------------------------------------------------------------------------------ results


class NoRound(StrEnum):
    """Why neither a repair nor a refine round was possible on a problem."""

    NO_EXAMPLE_TESTS = "no_example_tests"
    NO_PROGRAMS = "no_programs"
    NO_VERDICTS = "no_verdicts"
    """The sandbox failed on every program."""
    NO_REPAIR = "no_repair"
    """No program passes, and there is no repair model or no repair round."""
    NO_REFINE = "no_refine"
    """Some program passes, and there is no refine round."""
    NO_NEED = "no_need"
    """The greedy program passes, and the search stops with it."""
    NO_BRANCH = "no_branch"
    """The greedy program fails, and no other token was likely enough."""
    NO_BUDGET = "no_budget"
    """The first round took all tokens or tests there are, or left too few for one more program."""


@dataclass(frozen=True, slots=True)
class Spend:
    """What a search cost, its first round included."""

    num_sampled_tokens: int = 0
    """Tokens drawn; those of a prefix that was kept are not drawn again. The program in which a budget ended is none of
    the candidates, and its tokens up to there count."""
    num_executed_programs: int = 0
    """Distinct programs run on the example tests."""
    num_executed_tests: int = 0
    """Example tests run, those up to the first failure of each distinct program."""
    num_scored_programs: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a program leaves the one that it branches off."""

    score: float
    """Of the branch: see `branch.Branch`."""
    rank: int
    """1 for the second likeliest token there, 2 for the third, ..."""
    line: int
    """1-based, of what the model wrote."""
    forced: str
    """The token there."""
    replaced: str
    """The token in whose place it stands."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program of a search and how it came about."""

    program: Program
    """Its index is its position among the candidates of its problem."""
    round: int
    """0 for the programs given."""
    parent: int | None
    """The candidate it was refined or repaired from."""
    num_prefix_tokens: int
    """Tokens taken over from the parent."""
    result: Verdict | None
    """On the example tests; None where there are none or the sandbox failed."""
    program_value: float | None
    """The critic's p(Passed | W, D), where it was asked."""
    num_tokens_so_far: int = 0
    """Tokens drawn for the problem once this program was there; a budget of so many would have ended with it."""
    num_tests_so_far: int = 0
    """Example tests run for the problem once this program had its verdict."""
    is_returned: bool = False
    """Whether the search hands it in."""
    fork: Fork | None = None
    """None for a program that is no branch."""

    @property
    def passes(self) -> bool:
        """Whether it passes the example tests."""
        return self.result is not None and self.result.outcome is Outcome.PASSED_TEST


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All programs of one problem, and which of them to hand in."""

    problem_id: str
    no_round: NoRound | None
    """Why the search could not go beyond its first round; None where it did."""
    num_masked: int
    """Candidates without a verdict because the sandbox failed on them."""
    num_copies: int
    """Returned programs whose text is that of an earlier returned one."""
    spend: Spend
    candidates: tuple[Candidate, ...] = ()

    @property
    def returned(self) -> tuple[Candidate, ...]:
        """The candidates to hand in, in the order drawn."""
        return tuple(c for c in self.candidates if c.is_returned)

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs to hand in, in the order drawn."""
        return tuple(c.program for c in self.returned)

    def ranked(self) -> tuple[Program, ...]:
        """The programs to hand in, best first by example tests and critic: see `ranking.rank`."""
        programs, chosen = self.programs, self.returned
        order = rank(programs, [c.result for c in chosen], [c.program_value for c in chosen])
        return tuple(programs[position] for position in order)


NOT_IN_TABLES = ("candidates", "result_cpu_s", "result_wall_s")
"""What the tables of searches and candidates leave out: a search's candidates have a table of their own, and times
differ from run to run."""
