"""Programs, verdicts and scores of our stages as the files that the original's scripts write and read."""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coderl import prompts, records
from coderl.interop.original_files import (
    BASELINE,
    EXAMPLES,
    GENERATED,
    NUM_POSITIONS,
    NUM_PROMPT_TOKENS,
    RESULTS,
    SCORES,
    SUBTYPES,
    WORDS,
    Encode,
    by_numbers,
    number_of,
)
from coderl.problems.json_files import write_json
from coderl.stages.rollouts import ByProblem
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKey,
    ProgramKind,
    Score,
    StdinTest,
    Verdict,
)

_CODES = {outcome: code for code, outcome in RESULTS.items()}


def export_files(
    out: Path, *, problems: Sequence[LabelledProblem], programs: Path, verdicts: Path | None = None,
    scores: Path | None = None, encode_prompt: Encode | None = None,
) -> int:  # fmt: skip
    """Write programs, verdicts and scores of our stages as the original's files; return of how many problems.

    OUT gets `codes/ID.json`, `test_results/ID.pkl`, and `problems/NNNN/` with `gen_solutions.json`,
    `baseline_solutions.json`, `example_input_output.json` and `gen_solutions_critic_scores.pkl`, to be copied into the
    original's problem folders. What our stages write and the original has no place for (costs, faults) is left out.

    A score file holds logits whose softmax gives back q(w_t) and p(Passed): all that the original reads of them.

    Raises:
        InputError: a table is missing, a program is of no problem given, or scores come without `encode_prompt`.
    """
    if scores is not None and encode_prompt is None:
        raise InputError("scores: the original's file also holds the prompts' tokens; name a tokenizer")
    by_id = {p.problem.problem_id: p for p in problems}
    by_numbers(problems)
    all_programs = ByProblem.of_programs(programs)
    all_verdicts = ByProblem.of_verdicts(verdicts) if verdicts else None
    all_scores = ByProblem.of_scores(scores) if scores else None
    names = all_programs.problem_ids()
    for name in names:
        group: list[Program] = all_programs.of([name])[name]
        judged = dict(all_verdicts.of([name]).get(name, [])) if all_verdicts else None
        valued = dict(all_scores.of([name]).get(name, [])) if all_scores else {}
        if name not in by_id:
            raise InputError(f"program of problem {name!r}, which is not among the {len(by_id)} problems")
        drawn = [p for p in group if p.kind not in (ProgramKind.BASELINE, ProgramKind.SOLUTION)]
        baselines = [p for p in group if p.kind is ProgramKind.BASELINE]
        _export_problem(out, by_id[name], drawn, baselines, judged, valued, encode_prompt)
    return len(names)


def _export_problem(
    out: Path, labelled: LabelledProblem, drawn: list[Program], baselines: list[Program],
    judged: dict[ProgramKey, Verdict] | None, valued: dict[ProgramKey, Score], encode_prompt: Encode | None,
) -> None:  # fmt: skip
    problem, number = labelled.problem, number_of(labelled.problem.problem_id)
    prompt = prompts.actor_prompt(problem, "apps_generate")
    codes = {str(number): {"code": [p.code for p in drawn], "prompt": prompt}}
    _write_json(out / "codes" / f"{number}.json", codes)
    folder = out / "problems" / f"{number:04d}"
    _write_json(folder / EXAMPLES, _example_record(problem))
    if judged is None:
        return
    known = [(p, judged.get(p.key)) for p in drawn]
    pairs = [(p, v) for p, v in known if v is not None and v.outcome is not None]
    _write_json(folder / GENERATED, [_entry(p, v) for p, v in pairs])
    if first := [(p, v) for p in baselines[:1] if (v := judged.get(p.key)) is not None and v.outcome is not None]:
        _write_json(folder / BASELINE, [_entry(p, v) for p, v in first])
    results = {"results": [_results(v) for _, v in known], "errors": [_errors(v) for _, v in known],
               "sols": [p.code for p in drawn]}  # fmt: skip
    _write(out / "test_results" / f"{number}.pkl", pickle.dumps({number: results}, protocol=3))
    if valued and encode_prompt is not None and all(p.key in valued for p, _ in pairs):
        rows = [(p, v, valued[p.key]) for p, v in pairs]
        content = pickle.dumps(_score_record(rows, encode_prompt(prompt)), protocol=3)
        _write(folder / SCORES, content.replace(b"cnumpy._core.", b"cnumpy.core."))  # NumPy 1 has no `_core`


def _example_record(problem: Problem) -> dict[str, list[Any]] | None:
    tests = [t for t in problem.example_tests if isinstance(t, StdinTest | CallTest)]
    if not tests:
        return None
    return {"inputs": [t.stdin if isinstance(t, StdinTest) else list(t.args) for t in tests],
            "outputs": [t.stdout if isinstance(t, StdinTest) else t.expected for t in tests]}  # fmt: skip


def _entry(program: Program, verdict: Verdict) -> dict[str, Any]:
    assert verdict.outcome is not None
    word = WORDS.get(verdict.outcome) or _class_name(verdict.error_subtype)
    return {"code": program.code, "result": _CODES[verdict.outcome], "error_type": word}


def _class_name(subtype: str | None) -> str:
    return next((theirs for theirs, ours in SUBTYPES.items() if ours == subtype), subtype or "exception")


def _results(verdict: Verdict | None) -> list[Any]:
    """One result a test that ran, and the program's own where no test says it; nothing of a program without verdict."""
    if verdict is None or verdict.outcome is None:
        return []
    results = [_CODES[o] for o in verdict.test_outcomes if o is not None]
    return results if _CODES[verdict.outcome] in results else [*results, _CODES[verdict.outcome]]


def _errors(verdict: Verdict | None) -> list[Any]:
    """An exception of Python's own class where there is one of that name, else a `RuntimeError` that names it."""
    errors: list[Any] = [None] * len(_results(verdict))
    if verdict is not None and verdict.outcome in (Outcome.COMPILE_ERROR, Outcome.RUNTIME_ERROR):
        name = _class_name(verdict.error_subtype)
        classes = {n.lower(): c for n, c in vars(builtins).items() if isinstance(c, type) and issubclass(c, Exception)}
        found = RuntimeError(f"{name}: {verdict.message}") if name not in classes else None
        exception = found or _made(classes[name], verdict.message)
        errors[-1] = (exception, [verdict.message])
    return errors


def _made(kind: type[Exception], message: str) -> Exception:
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError takes five arguments
        return RuntimeError(f"{kind.__name__}: {message}")


def _score_record(rows: Sequence[tuple[Program, Verdict, Score]], prompt: Sequence[int]) -> dict[str, Any]:
    prompt = [*prompt[:NUM_PROMPT_TOKENS]]
    logits = np.zeros((len(rows), NUM_POSITIONS, len(Outcome)), np.float32)
    for row, (program, verdict, score) in enumerate(rows):
        assert verdict.outcome is not None
        num = min(len(program.tokens), NUM_POSITIONS)
        probs = np.array(score.token_probs[:num], np.float64).reshape(num, len(Outcome))
        logits[row, :num] = np.log(np.clip(probs, 1e-12, None))
    eos = prompt[-1] if prompt else 0
    return {
        "code": [[*p.tokens[:NUM_POSITIONS], *[-100] * (NUM_POSITIONS - len(p.tokens))] for p, _, _ in rows],
        "prompt": [prompt + [eos] * (NUM_PROMPT_TOKENS - len(prompt))] * len(rows),
        "gt_error_type": [int(v.outcome) for _, v, _ in rows if v.outcome is not None],
        "pred_error_type": np.array([int(np.argmax(s.program_probs)) for _, _, s in rows], np.int64),
        "error_hidden_states": logits,
    }


def _write_json(path: Path, value: Any) -> None:
    records.write_text(path, write_json(value))


def _write(path: Path, content: bytes) -> None:
    with records.atomic_path(path) as temporary:
        temporary.write_bytes(content)
