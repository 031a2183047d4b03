"""Online learning: draw, run, score, update, again; the stages of the paper in memory, one draw at a time.

A draw is an epoch of the one optimisation loop (`training.loop`), whose checkpoints also hold what is remembered here:
a run that is killed goes on with the same draws and ends with the same weights, bit for bit on a CPU.

Source: CodeRL section 3, with samples of the policy as it is now; by settings also REINFORCE, RLOO (Ahmadian et al.
2024), GRPO (Shao et al. 2024), Dr. GRPO (Liu et al. 2025), PPO with a value critic (Schulman et al. 2017; Yuan et al.
2025), single-stream policy optimisation (Xu and Ding 2025) and rejection sampling.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from coderl.critic.prefix import PrefixCritic
from coderl.engines.actor import Actor
from coderl.engines.engine import Drawn, Finish, Request
from coderl.execution import Job, job_of
from coderl.execution.config import refuse_faults, sandbox_faults
from coderl.execution.store import JobRunner
from coderl.models.lm import DTYPES, LanguageModel, best_dtype
from coderl.rl import credit
from coderl.rl.advantages import Record
from coderl.rl.canaries import sample_canaries
from coderl.rl.losses import ActorCritic, OnlineExample, online_loss
from coderl.rl.rollout import return_of
from coderl.rl.settings import OnlineConfig
from coderl.rl.staged import in_turn
from coderl.training.loop import StepMetrics, Validate, train
from coderl.training.losses import CrossEntropyExample, num_tokens
from coderl.training.optim import suitable_rate
from coderl.types import InputError, LabelledProblem, Outcome, Program, ProgramKind, Rollout, Verdict

MAX_EMPTY_DRAWS = 50
"""Draws after one another without anything to learn from, after which a run gives up."""


@dataclass
class Memory:
    """What the next draw depends on besides the weights: all of it is in each checkpoint."""

    num_draws: int = 0
    num_drawn_tokens: int = 0
    is_critic_ready: bool = False
    """True once the critic's loss has settled, or none was to be waited for."""
    critic_losses: tuple[float, ...] = ()
    records: dict[str, Record] = field(default_factory=dict)
    """Problem -> how its programs fared."""
    passes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Problem that is rarely solved -> the last program of it that passed."""
    examples: tuple[OnlineExample, ...] = ()
    """Of the draw under way."""
    epoch: int = -1
    """Of the optimisation loop: the one that `examples` belong to."""
    metrics: dict[str, float] = field(default_factory=dict)


class Draws:
    """The examples of each epoch: programs drawn by the policy as it then is, run on the hidden tests, and scored."""

    def __init__(
        self,
        model: ActorCritic,
        actor: Actor,
        problems: Sequence[LabelledProblem],
        executor: JobRunner,
        config: OnlineConfig,
        *,
        solutions: Sequence[CrossEntropyExample] = (),
        seed: int = 0,
    ):
        self.model, self.actor, self.executor, self.config, self.seed = model, actor, executor, config, seed
        self.problems = {p.problem.problem_id: p for p in problems}
        self.prompts = {i: tuple(actor.encode_prompt(p.problem)) for i, p in self.problems.items()}
        self.solutions = list(solutions)
        self.memory = Memory(is_critic_ready=not config.critic_draws)

    def __call__(self, epoch: int) -> Sequence[OnlineExample]:
        """Return what the updates of an epoch learn from; draws anew for every `num_passes` epochs.

        Raises:
            InputError: nothing that could be learned from came of many draws.
            SandboxError: the sandbox failed on too many programs to trust the rest.
        """
        memory = self.memory
        if memory.epoch < 0 or epoch // self.config.num_passes != memory.epoch // self.config.num_passes:
            for _ in range(MAX_EMPTY_DRAWS):
                memory.examples = tuple(self._draw())
                if memory.examples:
                    break
            else:
                raise InputError(
                    f"nothing to learn from in {MAX_EMPTY_DRAWS} draws of {self.config.problems_per_draw} x "
                    f"{self.config.num_samples} programs: {memory.metrics}"
                )
        memory.epoch = epoch
        return memory.examples

    # -------------------------------------------------------------------------------------------------- one draw

    def _draw(self) -> list[OnlineExample]:
        config, memory, start = self.config, self.memory, time.monotonic()
        if self.model.averaged is not None and memory.num_draws:
            assert config.averaging is not None
            self.model.average(min(config.averaging, (1 + memory.num_draws) / (10 + memory.num_draws)))
        self.model.refresh(self.actor.model)
        self.actor.engine.refresh()
        chosen = self._choose()
        self.drawing_s = 0.0
        rollouts = self._run(chosen)
        running_s = time.monotonic() - start
        drawn = {name: [r for r in rollouts if r.program.problem_id == name] for name in chosen}
        groups = [group for name in chosen if (group := self._with_kept_pass(name, drawn[name]))]
        examples, figures = credit.examples_of(groups, self.model, self.prompts, memory.records, config)
        if not memory.is_critic_ready:
            memory.critic_losses = (*memory.critic_losses, figures["critic_loss_before"])
            memory.is_critic_ready = has_settled(memory.critic_losses, most=config.critic_draws)
        self._remember(list(drawn.values()))
        memory.num_draws += 1
        memory.metrics = {
            **_figures(list(drawn.values())),
            **figures,
            "num_drawn_tokens": float(memory.num_drawn_tokens),
            "drawing_s": self.drawing_s,
            "waiting_s": running_s - self.drawing_s,
            "scoring_s": time.monotonic() - start - running_s,
        }
        return self._anchored(examples)

    def _choose(self) -> list[str]:
        """Return the problems of the next draw."""
        config, memory, names = self.config, self.memory, list(self.problems)
        size = min(config.problems_per_draw, len(names))
        if config.choose == "uncertain":
            weights = np.array([memory.records.get(i, Record()).uncertainty ** 2 for i in names])
            rng = np.random.default_rng([self.seed, memory.num_draws])
            return [names[i] for i in rng.choice(len(names), size, replace=False, p=weights / weights.sum())]
        return list(dict.fromkeys(in_turn(names, size, self.seed, start=memory.num_draws * size)))

    def _run(self, chosen: Sequence[str]) -> list[Rollout]:
        """Return what was drawn for some problems with its verdicts; programs run while later ones are drawn."""
        drawn: list[tuple[Program, Drawn]] = []
        verdicts = list(self.executor.run(self._jobs(chosen, drawn)))
        refuse_faults(sandbox_faults(verdicts), len(verdicts))
        return [
            Rollout(program, verdict, None, self._log_probs_of(how), how.finish is Finish.LENGTH)
            for (program, how), verdict in zip(drawn, verdicts, strict=True)
            if verdict.outcome is not None
        ]

    def _log_probs_of(self, drawn: Drawn) -> tuple[float, ...]:
        """Return what the engine says of a program's tokens, where it is not the trained model itself that drew."""
        return () if self.actor.model is self.model.actor else (drawn.log_probs or ())

    def _jobs(self, chosen: Sequence[str], drawn: list[tuple[Program, Drawn]]) -> Iterator[Job]:
        config = self.config
        seed = int(np.random.SeedSequence([self.seed, self.memory.num_draws]).generate_state(1)[0])
        size = max(1, len(chosen) // config.num_parts)
        for start in range(0, len(chosen), size):
            names = chosen[start : start + size]
            before = time.monotonic()
            requests = [Request(self.prompts[i], (), config.num_samples) for i in names]
            told = self.actor.model is not self.model.actor and config.max_importance is not None
            groups = self.actor.drawn(requests, seed=seed, with_log_probs=told)
            bare = [self.problems[i].problem for i in names]
            is_greedy = config.returns.baseline == "greedy"
            baselines = self.actor.greedy(bare) if is_greedy else []
            self.drawing_s += time.monotonic() - before
            for index, (problem, group) in enumerate(zip(bare, groups, strict=True)):
                programs = self.actor.programs(problem, (d.tokens for d in group))
                if is_greedy:
                    programs, group = [*programs, baselines[index]], [*group, Drawn((), 0, Finish.END)]
                for pair in zip(programs, group, strict=True):
                    self.memory.num_drawn_tokens += len(pair[0].tokens)
                    drawn.append(pair)
                    yield job_of(self.problems[problem.problem_id], pair[0].code)

    # -------------------------------------------------------------------------------------------- what is remembered

    def _with_kept_pass(self, problem_id: str, group: list[Rollout]) -> list[Rollout]:
        """Return a problem's rollouts, with the program that once passed where none of these does."""
        kept = self.memory.passes.get(problem_id)
        if not self.config.replay_passes or kept is None or any(r.outcome is Outcome.PASSED_TEST for r in group):
            return group
        program = Program(problem_id, self.config.num_samples, "", ProgramKind.SAMPLE, kept)
        return [*group, Rollout(program, Verdict(Outcome.PASSED_TEST, test_outcomes=(Outcome.PASSED_TEST,)))]

    def _remember(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Note how the programs that were drawn of each problem fared, and the last of few that passed."""
        records, passes = self.memory.records, self.memory.passes
        for group in groups:
            drawn = [r for r in group if r.program.kind is ProgramKind.SAMPLE]
            if not drawn:
                continue
            name = drawn[0].program.problem_id
            passed = [r.outcome is Outcome.PASSED_TEST for r in drawn]
            earned = [return_of(r, self.config.returns) for r in drawn]
            records[name] = records.get(name, Record()).after(passed, earned, memory=self.config.memory)
            for rollout in drawn:
                if rollout.outcome is Outcome.PASSED_TEST and 4 * sum(passed) <= len(passed):
                    passes[name] = rollout.program.tokens

    def _anchored(self, examples: list[OnlineExample]) -> list[OnlineExample]:
        """Return the examples, some of them with a solution, as `solution_share` says."""
        count = round(len(examples) * self.config.training.solution_share) if self.config.training.ce_weight else 0
        if not self.solutions or not count:
            return examples
        rng = np.random.default_rng([self.seed, self.memory.num_draws, 1])
        drawn = rng.choice(len(self.solutions), min(count, len(self.solutions)), replace=False)
        anchors = [self.solutions[i] for i in drawn] + [None] * len(examples)
        return [replace(example, solution=anchor) for example, anchor in zip(examples, anchors, strict=False)]

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """Return all that is remembered, as JSON."""
        return asdict(self.memory)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` returned."""
        examples = tuple(_example(e) for e in state["examples"])
        records = {i: Record(**r) for i, r in state["records"].items()}
        passes = {i: tuple(t) for i, t in state["passes"].items()}
        plain = {**state, "critic_losses": tuple(state["critic_losses"])}
        self.memory = Memory(**{**plain, "examples": examples, "records": records, "passes": passes})


def _example(record: Mapping[str, Any]) -> OnlineExample:
    solution = record["solution"]
    anchor = None if solution is None else CrossEntropyExample(*(tuple(solution[n]) for n in ("prompt", "program")))
    targets = tuple(tuple(row) for row in record["critic_targets"])
    plain = {n: tuple(record[n]) for n in ("prompt", "program", "token_returns", "sampling_log_probs")}
    return OnlineExample(**plain, critic_targets=targets, solution=anchor)


def _figures(groups: Sequence[Sequence[Rollout]]) -> dict[str, float]:
    """Return how the programs that were drawn fared, and what there is to learn from."""
    samples = [[r for r in group if r.program.kind is ProgramKind.SAMPLE] for group in groups]
    drawn = [r for group in samples for r in group]
    passed = [[r.outcome is Outcome.PASSED_TEST for r in group] for group in samples if group]
    mixed = sum(0 < sum(group) < len(group) for group in passed) / max(len(passed), 1)
    return {
        **sample_canaries(drawn),
        "mixed_share": mixed,
        "cut_share": sum(r.is_cut for r in drawn) / max(len(drawn), 1),
    }


# ---------------------------------------------------------------------------------------------------------- the loop


def learn(
    draws: Draws,
    config: OnlineConfig,
    *,
    reference: LanguageModel | None = None,
    checkpoint_dir: Path | None = None,
    validate: Validate | None = None,
) -> Iterator[StepMetrics]:
    """Yield the metrics of each update; the end leaves `draws.model` with its last weights.

    Args:
        draws: the model, and where its examples come from.
        config: how much is drawn and how it is learned from.
        reference: the frozen policy that `kl_weight` refers to.
        checkpoint_dir: see `loop.train`.
        validate: see `loop.train`.

    Raises:
        InputError: a KL weight without a reference; else see `Draws`.
    """
    if config.training.kl_weight and reference is None:
        raise InputError("kl_weight needs a reference model")
    training = config.training
    optim = suitable_rate(training.optim, draws.model.actor, share=0.1)

    def loss(model: ActorCritic, part: Sequence[OnlineExample], whole: Sequence[OnlineExample]) -> Any:
        rl_weight = training.rl_weight if draws.memory.is_critic_ready else 0.0
        return online_loss(model, part, whole, config=config, rl_weight=rl_weight, reference=reference)

    given = {"checkpoint_dir": checkpoint_dir, "length_of": num_tokens, "validate": validate}
    steps, started = train(draws.model, draws, loss, optim, **given), time.monotonic()
    for step in steps:
        memory = draws.memory
        step.metrics.update(memory.metrics, draw=float(memory.num_draws))
        yield step
        if config.max_tokens is not None and step.num_tokens + memory.num_drawn_tokens >= config.max_tokens:
            break
        if config.max_wall_s is not None and time.monotonic() - started >= config.max_wall_s:
            break


def has_settled(losses: Sequence[float], *, most: int, window: int = 4) -> bool:
    """Return whether the last few losses are within 1 % of the few before them, or there are `most` of them."""
    if len(losses) >= most:
        return True
    if len(losses) < 2 * window:
        return False
    return fmean(losses[-window:]) > 0.99 * fmean(losses[-2 * window : -window])


def build(model: LanguageModel, config: OnlineConfig, *, seed: int = 0) -> tuple[ActorCritic, LanguageModel]:
    """Return an actor with the critic and the average that the settings ask for, and the model that draws.

    That is the actor itself, but where it is adapted or rounded for drawing: then a plain copy that takes over the
    weights before each draw.
    """
    dtype = config.sampling.dtype
    dtype = best_dtype(str(model.device)) if dtype == "auto" else dtype
    is_copied = config.training.lora is not None or config.averaging is not None or DTYPES[dtype] is not model.dtype
    drawer = copy.deepcopy(model).to(DTYPES[dtype]) if is_copied else model
    model.adapt(config.training.lora)
    torch.manual_seed(seed)
    network = copy.deepcopy(model) if config.critic == "network" else None
    critic = None if config.critic == "none" else PrefixCritic(model.hidden_size, network).to(model.device)
    averaged = None if config.averaging is None else copy.deepcopy(model)
    return ActorCritic(model, critic, averaged), drawer
