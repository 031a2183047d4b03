"""The stage of online learning: draw, run, score, update, again."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from coderl.engines.actor import Actor
from coderl.execution import ExecutionConfig, job_of, open_executor
from coderl.execution.store import JobRunner
from coderl.prompts import PromptConfig
from coderl.rl import online
from coderl.rl.losses import ActorCritic
from coderl.rl.settings import OnlineConfig
from coderl.stages import networks
from coderl.stages.stage import Facts, Labelled, ModelSource, Work, derive_seed, stage
from coderl.stages.warm_start import solution_examples
from coderl.types import InputError, LabelledProblem, Outcome


@stage
def learn_online(
    work: Work,
    *,
    actor: ModelSource,
    problems: Labelled,
    validation: Labelled | None = None,
    config: OnlineConfig = OnlineConfig(),
    execution: ExecutionConfig = ExecutionConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
) -> Facts:
    r"""Let the actor learn online: it draws programs, the sandbox runs them, and it is updated before it draws again.

        coderl learn-online --actor runs/mbpp/warm-start/model --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/online --problems-per-draw 16 --num-samples 8 --training.optim.num-steps 180

    The model goes to OUT/model, the figures of each update to OUT/metrics.jsonl. A killed command continues from its
    last checkpoint (`--training.optim.checkpoint-every-steps`).

    Source: CodeRL section 3, with samples of the policy as it is.

    Args:
        problems: What programs are drawn for; those without hidden tests are left out.
        validation: Problems whose pass rate is logged every `--training.optim.validate-every-steps`.

    Raises:
        InputError: no problem has hidden tests, or nothing that could be learned from was drawn.
        SandboxError: the sandbox itself failed on too many programs to trust the rest.
    """
    tested = [p for p in problems if p.hidden_tests]
    if not tested:
        raise InputError(f"none of the {len(problems)} problems has hidden tests to learn from")
    model = networks.own_language_model(actor)
    reference = networks.language_model(actor) if config.training.kl_weight else None
    solutions = solution_examples(Actor(model, prompt), tested) if config.training.ce_weight else []
    built, drawing = online.build(model, config, seed=seed)
    drawer = Actor(drawing, prompt, config.sampling)
    with open_executor(execution) as executor:
        draws = online.Draws(built, drawer, tested, executor, config, solutions=solutions, seed=seed)
        judged = [p for p in validation or () if p.hidden_tests]
        steps = online.learn(
            draws,
            config,
            reference=reference,
            checkpoint_dir=work.checkpoints,
            validate=(lambda: pass_rate(built, drawer, judged, executor, seed=seed)) if judged else None,
        )
        title = f"online learning on {len(tested)} problems"
        facts = work.log_steps(steps, title, total=config.training.optim.num_steps)
    last = draws.memory.metrics
    (built.averaged or model).save(work.folder / "model")
    kept = ("pass_rate", "mixed_share", "compile_error_rate", "unique_share", "mean_tokens", "cut_share")
    facts |= {"num_draws": draws.memory.num_draws, "num_drawn_tokens": draws.memory.num_drawn_tokens}
    return facts | {name: round(last[name], 4) for name in kept if name in last}


def pass_rate(
    model: ActorCritic,
    actor: Actor,
    problems: Sequence[LabelledProblem],
    executor: JobRunner,
    *,
    seed: int,
    num_samples: int = 4,
) -> dict[str, float]:
    """Return the share of right programs among some drawn for validation problems by the weights as they are now."""
    model.refresh(actor.model)
    actor.engine.refresh()
    chosen = actor.sample([p.problem for p in problems], num_samples=num_samples, seed=derive_seed(seed, "validation"))
    jobs = [job_of(p, program.code) for p, programs in zip(problems, chosen, strict=True) for program in programs]
    outcomes = [v.outcome for v in executor.run(jobs) if v.outcome is not None]
    return {"pass_rate": fmean([u is Outcome.PASSED_TEST for u in outcomes] or [0.0])}
