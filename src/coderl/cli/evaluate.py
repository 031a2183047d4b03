"""Commands that measure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import zip_longest
from operator import add
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records
from coderl.critic_sampling.ranking import rankings
from coderl.evaluation.pass_at_k import ProblemCounts, Summary, columns_of, percent, summarise
from coderl.stages.evaluate import problem_counts
from coderl.stages.stage import command
from coderl.types import InputError, LabelledProblem

Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@command("evaluate")
def evaluate(
    *,
    programs: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    verdicts: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    problems: str,
    split: str | None = None,
    limit: int | None = None,
    examples: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    k: Annotated[tuple[Positive, ...], Parameter(name=("-k", "--k"), consume_multiple=True)] = (1, 5),
    n: Positive = 1,
    fallback: Literal["zero", "draw_from_all"] = "zero",
    ranking: Path | None = None,
    against: Literal["paper"] | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Print pass@k (and n@k, given the example tests' verdicts) by difficulty, with 95% intervals.

        coderl evaluate --programs runs/mbpp/sample --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl -k 1 5
        coderl evaluate --programs runs/apps/sample --verdicts runs/apps/execute --problems data/APPS/test \
            -k 1 5 1000 --against paper

    Args:
        programs: The folder of a `sample` or `critic-sample` stage; of several, all programs count together.
        verdicts: The folder of its `execute` stage on the hidden tests; of several, in the same order.
        problems: All problems that count; one without verdicts counts 0 and is reported.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        examples: The folder of its `execute --tests example` stage; of several, in the same order.
        k: How many samples, one or more numbers; one that some problem does not hold is left out, and a line says so.
        n: How many of the samples that pass the example tests are submitted.
        fallback: What n@k counts where none passes the example tests.
        ranking: The folder of its `rank` stage: also print n@k of the best ranked, in place of any that pass.
        against: `paper`: also print the paper's figures by the same metrics (APPS and MBPP).
        json_file: Also write the scores here.
    """
    asked = data.read(problems, split=split, limit=limit)
    counts = _counts(programs, verdicts, examples, list(asked))
    if ranking is not None and len(programs) > 1:
        raise InputError(f"--ranking {ranking}: it orders the programs of one stage, and {len(programs)} are given")
    order = None if ranking is None else rankings(ranking, verdicts[0], [c.problem_id for c in counts])
    pairs = [(n, each) for each in k if n <= each] if examples or ranking else []
    found = summarise(counts, list(k), pairs, fallback=fallback, rankings=order)
    if not found.scores:
        raise InputError("; ".join(found.unreached))
    Console().print(_score_table(found))
    for line in found.remarks():
        print(line)
    if against == "paper":
        _print_paper(found)
    if json_file:
        records.write_json(json_file, records.plain(found))


def _counts(
    programs: Sequence[Path], verdicts: Sequence[Path], examples: Sequence[Path], problems: list[LabelledProblem]
) -> list[ProblemCounts]:
    """Return how the programs of all stages fared together, problem by problem."""
    for name, given in (("verdicts", verdicts), ("examples", examples)):
        if given and len(given) != len(programs):
            raise InputError(f"--{name}: {len(given)} folders, expected one for each of the {len(programs)} --programs")
    stages = zip_longest(programs, verdicts, examples)
    runs = [problem_counts(drawn, judged, problems, examples=shown) for drawn, judged, shown in stages]
    return [reduce(add, rows) for rows in zip(*runs, strict=True)]


def _print_paper(found: Summary) -> None:
    """Print a run's scores among those that the paper reports by the same metrics."""
    from coderl.evaluation import paper

    by_difficulty = next(iter(found.scores.values()), {})
    ids = next(iter(found.by_problem.values()), {})
    benchmark = paper.benchmark_of(ids, by_difficulty)
    columns = paper.DIFFICULTIES[benchmark]
    for metric, values in found.scores.items():
        table = Table(f"{metric}, %", "table")
        for name in columns:
            table.add_column(name, no_wrap=True, justify="right")
        for figure in paper.figures(benchmark, [metric]):
            table.add_row(figure.model, figure.table, *(f"{figure.percent[c]:.2f}" for c in columns))
        own = [f"{100 * values[c].mean:.2f}" if c in values else "-" for c in columns]
        table.add_row("this run", "", *own, style="bold")
        Console().print(table)
    if found.num_problems != paper.NUM_PROBLEMS[benchmark]:
        print(f"not comparable: {found.num_problems} problems, the paper's are {paper.NUM_PROBLEMS[benchmark]}")


def _score_table(found: Summary) -> Table:
    columns = columns_of(name for values in found.scores.values() for name in values)
    table = Table("metric, %", *columns)
    for metric, values in found.scores.items():
        table.add_row(metric, *(percent(values[name], 2) for name in columns))
    return table
