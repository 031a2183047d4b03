"""The stage that lets the critic read some judged programs, for people."""

from __future__ import annotations

from typing import Literal

from coderl import tables
from coderl.critic_sampling.models import PrefixScorer
from coderl.evaluation import illustrations
from coderl.evaluation.illustrations import Illustration, crashes, one_of_each
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.rollouts import rollouts_of
from coderl.stages.stage import Facts, ModelFolder, Programs, Shown, Verdicts, Work, stage

CHOICES = {"outcomes": one_of_each, "crashes": crashes}


@stage
def illustrate(
    work: Work,
    *,
    critic: ModelFolder,
    programs: Programs,
    verdicts: Verdicts,
    problems: Shown,
    choose: Literal["outcomes", "crashes"] = "outcomes",
    where: str = "",
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Write some judged programs as people read them, with the critic's value of each token, for the report.

        coderl illustrate --critic runs/demo/round-01/critic/model --programs runs/demo/round-01/sample \
            --verdicts runs/demo/round-01/execute --problems runs/demo/problems/train.jsonl --out runs/shown

    They go to OUT/illustrations.

    Args:
        choose: One program of each outcome and difficulty, or programs that crash on a known line.
        where: What the report calls their origin.
    """
    by_id = {p.problem_id: p for p in problems}
    known = [r for r in rollouts_of(programs, verdicts) if r.program.problem_id in by_id]
    chosen = CHOICES[choose]((by_id[r.program.problem_id], r.program, r.verdict) for r in known)
    rows = []
    if chosen:
        model = networks.critic(critic)
        scores = PrefixScorer(model, prompt).score([(problem, program) for problem, program, _ in chosen])
        rows = [
            illustrations.illustrate(one, score.prefix_values, score.program_value, model.model, where)
            for one, score in zip(chosen, scores, strict=True)
        ]
    return {"num_programs": tables.PartedTable(work.folder / "illustrations", Illustration).write(0, rows)}
