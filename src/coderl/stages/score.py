"""The stage in which the critic scores programs."""

from __future__ import annotations

from pathlib import Path

from coderl import tables
from coderl.critic.values import values
from coderl.engines.actor import prompt_tokens
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.rollouts import SCORED, verdicts_of
from coderl.stages.stage import Facts, ModelFolder, Programs, Shown, Verdicts, Work, stage
from coderl.types import Program


@stage(shared="parts")
def score(
    work: Work,
    *,
    critic: ModelFolder,
    programs: Programs,
    verdicts: Verdicts,
    problems: Shown,
    prompt: PromptConfig = PromptConfig(),
) -> Facts:
    r"""Write the critic's probabilities of each outcome for every judged program, and after each of its tokens.

        coderl score --critic runs/mbpp/critic/model --programs runs/mbpp/sample --verdicts runs/mbpp/execute \
            --problems data/mbpp/mbpp.jsonl --out runs/mbpp/score

    The scores go to OUT/scores. A killed command continues.

    Source: CodeRL Eq. 10-12.
    """
    by_id = {p.problem_id: p for p in problems}
    judged = {key for key, verdict in verdicts_of(verdicts).items() if verdict.outcome is not None}
    table = tables.PartedTable(work.folder / "scores", SCORED)
    parts = tables.parts_of(programs / "programs")
    for index, part in work.parts(table, parts, "scoring"):
        chosen = [p for p in _programs_in(part) if p.key in judged and p.tokens]
        model = networks.critic(critic)
        prompts = {i: prompt_tokens(model.model, by_id[i], prompt) for i in {p.problem_id for p in chosen}}
        found = values(model, [prompts[p.problem_id] for p in chosen], [p.tokens for p in chosen], batch_size=128)
        table.write(index, ((p.key, one) for p, one in zip(chosen, found, strict=True)))
    return work.facts(lambda: {"num_programs": tables.num_rows(table.folder) if parts else 0})


def _programs_in(part: Path) -> list[Program]:
    return list(tables.read_table(part, Program))
