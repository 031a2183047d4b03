"""docs/paper_map.md and results.md name nothing that is not there, and leave no row of their tables empty."""

import importlib
import re
from pathlib import Path

import pytest

from coderl.cli import build, main
from coderl.evaluation import paper

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ((ROOT / "docs" / name).read_text("utf-8") for name in ("paper_map.md", "results.md"))


def rows_of(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


PROCESSES = rows_of("Processes of the original")
TABLES = [rows_of("Equations"), rows_of("Benchmarks"), PROCESSES]
TESTS = sorted({name for rows in TABLES for row in rows for name in re.findall(r"`(tests/[^`]+)`", row[-1])})
COMMANDS = sorted(set(re.findall(r"`coderl ([^`]+)`", PAGE + RESULTS)))
MODULES = sorted(
    {name for rows in TABLES[:2] for row in rows for name in re.findall(r"`([a-z_0-9]+(?:\.[A-Za-z_0-9]+)+)`", row[2])}
)
PLACES = """
generate.py test_one_solution.py extract_example_test.ipynb train.py testing_util.py trainer_rl.py
apps_dataset.py datasets/utils.py reindent.py generate.sh run_unit_tests.sh train_actor.sh train_critic.sh
generate_critic_scores.sh train_actor_rl.sh train_actor_rl_deepspeed.sh deepspeed_configs.json generate_configs.py
unit_test_configs.py train_configs.py train_critic_configs.py transformers/ gen_solutions.json baseline_solutions.json
gen_solutions_critic_scores.pkl codes/ID.json test_results/ID.pkl run_gen.py run_exp.py
"""


def test_no_row_is_empty_and_each_names_a_test():
    assert len(PROCESSES) > 30
    for rows in TABLES:
        for row in rows:
            assert all(row), row
            assert "`tests/" in row[-1], row


def test_the_results_are_the_papers():
    """The published figures of the page, against the file that `--against paper` prints from."""
    (headline,) = {f.model for f in paper.figures("apps") if "critic sampling" in f.model and f.table == "1a, 1b"}
    of = {(f.model, f.metric): f.percent["all"] for kind in ("mbpp", "apps") for f in paper.figures(kind)}
    rows = [
        [(headline, metric) for metric in ("pass@1", "pass@5", "pass@1000")],
        [(headline, metric) for metric in ("1@1000", "5@1000")],
        [("CodeRL's checkpoint, measured by RLTF's authors", metric) for metric in ("pass@1", "pass@5", "pass@1000")],
        [("CodeT5 770M (NTP), fine-tuned", metric) for metric in ("pass@80", "pass@1000")],
        [("CodeRL + CodeT5 770M of APPS, zero-shot", metric) for metric in ("pass@80", "pass@1000")],
        [(f"CodeRL, {how}", "1@1000") for how in ("no critic sampling", "refine and repair, M = 1")],
        [(f"CodeRL, {how}", "pass@1000") for how in ("no critic sampling", "refine and repair, M = 1")],
        [
            (model, "pass@1")
            for model in ("CodeT5 770M, warm start (beam)", "CodeRL: baseline and critic, CE + RL (beam)")
        ],
        [("CodeRL: baseline and critic, CE + RL (beam)", "pass@1"), ("baseline, no critic (beam)", "pass@1")],
    ]
    for row in rows:
        values = [of[key] for key in row]
        decimals = 1 if "@80" in row[0][1] else 2
        written = [f"{value:.{decimals}f}" for value in values]
        assert ", ".join(written) in RESULTS or " | ".join(written) in RESULTS, written


@pytest.mark.parametrize("place", PLACES.split())
def test_every_file_of_the_original_has_its_row(place):
    assert any(place in row[0] for row in PROCESSES)


@pytest.mark.parametrize("name", TESTS)
def test_every_named_test_is_there(name):
    file, _, function = name.partition("::")
    assert (ROOT / file).exists()
    if function:
        assert f"def {function}(" in (ROOT / file).read_text("utf-8")


def name_of(command: str) -> tuple[str, ...]:
    """`problems overlap A B` is a command of two words, others are of one."""
    words = command.split()
    return tuple(words[: 2 if words[0] == "problems" else 1])


@pytest.mark.parametrize("name", sorted(set(map(name_of, COMMANDS))))
def test_every_named_command_is_there_with_its_flags(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert tuple(build(name).parse_commands(name)[0]) == name
    main([*name, "--help"])
    printed = capsys.readouterr().out
    for command in COMMANDS:
        if name_of(command) == name:
            flags = re.findall(r"--[a-z-]+(?:\.[a-z-]+)*", command)
            assert [flag for flag in flags if f"{flag} " not in printed] == []


@pytest.mark.parametrize("name", MODULES)
def test_every_named_function_is_there(name):
    if name.endswith(".py"):
        return
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["coderl", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return
    pytest.fail(f"no {name}")
