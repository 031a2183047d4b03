"""Commands for whole runs."""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from coderl import problems as data
from coderl import processes, records
from coderl.evaluation import paper
from coderl.recipe import RECIPE, RunConfig, load_recipe
from coderl.stages import cost, verify
from coderl.stages import report as summary
from coderl.stages.console import Reporter
from coderl.stages.split_problems import read_splits
from coderl.stages.stage import Backend, Cluster, cluster_of, command
from coderl.types import InputError


@command("run")
def run(
    recipe: Path,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    run_dir: Path | None = None,
    backend: Backend = "local",
    address: str | None = None,
    dry_run: bool = False,
    hardware: str = "CPU core",
    num_weights: float | None = None,
    quiet: bool = False,
) -> None:
    """Run all stages of a recipe, or what is left of them.

    A killed run continues with the same command. Any setting can be given as a dotted flag. Under `torchrun` or
    `accelerate launch` the processes share each stage.

        coderl run recipes/mbpp_smollm2.toml
        coderl run recipes/mbpp_smollm2.toml --seed 1 --warm-start.optim.learning-rate 1e-3 --run-dir runs/seed1
        coderl run recipes/mbpp_smollm2.toml --dry-run

    Args:
        recipe: A TOML file of settings; see recipes/.
        overrides: Dotted settings, such as `--rounds.num-rounds 3`.
        run_dir: Where the run is kept; runs/NAME by default.
        backend: Where the parts of stages are done: here, or on the nodes of a Ray cluster.
        address: Of the cluster; by default one is started here.
        dry_run: Print the resolved settings as JSON and stop; on stderr, those that the paper states, beside its, and
            what each stage will cost: programs, tokens, hours and bytes (docs/scale.md).
        hardware: Of which the dry run counts hours, by measured rates.
        num_weights: Of the actor, for the dry run, where its name does not say.
        quiet: Print no progress.
    """
    config = load_recipe(recipe, overrides)
    if dry_run:
        settings = config.model_dump(mode="json")
        print(json.dumps(settings, indent=2))
        Console(stderr=True).print(_beside_paper(settings))
        _print_cost(config, hardware, num_weights)
        return
    _run(config, run_dir, quiet, cluster_of(backend, address))


def _print_cost(config: RunConfig, hardware: str, num_weights: float | None) -> None:
    """Print on stderr what each stage of a recipe will cost."""
    rates = cost.Rates.load()
    if hardware not in rates.hardware:
        raise InputError(f"--hardware {hardware!r}: rates were measured of {', '.join(rates.hardware)}")
    try:
        weights = num_weights or cost.num_weights_of(config)
        if weights is None:
            raise InputError(
                f"how many weights {config.actor.init} has is not known: give --num-weights, such as 135e6"
            )
        lengths = cost.lengths_of(config, read_splits(config.problems), rates)
    except InputError as error:  # the settings are printed all the same
        return Console(stderr=True).print(f"coderl: no costs: {error}", markup=False, soft_wrap=True)
    found = cost.costs(cost.amounts(config, lengths, weights, rates), rates, hardware, weights)
    table = Table(caption=f"{weights:,.0f} weights; a prompt of {lengths.prompt:.0f} tokens, a program of "
                  f"{lengths.program:.0f}; what is not known before is assumed (docs/scale.md)")  # fmt: skip
    headings = ("programs", "tokens drawn", "trained on", "read", "runs", f"hours of a {hardware}", "core-hours", "GB")
    for heading in ("stage", *headings):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for row in cost.lines(found):
        table.add_row(*row)
    return Console(stderr=True).print(table)


def _beside_paper(settings: dict[str, Any]) -> Table:
    """Return the settings that the paper or the original's scripts state, beside theirs; `≠` where they differ."""
    table = Table()
    for heading in ("setting", "here", "paper, APPS", "paper, MBPP", "original's scripts", "they say so in"):
        table.add_column(heading, overflow="fold")
    for setting in paper.settings():
        own: Any = settings
        for part in setting.name.split("."):
            own = None if own is None else own[part]
        theirs = [setting.values.get(column) for column in ("apps", "mbpp", "scripts")]
        cells = ["" if value is None else str(value) if value == own else f"≠ {value}" for value in theirs]
        table.add_row(setting.name, "none" if own is None else str(own), *cells, setting.where)
    return table


@command("demo")
def demo(
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)], run_dir: Path | None = None, quiet: bool = False
) -> None:
    """Train a small code model from its unit tests on this machine, in minutes, without a download.

        coderl demo
        coderl demo --seed 1 --run-dir runs/demo-1

    Args:
        overrides: Dotted settings, such as `--rounds.num-rounds 3`.
        run_dir: Where the run is kept; runs/demo by default.
        quiet: Print no progress.
    """
    with resources.as_file(resources.files("coderl") / "demo.toml") as recipe:
        config = load_recipe(recipe, overrides)
    _run(config, run_dir, quiet)


def _run(config: RunConfig, run_dir: Path | None, quiet: bool, cluster: Cluster | None = None) -> None:
    from coderl.stages.run import run as run_all

    report_page = run_all(config, run_dir or Path("runs") / config.name, Reporter(quiet=quiet), cluster)
    if processes.environment_rank() == 0:
        print(report_page)


@command("report")
def report(run_dir: Path) -> None:
    """Write `report.html` and `summary.json` of a run again from its stages.

        coderl report runs/demo

    Args:
        run_dir: The directory of a finished `coderl run`.
    """
    config = RunConfig.model_validate(records.read_json(run_dir / RECIPE))
    test = data.load(run_dir / "problems" / "test.jsonl")
    print(summary.write_report(run_dir, config, test, Reporter()))


@command("verify-resume")
def verify_resume(
    recipe: Path | None = None,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    num_kills: int = 3,
    kill_seed: int = 0,
    work_dir: Path | None = None,
) -> None:
    """Kill a small run at random steps, resume it, and compare it bit for bit with one that was left alone.

        coderl verify-resume
        coderl verify-resume recipes/mbpp_smollm2.toml --num-kills 5

    Ends with status 1 where a weight or a row of a table differs.

    Args:
        recipe: Bounded to a few problems and updates; a tiny one by default.
        overrides: Dotted settings, such as `--rounds.num-rounds 1`.
        num_kills: How often the run is killed (SIGKILL).
        kill_seed: Decides when.
        work_dir: Where the two runs are kept; a temporary folder by default, which is removed.
    """
    packaged = resources.as_file(resources.files("coderl") / "verify.toml")
    with packaged as default, tempfile.TemporaryDirectory(prefix="coderl-verify-") as temporary:
        found = verify.verify_resume(
            recipe or default,
            overrides,
            work_dir or Path(temporary),
            num_kills=num_kills,
            seed=kill_seed,
            reporter=Reporter(),
        )
    table = Table("stage", "files", "differing")
    for row in found:
        table.add_row(row.stage, str(row.num_files), ", ".join(row.differing) or "none")
    Console().print(table)
    sys.exit(1 if any(row.differing for row in found) or not found else 0)
