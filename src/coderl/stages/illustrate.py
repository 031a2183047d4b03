"""The stage that lets the critic read some judged programs, for people: a table of `Illustration`s for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from coderl import records
from coderl.critic.model import Critic
from coderl.critic_sampling.models import PrefixScorer
from coderl.evaluation.illustrations import Illustration, crashes, illustrate, one_of_each
from coderl.prompts import PromptConfig
from coderl.stages.console import Reporter
from coderl.stages.stages import hash_bare, hash_model, run_stage
from coderl.stages.tables import judged, programs_of, verdicts_of
from coderl.types import Problem

CHOICES = {"outcomes": one_of_each, "crashes": crashes}


def illustrate_programs(
    out: Path, *, critic: Path, programs: Path, verdicts: Path, problems: Sequence[Problem], prompt: PromptConfig,
    choose: Literal["outcomes", "crashes"], where: str, reporter: Reporter,
) -> None:  # fmt: skip
    """Write `illustrations`: some of the programs that a stage wrote, with the critic's value of each token."""

    def work(folder: Path) -> dict[str, Any]:
        by_id = {p.problem_id: p for p in problems}
        pairs = judged(programs_of(programs), verdicts_of(verdicts))
        chosen = CHOICES[choose]((by_id[p.problem_id], p, v.result()) for p, v in pairs)
        rows = []
        if chosen:
            model = Critic.load(critic)
            scores = PrefixScorer(model, prompt).score([(problem, program) for problem, program, _ in chosen])
            rows = [
                illustrate(one, score.prefix_values, score.program_value, model.model, where)
                for one, score in zip(chosen, scores, strict=True)
            ]
        return {"num_programs": records.PartedTable(folder / "illustrations", Illustration).write(0, rows)}

    settings = {"prompt": prompt.model_dump(mode="json"), "choose": choose, "where": where}
    inputs = {
        "critic": hash_model(critic),
        "programs": records.hash_path(programs / "programs"),
        "verdicts": records.hash_path(verdicts / "verdicts"),
        "problems": hash_bare(problems),
    }
    run_stage(out, reporter, config=settings, inputs=inputs, work=work)
