"""One problem's search under way: its candidates, what is known of them, and what they have cost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from coderl.critic_sampling.candidates import (
    Candidate,
    Fork,
    NoRound,
    SearchResult,
    Spend,
    Tools,
)
from coderl.critic_sampling.refine import (
    PASSED,
    best_prefix,
    binary_probs,
)
from coderl.critic_sampling.repair import repair_candidates
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.types import (
    Outcome,
    Problem,
    Program,
    ProgramKind,
    Score,
    Verdict,
)


class SearchState:
    """One problem under way."""

    def __init__(self, problem: Problem, programs: Sequence[Program], config: CriticSamplingConfig, seed: int):
        self.problem = problem
        self.config = config
        self.budget = config.num_samples or len(programs)
        self.rng = random.Random(f"{seed} {problem.problem_id}")
        self.candidates: list[Candidate] = []
        self.results: dict[str, Verdict] = {}
        self.token_probs: dict[int, np.ndarray] = {}
        self.round = 0
        self.num_tokens = 0
        self.num_tests = 0
        self.num_tests_at: dict[str, int] = {}
        self.num_scored = 0
        self.latest = self.add(programs)

    def add(
        self,
        programs: Iterable[Program],
        kind: ProgramKind | None = None,
        parent: int | None = None,
        kept: int = 0,
        fork: Fork | None = None,
    ) -> list[int]:
        """Append programs made in this round, as many as the budget holds, and return their positions."""
        first = len(self.candidates)
        for index, program in enumerate(programs, start=first):
            assert program.problem_id == self.problem.problem_id
            most, spent = self.config.max_sampled_tokens, self.num_tokens + len(program.tokens) - kept
            self.num_tokens = spent if most is None else min(spent, most)
            if self.num_tokens < spent:
                break
            named = replace(program, index=index, kind=kind or program.kind)
            self.candidates.append(Candidate(named, self.round, parent, kept, None, None, self.num_tokens, fork=fork))
        return list(range(first, len(self.candidates)))

    def judge(self, code: str, result: Verdict) -> None:
        """Record the verdict on a text for all candidates that have it, unless the budget ends in its tests."""
        cost = sum(u is not None for u in result.test_outcomes)
        most, spent = self.config.max_executed_tests, self.num_tests + cost
        self.num_tests = spent if most is None else min(spent, most)
        if self.num_tests == spent:
            self.results[code] = result
        self.num_tests_at[code] = self.num_tests

    def has_budget(self) -> bool:
        """Return whether there are tokens and tests left for another round."""
        spent = ((self.num_tokens, self.config.max_sampled_tokens), (self.num_tests, self.config.max_executed_tests))
        return all(most is None or number < most for number, most in spent)

    def note_score(self, index: int, score: Score) -> None:
        """Record what the critic says of a candidate."""
        program_probs = binary_probs(np.asarray(score.program_probs, dtype=np.float64)[None, :])
        self.token_probs[index] = binary_probs(np.asarray(score.token_probs, dtype=np.float64))
        value = float(program_probs[0, PASSED])
        self.candidates[index] = replace(self.candidates[index], program_value=value)
        self.num_scored += 1

    def unjudged(self) -> list[int]:
        """Return the latest candidates that the example tests have to run, one for each text not run before."""
        most = self.config.max_executed_tests
        if not self.problem.example_tests or (most is not None and self.num_tests >= most):
            return []
        return [i for i in self._distinct() if self.candidates[i].program.code not in self.results]

    def passing(self) -> list[int]:
        """Return the latest candidates that pass the example tests, one a text, the critic's favourite first."""
        positions = [i for i in self._distinct() if self.passes(i)]
        return sorted(positions, key=lambda i: -(self.candidates[i].program_value or 0.0))

    def failing(self) -> list[int]:
        """Return the latest candidates that fail the example tests, one a text; not those the sandbox failed on."""
        return [i for i in self._distinct() if self._result(i) is not None and not self.passes(i)]

    def to_repair(self) -> list[int]:
        """Return the failing candidates of this round's repair, the most promising first."""
        failing = self.failing()
        if self.config.repair_order == "random":
            return self.rng.sample(failing, min(len(failing), self.config.num_repair_candidates))
        values = [self.candidates[i].program_value or 0.0 for i in failing]
        return [failing[at] for at in repair_candidates(values, self.config.num_repair_candidates)]

    def prefix_of(self, index: int) -> tuple[int, ...]:
        """Return the tokens of a passing program to keep.

        Deviation: a whole program (with its end of sequence, where drawn to the end) is no candidate for a prefix, as
            continuing it would only repeat it. Without a critic all values are even, which keeps one token.
        """
        tokens = self.candidates[index].program.tokens
        longest = max(len(tokens) - 1, 0)
        if self.config.prefix == "empty":
            return ()
        if self.config.prefix == "random":
            return tokens[: self.rng.randint(0, longest)]
        even = np.full((longest, 2), 0.5)
        return tokens[: best_prefix(self.token_probs.get(index, even)[:longest])]

    def result(self) -> SearchResult:
        """Return what the search made, and what of it to hand in."""
        returned = set(self._returned())
        spend = Spend(self.num_tokens, len(self.num_tests_at), self.num_tests, self.num_scored)
        tests_so_far = accumulate((self.num_tests_at.get(c.program.code, 0) for c in self.candidates), max)
        return SearchResult(
            problem_id=self.problem.problem_id,
            no_round=self.no_round(),
            num_masked=sum(self._is_masked(c.program.code) for c in self.candidates),
            num_copies=len(returned) - len({self.candidates[i].program.code for i in returned}),
            spend=spend,
            candidates=tuple(
                replace(c, result=self._result(i), num_tests_so_far=number, is_returned=i in returned)
                for i, (c, number) in enumerate(zip(self.candidates, tests_so_far, strict=True))
            ),
        )

    def no_round(self) -> NoRound | None:
        """Return why no program could be refined or repaired; None if one was."""
        if any(c.parent is not None for c in self.candidates):
            return None
        if not self.problem.example_tests:
            return NoRound.NO_EXAMPLE_TESTS
        first = [self._result(i) for i, c in enumerate(self.candidates) if c.round == 0]
        if not first:
            return NoRound.NO_PROGRAMS
        if all(result is None for result in first):
            return NoRound.NO_VERDICTS if self.has_budget() else NoRound.NO_BUDGET
        if not self.has_budget():
            return NoRound.NO_BUDGET
        passes = any(result is not None and result.outcome is Outcome.PASSED_TEST for result in first)
        if self.config.start == "near_greedy":
            return NoRound.NO_NEED if passes else NoRound.NO_BRANCH
        return NoRound.NO_REFINE if passes else NoRound.NO_REPAIR

    def _returned(self) -> list[int]:
        everything = range(len(self.candidates))
        if self.config.start == "near_greedy" and self.config.keep != "all":
            return [i for i in everything if self.passes(i)] or list(everything[:1])
        if self.config.keep == "all" or self.no_round() is not None:
            return list(everything)
        latest = set(self.latest)
        return [i for i in everything if i in latest or (self.config.keep == "passing" and self.passes(i))]

    def _distinct(self) -> list[int]:
        first_with: dict[str, int] = {}
        for index in self.latest:
            first_with.setdefault(self.candidates[index].program.code, index)
        return list(first_with.values())

    def _result(self, index: int) -> Verdict | None:
        result = self.results.get(self.candidates[index].program.code)
        return None if result is None or result.outcome is None else result

    def _is_masked(self, code: str) -> bool:
        return code in self.results and self.results[code].outcome is None

    def passes(self, index: int) -> bool:
        """Return whether a candidate passes the example tests."""
        result = self._result(index)
        return result is not None and result.outcome is Outcome.PASSED_TEST


def judge_latest(searches: Sequence[SearchState], tools: Tools) -> None:
    """Run the example tests on the latest programs of each search."""
    todo = [(s, s.candidates[index].program) for s in searches for index in s.unjudged()]
    if not todo:
        return
    results = tools.run_example_tests([(s.problem, program) for s, program in todo])
    for (search, program), result in zip(todo, results, strict=True):
        search.judge(program.code, result)
