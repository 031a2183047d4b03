"""The stages that change weights, as functions from folders to a folder with `model/` and `metrics.jsonl`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from coderl import records
from coderl.critic.calibration import report as critic_report
from coderl.critic.model import Critic
from coderl.critic.values import values
from coderl.engines.actor import Actor, prompt_tokens
from coderl.models.lm import LanguageModel, keep_first_layers
from coderl.prompts import PromptConfig
from coderl.rl import returns
from coderl.rl.canaries import gradient_norms, kl_to_reference
from coderl.rl.settings import ActorTrainingConfig, ReturnsConfig
from coderl.rl.staged import train_actor as actor_steps
from coderl.rl.staged import with_log_probs
from coderl.stages.console import Reporter
from coderl.stages.examples import (
    actor_examples,
    critic_examples,
    failed_pairs,
    solution_examples,
)
from coderl.stages.stages import hash_model, hash_problems, run_stage
from coderl.stages.tables import (
    Score,
    TrainedSample,
    VerdictRow,
    judged,
    programs_of,
    sample_canaries,
    verdicts_of,
)
from coderl.training.critic import train_critic as critic_steps
from coderl.training.loop import StepMetrics
from coderl.training.losses import (
    ActorExample,
    CriticExample,
    CrossEntropyExample,
    num_copies,
)
from coderl.training.repair import train_repair as repair_steps
from coderl.training.settings import CriticConfig, RepairConfig, WarmStartConfig
from coderl.training.warm_start import warm_start as warm_start_steps
from coderl.types import (
    InputError,
    LabelledProblem,
    Problem,
    Program,
)


def log_steps(steps: Iterable[StepMetrics], folder: Path, reporter: Reporter, title: str) -> dict[str, Any]:
    """Run a training to its end, writing each update's figures to `metrics.jsonl`; return the facts of the stage."""
    path = folder / "metrics.jsonl"
    done = {record["step"] for record in records.read_jsonl(path)}
    last: StepMetrics | None = None
    for last in reporter.track(steps, title, unit="updates"):
        if last.step not in done:
            records.append_jsonl(path, last.record())
    if last is None:
        return {"num_steps": 0}
    return {"num_steps": last.step, "last_loss": round(last.loss, 4), "update_cpu_s": round(last.cpu_s, 2)}


# ------------------------------------------------------------------------------------------------- supervised stages


def warm_start(
    out: Path, *, actor: Path | str, problems: Sequence[LabelledProblem], config: WarmStartConfig,
    prompt: PromptConfig, reporter: Reporter,
) -> None:  # fmt: skip
    """Write the actor after cross-entropy on reference solutions (Eq. 1); also what the control with more of it is.

    Raises:
        InputError: no problem has a solution.
    """

    def work(folder: Path) -> dict[str, Any]:
        loaded = Actor.load(actor, prompt)
        examples = solution_examples(loaded, problems)
        loaded.model.adapt(config.lora)
        if not examples:
            raise InputError(f"none of the {len(problems)} problems has a reference solution to start from")
        steps = warm_start_steps(loaded.model, examples, config, checkpoint_dir=folder / ".checkpoints")
        facts = log_steps(steps, folder, reporter, f"cross-entropy on {len(examples)} solutions")
        loaded.model.save(folder / "model")
        return facts

    settings = {"warm_start": config.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json")}
    inputs = {"actor": hash_model(actor), "problems": hash_problems(problems)}
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def train_repair(
    out: Path, *, actor: Path | str, pools: Sequence[tuple[Path, Path]], problems: Sequence[LabelledProblem],
    config: RepairConfig, prompt: PromptConfig, seed: int, reporter: Reporter,
) -> None:  # fmt: skip
    """Write the repair model: from a failed sample and its outcome to the nearest program that is right (Eq. 13).

    `pools` are (sample stage, execute stage) folders. Where no failed sample has such a program, the model is the
    actor, unchanged, and the facts say so.
    """

    def work(folder: Path) -> dict[str, Any]:
        loaded = Actor.load(actor, prompt)
        pairs = failed_pairs(pools, problems, use_samples=config.use_samples)
        random.Random(seed).shuffle(pairs)
        examples = []
        for problem, program, verdict, solution in pairs[: config.max_pairs]:
            with suppress(InputError):  # a program that no prompt holds
                source = loaded.encode_repair_prompt(problem, program, verdict.result())
                examples.append(CrossEntropyExample(tuple(source), loaded.encode_solution(problem, solution)))
        facts: dict[str, Any] = {"num_pairs": len(examples), "num_steps": 0}
        if examples:
            steps = repair_steps(loaded.model, examples, config.training, checkpoint_dir=folder / ".checkpoints")
            facts |= log_steps(steps, folder, reporter, f"repairing {len(examples)} failed programs")
        loaded.model.save(folder / "model")
        return facts

    settings = {"repair": config.model_dump(mode="json"), "prompt": prompt.model_dump(mode="json"), "seed": seed}
    inputs = {"actor": hash_model(actor), "problems": hash_problems(problems), **_hash_pools(pools)}
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def _hash_pools(pools: Sequence[tuple[Path, Path]]) -> dict[str, str]:
    return {
        name: records.hash_path(folder)
        for index, (sampled, executed) in enumerate(pools)
        for name, folder in ((f"programs_{index}", sampled / "programs"), (f"verdicts_{index}", executed / "verdicts"))
    }


# ------------------------------------------------------------------------------------------------------------ critic


def train_critic(
    out: Path, *, init: Path | str, pools: Sequence[tuple[Path, Path]], problems: Sequence[LabelledProblem],
    config: CriticConfig, num_outcomes: int, prompt: PromptConfig, reporter: Reporter, actor: Path | str | None = None,
) -> None:  # fmt: skip
    """Write the critic that predicts the outcome of sampled programs, and `calibration.json`: how far to trust it.

    A share `config.held_out` of the problems is never trained on: on half of them it is stopped, chosen and given its
    temperature, on the other half measured.

    Args:
        out: the stage's folder.
        init: a critic to go on from, or a language model to begin one from.
        pools: (sample stage, execute stage) folders.
        problems: with solutions where `config.use_solutions`.
        config: how it learns.
        num_outcomes: 4, or 2 for the binary critic.
        prompt: the actor's.
        reporter: progress.
        actor: whose solutions' tokens are used; `init` by default.

    Raises:
        InputError: no program has a verdict.
    """
    settings = {**config.model_dump(mode="json"), "num_outcomes": num_outcomes,
                "prompt": prompt.model_dump(mode="json")}  # fmt: skip
    inputs = {"init": hash_model(init), "problems": hash_problems(problems), **_hash_pools(pools)}

    def work(folder: Path) -> dict[str, Any]:
        critic = load_critic(init, num_outcomes, config)
        examples, validation, held_out = critic_examples(critic.model, pools, problems, config, prompt)
        if not examples:
            raise InputError("no sampled program has a verdict, so there is nothing for a critic to learn from")
        steps = critic_steps(
            critic, examples, config.training, validation=validation, checkpoint_dir=folder / ".checkpoints"
        )
        facts = log_steps(steps, folder, reporter, f"critic on {len(examples)} programs")
        critic.save(folder / "model")
        facts |= {"num_programs": num_copies(examples), "num_distinct": len(examples)}
        return {**facts, "temperature": critic.temperature.item(), **_measure(critic, held_out, folder)}

    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def measure_critic(
    out: Path, *, critic: Path, pool: tuple[Path, Path], problems: Sequence[LabelledProblem], prompt: PromptConfig,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Write how far a critic can be trusted on the samples of some problems that it was not trained on.

    On the current policy's fresh samples, before it is refreshed, this is its drift.
    """

    def work(folder: Path) -> dict[str, Any]:
        model = Critic.load(critic)
        examples, _, _ = critic_examples(model.model, [pool], problems, CriticConfig(held_out=0.0), prompt)
        return _measure(model, examples, folder)

    inputs = {"critic": hash_model(critic), "problems": hash_problems(problems), **_hash_pools([pool])}
    run_stage(out, reporter, config={"prompt": prompt.model_dump(mode="json")}, inputs=inputs, work=work)


def load_critic(init: Path | str, num_outcomes: int, config: CriticConfig) -> Critic:
    """Return the critic in a folder, or a new one on the language model there.

    Raises:
        InputError: the folder holds a critic of another number of outcomes, or no model.
    """
    if not (Path(init) / "critic.json").exists():
        model = LanguageModel.load(init)
        if config.num_layers is not None:
            keep_first_layers(model, config.num_layers)
        return Critic(model, num_outcomes=num_outcomes, pooling=config.pooling, uses_likelihood=config.uses_likelihood)
    critic = Critic.load(init)
    if critic.num_outcomes != num_outcomes:
        raise InputError(f"{init}: a critic of {critic.num_outcomes} outcomes, expected {num_outcomes}")
    return critic


def _measure(critic: Critic, held_out: Sequence[CriticExample], folder: Path) -> dict[str, Any]:
    if not held_out:
        return {"num_held_out": 0}
    examples = [e for e in held_out for _ in range(e.num_copies)]
    scores = values(critic, [e.prompt for e in examples], [e.program for e in examples], batch_size=64)
    measured = critic_report(scores, [e.outcome for e in examples])
    records.write_json(folder / "calibration.json", records.plain(measured))
    return {
        "num_held_out": len(examples),
        "accuracy": measured.accuracy,
        "majority_accuracy": measured.majority_accuracy,
        "auroc": measured.auroc,
        "calibration_error": measured.calibration_error,
        "prefix_auroc": measured.prefix_auroc,
    }


def score(
    out: Path, *, critic: Path, programs: Path, verdicts: Path, problems: Sequence[Problem], prompt: PromptConfig,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Write the critic's values of every judged program: of the whole, and after each token (Eq. 10-12)."""

    def work(folder: Path) -> dict[str, Any]:
        model = Critic.load(critic)
        by_id = {p.problem_id: p for p in problems}
        known = verdicts_of(verdicts)
        table = records.PartedTable(folder / "scores", Score)
        parts = sorted((programs / "programs").glob("part-*.parquet"))
        count = 0
        for index, part in enumerate(reporter.track(parts, "scoring", unit="chunks")):
            if not table.has(index):
                pairs = [pair for pair in judged(records.read_table(part, Program), known) if pair[0].tokens]
                table.write(index, _scores(model, pairs, by_id, prompt))
        count = sum(1 for _ in table.rows())
        return {"num_programs": count}

    settings = {"prompt": prompt.model_dump(mode="json")}
    inputs = {
        "critic": hash_model(critic),
        "programs": records.hash_path(programs / "programs"),
        "verdicts": records.hash_path(verdicts / "verdicts"),
    }
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def _scores(
    critic: Critic, pairs: Sequence[tuple[Program, VerdictRow]], by_id: dict[str, Problem], prompt: PromptConfig
) -> list[Score]:
    prompts = {i: prompt_tokens(critic.model, by_id[i], prompt) for i in {p.problem_id for p, _ in pairs}}
    found = values(critic, [prompts[p.problem_id] for p, _ in pairs], [p.tokens for p, _ in pairs], batch_size=128)
    rows = []
    for (program, verdict), one in zip(pairs, found, strict=True):
        assert verdict.outcome is not None
        towards = returns.critic_values(one.token_probs, verdict.outcome)
        rows.append(
            Score(program.problem_id, program.kind, program.index, one.program_probs, towards, one.prefix_values)
        )
    return rows


# ------------------------------------------------------------------------------------------------------------- actor


def train_actor(
    out: Path, *, actor: Path | str, pools: Sequence[tuple[Path, Path, Path | None]], problems: Sequence[Problem],
    solved: Sequence[LabelledProblem], config: ActorTrainingConfig, returns_config: ReturnsConfig,
    prompt: PromptConfig, reporter: Reporter, policies: Sequence[Path | str] = (), reference: Path | str | None = None,
) -> None:  # fmt: skip
    """Write the actor after reinforcement learning from execution feedback, mixed with cross-entropy (Eq. 14).

    `model/`, the table `samples/` of what it was trained on, and in the facts the canaries: how the last pool's
    samples fare, the gradient by the sign of the return before training, and the divergence from the reference after.

    Args:
        out: the stage's folder.
        actor: the model to train.
        pools: (sample, execute, score) folders, oldest first; the last is None where the spread needs no critic.
        problems: of all pools.
        solved: with reference solutions, for the cross-entropy term.
        config: how it learns.
        returns_config: what a sample earns.
        prompt: the actor's.
        reporter: progress.
        policies: which model drew each pool, for `clip_range`; `actor` by default.
        reference: what `kl_weight` and the canary refer to; `actor` by default.
    """
    drawn_by = list(policies) or [actor] * len(pools)

    def work(folder: Path) -> dict[str, Any]:
        loaded = Actor.load(actor, prompt)
        encoded = {p.problem_id: tuple(loaded.encode_prompt(p)) for p in problems}
        samples: list[ActorExample] = []
        for age, (pool, policy) in enumerate(zip(reversed(pools), reversed(drawn_by), strict=True)):
            found = [replace(s, staleness=age) for s in actor_examples(*pool, loaded.model, encoded, returns_config)]
            if config.clip_range is not None:
                found = with_log_probs(loaded.model if policy == actor else LanguageModel.load(policy), found)
            samples = found + samples
        _write_samples(folder, samples)
        solutions = solution_examples(loaded, solved)
        anchor = LanguageModel.load(actor if reference is None else reference)
        facts: dict[str, Any] = sample_canaries(programs_of(pools[-1][0]), verdicts_of(pools[-1][1]))
        loaded.model.adapt(config.lora)
        facts |= gradient_norms(loaded.model, samples)
        steps = actor_steps(
            loaded.model, samples, solutions, config, reference=anchor, checkpoint_dir=folder / ".checkpoints"
        )
        facts |= log_steps(steps, folder, reporter, f"actor on {len(samples)} samples")
        facts["kl_to_reference"] = kl_to_reference(loaded.model, anchor, samples)
        loaded.model.save(folder / "model")
        used = sum(any(s.token_returns) for s in samples)
        facts |= {"num_samples": len(samples), "zero_return_share": 1 - used / max(len(samples), 1)}
        for line in canary_lines(facts):
            reporter.say("  " + line)
        return facts

    settings = {"actor_training": config.model_dump(mode="json"), "returns": returns_config.model_dump(mode="json"),
                "prompt": prompt.model_dump(mode="json")}  # fmt: skip
    inputs = {"actor": hash_model(actor), "solved": hash_problems(solved)}
    inputs |= _hash_pools([(sampled, executed) for sampled, executed, _ in pools])
    if config.clip_range is not None:
        inputs |= {f"policy_{i}": hash_model(p) for i, p in enumerate(drawn_by)}
    if reference is not None:
        inputs["reference"] = hash_model(reference)
    inputs |= {f"scores_{i}": records.hash_path(s / "scores") for i, (_, _, s) in enumerate(pools) if s is not None}
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)


def canary_lines(facts: dict[str, Any]) -> tuple[str, str]:
    """Return what a person should see of each round: how its samples fared, and what training on them did."""
    return (
        f"samples: {facts['pass_rate']:.1%} pass, {facts['compile_error_rate']:.1%} do not compile, "
        f"{facts['unique_share']:.0%} unique, {facts['mean_tokens']:.0f} tokens",
        f"training: {facts['zero_return_share']:.0%} earn nothing; gradient of gains "
        f"{facts['grad_norm_positive']:.2g}, of losses {facts['grad_norm_negative']:.2g}; "
        f"KL {facts['kl_to_reference']:.3f} a token",
    )


def _write_samples(folder: Path, samples: Sequence[ActorExample]) -> None:
    """Write what the actor is trained on, and how old each sample is."""
    rows = (TrainedSample(s.problem_id, len(s.program), s.staleness, fmean(s.token_returns or (0.0,))) for s in samples)
    records.PartedTable(folder / "samples", TrainedSample).write(0, rows)
