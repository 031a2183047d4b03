"""The report of a run directory written by hand: what it headlines, warns of and leaves out, without weights."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from coderl import records, tables
from coderl.cli import main
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.evaluation.illustrations import Illustration
from coderl.problems import jsonl
from coderl.recipe import RunConfig
from coderl.stages.console import Reporter
from coderl.stages.report import write_report
from coderl.types import LabelledProblem, Outcome, Problem, Program, ProgramKey, ProgramKind, StdinTest, Verdict

PASSED, BROKEN = Outcome.PASSED_TEST, Outcome.COMPILE_ERROR
CONFIG = RunConfig.model_validate({"name": "tiny", "evaluation": {"ks": [1, 3], "temperatures": [0.6]}})
PROBLEMS = [LabelledProblem(Problem(name, "x"), hidden_tests=(StdinTest("", "1"),)) for name in ("a", "b")]


def write_stage(folder, facts, **files):
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / records.MANIFEST, {"facts": {"wall_s": 1.0, "cpu_s": 2.0, **facts}})
    for name, value in files.items():
        records.write_json(folder / f"{name}.json", value)


def write_programs(folder, outcomes):
    """Write the samples of each problem, with a verdict each, and a greedy program that is right."""
    programs = [
        Program(problem, index, "print(1)")
        for problem, of_problem in outcomes.items()
        for index in range(len(of_problem))
    ]
    rows = [(p.key, Verdict(outcomes[p.problem_id][p.index], isolation="strong")) for p in programs]
    for problem in outcomes:
        greedy = Program(problem, 0, "print(1)", ProgramKind.BASELINE)
        programs.append(greedy)
        rows.append((greedy.key, Verdict(PASSED, isolation="strong")))
    tables.PartedTable(folder / "sample" / "programs", Program).write(0, programs)
    tables.PartedTable(folder / "execute" / "verdicts", JUDGED, without=CLOCKS).write(0, rows)
    counts = {u.name.lower(): sum(verdict.outcome is u for _, verdict in rows) for u in Outcome}
    write_stage(folder / "execute", {"outcomes": {**counts, "sandbox_fault": 0}})


@pytest.fixture
def run_dir(tmp_path):
    """Two problems: the warm start is right in 2 of 4 samples, the run's actor in 3; no round was judged."""
    for name, right in (("warm_start", 1), ("actor_critic", 2)):
        outcomes = {"a": [PASSED] * right + [BROKEN] * (2 - right), "b": [PASSED, BROKEN]}
        write_programs(tmp_path / "evaluate" / name / "t0.6", outcomes)
    jsonl.write(tmp_path / "problems" / "test.jsonl", PROBLEMS)
    records.write_json(tmp_path / "recipe.json", CONFIG.model_dump(mode="json"))
    return tmp_path


def report_of(run_dir):
    page = write_report(run_dir, CONFIG, PROBLEMS, Reporter(quiet=True)).read_text()
    return page, json.loads((run_dir / "summary.json").read_text())


def test_a_kept_warm_start_is_not_called_reinforcement_learning(run_dir):
    rates = {"warm-start": 0.625, "round-00": 0.25}
    records.write_json(run_dir / "selection.json", {"pass_rates": rates, "kept": "warm-start"})
    page, summary = report_of(run_dir)
    assert "actor-critic RL" not in page
    assert page.count("Reinforcement learning was rejected") == 2  # headline and abstract
    assert summary["selection"] == {"kept": "warm-start", "pass_rates": rates, "rejected": ["round-00"]}
    records.write_json(run_dir / "selection.json", {"pass_rates": rates, "kept": "round-00"})
    page, summary = report_of(run_dir)
    assert "actor-critic RL" in page
    assert summary["selection"]["rejected"] == []


def test_intervals_are_in_the_summary_and_no_mean_is_certain(run_dir):
    """Both greedy programs are right: Wilson of 2 of 2 reaches down to 2 / (2 + 3.8415) = 0.342."""
    page, summary = report_of(run_dir)
    assert summary["warm_start"]["greedy"] == 1.0
    assert "100.0 (34.2 to 100.0)" in page
    low, high = (summary["actor_critic"][f"pass_at_1_{end}"] for end in ("low", "high"))
    assert low < summary["actor_critic"]["pass_at_1"] == 0.75 < high
    assert "unknown" not in page


def test_a_k_that_is_not_reached_is_a_warning_and_no_figure(run_dir):
    page, summary = report_of(run_dir)
    line = "k=3 is left out: 2 of 2 problems hold fewer programs, the fewest 2."
    assert any(line in warning and "warm start" in warning for warning in summary["warnings"])
    assert "pass_at_3" not in summary["warm_start"]
    assert line in page


def test_returned_sets_say_how_many_programs_they_hold(run_dir):
    folder = run_dir / "evaluate" / "actor_critic_cs"
    write_programs(folder, {"a": [PASSED], "b": [BROKEN, PASSED, PASSED, BROKEN]})
    page, _ = report_of(run_dir)
    assert "T=0.6, 1 to 4 programs, 2.5 in the mean returned" in page


def test_what_went_wrong_in_a_round_is_said(run_dir):
    """Nothing passes, 3 of 4 do not compile, 1 fault, and a critic with an AUROC of 0.6 on 5 and 5 programs.

    A critic that knows nothing reaches 0.5 + 1.96 root(11 / (12 * 25)) = 0.88 on so few.
    """
    outcomes = {"compile_error": 3, "runtime_error": 0, "failed_test": 1, "passed_test": 0, "sandbox_fault": 1}
    write_stage(run_dir / "round-00" / "execute", {"outcomes": outcomes})
    codes = [Program("a", i, text) for i, text in enumerate(("```python\nx\n```", "x = '```'", "y"))]
    tables.PartedTable(run_dir / "round-00" / "sample" / "programs", Program).write(0, codes)
    critic = {"num_held_out": 10, "accuracy": 0.5, "majority_accuracy": 0.5, "auroc": 0.6, "prefix_auroc": [0.5] * 4}
    write_stage(
        run_dir / "round-00" / "critic",
        critic,
        calibration={"bins": [], "confusion": [[3, 2, 0], [0, 0, 0], [1, 1, 3]]},
    )
    _, summary = report_of(run_dir)
    said = "\n".join(summary["warnings"])
    for words in (
        "The sandbox failed on 1 of 5 programs of round-00/execute",
        "None of the 4 programs of round-00/execute passed",
        "3 of 4 programs of round-00/execute do not compile",
        "1 programs of round-00/execute hold a Markdown fence",
        "The critic of round-00/critic names the outcome of 50.0% of held-out programs",
        "no better than chance does: AUROC 0.60 on 5 that pass and 5 that fail, where chance reaches 0.88",
    ):
        assert words in said


def test_a_critic_that_knows_something_is_no_warning(run_dir):
    critic = {"num_held_out": 10, "accuracy": 0.9, "majority_accuracy": 0.5, "auroc": 0.95, "prefix_auroc": [0.5] * 4}
    write_stage(run_dir / "round-00" / "critic", critic, calibration={"bins": [], "confusion": [[5, 0], [1, 4]]})
    assert not any("The critic" in line for line in report_of(run_dir)[1]["warnings"])


def test_programs_to_read_come_from_the_tables_of_stages(run_dir):
    rows = [
        Illustration(
            f"p{i}", "easy", "Do it.", "round-00", ProgramKind.SAMPLE, 0, PASSED, None, "", None, ("x",), (0.5,), 0.5
        )
        for i in (1, 1, *range(2, 20))
    ]
    table = run_dir / "round-00" / "illustrate" / "illustrations"
    tables.PartedTable(table, Illustration).write(0, rows)
    page, _ = report_of(run_dir)
    assert page.count("<article>") == 8


def test_the_report_and_the_scores_load_no_weights(run_dir):
    """In a fresh process: what measures and what writes the page never import torch or transformers."""
    code = (
        "import sys\n"
        "from coderl.evaluation import figures, illustrations, paper, pass_at_k, report\n"
        "from pathlib import Path\n"
        "from coderl import problems, records\n"
        "from coderl.recipe import RunConfig\n"
        "from coderl.stages.console import Reporter\n"
        "from coderl.stages.report import write_report\n"
        "run = Path(sys.argv[1])\n"
        "config = RunConfig.model_validate(records.read_json(run / 'recipe.json'))\n"
        "write_report(run, config, problems.load(run / 'problems' / 'test.jsonl'), Reporter(quiet=True))\n"
        "print(sorted({'torch', 'transformers', 'accelerate'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def command(run_dir, *more, stage="warm_start/t0.6"):
    folder = run_dir / "evaluate" / stage
    return ["evaluate", "--programs", str(folder / "sample"), "--verdicts", str(folder / "execute"),
            "--problems", str(run_dir / "problems" / "test.jsonl"), *more]  # fmt: skip


def test_evaluate_leaves_out_what_is_not_reached_and_says_so(run_dir, capsys):
    main(command(run_dir))
    assert "left out" not in capsys.readouterr().out  # nothing was asked that is not there
    main(command(run_dir, "-k", "1", "5"))
    out = capsys.readouterr().out
    assert "pass@1" in out
    assert "pass@5" not in out
    assert "unknown" not in out
    assert "k=5 is left out: 2 of 2 problems hold fewer programs, the fewest 2" in out
    with pytest.raises(SystemExit) as stopped:
        main(command(run_dir, "-k", "5"))
    assert stopped.value.code == 2
    assert "k=5 is left out" in capsys.readouterr().err


def test_evaluate_joins_several_draws(run_dir, tmp_path):
    """Four samples a problem of two stages: a has 1 + 2 right, b 1 + 1; pass@3 is 1 for both, 1 - C(2,3)/C(4,3)."""
    second = run_dir / "evaluate" / "actor_critic" / "t0.6"
    first = run_dir / "evaluate" / "warm_start" / "t0.6"
    main(["evaluate", "--programs", str(first / "sample"), str(second / "sample"), "--verdicts", str(first / "execute"),
          str(second / "execute"), "--problems", str(run_dir / "problems" / "test.jsonl"), "-k", "1", "3",
          "--json", str(tmp_path / "scores.json")])  # fmt: skip
    found = records.read_json(tmp_path / "scores.json")
    assert found["by_problem"] == {"pass@1": {"a": 0.75, "b": 0.5}, "pass@3": {"a": 1.0, "b": 1.0}}
    with pytest.raises(SystemExit):
        main([*command(run_dir), "--programs", str(second / "sample")])


def test_outcomes_are_shown_by_difficulty(run_dir):
    """a is easy and b hard: of the warm start's two samples of a one is right, of b's one."""
    of = {"a": "easy", "b": "hard"}
    labelled = [replace(p, problem=replace(p.problem, difficulty=of[p.problem.problem_id])) for p in PROBLEMS]
    page = write_report(run_dir, CONFIG, labelled, Reporter(quiet=True)).read_text()
    for label, tip in (("warm start, easy", "passed test: 1 of 2"), ("actor-critic RL, easy", "passed test: 2 of 2")):
        assert f">{label}</text>" in page
        assert tip in page
    assert "warm start, easy" not in report_of(run_dir)[0].split("Results")[0]


def test_programs_before_and_after_are_those_of_problems_that_changed(run_dir):
    """Only a's greedy program changes: the warm start's was wrong."""
    folder = run_dir / "evaluate" / "warm_start" / "t0.6" / "execute" / "verdicts"
    rows = list(tables.read_table(folder, JUDGED, without=CLOCKS))
    wrong = [(k, Verdict(BROKEN) if k == ProgramKey("a", ProgramKind.BASELINE, 0) else v) for k, v in rows]
    tables.PartedTable(folder, JUDGED, without=CLOCKS).write(0, wrong)
    page, _ = report_of(run_dir)
    shown = re.findall(r"<b>(\w+)</b>.*?<span>([^<]*), baseline</span>", page, flags=re.S)
    assert shown == [("a", "warm start, greedy"), ("a", "actor-critic RL, greedy")]


def test_pass_at_1_is_there_whatever_is_asked(run_dir):
    config = RunConfig.model_validate({"evaluation": {"ks": [2], "temperatures": [0.6], "num_samples": 2}})
    write_report(run_dir, config, PROBLEMS, Reporter(quiet=True))
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {"pass_at_1", "pass_at_2"} <= summary["warm_start"].keys()
