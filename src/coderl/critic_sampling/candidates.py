"""The nouns of critic sampling: what a search asks of the models and the sandbox, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from coderl.critic_sampling.ranking import rank
from coderl.types import (
    Outcome,
    Problem,
    Program,
    ProgramKind,
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


@runtime_checkable
class Score(Protocol):
    """What a critic says of one program; arrays or CPU tensors, with two outcomes or four."""

    @property
    def program_probs(self) -> Any:
        """p(u | W, D): [U]."""
        ...

    @property
    def token_probs(self) -> Any:
        """p(u | w_1..w_t, D), after each token: [T, U]."""
        ...


@runtime_checkable
class PrefixCritic(Protocol):
    """A critic, best a binary one trained to tell programs that pass the example tests."""

    def score(self, items: Sequence[tuple[Problem, Program]]) -> Sequence[Score]:
        """Return one score an item, in order."""
        ...


TestRunner = Callable[[list[tuple[Problem, Program]]], Sequence[Verdict]]
"""Runs programs on the *example* tests of their problem."""


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


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All programs of one problem, and which of them to hand in."""

    problem_id: str
    candidates: tuple[Candidate, ...]
    returned: tuple[int, ...]
    """Positions in `candidates`, in the order drawn."""
    no_round: NoRound | None
    """Why the search could not go beyond its first round; None where it did."""
    num_masked: int
    """Candidates without a verdict because the sandbox failed on them."""
    num_copies: int
    """Returned programs whose text is that of an earlier returned one."""
    spend: Spend

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs to hand in, in the order drawn."""
        return tuple(self.candidates[index].program for index in self.returned)

    def ranked(self) -> tuple[Program, ...]:
        """The programs to hand in, best first by example tests and critic: see `ranking.rank`."""
        chosen = [self.candidates[index] for index in self.returned]
        order = rank([c.program for c in chosen], [c.result for c in chosen], [c.program_value for c in chosen])
        return tuple(chosen[position].program for position in order)


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A candidate as a flat row, for a table of the run directory."""

    problem_id: str
    index: int
    code: str
    kind: ProgramKind
    tokens: tuple[int, ...]
    round: int
    parent: int | None
    num_prefix_tokens: int
    example_outcome: Outcome | None
    example_subtype: str | None
    program_value: float | None
    is_returned: bool
    num_tokens_so_far: int
    num_tests_so_far: int


@dataclass(frozen=True, slots=True)
class SearchRow:
    """What became of the search of one problem, for a table of the run directory."""

    problem_id: str
    no_round: str | None
    num_masked: int
    num_copies: int
    num_sampled_tokens: int
    num_executed_programs: int
    num_executed_tests: int
    num_scored_programs: int

    @classmethod
    def of(cls, result: SearchResult) -> SearchRow:
        """Return the row of one search."""
        reason = None if result.no_round is None else result.no_round.value
        return cls(result.problem_id, reason, result.num_masked, result.num_copies, *astuple(result.spend))


def rows(result: SearchResult) -> Iterator[CandidateRow]:
    """Yield one row a candidate."""
    returned = set(result.returned)
    for c in result.candidates:
        p = c.program
        outcome, subtype = (c.result.outcome, c.result.error_subtype) if c.result is not None else (None, None)
        made = (c.round, c.parent, c.num_prefix_tokens)
        judged = (outcome, subtype, c.program_value, p.index in returned, c.num_tokens_so_far, c.num_tests_so_far)
        yield CandidateRow(p.problem_id, p.index, p.code, p.kind, p.tokens, *made, *judged)
