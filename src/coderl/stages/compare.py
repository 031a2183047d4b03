"""The stages that compare critic sampling with plain sampling of as many tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coderl import records
from coderl.critic_sampling.candidates import CandidateRow
from coderl.engines.settings import SampleConfig
from coderl.recipe import RunConfig
from coderl.stages import stages
from coderl.stages.console import Reporter
from coderl.stages.illustrate import illustrate_programs
from coderl.stages.rank import rank_programs
from coderl.stages.search_report import FOLDER, NAMES
from coderl.stages.tables import programs_of
from coderl.types import LabelledProblem, Program, ProgramKind

MORE_SAMPLES = 1.5
"""Plain samples drawn beside those of the first round, in first rounds: a search costs two to three."""
NUM_INPUTS = 8


def compare(
    config: RunConfig, run_dir: Path, problems: Sequence[LabelledProblem], actor: Path | str, reporter: Reporter
) -> None:
    """Judge and rank all candidates of the run's search, and plain samples of about as many tokens."""
    settings = config.evaluation
    first = f"t{settings.temperatures[0]:g}"
    drawn = settings.sampling.model_copy(update={"temperature": settings.temperatures[0]})
    more = SampleConfig(num_samples=math.ceil(MORE_SAMPLES * settings.num_samples), sampling=drawn)
    out, bare = run_dir / FOLDER, [p.problem for p in problems]
    stages.sample(out / "more", actor=actor, problems=bare, config=more, prompt=config.prompt, seed=config.seed + 3000,
                  greedy=False, reporter=reporter)  # fmt: skip
    search = run_dir / "evaluate" / "actor_critic_cs" / "sample"
    before = run_dir / "evaluate" / "actor_critic" / first / "sample"
    _gather(out / "plain" / "sample", (before, out / "more"), reporter)
    _gather(out / "searched" / "sample", (search,), reporter)
    for name in NAMES:
        stages.execute(out / name / "execute", programs=out / name / "sample", problems=problems,
                       config=config.execution, reporter=reporter)  # fmt: skip
        rank_programs(
            out / name / "rank", programs=out / name / "sample", problems=bare,
            critic=run_dir / "binary-critic" / "model", num_inputs=NUM_INPUTS, execution=config.execution,
            prompt=config.prompt, seed=config.seed, reporter=reporter,
        )  # fmt: skip
    searched = out / "searched"
    illustrate_programs(
        searched / "illustrate", critic=run_dir / "binary-critic" / "model", programs=searched / "sample",
        verdicts=searched / "execute", problems=bare, prompt=config.prompt, choose="crashes",
        where="critic sampling, binary critic", reporter=reporter,
    )  # fmt: skip


def _gather(out: Path, sources: Sequence[Path], reporter: Reporter) -> None:
    """Write the samples of some stages as one, or all candidates of a search."""
    tables = [s / ("candidates" if (s / "candidates").exists() else "programs") for s in sources]

    def work(folder: Path) -> dict[str, Any]:
        rows: list[Program] = []
        if tables[0].name == "candidates":
            found = records.read_table(tables[0], CandidateRow)
            rows = [Program(r.problem_id, r.index, r.code, r.kind, r.tokens) for r in found]
        else:
            counts: dict[str, int] = {}
            for program in (p for source in sources for p in programs_of(source) if p.kind is ProgramKind.SAMPLE):
                index = counts.get(program.problem_id, 0)
                rows.append(Program(program.problem_id, index, program.code, program.kind, program.tokens))
                counts[program.problem_id] = index + 1
        return {"num_programs": records.PartedTable(folder / "programs", Program).write(0, rows)}

    inputs = {f"programs_{i}": records.hash_path(table) for i, table in enumerate(tables)}
    stages.run_stage(out, reporter, config={}, inputs=inputs, work=work)
