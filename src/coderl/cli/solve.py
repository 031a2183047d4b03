"""The command that solves a person's problems."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from coderl import problems as data
from coderl import records
from coderl.critic_sampling.settings import BranchConfig
from coderl.engines.settings import SamplingConfig
from coderl.execution import ExecutionConfig
from coderl.prompts import PromptConfig
from coderl.stages import solve as solving
from coderl.stages.stage import command
from coderl.types import InputError


@command("solve")
def solve(
    problem: str,
    *,
    model: str,
    repair_model: Path | None = None,
    problem_id: str | None = None,
    limit: int | None = None,
    branch: BranchConfig = BranchConfig(),
    prompt: PromptConfig | None = None,
    sampling: SamplingConfig | None = None,
    execution: ExecutionConfig = ExecutionConfig(),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Search for a program that passes a problem's example tests; status 1 where none does.

        coderl solve data/APPS/test/0000 --model models/codet5-large-ntp-py
        coderl solve runs/demo/problems/test.jsonl --problem-id test-0003 --model runs/demo/round-01/actor/model
        coderl solve runs/demo/problems/test.jsonl --limit 50 --model runs/demo/round-01/actor/model --json solved.json

    The search begins with the greedy program and exchanges the tokens of which the model was least sure. One problem is
    shown as it goes, then the program that would be submitted and why; of several there is a table.

    Args:
        problem: A problem's folder, or a file or folder of problems; only their example tests are used.
        model: A model folder or hub name. One of a run is asked and draws as that run says.
        repair_model: A repair model's folder: what is tried when there are no branches left.
        problem_id: Only this problem.
        limit: Only the first so many problems.
        branch: How the search goes on.
        prompt: How the model is asked; by default as its run does.
        sampling: The longest program, and how many are written side by side; by default as its run says.
        json_file: Also write what was found here.
    """
    found = [p.problem for p in data.load(problem) if problem_id in (None, p.problem.problem_id)][:limit]
    if not found:
        raise InputError(f"{problem}: no problem" + (f" {problem_id!r}" if problem_id else ""))
    from coderl.stages import networks

    own_prompt, own_sampling = solving.settings_of(model)
    how = (prompt or own_prompt, sampling or own_sampling)
    actor = networks.actor(model, *how)
    repairer = networks.actor(repair_model, *how) if repair_model else None
    console = Console(stderr=True, highlight=False)
    with Live(console=console, transient=True) if len(found) == 1 and console.is_terminal else nullcontext() as live:
        watch = None if live is None else lambda results: live.update(solving.view(found[0], results[0]))
        solved = solving.solve(found, actor, repairer, branch=branch, execution=execution, watch=watch)
    if len(solved) == 1:
        print(solving.text_of(solved[0]))
    else:
        Console().print(solving.table_of(solved))
    if json_file:
        records.write_json(json_file, records.plain(solved))
    sys.exit(0 if all(each.passes for each in solved) else 1)
