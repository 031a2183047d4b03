"""The order in which programs are handed in: those that pass the example tests, by how many behave alike, by critic.

What a program does on inputs without expected outputs is its behaviour. Programs that are right behave alike, while
wrong ones differ in many ways: a large class of equal behaviour is a vote.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coderl.critic_sampling.inputs import Given
from coderl.evaluation.counts import JUDGED, numbered
from coderl.execution import ExecutionConfig
from coderl.execution.remote.serve import OpenRunner
from coderl.execution.sandbox import values
from coderl.types import (
    Outcome,
    Problem,
    Program,
    ProgramKey,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The place of a program among those of its problem, and why."""

    place: int
    """0 is submitted first."""
    example_outcome: Outcome | None
    """None where the problem shows no example test or the sandbox failed."""
    behaviour: int | None
    """Number of its class of equal behaviour within the problem, as they are met; None where it fails the examples or
    no input could be made."""
    class_size: int
    """Programs of that class with the same verdict on the example tests, copies included."""
    program_value: float | None


RANKED = tuple[ProgramKey, Ranking]
"""A row of rankings."""


Behaviour = tuple[str, ...]
"""One answer an input: what was printed or returned, or the error; equal for programs that behave alike."""

MAX_ANSWER_BYTES = 1 << 20
UNKNOWN = "sandbox fault"
"""The answer of a program that the sandbox failed on."""


class BehaviourRunner:
    """Runs programs on inputs to which nobody knows the answer. Use it through `open_behaviours`."""

    def __init__(self, runner: OpenRunner):
        self._runner = runner

    def behaviours(self, items: Sequence[tuple[Problem, str, tuple[Given, ...]]]) -> list[Behaviour]:
        """Return what each (problem, program text, inputs) does; an input is run alone, so that a crash hides none.

        Equal texts of one problem run once.
        """
        distinct = {(problem.problem_id, code): (problem, code, inputs) for problem, code, inputs in items}
        requests = [
            {"code": code, "fn_name": problem.fn_name, "tests": [_request(given)]}
            for problem, code, inputs in distinct.values()
            for given in inputs
        ]
        replies = self._runner.run(requests, MAX_ANSWER_BYTES)
        found = {
            name: tuple(_answer(next(replies)) for _ in inputs) for name, (_, _, inputs) in distinct.items()
        }  # replies come in the order of the requests
        return [found[problem.problem_id, code] for problem, code, _ in items]


@contextmanager
def open_behaviours(config: ExecutionConfig) -> Iterator[BehaviourRunner]:
    """Yield what runs programs for their behaviour, on this machine whatever backend the config names.

    Raises:
        SandboxError: the isolation that the config asks for cannot be had.
    """
    runner = OpenRunner(config)
    with runner.executor:
        yield BehaviourRunner(runner)


def _request(given: Given) -> dict[str, Any]:
    return {"stdin": given} if isinstance(given, str) else {"args": [values.encode(argument) for argument in given]}


def _answer(reply: dict[str, Any]) -> str:
    """Return one answer as a text that is equal for equal answers: blanks at line ends and a float's last digits go."""
    if "fault" in reply:
        return UNKNOWN
    outcome = reply["test_outcomes"][0]
    if outcome is not Outcome.PASSED_TEST:
        return f"{outcome.name.lower()} {reply['error_subtype'] or ''}"
    (answer,) = reply["answers"]
    if "stdout" in answer:
        lines = base64.b64decode(answer["stdout"]).decode("utf-8", "replace").splitlines()
        return "printed\n" + "\n".join(" ".join(map(_rounded, line.split())) for line in lines if line.strip())
    return f"returned {json.dumps(_plain(answer.get('value', answer)), sort_keys=True)}"


_REAL = re.compile(r"[+-]?\d+(?:\.\d*(?:[eE][+-]?\d+)?|[eE][+-]?\d+)")


def _rounded(token: str) -> str:
    return f"{float(token):.6g}" if _REAL.fullmatch(token) else token


def _plain(value: Any) -> Any:
    """Return an encoded value with its floats rounded."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def class_sizes(behaviours: Sequence[Behaviour], passes: Sequence[bool]) -> list[int]:
    """Return how many programs behave as each does, counted among those that pass the example tests like it, or fail.

    Copies count: what is drawn often is what the model finds likely. A program without inputs, or that the sandbox
    failed on, is alone.
    """
    counts = Counter(zip(behaviours, passes, strict=True))
    return [counts[name] if name[0] and UNKNOWN not in name[0] else 1 for name in zip(behaviours, passes, strict=True)]


def rank(
    programs: Sequence[Program],
    example_results: Sequence[Verdict | Outcome | None],
    program_values: Sequence[float | None],
    behaviours: Sequence[Behaviour] | None = None,
) -> list[int]:
    """Return the order in which to submit programs of one problem, for n@k.

    1. A copy of an earlier program comes after every distinct one: submitting it again gains nothing.
    2. Programs that pass the example tests come before the others, and before those not judged.
    3. The best of each class of equal behaviour come first, then the second best of each, and so on; among them those
       of the larger class (see `class_sizes`). Without `behaviours` every program is a class of its own.
    4. The higher p(Passed | W, D) comes first; a program without a value comes last of its group.
    5. The shorter text comes first, then the earlier position.

    Source: CodeRL section 4.1 filters by example tests and picks at random; AlphaCode (Li et al. 2022, section 4.6)
        submits one program of each of the largest clusters.
    """
    passes = [_passes(result) for result in example_results]
    known = behaviours if behaviours is not None else [()] * len(programs)
    sizes = class_sizes(known, passes)
    seen: set[str] = set()
    keys: list[tuple[bool, bool, float, int, int]] = []
    for position, (program, passed, value) in enumerate(zip(programs, passes, program_values, strict=True)):
        keys.append(
            (program.code in seen, not passed, -value if value is not None else 1.0, len(program.code), position)
        )
        seen.add(program.code)
    taken: Counter[tuple[Behaviour, bool, bool]] = Counter()
    order = []
    for key in sorted(keys):
        position = key[-1]
        name = (known[position], key[0], key[1])
        order.append((*key[:2], taken[name] if sizes[position] > 1 else 0, -sizes[position], *key[2:]))
        taken[name] += 1
    return [key[-1] for key in sorted(order)]


def _passes(result: Verdict | Outcome | None) -> bool:
    outcome = result.outcome if isinstance(result, Verdict) else result
    return outcome is Outcome.PASSED_TEST


def rankings(stage: Path, verdicts: Path, problem_ids: Sequence[str]) -> dict[str, list[tuple[bool, bool]]]:
    """Return problem -> (passes the example tests, is correct) of its programs, best first; faults are left out.

    Args:
        stage: the folder of the `rank` stage; the rows of a problem stand best first.
        verdicts: the folder of the `execute` stage of its programs.
        problem_ids: the problems asked for; one without programs gets an empty list.

    Raises:
        InputError: a table is missing, cut off or of other rows.
    """
    ranked = numbered(stage / "rankings", RANKED, problem_ids, outcome="example_outcome")
    hidden = numbered(verdicts / "verdicts", JUDGED, problem_ids, outcome="outcome").looked_up(ranked.numbers)
    passes, is_right = ranked.outcomes == Outcome.PASSED_TEST, hidden == Outcome.PASSED_TEST
    by_problem = np.flatnonzero(hidden >= 0)
    by_problem = by_problem[np.argsort(ranked.problems[by_problem], kind="stable")]
    ends = np.searchsorted(ranked.problems[by_problem], np.arange(len(problem_ids)), side="right")
    rows = np.split(by_problem, ends[:-1]) if len(ends) else []
    return {
        name: list(zip(passes[at].tolist(), is_right[at].tolist(), strict=True))
        for name, at in zip(problem_ids, rows, strict=True)
    }
