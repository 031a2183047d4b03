"""The files of the original's scripts, read into the folders of our stages; `original_export` writes them.

Source: salesforce/CodeRL, `generate.py`, `test_one_solution.py` and `datasets/apps_dataset.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from coderl import records, tables
from coderl.evaluation.counts import JUDGED
from coderl.interop import pickles
from coderl.problems import apps, jsonl
from coderl.problems.json_files import parse_json, read_text, text_field
from coderl.problems.plain_pickle import Raised
from coderl.stages.stage import Facts, Input, Labelled, SourceFile, Work, stage
from coderl.types import InputError, LabelledProblem, Outcome, Program, ProgramKey, ProgramKind, Score, Verdict

Encode = Callable[[str], Sequence[int]]

GENERATED = "gen_solutions.json"
BASELINE = "baseline_solutions.json"
EXAMPLES = "example_input_output.json"
SCORES = "gen_solutions_critic_scores.pkl"
NUM_POSITIONS = 512
"""The original pads every program to so many tokens, with -100."""
NUM_PROMPT_TOKENS = 600
"""And every prompt to so many, with the end of sequence."""
RESULTS = {-2: Outcome.COMPILE_ERROR, -1: Outcome.RUNTIME_ERROR, False: Outcome.FAILED_TEST, True: Outcome.PASSED_TEST}
"""What the original's unit test runner writes of a test and of a program."""
WORDS = {Outcome.FAILED_TEST: "failed unit tests", Outcome.PASSED_TEST: "passed unit tests"}
SUBTYPES = {"timeoutexception": "timeout", "memoryerror": "memory_limit"}
_CHUNK = 256
"""Problems a part of a table, fewer where these have more than `_MAX_PROGRAMS` programs."""
_MAX_PROGRAMS = 1 << 14


@dataclass(frozen=True)
class Found:
    """What the original's files hold of one problem."""

    labelled: LabelledProblem
    programs: tuple[Program, ...] = ()
    verdicts: tuple[tuple[ProgramKey, Verdict], ...] = ()
    scores: tuple[tuple[ProgramKey, Score], ...] = ()
    has_examples: bool = False
    """True where the example tests are those of the problem's `example_input_output.json`."""


class OriginalInput(Input):
    """A folder in which the original's scripts left files: those, and nothing beside them."""

    def hash_of(self, value: Any) -> str:
        """Return the hash of the original's files in the folder.

        Raises:
            InputError: there is none, or a path leads out of the folder.
        """
        return records.hash_value({str(f.relative_to(value)): records.hash_path(f) for f in sorted(files_of(value))})


@stage
def import_original(
    work: Work,
    source: Annotated[Path, OriginalInput("")],
    *,
    problems: Labelled,
    tokenizer: SourceFile | None = None,
) -> Facts:
    r"""Read the files of the original's scripts into a stage's folder, for `--programs`, `--verdicts` and `--scores`.

    Pickles are read without running them. A program without test results gets no verdict: it was not tested.

        coderl import-original outputs --problems data/APPS/train --out runs/theirs
        coderl import-original data/APPS/train --problems data/APPS/train --out runs/theirs \
            --tokenizer models/codet5-base

    The programs go to OUT/programs and, as far as there are, OUT/verdicts, OUT/scores and, with the example tests,
    OUT/problems.jsonl.

    Args:
        source: `outputs` (`codes/ID.json`, `test_results/ID.pkl`), or problem folders with `gen_solutions.json`,
            `baseline_solutions.json`, `gen_solutions_critic_scores.pkl` and `example_input_output.json`.
        problems: Where the files' problems are; the number that ends an id names it in a file.
        tokenizer: A folder whose tokenizer gives the programs the tokens that training needs; without one only those
            of a critic score file are kept.

    Raises:
        InputError: there is no such file, one is malformed, hostile or of other programs than its neighbours, or a
            path leaves `source`.
    """
    encode = encoder(tokenizer, NUM_POSITIONS) if tokenizer else None
    kinds = {"programs": Program, "verdicts": JUDGED, "scores": tuple[ProgramKey, Score]}
    written = {name: tables.PartedTable(work.folder / name, row_type) for name, row_type in kinds.items()}
    counts = dict.fromkeys((*kinds, "problems"), 0)
    examples: list[LabelledProblem] = []
    stream = work.reporter.track(_read(source, by_numbers(problems)), "reading", unit="problems")
    for index, group in enumerate(_parts(stream)):
        for name, table in written.items():
            rows = [row for found in group for row in getattr(found, name)]
            if name == "programs" and encode is not None:
                rows = [p if p.tokens else replace(p, tokens=tuple(encode(p.code))) for p in rows]
            if rows:
                counts[name] += table.write(index, rows)
        counts["problems"] += len(group)
        examples += [found.labelled for found in group if found.has_examples]
    if not counts["programs"]:
        raise InputError(f"{source}: no programs in it")
    if examples:
        jsonl.write(work.folder / "problems.jsonl", examples)
    return {f"num_{name}": number for name, number in counts.items()} | {"num_with_examples": len(examples)}


def _parts(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Yield the problems in groups, none of many more programs than memory holds with their tokens."""
    group: list[Found] = []
    for each in found:
        group.append(each)
        if len(group) == _CHUNK or sum(len(f.programs) for f in group) >= _MAX_PROGRAMS:
            yield group
            group = []
    if group:
        yield group


def encoder(tokenizer: Path, max_tokens: int) -> Encode:
    """Return what makes tokens of a text as the original does: `<s> ... </s>`, the end cut off.

    Raises:
        InputError: the folder holds no tokenizer.
    """
    from coderl.models.codet5 import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    return lambda text: loaded.encode(text, verbose=False, split_special_tokens=True)[:max_tokens]


def number_of(problem_id: str) -> int:
    """Return the number by which the original names a problem: the one that ends its id (`train-0042`: 42).

    Raises:
        InputError: the id ends with none.
    """
    digits = re.search(r"[0-9]{1,9}$", problem_id)
    if digits is None:
        raise InputError(f"problem {problem_id!r}: the original's files number problems, and this id ends with none")
    return int(digits[0])


def by_numbers(problems: Sequence[LabelledProblem]) -> dict[int, LabelledProblem]:
    """Return the problems by the number that the original knows them by.

    Raises:
        InputError: an id ends with none, or two have the same.
    """
    found: dict[int, LabelledProblem] = {}
    for labelled in problems:
        number = number_of(labelled.problem.problem_id)
        if number in found:
            raise InputError(f"problems {found[number].problem.problem_id!r} and {labelled.problem.problem_id!r} have "
                             "one number; name one split")  # fmt: skip
        found[number] = labelled
    return found


def files_of(source: Path) -> list[Path]:
    """Return the original's files under a folder, none of them outside it."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    patterns = ("codes/*.json", "test_results/*.pkl", *(f"*/{n}" for n in (GENERATED, BASELINE, EXAMPLES, SCORES)))
    names = (GENERATED, BASELINE, EXAMPLES, SCORES)
    files = [f for pattern in patterns for f in source.glob(pattern)] + [source / n for n in names]
    files = [f for f in files if f.is_file()]
    for file in files:
        if not file.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{file}: leads out of {source}")
    if not files:
        raise InputError(f"{source}: expected codes/ID.json or problem folders with {GENERATED}, found neither")
    return files


def _read(source: Path, by_number: dict[int, LabelledProblem]) -> Iterator[Found]:
    if (source / "codes").is_dir():
        files = sorted((source / "codes").glob("*.json"), key=lambda f: (len(f.name), f.name))
        for file in files:
            labelled = _numbered(file, by_number)
            results = source / "test_results" / f"{file.stem}.pkl"
            yield read_codes(file, results if results.exists() else None, labelled)
        return
    files = files_of(source)
    for folder in sorted({f.parent for f in files}):
        yield read_problem_folder(folder, _numbered(folder, by_number))


def _numbered(path: Path, by_number: dict[int, LabelledProblem]) -> LabelledProblem:
    number = int(path.stem) if re.fullmatch(r"[0-9]{1,9}", path.stem) else None
    if number is None or number not in by_number:
        raise InputError(f"{path}: not among the {len(by_number)} problems")
    return by_number[number]


def read_codes(codes: Path, results: Path | None, labelled: LabelledProblem) -> Found:
    """Return the programs of `outputs/codes/ID.json` and, given its pickle of test results, their verdicts.

    A verdict keeps the outcome of every test that ran. An empty list of results is no verdict, where the original's
    users took it for a pass; so is a program that the runner never reached.

    Raises:
        InputError: a file is malformed or hostile, is of another problem, or holds more results than programs.
    """
    number = int(codes.stem)
    record = parse_json(read_text(codes), str(codes))
    entry = record.get(str(number)) if isinstance(record, dict) else None
    texts = entry.get("code") if isinstance(entry, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f'{codes}: expected {{"{number}": {{"code": [programs], "prompt": text}}}}')
    name = labelled.problem.problem_id
    programs = tuple(Program(name, index, text) for index, text in enumerate(texts))
    if results is None:
        return Found(labelled, programs)
    return Found(labelled, programs, tuple(_verdicts(results, number, programs)))


def _verdicts(path: Path, number: int, programs: Sequence[Program]) -> Iterator[tuple[ProgramKey, Verdict]]:
    record = pickles.load(path)
    entry = record.get(number) if isinstance(record, dict) else None
    match entry:
        case {"results": list(lists), "errors": list(errors)} if len(lists) == len(errors) <= len(programs):
            pass
        case _:
            raise InputError(
                f"{path}: expected {{{number}: {{results, errors, sols}}}} of at most {len(programs)} programs"
            )
    for program, results, raised in zip(programs, lists, errors, strict=False):
        outcomes = [_outcome(result, str(path)) for result in results] if isinstance(results, list) else None
        if outcomes is None or not isinstance(raised, list):
            raise InputError(f"{path}: expected a list of results and one of errors for each program")
        if not outcomes:
            continue
        worst = min(outcomes)
        last = next((e[0] for e in reversed(raised) if isinstance(e, tuple) and e and isinstance(e[0], Raised)), None)
        if worst > Outcome.RUNTIME_ERROR or last is None:
            last = Raised("", ())
        subtype = SUBTYPES.get(last.name.lower(), last.name.lower()) or None
        yield _judged(program, worst, subtype, last.message, tuple(outcomes))


def _outcome(result: Any, where: str) -> Outcome:
    """The outcome of a result: -2, -1, False or True, and no other number that equals one of them."""
    if type(result) is bool or (type(result) is int and result in (-2, -1)):
        return RESULTS[result]
    raise InputError(f"{where}: a result is -2, -1, false or true, found {str(result)[:40]!r}")


def _judged(
    program: Program, outcome: Outcome, subtype: str | None, message: str = "", tests: tuple[Outcome, ...] = ()
) -> tuple[ProgramKey, Verdict]:
    """Return the row of a verdict that the original reached: it runs programs in its own process."""
    verdict = Verdict(outcome, subtype, message, test_outcomes=tests, isolation="unsafe")
    return program.key, verdict


def read_problem_folder(folder: Path, labelled: LabelledProblem) -> Found:
    """Return the programs, verdicts, critic scores and example tests that the original left in a problem folder.

    Of `baseline_solutions.json` only the first program counts, as in the original, which stores it inside its runner's
    wrapping: the program is taken out of it.

    Raises:
        InputError: a file is malformed or hostile, or the scores are of other programs.
    """
    name = labelled.problem.problem_id
    programs: list[Program] = []
    verdicts: list[tuple[ProgramKey, Verdict]] = []
    for file, kind in ((folder / GENERATED, ProgramKind.SAMPLE), (folder / BASELINE, ProgramKind.BASELINE)):
        for index, (code, outcome, subtype) in enumerate(_judged_entries(file)):
            if kind is ProgramKind.BASELINE and index > 0:
                break
            code = unwrapped(code) if kind is ProgramKind.BASELINE else code
            programs.append(Program(name, index, code, kind))
            verdicts.append(_judged(programs[-1], outcome, subtype))
    scores: list[tuple[ProgramKey, Score]] = []
    if (folder / SCORES).exists():
        num_samples = sum(p.kind is ProgramKind.SAMPLE for p in programs)
        judged = verdicts[:num_samples]
        tokens, found = read_scores(folder / SCORES, [v.outcome for _, v in judged])
        scores = [(key, score) for (key, _), score in zip(judged, found, strict=True)]
        programs[:num_samples] = [replace(p, tokens=t) for p, t in zip(programs, tokens, strict=False)]
    shown = _example_tests(folder / EXAMPLES, labelled)
    return Found(shown or labelled, tuple(programs), tuple(verdicts), tuple(scores), has_examples=shown is not None)


def _judged_entries(path: Path) -> list[tuple[str, Outcome, str | None]]:
    if not path.exists():
        return []
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{path}: expected a list of {{code, result, error_type}}")
    found = []
    for index, entry in enumerate(value):
        where = f"{path}[{index}]"
        outcome = _outcome(entry.get("result"), where)
        word = text_field(entry, "error_type", where, default="")
        subtype = None if word in ("", *WORDS.values()) else SUBTYPES.get(word, word)
        found.append((text_field(entry, "code", where), outcome, subtype))
    return found


def _example_tests(path: Path, labelled: LabelledProblem) -> LabelledProblem | None:
    if not path.exists():
        return None
    value = parse_json(read_text(path), str(path))
    lists = [value.get(name, []) for name in ("inputs", "outputs")] if isinstance(value, dict) else []
    if value is not None and not (lists and all(isinstance(items, list) for items in lists)):
        raise InputError(f"{path}: expected null or lists of inputs and outputs")
    tests = apps.example_file_tests(value, labelled.problem.fn_name, str(path))
    return replace(labelled, problem=replace(labelled.problem, example_tests=tests))


_BODY = re.compile(r"((?:(?:from|import) .*\n|\s*\n)*)stdin = sys\.stdin\nstdout = sys\.stdout\ndef code\(\):\n")


def unwrapped(code: str) -> str:
    """Return the program inside the text that the original's runner makes of it; any other text as it is.

    The runner puts its imports first and a program that reads stdin, but for its leading imports, into a function.
    """
    start = code.find("from heapq import *\n")
    if not code.startswith("import sys\nimport time\nimport itertools\n") or start < 0:
        return code
    program = code[start + len("from heapq import *\n") :]
    body = _BODY.match(program)
    if body is None:
        return program
    lines = [line.removeprefix("\t") for line in program[body.end() :].split("\n")]
    return body[1] + "\n".join(lines).rstrip() + "\n"


def read_scores(path: Path, outcomes: Sequence[Outcome | None]) -> tuple[list[tuple[int, ...]], list[Score]]:
    """Return the tokens of each program of a critic score file and the critic's values, as probabilities.

    A program's probabilities are of the maximum over all 512 positions, padding included, as the original predicts;
    the value of a token is that of its position, which has not read it.

    Raises:
        InputError: the file is malformed or hostile, or its programs are not those of the outcomes (it was made before
            they were drawn anew, or by the binary critic, whose file has the same name).
    """
    record = pickles.load(path)
    wanted = ("code", "gt_error_type", "error_hidden_states")
    if not isinstance(record, dict) or not all(name in record for name in wanted):
        raise InputError(f"{path}: expected a dictionary with {', '.join(wanted)}")
    codes, labels = _int_rows(record["code"], path), _ints(record["gt_error_type"], path)
    logits = record["error_hidden_states"]
    num = len(outcomes)
    if not isinstance(logits, np.ndarray) or logits.ndim != 3 or logits.shape[::2] != (len(codes), len(Outcome)):
        raise InputError(
            f"{path}: expected logits of shape (programs, tokens, 4), found {getattr(logits, 'shape', None)}"
        )
    if not len(codes) == len(labels) == num:
        raise InputError(f"{path}: scores of {len(codes)} programs beside {num} in {GENERATED}")
    if labels != list(outcomes):
        raise InputError(f"{path}: its outcomes are not those in {GENERATED} (stale, or by the binary critic)")
    tokens = [tuple(code[: code.index(-100)] if -100 in code else code) for code in codes]
    if max((len(row) for row in tokens), default=0) > logits.shape[1] or any(t < 0 for row in tokens for t in row):
        raise InputError(f"{path}: its programs' tokens and logits do not belong together")
    scores = []
    for row, values in zip(tokens, logits.astype(np.float64), strict=True):
        by_token = _softmax(values[: len(row)])
        whole = _softmax(values.max(0, initial=-np.inf))
        if not (np.isfinite(by_token).all() and np.isfinite(whole).all()):
            raise InputError(f"{path}: logits that are not finite")
        scores.append(Score(tuple(whole.tolist()), tuple(map(tuple, by_token.tolist()))))
    return tokens, scores


def _softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)


def _ints(value: Any, path: Path) -> list[int]:
    items = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(items, list) or not all(type(item) is int for item in items):
        raise InputError(f"{path}: expected a list of whole numbers")
    return items


def _int_rows(value: Any, path: Path) -> list[list[int]]:
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of programs' tokens")
    return [_ints(row, path) for row in rows]
