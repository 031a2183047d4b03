"""MiniAPPS: a generated benchmark in the layout of APPS that a tiny model can learn on two cores.

A problem is a pipeline of one to four operations on a list of integers or a text, and a reduction at its end. Its
words, programs and tests follow from the grammar; whether an operation sequence (constants aside) belongs to training,
validation or test is a hash of the sequence, so that no sequence is in two splits whatever their sizes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coderl import records
from coderl.problems.miniapps.grammar import (
    LISTS,
    STYLES,
    TEXT,
    VOWELS,
    Source,
)
from coderl.problems.miniapps.pipeline import (
    Given,
    Pipeline,
    Step,
    answer,
    description,
    near_misses,
    program,
    starter_code,
    unit_test,
    without_a_step,
)
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    Problem,
    StdinTest,
    UnitTest,
)

Split = Literal["train", "validation", "test"]
DIFFICULTIES = ("introductory", "interview", "competition")
FN_NAMES = ("solve", "answer", "compute")
DEFAULTS = (-1, 0, "NONE")
MAX_SOLUTION_LINES = 10
MAX_EQUAL_ANSWERS = 0.7
"""The share of hidden tests with one answer beyond which a problem is too easily guessed."""
MAX_DRAWS_PER_PROBLEM = 4000
DRAWS_PER_DEPTH = 20
"""How long one depth is tried before another is drawn: short pipelines run out where thousands are asked for."""


class MiniAppsConfig(BaseModel):
    """How many problems, and of what kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    """Another seed gives other problems and other held-out operation sequences."""
    num_solved: int = Field(default=500, ge=0)
    """Training problems with reference solutions."""
    num_unsolved: int = Field(default=4000, ge=0)
    """Training problems with tests only, after the solved ones."""
    num_validation: int = Field(default=100, ge=0)
    num_test: int = Field(default=200, ge=0)
    difficulty_weights: tuple[float, float, float] = (0.4, 0.4, 0.2)
    """Shares of introductory, interview and competition problems among unsolved, validation and test problems."""
    solved_difficulty_weights: tuple[float, float, float] = (0.5, 0.35, 0.15)
    """The same among solved problems."""
    text_share: float = Field(default=0.25, ge=0, le=1)
    """Problems about a text instead of integers."""
    call_share: float = Field(default=0.22, ge=0, le=1)
    """Problems that ask for a function instead of a program."""
    k_share: float = Field(default=0.25, ge=0, le=1)
    """Problems, of those with constants, in which one constant is read from the input."""
    held_out_share: float = Field(default=0.24, gt=0, lt=1)
    """Operation sequences that training never sees; a third of them are for validation, the others for test."""
    num_hidden_tests: int = Field(default=10, ge=8)
    """At least so many a problem; a few more where near misses of the right program would pass."""
    num_solutions: int = Field(default=3, ge=1, le=3)
    """Styles of reference solutions (equal programs are listed once)."""


def generate(config: MiniAppsConfig) -> dict[str, list[LabelledProblem]]:
    """The problems of `train` (those with solutions first), `validation` and `test`.

    Raises:
        InputError: The grammar has not so many different problems.
    """
    solved = list(_solved_pipelines(config))
    taken = {pipeline.identity for pipeline, _ in solved}
    unsolved = _pipelines(config, "train", config.num_unsolved, Random(f"{config.seed} unsolved"), taken)
    train = [_problem(config, "train", i, *drawn, num_solutions=config.num_solutions) for i, drawn in enumerate(solved)]
    train += [_problem(config, "train", i, *drawn, num_solutions=0) for i, drawn in enumerate(unsolved, len(train))]
    problems = {"train": train}
    held_out: tuple[tuple[Split, int], ...] = (("validation", config.num_validation), ("test", config.num_test))
    for split, count in held_out:
        drawn = _pipelines(config, split, count, Random(f"{config.seed} {split}"), set())
        problems[split] = [
            _problem(config, split, i, *each, num_solutions=config.num_solutions) for i, each in enumerate(drawn)
        ]
    return problems


# ---------------------------------------------------------------------------------------------------------- drawing

Tests = list[Given]


def _solved_pipelines(config: MiniAppsConfig) -> list[tuple[Pipeline, Tests]]:
    """Drawn so that every operation and reduction occurs, as far as the number of problems allows."""
    rng, taken = Random(f"{config.seed} solved"), set()
    missing = {part.name for domain in (LISTS, TEXT) for part in (*domain.operations, *domain.reductions)}
    solved: list[tuple[Pipeline, Tests]] = []
    weights = config.solved_difficulty_weights
    while missing and len(solved) < config.num_solved:
        drawn = next(d for d in _stream(config, "train", weights, rng, taken, wanted=missing))
        missing -= set(drawn[0].composition)
        solved.append(drawn)
    stream = _stream(config, "train", weights, rng, taken)
    solved += [next(stream) for _ in range(config.num_solved - len(solved))]
    rng.shuffle(solved)
    return solved


def _pipelines(
    config: MiniAppsConfig, split: Split, count: int, rng: Random, taken: set[Any]
) -> Iterator[tuple[Pipeline, Tests]]:
    stream = _stream(config, split, config.difficulty_weights, rng, taken)
    return (next(stream) for _ in range(count))


def _stream(
    config: MiniAppsConfig,
    split: Split,
    weights: tuple[float, float, float],
    rng: Random,
    taken: set[Any],
    wanted: set[str] | None = None,
) -> Iterator[tuple[Pipeline, Tests]]:
    """Endless different pipelines of a split with the inputs of their hidden tests; `taken` grows by what was tried."""
    depth = 1
    while True:
        for attempt in range(MAX_DRAWS_PER_PROBLEM):
            if attempt % DRAWS_PER_DEPTH == 0:
                depth = rng.choices((1, 2, rng.choice((3, 4))), weights)[0]
            pipeline = _draw(config, depth, rng)
            if pipeline.identity in taken or split_of(pipeline.composition, config) != split:
                continue
            if wanted is not None and not wanted & set(pipeline.composition):
                continue
            inputs = _test_inputs(pipeline, config.num_hidden_tests, rng)
            taken.add(pipeline.identity)
            if inputs is not None:
                break
        else:
            raise InputError(f"MiniAPPS has too few different problems of these kinds for {split}: ask for fewer")
        yield pipeline, inputs


def split_of(composition: tuple[str, ...], config: MiniAppsConfig) -> Split:
    """The one split in which this operation sequence may occur."""
    digest = hashlib.sha256(f"{config.seed} {' '.join(composition)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < config.held_out_share / 3:
        return "validation"
    return "test" if position < config.held_out_share else "train"


def _draw(config: MiniAppsConfig, depth: int, rng: Random) -> Pipeline:
    domain = TEXT if rng.random() < config.text_share else LISTS
    is_usual = len(domain.sources) == 1 or rng.random() < 0.8
    source = domain.sources[0] if is_usual else rng.choice(domain.sources[1:])
    parts = [*rng.sample(domain.operations, depth), rng.choice(domain.reductions)]
    steps = [Step(part, rng.choice(part.constants) if part.constants else None) for part in parts]
    numeric = [i for i, step in enumerate(steps) if isinstance(step.constant, int)]
    if numeric and rng.random() < config.k_share:
        i = rng.choice(numeric)
        steps[i] = replace(steps[i], constant=None, reads_k=True)
    fn_name = rng.choice(FN_NAMES) if rng.random() < config.call_share else None
    has_count = fn_name is None and source.name == "list" and rng.random() < 0.25
    return Pipeline(domain, source, tuple(steps[:-1]), steps[-1], rng.choice(DEFAULTS), fn_name, has_count)


# ------------------------------------------------------------------------------------------------------------ tests


def _test_inputs(pipeline: Pipeline, num_tests: int, rng: Random) -> Tests | None:
    """Inputs that tell the pipeline from its near misses; None where an operation changes nothing or answers repeat."""
    stream = _pool(pipeline, rng)
    pool = list(islice(stream, num_tests))
    answers = [answer(pipeline, given) for given in pool]
    if Counter(map(str, answers)).most_common(1)[0][1] > MAX_EQUAL_ANSWERS * num_tests:
        return None
    chosen = list(range(num_tests))
    pool += islice(stream, 8)
    answers += [answer(pipeline, given) for given in pool[num_tests:]]
    if not all(_tell_apart(other, pool, answers, chosen) for other in without_a_step(pipeline)):
        return None
    pool += stream
    answers += [answer(pipeline, given) for given in pool[len(answers) :]]
    for other in near_misses(pipeline, rng):
        _tell_apart(other, pool, answers, chosen)
    return [pool[i] for i in chosen]


def _tell_apart(other: Pipeline, pool: Tests, answers: list[Any], chosen: list[int]) -> bool:
    """Whether some input of the pool tells them apart; the first that does is chosen if none of the chosen does."""
    if any(answer(other, pool[i]) != answers[i] for i in chosen):
        return True
    found = next((i for i in range(len(pool)) if i not in chosen and answer(other, pool[i]) != answers[i]), None)
    if found is not None:
        chosen.append(found)
    return found is not None


def _pool(pipeline: Pipeline, rng: Random) -> Iterator[Given]:
    """Different inputs: edge cases first, then ordinary ones."""
    seen = set()
    ordinary = (_ordinary(pipeline.source, rng) for _ in range(24))
    for value in chain(_edges(pipeline.source, rng), ordinary):
        given = Given(value, _any_k(pipeline, rng))
        key = (str(value), given.k)
        if key not in seen:
            seen.add(key)
            yield given


def _any_k(pipeline: Pipeline, rng: Random) -> int | None:
    step = pipeline.k_step
    return None if step is None else rng.choice(step.part.constants)  # type: ignore[return-value]


def _edges(source: Source, rng: Random) -> list[Any]:
    """One element, equal elements, one sign or parity only, and a long one."""
    if source.argument == "a":
        one, odd = rng.randint(-9, 12), [2 * rng.randint(-4, 6) + 1 for _ in range(4)]
        long = [rng.randint(-30, 60) for _ in range(rng.randint(20, 30))]
        return [
            [one],
            [rng.randint(-9, -1) for _ in range(3)],
            [rng.randint(0, 9)] * 3,
            odd,
            [x + 1 for x in odd],
            long,
        ]
    if source.argument == "s":
        vowels = "".join(rng.choice(VOWELS) for _ in range(3))
        return [rng.choice("abcAB7"), rng.choice("aBc") * 3, vowels, str(rng.randint(10, 999)), _letters(rng, 25)]
    return [1, rng.randint(2, 9), {"digits": 7777, "range": 30}[source.name]]


def _ordinary(source: Source, rng: Random) -> Any:
    if source.argument == "a":
        low, high = rng.choice(((-9, 12), (0, 9), (-5, 5), (0, 6), (-20, 30)))
        return rng.choices(range(low, high + 1), k=rng.randint(2, 9))
    if source.argument == "s":
        return _letters(rng, rng.randint(2, 9))
    low, high = {"digits": (10, 9999999), "range": (3, 20)}[source.name]
    return rng.randint(low, high)


def _letters(rng: Random, length: int) -> str:
    letters = rng.choices("aaabbbccceoxABCE123", k=length)
    if rng.random() < 0.25:  # a palindrome
        letters[(length + 1) // 2 :] = letters[: length // 2][::-1]
    return "".join(letters)


def _examples(pipeline: Pipeline, inputs: Tests, rng: Random) -> tuple[UnitTest, ...]:
    """One or two short inputs with an answer, none of them hidden."""
    count = 2 if rng.random() < 0.1 else 1
    shown: list[Given] = []
    for attempt in range(200):
        given = Given(rng.choice(SHOWN[pipeline.source.name]), _any_k(pipeline, rng))
        is_dull = pipeline.has_default and answer(pipeline, given) == pipeline.default
        if given not in inputs and given not in shown and (not is_dull or attempt > 30):
            shown.append(given)
        if len(shown) == count:
            break
    return tuple(unit_test(pipeline, given) for given in shown)


SHOWN: dict[str, tuple[Any, ...]] = {
    "list": ([3, -1, 4, 3, 8], [5, 2, 2, -4], [-2, 7, 0, 6, 7], [9, 5, 8, 1], [2, 6, -3, 5, 2], [1, 4, 4, 0]),
    "digits": (3143, 5220, 70167, 9581),
    "range": (5, 6, 7, 8),
    "text": ("abcab", "cab3b", "Bad1a", "acbCa", "baab"),
}
"""The inputs of examples come from few: were each its own, a model would know a problem of training by its example
and learn less from its words (17% of held-out problems solved against 24%, after the same training)."""


# --------------------------------------------------------------------------------------------------------- problems


def _problem(
    config: MiniAppsConfig, split: Split, index: int, pipeline: Pipeline, inputs: Tests, *, num_solutions: int
) -> LabelledProblem:
    rng = Random(f"{config.seed} {split} {index}")
    examples = _examples(pipeline, inputs, rng)
    problem = Problem(
        problem_id=f"{split}-{index:04d}",
        description=description(pipeline, examples, rng),
        difficulty=DIFFICULTIES[min(len(pipeline.steps), 3) - 1],
        fn_name=pipeline.fn_name,
        starter_code=starter_code(pipeline),
        example_tests=examples,
    )
    written = [program(pipeline, style) for style in STYLES[:num_solutions]]
    programs = dict.fromkeys(code for code in written if code is written[0] or code.count("\n") <= MAX_SOLUTION_LINES)
    return LabelledProblem(problem, tuple(unit_test(pipeline, given) for given in inputs), tuple(programs))


# ---------------------------------------------------------------------------------------------------------- folders


def write(out_dir: Path, config: MiniAppsConfig) -> None:
    """Write the splits as folders of the APPS layout, all or nothing.

    Raises:
        InputError: `out_dir` holds something else.
    """
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise InputError(f"{out_dir} exists and is not an empty folder: name another one for MiniAPPS")
    problems = generate(config)
    with records.atomic_dir(out_dir) as folder:
        for split, members in problems.items():
            for index, labelled in enumerate(members):
                _write_problem(folder / split / f"{index:04d}", labelled)


def _write_problem(folder: Path, labelled: LabelledProblem) -> None:
    folder.mkdir(parents=True)
    problem = labelled.problem
    (folder / "question.txt").write_text(problem.description, encoding="utf-8")
    files: dict[str, Any] = {
        "metadata.json": {"difficulty": problem.difficulty, "url": f"miniapps:{problem.problem_id}"},
        "input_output.json": _input_output(labelled),
    }
    if labelled.solutions:
        files["solutions.json"] = list(labelled.solutions)
    for name, value in files.items():  # not one by one to disk (records.write_json): the folder as a whole is atomic
        (folder / name).write_text(json.dumps(value) + "\n", encoding="utf-8")
    if problem.starter_code:
        (folder / "starter_code.py").write_text(problem.starter_code, encoding="utf-8")


def _input_output(labelled: LabelledProblem) -> dict[str, Any]:
    tests = labelled.hidden_tests
    if labelled.problem.fn_name is not None:
        calls = [test for test in tests if isinstance(test, CallTest)]
        inputs, outputs = [list(test.args) for test in calls], [test.expected for test in calls]
        return {"fn_name": labelled.problem.fn_name, "inputs": inputs, "outputs": outputs}
    lines = [test for test in tests if isinstance(test, StdinTest)]
    return {"inputs": [test.stdin for test in lines], "outputs": [test.stdout for test in lines]}
