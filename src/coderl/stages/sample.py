"""The stage that draws programs."""

from __future__ import annotations

from coderl import tables
from coderl.engines.settings import SampleConfig
from coderl.prompts import PromptConfig
from coderl.stages import networks
from coderl.stages.stage import Facts, ModelSource, Shown, Work, chunks, derive_seed, stage
from coderl.types import Program


@stage(shared="parts")
def sample(
    work: Work,
    *,
    actor: ModelSource,
    problems: Shown,
    config: SampleConfig = SampleConfig(),
    prompt: PromptConfig = PromptConfig(),
    seed: int = 0,
    greedy: bool = True,
) -> Facts:
    r"""Draw programs for problems.

        coderl sample --actor runs/mbpp/warm-start/model --problems data/mbpp/mbpp.jsonl --split train \
            --out runs/mbpp/sample --num-samples 20 --sampling.temperature 1.2

    The programs go to OUT/programs. A killed command continues.

    Args:
        seed: Decides what is drawn.
        greedy: Also write the greedy program of each problem, the baseline of its returns.
    """
    table = tables.PartedTable(work.folder / "programs", Program)
    title = f"drawing {config.num_samples} programs for each of {len(problems)} problems"
    for index, chunk in work.parts(table, chunks(problems, config.chunk_size), title):
        actor_ = networks.actor(actor, prompt, config.sampling)
        drawn = actor_.sample(chunk, num_samples=config.num_samples, seed=derive_seed(seed, index))
        rows = [program for programs in drawn for program in programs]
        table.write(index, rows + (actor_.greedy(chunk) if greedy else []))
    return work.facts(lambda: _facts(table) if problems else {"num_programs": 0, "num_tokens": 0})


def _facts(table: tables.PartedTable) -> Facts:
    batches = tables.read_columns(table.folder, Program, ["tokens"])
    num_tokens = sum(len(batch["tokens"].flatten()) for batch in batches)
    return {"num_programs": tables.num_rows(table.folder), "num_tokens": num_tokens}
