"""All stages in reading order: `method` is the paper's on one page."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coderl import processes, records
from coderl.engines.settings import SampleConfig
from coderl.recipe import RECIPE, RunConfig
from coderl.stages import split_problems as problems
from coderl.stages.console import Reporter
from coderl.stages.critic_sample import critic_sample
from coderl.stages.execute import execute
from coderl.stages.gather import gather
from coderl.stages.illustrate import illustrate
from coderl.stages.init import init
from coderl.stages.learn_online import learn_online
from coderl.stages.pretrain import pretrain
from coderl.stages.rank import rank
from coderl.stages.report import write_report
from coderl.stages.rollouts import pass_rates, rollouts_of
from coderl.stages.sample import sample
from coderl.stages.score import score
from coderl.stages.select import SELECTION, WARM_START, Selection
from coderl.stages.split_problems import Splits
from coderl.stages.stage import Cluster, Stage, derive_seed
from coderl.stages.train_actor import train_actor
from coderl.stages.train_critic import measure_critic, train_critic
from coderl.stages.train_repair import train_repair
from coderl.stages.warm_start import warm_start
from coderl.training.settings import CriticConfig
from coderl.types import LabelledProblem, Problem

ONLINE = "online"
MORE_SAMPLES = {"samples": 1.5, "near_greedy": 1.0}
"""Plain samples drawn beside those of the first round, in first rounds: as many as the search costs, or a few more."""


@dataclass
class Run:
    """A run directory in which one stage after the other is done, and where in the run it is."""

    folder: Path
    config: RunConfig
    reporter: Reporter
    cluster: Cluster | None = None
    """Whose nodes do the parts of stages."""
    splits: Splits = field(default_factory=lambda: Splits([], [], []))
    is_plan: bool = False
    """True where nothing is done, only counted: what `total` comes from."""
    total: int = 0
    """How many stages there are, as long as no round is the last because of a drop."""
    places: list[str] = field(default_factory=list)
    """The stages so far."""

    def do(self, stage: Stage, place: str, **given: Any) -> Path:
        """Do a stage in its place of the run directory, unless it was done before; return its folder."""
        self.places.append(place)
        out = self.folder / place
        if not self.is_plan:
            title = f"[{len(self.places)}/{self.total}] {place}"
            stage(out, reporter=self.reporter, title=title, cluster=self.cluster, **given)
        return out

    def seed(self, *parts: object) -> int:
        """Return the seed of one part of the run, which no other run's part has."""
        return derive_seed(self.config.seed, *parts)


def run(config: RunConfig, folder: Path, reporter: Reporter, cluster: Cluster | None = None) -> Path:
    """Run every stage of the method in a run directory, or what is left of them; return the report's path.

    The processes that a launcher started share the stages; with a cluster, its nodes do those that are parts.

    Raises:
        InputError: the directory holds a run of another configuration or another process works in it, or the problems
            cannot be used.
    """
    group = processes.group()
    with group.held_by_main(lambda: records.locked(folder)):
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        this = Run(folder, config, reporter, cluster, total=len(plan(config)))
        this.do(problems.split_problems, "problems", config=config.problems)
        this.splits = splits = problems.kept_splits(folder / "problems")
        settings = config.model_dump(mode="json")
        group.on_main(lambda: (folder / RECIPE).exists() or records.write_json(folder / RECIPE, settings))
        reporter.say(
            f"{len(splits.train)} training problems ({len(splits.solved)} with solutions, {len(splits.tested)} with "
            f"tests), {len(splits.validation)} validation, {len(splits.test)} test"
        )
        this.config = config if cluster else _with_store(config, folder)
        method(this)
        group.on_main(lambda: records.write_json(folder / RECIPE, settings))
        return group.on_main(lambda: write_report(folder, this.config, splits.test, reporter))


def plan(config: RunConfig) -> list[str]:
    """Return the places of the stages that a recipe asks for, in order, as long as no round is the last."""
    planned = Run(Path(), config, Reporter(quiet=True), is_plan=True, places=["problems"])
    method(planned)
    return planned.places


def _with_store(config: RunConfig, folder: Path) -> RunConfig:
    """Return the config with a store of verdicts in the run directory, unless it names one.

    Processes on several machines share none: sqlite does not work over a network file system.
    """
    if config.execution.store_path is not None or processes.environment_size() > processes.num_local():
        return config
    execution = config.execution.model_copy(update={"store_path": folder / "verdicts.sqlite"})
    return config.model_copy(update={"execution": execution})


def bare(labelled: Sequence[LabelledProblem]) -> list[Problem]:
    """Return what a generator may see of some problems."""
    return [p.problem for p in labelled]


# ------------------------------------------------------------------------------------------------------------ method


def method(run: Run) -> None:
    """Do every stage: supervised learning, rounds of reinforcement learning, evaluation with search and controls."""
    warm = supervised(run)
    actor = reinforced(run, warm)
    with _control_beside(run, warm):
        for name, model in (("warm_start", warm), ("actor_critic", actor)):
            evaluate(run, f"evaluate/{name}", model)
        if run.config.critic_sampling:
            search(run, warm, actor)


def supervised(run: Run) -> Path | str:
    """Return the actor that supervised learning makes: initialised, pretrained, warm-started."""
    config, splits = run.config, run.splits
    actor: Path | str = config.actor.init
    if config.actor.init == "tiny":
        made = {"config": config.actor.tiny, "prompt": config.prompt, "seed": run.seed("init")}
        actor = run.do(init, "init", problems=splits.train, **made) / "model"
    if config.pretrain.masked_span or config.pretrain.next_token:
        texts = None if config.pretrain.corpus else splits.solved
        learnt = {"problems": texts, "config": config.pretrain, "prompt": config.prompt}
        actor = run.do(pretrain, "pretrain", actor=actor, **learnt) / "model"
    if config.warm_start:
        learnt = {"problems": splits.solved, "config": config.warm_start, "prompt": config.prompt}
        actor = run.do(warm_start, "warm-start", actor=actor, **learnt) / "model"
    return actor


@dataclass(frozen=True, slots=True)
class Pool:
    """What one policy drew for some problems, and what became of it."""

    programs: Path
    verdicts: Path
    problems: list[LabelledProblem]
    policy: Path | str
    scores: Path | None = None


def draw(
    run: Run, place: str, actor: Path | str, problems: list[LabelledProblem], config: SampleConfig, **how: Any
) -> Pool:
    """Draw programs and run them on the hidden tests: the stages `sample` and `execute` at a place."""
    drawn = {"config": config, "prompt": run.config.prompt, **how}
    programs = run.do(sample, f"{place}/sample", actor=actor, problems=bare(problems), **drawn)
    judged = {"problems": problems, "config": run.config.execution}
    return Pool(programs, run.do(execute, f"{place}/execute", programs=programs, **judged), problems, actor)


def reinforced(run: Run, warm: Path | str) -> Path | str:
    """Return the actor after all rounds of sampling, execution, critic and actor training."""
    config, rounds = run.config, run.config.rounds
    actor, critic = warm, _init_of(config.critic, warm)
    order = list(run.splits.tested)
    random.Random(run.seed("order")).shuffle(order)
    size = min(rounds.problems_per_round or len(order), len(order))
    selection = Selection(rounds.selection) if rounds.selection else None
    _judge(run, selection, WARM_START, warm)
    drawn: list[Pool] = []
    replay: list[Pool] = []
    name, pool = "", None
    for index in range(rounds.num_rounds):
        name = f"round-{index:02d}"
        chosen = [order[(index * size + i) % len(order)] for i in range(size)]
        is_greedy = config.returns.baseline == "greedy"
        pool = draw(run, name, actor, chosen, rounds.sample, seed=run.seed("round", index), greedy=is_greedy)
        if config.returns.spread == "critic":
            fresh = _measure_drift(run, name, critic, pool, drawn)
            drawn = [*drawn, fresh] if config.critic.all_rounds else [pool]
            critic, pool = _scored(run, name, critic, pool, drawn)
        replay = [*replay, pool][-1 - rounds.num_replayed :]
        actor = _updated(run, name, actor, warm, replay)
        if _judge(run, selection, name, actor):
            break
    if config.online:
        actor = _online(run, actor)
        _judge(run, selection, ONLINE, actor)
    if pool is not None and pool.scores:
        shown = {"programs": pool.programs, "verdicts": pool.verdicts, "where": name, "prompt": config.prompt}
        run.do(illustrate, f"{name}/illustrate", critic=critic, problems=bare(pool.problems), **shown)
    if selection is None or not selection.rates:
        return actor
    return selection.actors[selection.kept]


def _online(run: Run, actor: Path | str) -> Path:
    """Return the actor after online learning."""
    config, splits = run.config, run.splits
    validation = splits.validation if config.online and config.online.training.optim.validate_every_steps else None
    learnt = {"config": config.online, "execution": config.execution, "prompt": config.prompt}
    given = {"problems": splits.tested, "validation": validation, "seed": run.seed(ONLINE), **learnt}
    return run.do(learn_online, ONLINE, actor=actor, **given) / "model"


def _init_of(critic: CriticConfig, warm: Path | str) -> Path | str:
    """Return what a critic begins as: a copy of the warm start, or the model that the recipe names."""
    return warm if critic.init == "actor" else critic.init


def _judge(run: Run, selection: Selection | None, name: str, actor: Path | str) -> bool:
    """Draw programs for the validation problems with an actor and run them; return whether the rounds end."""
    settings = run.config.rounds.selection
    problems = [p for p in run.splits.validation if p.hidden_tests][: settings.num_problems if settings else None]
    if selection is None or settings is None or not (problems or run.is_plan):
        return False
    drawn = run.config.rounds.sample.model_copy(update={"num_samples": settings.num_samples})
    place = "validate" if name == WARM_START else f"{name}/validate"
    pool = draw(run, place, actor, problems, drawn, seed=run.seed("validate"), greedy=False)
    if run.is_plan:
        return False
    selection.judge(name, actor, pass_rates(rollouts_of(pool.programs, pool.verdicts)))
    processes.group().on_main(lambda: selection.write(run.folder / SELECTION))
    run.reporter.say("  " + selection.line())
    return selection.has_dropped


def _measure_drift(run: Run, name: str, critic: Path | str, pool: Pool, drawn: Sequence[Pool]) -> Pool:
    """Measure the last round's critic on this round's samples; return the pool with the problems new in it."""
    seen = {p.problem.problem_id for earlier in drawn for p in earlier.problems}
    unseen = [p for p in pool.problems if p.problem.problem_id not in seen]
    if drawn and (unseen or run.is_plan):
        given = {"programs": [pool.programs], "verdicts": [pool.verdicts], "problems": unseen}
        run.do(measure_critic, f"{name}/drift", critic=critic, prompt=run.config.prompt, **given)
    return Pool(pool.programs, pool.verdicts, unseen, pool.policy)


def _scored(run: Run, name: str, init: Path | str, pool: Pool, drawn: Sequence[Pool]) -> tuple[Path, Pool]:
    """Train the critic on all that was drawn; return it, and the pool with what it says of its programs."""
    config, prompt = run.config.critic, run.config.prompt
    given = {"programs": [p.programs for p in drawn], "verdicts": [p.verdicts for p in drawn], "config": config}
    seen = [labelled for p in drawn for labelled in p.problems]
    critic = run.do(train_critic, f"{name}/critic", init=init, problems=seen, prompt=prompt, **given) / "model"
    scored = {"programs": pool.programs, "verdicts": pool.verdicts, "problems": bare(pool.problems)}
    scores = run.do(score, f"{name}/score", critic=critic, prompt=prompt, **scored)
    return critic, Pool(pool.programs, pool.verdicts, pool.problems, pool.policy, scores)


def _updated(run: Run, name: str, actor: Path | str, warm: Path | str, replay: Sequence[Pool]) -> Path:
    """Return the actor after training on the pools of this round and of those replayed."""
    solved = {p.problem.problem_id: p for p in run.splits.solved}
    drawn_for = {p.problem.problem_id: p for pool in replay for p in pool.problems}
    trained = run.do(
        train_actor,
        f"{name}/actor",
        actor=actor,
        programs=[p.programs for p in replay],
        verdicts=[p.verdicts for p in replay],
        scores=[p.scores for p in replay if p.scores],
        problems=[*solved.values(), *(p for i, p in drawn_for.items() if i not in solved)],
        policies=[p.policy for p in replay],
        reference=warm,
        config=run.config.actor_training,
        returns=run.config.returns,
        prompt=run.config.prompt,
    )
    return trained / "model"


# -------------------------------------------------------------------------------------------------------- evaluation


def evaluate(run: Run, place: str, model: Path | str) -> None:
    """Draw programs for the test problems at each temperature (greedily too, once) and run them."""
    settings, test = run.config.evaluation, run.splits.test
    for temperature in settings.temperatures:
        drawn = settings.sampling.model_copy(update={"temperature": temperature})
        config = SampleConfig(num_samples=settings.num_samples, sampling=drawn, chunk_size=settings.chunk_size)
        is_first, at = temperature == settings.temperatures[0], f"{place}/t{temperature:g}"
        pool = draw(run, at, model, test, config, seed=run.seed("evaluate"), greedy=is_first)
        if is_first:
            judged = {"problems": test, "config": run.config.execution, "tests": "example"}
            run.do(execute, f"{at}/examples", programs=pool.programs, **judged)


def search(run: Run, warm: Path | str, actor: Path | str) -> None:
    """Train the binary critic and the repair model on training problems, and search the test problems with them.

    The repair model begins as the actor whose failures it mends.
    """
    config, splits = run.config, run.splits
    pools = [(folder / "sample", folder / "execute") for folder in _rounds(run)]
    if config.search_pool:
        how = {"seed": run.seed("search pool"), "greedy": False}
        pool = draw(run, "search-pool", actor, splits.tested, config.search_pool, **how)
        pools.append((pool.programs, pool.verdicts))
    drawn = {"programs": [p for p, _ in pools], "verdicts": [v for _, v in pools], "prompt": config.prompt}
    learnt = {"problems": splits.tested, "config": config.binary_critic, "binary": True}
    init = _init_of(config.binary_critic, warm)
    critic = run.do(train_critic, "binary-critic", init=init, **learnt, **drawn) / "model"
    repair_model = None
    if config.repair:
        learnt = {"problems": splits.train, "config": config.repair, "seed": run.seed("repair")}
        repair_model = run.do(train_repair, "repair", actor=actor, **learnt, **drawn) / "model"
    first = config.evaluation.temperatures[0]
    sampling = config.evaluation.sampling.model_copy(update={"temperature": first})
    drawing = SampleConfig(sampling=sampling, chunk_size=config.evaluation.chunk_size)
    is_after_samples = config.critic_sampling is None or config.critic_sampling.start == "samples"
    found = run.do(
        critic_sample,
        "evaluate/actor_critic_cs/sample",
        actor=actor,
        critic=critic,
        repair_model=repair_model,
        programs=run.folder / f"evaluate/actor_critic/t{first:g}/sample" if is_after_samples else None,
        problems=bare(splits.test),
        config=config.critic_sampling,
        sample=drawing,
        execution=config.execution,
        prompt=config.prompt,
        seed=run.seed("critic sampling"),
    )
    judged = {"problems": splits.test, "config": config.execution}
    run.do(execute, "evaluate/actor_critic_cs/execute", programs=found, **judged)
    if config.evaluation.search_control:
        compare_search(run, actor, critic, found)


def _rounds(run: Run) -> list[Path]:
    """Return the folders of the rounds that were drawn: after a drop there are fewer than were asked for."""
    names = dict.fromkeys(place.split("/")[0] for place in run.places if place.startswith("round-"))
    return [run.folder / name for name in names]


def compare_search(run: Run, actor: Path | str, critic: Path, found: Path) -> None:
    """Judge and rank all candidates of the run's search, and plain samples of about as many tokens."""
    config, splits = run.config, run.splits
    first = config.evaluation.temperatures[0]
    start = config.critic_sampling.start if config.critic_sampling else "samples"
    drawn = config.evaluation.sampling.model_copy(update={"temperature": first})
    number = math.ceil(MORE_SAMPLES[start] * config.evaluation.num_samples)
    more = SampleConfig(num_samples=number, sampling=drawn, chunk_size=config.evaluation.chunk_size)
    how = {"config": more, "prompt": config.prompt, "seed": run.seed("more"), "greedy": False}
    place = "evaluate/search"
    extra = run.do(sample, f"{place}/more", actor=actor, problems=bare(splits.test), **how)
    before = run.folder / f"evaluate/actor_critic/t{first:g}/sample"
    sources = {"plain": {"programs": [before, extra]}, "searched": {"candidates": found}}
    for name, source in sources.items():
        programs = run.do(gather, f"{place}/{name}/sample", **source)
        judged = {"problems": splits.test, "config": config.execution}
        run.do(execute, f"{place}/{name}/execute", programs=programs, **judged)
        ranked = {"problems": bare(splits.test), "execution": config.execution, "seed": run.seed("rank")}
        run.do(rank, f"{place}/{name}/rank", programs=programs, critic=critic, prompt=config.prompt, **ranked)
    shown = {"problems": bare(splits.test), "choose": "crashes", "where": "critic sampling, binary critic"}
    searched = {"programs": run.folder / place / "searched/sample", "verdicts": run.folder / place / "searched/execute"}
    run.do(illustrate, f"{place}/searched/illustrate", critic=critic, prompt=config.prompt, **searched, **shown)


# ----------------------------------------------------------------------------------------------------------- control


def _has_others(run: Run) -> bool:
    """Return whether other processes or machines share the stages of a run."""
    return run.cluster is not None or processes.group().num_processes > 1


@contextmanager
def _control_beside(run: Run, warm: Path | str) -> Iterator[None]:
    """Train and evaluate the control after what the caller does, or in a process beside it."""
    if not (run.config.evaluation.ce_control and run.config.warm_start):
        yield
    elif run.config.evaluation.control_beside and not run.is_plan and not _has_others(run):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            quiet = run.reporter.console.quiet
            beside = process.submit(_control_process, os.getpid(), run.config, run.folder, warm, quiet, run.total)
            yield
            beside.result()
    else:
        yield
        control(run, warm)


def _control_process(parent: int, config: RunConfig, folder: Path, warm: Path | str, quiet: bool, total: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    planned = Run(folder, config, Reporter(quiet=True), is_plan=True)
    control(planned, warm)
    before = [""] * (total - len(planned.places))
    splits = problems.kept_splits(folder / "problems")
    control(Run(folder, config, Reporter(quiet=quiet), splits=splits, total=total, places=before), warm)


def _end_with(parent: int) -> None:
    """End this process when its parent has gone: a run that was killed must not go on writing."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def control(run: Run, warm: Path | str) -> None:
    """Train and evaluate the control."""
    evaluate(run, "evaluate/ce_control", more_cross_entropy(run, warm))


def more_cross_entropy(run: Run, warm: Path | str) -> Path:
    """Return the warm start after more cross-entropy, for so many updates or tokens as the rounds took."""
    assert run.config.warm_start is not None
    steps = run.config.evaluation.ce_control_steps
    limits: dict[str, Any] = {"num_epochs": None, "num_steps": steps, "seed": run.seed("control")}
    if steps is None and not run.is_plan:
        limits["max_tokens"] = processes.group().on_main(lambda: max(_tokens_of_rounds(run.folder), 1))
    optim = run.config.warm_start.optim.model_copy(update=limits)
    more = run.config.warm_start.model_copy(update={"optim": optim})
    given = {"problems": run.splits.solved, "config": more, "prompt": run.config.prompt}
    return run.do(warm_start, "ce-control", actor=warm, **given) / "model"


def _tokens_of_rounds(folder: Path) -> int:
    """Return the tokens that all rounds drew and trained on; drawing one counts as much as training on one."""
    places = ("round-*/*", ONLINE)
    facts = [records.facts_of(p.parent) for place in places for p in folder.glob(f"{place}/{records.MANIFEST}")]
    counted = ("num_tokens", "num_trained_tokens", "num_drawn_tokens")
    return sum(f.get(name, 0) for f in facts for name in counted)
