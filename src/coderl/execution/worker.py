"""From a job to its verdict: which tests share a child, and when a test is run again."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coderl.execution.config import ExecutionConfig, Job
from coderl.execution.gate import Gate
from coderl.execution.sandbox.process import ZygoteProcess
from coderl.execution.trial import DoubtfulError, LoadError, Trial
from coderl.types import Outcome, UnitTest, Verdict

_NUM_CONFIRMED = 3
"""Failures that are decided again alone, of those that `stop = never` finds in one child."""


class Worker:
    """Judges jobs, one after the other, in the children of one zygote."""

    def __init__(
        self, config: ExecutionConfig, zygote: ZygoteProcess, gate: Gate, on_idle: Callable[[], None] | None = None
    ) -> None:
        self._config, self._zygote, self._gate, self._on_idle = config, zygote, gate, on_idle
        self._cpu_s = 0.0

    def run(self, job: Job) -> Verdict:
        """The verdict on one program.

        All tests share a child as long as they pass. What fails there after another test is decided again in a fresh
        child, for the program may have tripped over what it left behind itself. If it passes afresh, so that what it
        answers depends on what it ran before, nothing counts that was decided together: every test is then decided in
        a child of its own. A program has one try at each test, either way.

        Raises:
            SandboxError: the sandbox failed; nothing is known about the program.
        """
        started, self._cpu_s = time.monotonic(), 0.0
        verdicts = self._together(job)
        outcomes = tuple(verdict.outcome for verdict in verdicts)
        worst = min(verdicts, key=_rank)
        if worst.outcome is Outcome.PASSED_TEST:
            worst = next((verdict for verdict in verdicts if verdict.fault is not None), worst)
        return replace(
            worst,
            test_outcomes=outcomes + (None,) * (len(job.tests) - len(verdicts)) if worst.fault is None else (),
            cpu_s=self._cpu_s,
            wall_s=time.monotonic() - started,
            isolation=self._zygote.level,
        )

    def _together(self, job: Job) -> list[Verdict]:
        verdicts: list[Verdict] = []
        doubted: list[int] = []
        while len(verdicts) < len(job.tests) and not self._is_settled(verdicts):
            first = len(verdicts)
            found, is_loaded = self._child(job, _same_kind(job.tests[first:]))
            if not is_loaded:
                return verdicts + found * (len(job.tests) - first)
            doubted += [first + at for at, verdict in enumerate(found) if at and _has_failed(verdict)]
            verdicts += found
        for index in _spread(doubted, verdicts):
            verdicts[index] = self._alone(job, index)
            if not _has_failed(verdicts[index]):
                return self._each_alone(job)
        return verdicts

    def _each_alone(self, job: Job) -> list[Verdict]:
        verdicts: list[Verdict] = []
        while len(verdicts) < len(job.tests) and not self._is_settled(verdicts):
            verdicts.append(self._alone(job, len(verdicts)))
        return verdicts

    def _alone(self, job: Job, index: int) -> Verdict:
        found, _is_loaded = self._child(job, [job.tests[index]])
        return found[0]

    def _is_settled(self, verdicts: list[Verdict]) -> bool:
        return self._config.stop == "first_failure" and bool(verdicts) and _has_failed(verdicts[-1])

    def _child(self, job: Job, tests: list[UnitTest]) -> tuple[list[Verdict], bool]:
        """Verdicts of the first of these tests, at least one, that a child settles; whether the program loads.

        The first test of a child is as good as alone in it. Where it ends as the machine may have ended it, it is run
        again with nothing beside it, and then stands.
        """
        try:
            with self._gate.shared() as leave:
                return self._attempt(job, tests, functools.partial(self._idle, leave))
        except DoubtfulError:
            pass
        try:
            with self._gate.alone():
                return self._attempt(job, tests, None)
        except DoubtfulError as again:
            return [again.verdict], True

    def _idle(self, leave: Callable[[], None]) -> None:
        leave()
        if self._on_idle is not None:
            self._on_idle()

    def _attempt(
        self, job: Job, tests: list[UnitTest], on_idle: Callable[[], None] | None
    ) -> tuple[list[Verdict], bool]:
        verdicts: list[Verdict] = []
        trial = Trial(self._zygote, self._config, job, tests, on_idle)
        try:
            with trial:
                for index, test in enumerate(tests):
                    verdicts.append(trial.verdict(index, test))
                    if trial.is_over or _is_last(verdicts[-1], self._config):
                        break
        except DoubtfulError as doubt:
            if not verdicts:
                raise
            verdicts.append(doubt.verdict)
        except LoadError as error:
            return (verdicts, True) if verdicts else ([error.verdict], False)
        finally:
            self._cpu_s += trial.cpu_s
        return verdicts, True


def _is_last(verdict: Verdict, config: ExecutionConfig) -> bool:
    """Whether a child has nothing more to say after this: it was told to stop, or can no longer be believed."""
    return _has_failed(verdict) and (config.stop == "first_failure" or verdict.error_subtype in _ENDS)


_ENDS = ("killed", "timeout", "output_limit")


def _has_failed(verdict: Verdict) -> bool:
    return verdict.outcome is not None and verdict.outcome is not Outcome.PASSED_TEST


def _rank(verdict: Verdict) -> int:
    """Order of verdicts from the worst, which is the program's; a test that could not be judged decides nothing."""
    return Outcome.PASSED_TEST if verdict.outcome is None else verdict.outcome


def _spread(doubted: list[int], verdicts: list[Verdict]) -> list[int]:
    """Which of the failures to decide again: all that may be the machine's, and a few of the others."""
    timed = [index for index in doubted if verdicts[index].error_subtype in _ENDS]
    others = [index for index in doubted if index not in timed]
    if len(others) > _NUM_CONFIRMED:
        step = (len(others) - 1) / (_NUM_CONFIRMED - 1)
        others = [others[round(step * n)] for n in range(_NUM_CONFIRMED)]
    return sorted(timed + others)


def _same_kind(tests: tuple[UnitTest, ...]) -> list[Any]:
    """The tests from the first on that a child for the first can run."""
    kind = type(tests[0])
    for index, test in enumerate(tests):
        if type(test) is not kind:
            return list(tests[:index])
    return list(tests)
