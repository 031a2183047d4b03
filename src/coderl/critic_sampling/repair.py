"""Which failing programs to repair, and the order in which programs are submitted."""

from __future__ import annotations

from collections.abc import Sequence

from coderl.types import ExecutionResult, Outcome, Program, SandboxError


def repair_candidates(values: Sequence[float], num_candidates: int) -> list[int]:
    """Return the positions of the programs to repair, best first: the highest p(Passed | W, D); ties go to the earlier.

    Source: CodeRL section 3.3.4, Eq. 12 and Algorithm 1: the top M of the failing programs, or all where M is more.
    """
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    return order[:num_candidates]


def rank(
    programs: Sequence[Program],
    example_results: Sequence[ExecutionResult | SandboxError | None],
    program_values: Sequence[float | None],
) -> list[int]:
    """Return the order in which to submit programs of one problem, for n@k.

    1. A copy of an earlier program comes after every distinct one: submitting it again gains nothing.
    2. Programs that pass the example tests come before the others, and before those not judged.
    3. The higher p(Passed | W, D) comes first; a program without a value comes last of its group.
    4. The shorter text comes first, then the earlier position.

    Source: CodeRL section 4.1 filters by example tests and picks at random; AlphaCode submits at most one of a kind.
    """
    seen: set[str] = set()
    keys: list[tuple[bool, bool, float, int, int]] = []
    for position, (program, result, value) in enumerate(zip(programs, example_results, program_values, strict=True)):
        is_copy = program.code in seen
        seen.add(program.code)
        passes = isinstance(result, ExecutionResult) and result.outcome is Outcome.PASSED_TEST
        keys.append((is_copy, not passes, -value if value is not None else 1.0, len(program.code), position))
    return [key[-1] for key in sorted(keys)]
