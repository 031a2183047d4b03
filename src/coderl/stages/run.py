"""All stages in reading order: `run` is the method of the paper on one page."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coderl import problems as data
from coderl import records
from coderl.engines.settings import SampleConfig
from coderl.problems import jsonl
from coderl.recipe import ProblemsConfig, RunConfig
from coderl.stages import compare, learning, stages
from coderl.stages import pretrain as pretraining
from coderl.stages.console import Reporter
from coderl.stages.illustrate import illustrate_programs
from coderl.stages.report import write_report
from coderl.stages.select import Selection
from coderl.stages.stages import bare
from coderl.types import InputError, LabelledProblem

RECIPE = "recipe.json"
"""The resolved configuration of a run; one that is refused does not replace it."""


@dataclass(frozen=True, slots=True)
class Splits:
    """The problems of a run."""

    train: list[LabelledProblem]
    validation: list[LabelledProblem]
    test: list[LabelledProblem]

    @property
    def solved(self) -> list[LabelledProblem]:
        """The training problems with reference solutions: what cross-entropy can learn from."""
        return [p for p in self.train if p.solutions]

    @property
    def tested(self) -> list[LabelledProblem]:
        """The training problems with hidden tests: what reinforcement learning can learn from."""
        return [p for p in self.train if p.hidden_tests]


def load_splits(config: ProblemsConfig) -> Splits:
    """Return the problems to train, validate and test on.

    Raises:
        InputError: a split is empty, or a problem stands in two of them and `drop_overlap` is off.
    """
    shown = config.num_shown_tests
    train = data.load(config.source, split=config.train_split, limit=config.num_train, num_shown_tests=shown)
    validation = data.load(
        config.source, split=config.validation_split, limit=config.num_validation, num_shown_tests=shown
    )
    test = data.load(
        config.test_source or config.source, split=config.test_split, limit=config.num_test, num_shown_tests=shown
    )
    if config.drop_overlap:
        validation = _without(validation, test)
        train = _without(train, [*validation, *test])
    splits = Splits(train, validation, test)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if not any(p.hidden_tests for p in part):
            raise InputError(f"{config.source}: no {name} problem has tests, so nothing of it could be run")
    _refuse_overlap(splits)
    return splits


def keep_problems(config: RunConfig, out: Path, reporter: Reporter) -> Splits:
    """Return the run's problems, which are read from their source once and kept in the run directory."""

    def work(folder: Path) -> dict[str, int]:
        splits = load_splits(config.problems)
        for name in ("train", "validation", "test"):
            jsonl.write(folder / f"{name}.jsonl", getattr(splits, name))
        return {"num_train": len(splits.train), "num_validation": len(splits.validation), "num_test": len(splits.test)}

    source = Path(config.problems.source)
    inputs = {"source": records.hash_path(source)} if source.exists() else {}
    stages.run_stage(out, reporter, config=config.problems.model_dump(mode="json"), inputs=inputs, work=work)
    return Splits(*(data.load(out / f"{name}.jsonl") for name in ("train", "validation", "test")))


def _statement(labelled: LabelledProblem) -> str:
    return " ".join(labelled.problem.description.split())


def _without(problems: Sequence[LabelledProblem], others: Sequence[LabelledProblem]) -> list[LabelledProblem]:
    """Return the problems whose statement is none of the others'."""
    taken = {_statement(p) for p in others}
    return [p for p in problems if _statement(p) not in taken]


def _refuse_overlap(splits: Splits) -> None:
    seen: dict[str, str] = {}
    for name, part in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        for labelled in part:
            text = _statement(labelled)
            if seen.setdefault(text, name) != name:
                stands = f"problem {labelled.problem.problem_id!r} of {name} also stands in {seen[text]}"
                raise InputError(f"{stands}: splits must not mix")


def run(config: RunConfig, run_dir: Path, reporter: Reporter) -> Path:
    """Run every stage of the method in `run_dir`, or what is left of them; return the report's path.

    Raises:
        InputError: the directory holds a run of another configuration, or the problems cannot be used.
    """
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    splits = keep_problems(config, run_dir / "problems", reporter)
    if not (run_dir / RECIPE).exists():
        records.write_json(run_dir / RECIPE, config.model_dump(mode="json"))
    reporter.say(
        f"{len(splits.train)} training problems ({len(splits.solved)} with solutions, {len(splits.tested)} with tests),"
        f" {len(splits.validation)} validation, {len(splits.test)} test"
    )
    recipe, config = config, _with_store(config, run_dir)
    warm = supervised(config, run_dir, splits, reporter)
    actor = reinforced(config, run_dir, splits, warm, reporter)
    with _control_beside(config, run_dir, warm, reporter):
        for name, model in (("warm_start", warm), ("actor_critic", actor)):
            _evaluate(config, run_dir / "evaluate" / name, splits, model, reporter)
        if config.critic_sampling:
            _critic_sampling(config, run_dir, splits, warm, actor, reporter)
    records.write_json(run_dir / RECIPE, recipe.model_dump(mode="json"))
    scored = [f for f in sorted(run_dir.glob("round-*")) if (f / "score" / records.MANIFEST).exists()]
    if scored:
        illustrate_programs(scored[-1] / "illustrate", critic=scored[-1] / "critic" / "model",
                            programs=scored[-1] / "sample", verdicts=scored[-1] / "execute",
                            problems=bare(splits.tested), prompt=config.prompt, choose="outcomes",
                            where=scored[-1].name, reporter=reporter)  # fmt: skip
    return write_report(run_dir, config, splits.test, reporter)


def _with_store(config: RunConfig, run_dir: Path) -> RunConfig:
    """Return the config with a store of verdicts in the run directory, unless it names one."""
    if config.execution.store_path is not None:
        return config
    execution = config.execution.model_copy(update={"store_path": run_dir / "verdicts.sqlite"})
    return config.model_copy(update={"execution": execution})


@contextmanager
def _control_beside(config: RunConfig, run_dir: Path, warm: Path | str, reporter: Reporter) -> Iterator[None]:
    """Train and evaluate the control after what the caller does, or in a process beside it."""
    if not (config.evaluation.ce_control and config.warm_start):
        yield
    elif config.evaluation.control_beside:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            control = process.submit(_control_process, os.getpid(), config, run_dir, warm, reporter.console.quiet)
            yield
            control.result()
    else:
        yield
        _control(config, run_dir, warm, reporter.console.quiet)


def _control_process(parent: int, config: RunConfig, run_dir: Path, warm: Path | str, quiet: bool) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _control(config, run_dir, warm, quiet)


def _end_with(parent: int) -> None:
    """End this process when its parent has gone: a run that was killed must not go on writing."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _control(config: RunConfig, run_dir: Path, warm: Path | str, quiet: bool) -> None:
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    reporter = Reporter(quiet=quiet)
    splits = keep_problems(config, run_dir / "problems", Reporter(quiet=True))
    model = ce_control(config, run_dir, splits, warm, reporter)
    _evaluate(config, run_dir / "evaluate" / "ce_control", splits, model, reporter)


def supervised(config: RunConfig, run_dir: Path, splits: Splits, reporter: Reporter) -> Path | str:
    """Return the actor that supervised learning makes: initialised, pretrained, warm-started."""
    actor: Path | str = config.actor.init
    if config.actor.init == "tiny":
        out = run_dir / "init"
        stages.initialise(out, problems=splits.train, config=config.actor.tiny, prompt=config.prompt, seed=config.seed,
                          reporter=reporter)  # fmt: skip
        actor = out / "model"
    if config.pretrain.masked_span or config.pretrain.next_token:
        out = run_dir / "pretrain"
        pretraining.pretrain(out, actor=actor, problems=splits.solved, config=config.pretrain, prompt=config.prompt,
                          reporter=reporter)  # fmt: skip
        actor = out / "model"
    if config.warm_start:
        out = run_dir / "warm-start"
        learning.warm_start(out, actor=actor, problems=splits.solved, config=config.warm_start, prompt=config.prompt,
                            reporter=reporter)  # fmt: skip
        actor = out / "model"
    return actor


def reinforced(config: RunConfig, run_dir: Path, splits: Splits, warm: Path | str, reporter: Reporter) -> Path | str:
    """Return the actor after all rounds of sampling, execution, critic and actor training."""
    actor = warm
    critic: Path | str = warm if config.critic.init == "actor" else config.critic.init
    order = list(splits.tested)
    random.Random(config.seed).shuffle(order)
    size = min(config.rounds.problems_per_round or len(order), len(order))
    replay: list[tuple[tuple[Path, Path, Path | None], list[LabelledProblem], Path | str]] = []
    selection = Selection(config, run_dir, splits.validation, reporter)
    selection.judge(warm, run_dir / "validate")
    drawn: list[tuple[tuple[Path, Path], list[LabelledProblem]]] = []
    for index in range(config.rounds.num_rounds):
        folder = run_dir / f"round-{index:02d}"
        chosen = [order[(index * size + i) % len(order)] for i in range(size)]
        pool = (folder / "sample", folder / "execute")
        stages.sample(pool[0], actor=actor, problems=bare(chosen), config=config.rounds.sample, prompt=config.prompt,
                      seed=config.seed + index, greedy=config.returns.baseline == "greedy",
                      reporter=reporter)  # fmt: skip
        stages.execute(pool[1], programs=pool[0], problems=chosen, config=config.execution, reporter=reporter)
        scores = None
        if config.returns.spread == "critic":
            unseen = _measure_drift(config, folder, critic, pool, chosen, drawn, reporter)
            drawn = [*drawn, (pool, unseen)] if config.critic.all_rounds else [(pool, chosen)]
            learning.train_critic(folder / "critic", init=critic, pools=[p for p, _ in drawn],
                                  problems=[p for _, problems in drawn for p in problems], config=config.critic,
                                  num_outcomes=4, prompt=config.prompt, reporter=reporter)  # fmt: skip
            critic, scores = folder / "critic" / "model", folder / "score"
            learning.score(scores, critic=critic, programs=pool[0], verdicts=pool[1], problems=bare(chosen),
                           prompt=config.prompt, reporter=reporter)  # fmt: skip
        replay = [*replay, ((*pool, scores), chosen, actor)][-1 - config.rounds.num_replayed :]
        seen = {p.problem.problem_id: p.problem for _, problems, _ in replay for p in problems}
        learning.train_actor(folder / "actor", actor=actor, pools=[pool for pool, _, _ in replay],
                             problems=list(seen.values()), solved=splits.solved, config=config.actor_training,
                             returns_config=config.returns, prompt=config.prompt, reporter=reporter,
                             policies=[policy for _, _, policy in replay], reference=warm)  # fmt: skip
        actor = folder / "actor" / "model"
        selection.judge(actor, folder / "validate")
        if selection.has_dropped:
            break
    return selection.kept or actor


def _measure_drift(
    config: RunConfig, folder: Path, critic: Path | str, pool: tuple[Path, Path], chosen: list[LabelledProblem],
    drawn: list[tuple[tuple[Path, Path], list[LabelledProblem]]], reporter: Reporter,
) -> list[LabelledProblem]:  # fmt: skip
    """Measure the last round's critic on this round's samples; return the problems that no earlier round drew."""
    seen = {p.problem.problem_id for _, problems in drawn for p in problems}
    unseen = [p for p in chosen if p.problem.problem_id not in seen]
    if drawn and unseen:
        learning.measure_critic(folder / "drift", critic=Path(critic), pool=pool, problems=unseen,
                                prompt=config.prompt, reporter=reporter)  # fmt: skip
    return unseen


def ce_control(config: RunConfig, run_dir: Path, splits: Splits, warm: Path | str, reporter: Reporter) -> Path:
    """Return the warm start after more cross-entropy: so many updates, or the CPU time that all the rounds took.

    The clock is that of the run, so another run of the same recipe trains it a little more or less.
    """
    assert config.warm_start is not None
    out, steps = run_dir / "ce-control", config.evaluation.ce_control_steps
    limits: dict[str, Any] = {"num_epochs": None, "num_steps": steps, "seed": config.seed + 1}
    if steps is None:
        limits["max_cpu_s"] = max(_cpu_s_of_rounds(run_dir, out), 1.0)
    optim = config.warm_start.optim.model_copy(update=limits)
    more = config.warm_start.model_copy(update={"optim": optim})
    learning.warm_start(out, actor=warm, problems=splits.solved, config=more, prompt=config.prompt, reporter=reporter)
    return out / "model"


def _cpu_s_of_rounds(run_dir: Path, control: Path) -> float:
    """Return the CPU-seconds of all rounds, or those that a control under way was begun with."""
    for name in (records.MANIFEST, records.STARTED):
        if (control / name).exists():
            return records.read_json(control / name)["config"]["warm_start"]["optim"]["max_cpu_s"]
    facts = [stages.facts_of(p.parent) for p in run_dir.glob(f"round-*/**/{records.MANIFEST}")]
    return round(sum(f["cpu_s"] + f.get("sandbox_cpu_s", 0.0) for f in facts), 1)


def _evaluate(config: RunConfig, folder: Path, splits: Splits, model: Path | str, reporter: Reporter) -> None:
    """Draw programs for the test problems at each temperature (greedily too, once) and run them."""
    settings = config.evaluation
    for temperature in settings.temperatures:
        drawn = settings.sampling.model_copy(update={"temperature": temperature})
        sample_config = SampleConfig(num_samples=settings.num_samples, sampling=drawn)
        is_first = temperature == settings.temperatures[0]
        out = folder / f"t{temperature:g}"
        stages.sample(out / "sample", actor=model, problems=bare(splits.test), config=sample_config,
                      prompt=config.prompt, seed=config.seed + 1000, greedy=is_first, reporter=reporter)  # fmt: skip
        stages.execute(out / "execute", programs=out / "sample", problems=splits.test, config=config.execution,
                       reporter=reporter)  # fmt: skip
        if is_first:
            stages.execute(out / "examples", programs=out / "sample", problems=splits.test, config=config.execution,
                           tests="example", reporter=reporter)  # fmt: skip


def _critic_sampling(
    config: RunConfig, run_dir: Path, splits: Splits, warm: Path | str, actor: Path | str, reporter: Reporter
) -> None:
    """Train the binary critic and the repair model on training problems, and search the test problems with them.

    The repair model begins as the actor whose failures it mends.
    """
    assert config.critic_sampling is not None
    pools = [(f / "sample", f / "execute") for f in sorted(run_dir.glob("round-*"))]
    if config.search_pool:
        pool = (run_dir / "search-pool" / "sample", run_dir / "search-pool" / "execute")
        stages.sample(pool[0], actor=actor, problems=bare(splits.tested), config=config.search_pool,
                      prompt=config.prompt, seed=config.seed + 3000, greedy=False, reporter=reporter)  # fmt: skip
        stages.execute(pool[1], programs=pool[0], problems=splits.tested, config=config.execution, reporter=reporter)
        pools.append(pool)
    learning.train_critic(run_dir / "binary-critic", init=warm, pools=pools, problems=splits.tested,
                          config=config.binary_critic, num_outcomes=2, prompt=config.prompt,
                          reporter=reporter)  # fmt: skip
    repair_model = None
    if config.repair:
        learning.train_repair(run_dir / "repair", actor=actor, pools=pools, problems=splits.train, config=config.repair,
                              prompt=config.prompt, seed=config.seed, reporter=reporter)  # fmt: skip
        repair_model = run_dir / "repair" / "model"
    settings = config.evaluation
    first = settings.temperatures[0]
    drawn = settings.sampling.model_copy(update={"temperature": first})
    out = run_dir / "evaluate" / "actor_critic_cs"
    stages.critic_sample(
        out / "sample", actor=actor, critic=run_dir / "binary-critic" / "model", repair_model=repair_model,
        programs=run_dir / "evaluate" / "actor_critic" / f"t{first:g}" / "sample", problems=bare(splits.test),
        config=config.critic_sampling, sample_config=SampleConfig(sampling=drawn), execution=config.execution,
        prompt=config.prompt, seed=config.seed + 2000, reporter=reporter,
    )  # fmt: skip
    stages.execute(out / "execute", programs=out / "sample", problems=splits.test, config=config.execution,
                   reporter=reporter)  # fmt: skip
    if settings.search_control:
        compare.compare(config, run_dir, splits.test, actor, reporter)
