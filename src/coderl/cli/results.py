"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import records
from coderl.evaluation.pass_at_k import Summary, summarise, with_ranked
from coderl.stages import report as summary
from coderl.stages.rank import rankings
from coderl.stages.stage import command
from coderl.types import InputError

Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@command("evaluate")
def evaluate(
    *,
    programs: Path,
    verdicts: Path,
    problems: str,
    split: str | None = None,
    limit: int | None = None,
    examples: Path | None = None,
    k: Annotated[tuple[Positive, ...], Parameter(name=("-k", "--k"), consume_multiple=True)] = (1, 5),
    n: Positive = 1,
    fallback: Literal["zero", "draw_from_all"] = "zero",
    ranking: Path | None = None,
    against: Literal["paper"] | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Print pass@k (and n@k, given the example tests' verdicts) by difficulty, with standard errors.

        coderl evaluate --programs runs/x/sample --verdicts runs/x/execute --problems data/mbpp/mbpp.jsonl -k 1 5
        coderl evaluate ... --split test -k 80 1000 --against paper

    Args:
        programs: The folder of a `sample` or `critic-sample` stage.
        verdicts: The folder of its `execute` stage on the hidden tests.
        problems: All problems that count; one without verdicts counts 0 and is reported.
        split: Only this split of the problems.
        limit: Only the first so many problems.
        examples: The folder of its `execute --tests example` stage.
        k: How many samples, one or more numbers; none may be more than a problem has.
        n: How many of the samples that pass the example tests are submitted.
        fallback: What n@k counts where none passes the example tests.
        ranking: The folder of its `rank` stage: also print n@k of the best ranked, in place of any that pass.
        against: `paper`: also print the paper's figures by the same metrics (APPS and MBPP).
        json_file: Also write the scores here.
    """
    asked = data.read(problems, split=split, limit=limit)
    counts = summary.problem_counts(programs, verdicts, asked, examples=examples)
    most = max((c.num_samples for c in counts), default=0)
    if max(k) > most > 0:
        raise InputError(f"k={max(k)}: no problem has more than {most} programs with a verdict; draw more, or lower -k")
    pairs = [(n, each) for each in k] if examples is not None else []
    found = summarise(counts, list(k), pairs, fallback=fallback)
    if ranking is not None:
        difficulties = {c.problem_id: c.difficulty for c in counts}
        order = rankings(ranking, verdicts, list(difficulties))
        for each in k:
            found = with_ranked(found, order, difficulties, n, each, fallback=fallback)
    Console().print(_score_table(found))
    for text, number in (
        ("problems without hidden tests, counted 0", found.num_untested),
        ("problems without a verdict, counted 0", found.num_missing),
        ("problems with fewer programs than the largest k", found.num_short),
        ("programs left out because the sandbox failed", found.num_masked),
    ):
        if number:
            print(f"{number} {text}")
    if against == "paper":
        _print_paper(found)
    if json_file:
        records.write_json(json_file, records.plain(found))


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
    difficulties = list(dict.fromkeys(d for values in found.scores.values() for d in values))
    table = Table("metric, %", *difficulties)
    for metric, values in found.scores.items():
        cells = [
            f"{100 * e.mean:.2f}" + (f" ± {100 * e.standard_error:.2f}" if e.standard_error is not None else "")
            for e in (values[d] for d in difficulties)
        ]
        table.add_row(metric, *cells)
    return table
