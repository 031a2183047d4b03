"""The paper's figures agree with themselves, and stand beside a run's."""

import pytest

from coderl import tables
from coderl.cli import main
from coderl.evaluation import paper
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.problems import jsonl
from coderl.types import (
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    StdinTest,
    Verdict,
)


def test_all_is_the_mean_over_the_5000_problems_of_apps():
    """1,000 introductory, 3,000 interview and 1,000 competition problems (section 4.2)."""
    for figure in paper.figures("apps"):
        introductory, interview, competition, all_problems = figure.percent.values()
        tolerance = 0.045 if (figure.model, figure.metric) == ("GPT2 0.1B", "pass@5") else 0.0201  # published 1.02
        assert 0.2 * introductory + 0.6 * interview + 0.2 * competition == pytest.approx(all_problems, abs=tolerance)


def test_the_headline():
    (found,) = (f for f in paper.figures("apps", ["pass@5"]) if f.model.startswith("CodeRL + CodeT5"))
    assert found.percent == {"introductory": 16.37, "interview": 4.95, "competition": 2.84, "all": 6.81}
    assert [f.percent["all"] for f in paper.figures("mbpp", ["pass@1000"])] == [36.2, 42.8, 66.2, 78.4, 81.8]
    assert {f.metric for f in paper.figures("apps", ["1@1000 (none passes examples: zero)"])} == {"1@1000"}
    assert paper.figures("mbpp", ["pass@7"]) == []


def test_the_benchmark_is_seen_from_the_problems():
    assert paper.benchmark_of(["mbpp_11"], ["unknown", "all"]) == "mbpp"
    assert paper.benchmark_of(["0001"], ["interview", "all"]) == "apps"
    with pytest.raises(InputError, match="APPS and MBPP"):
        paper.benchmark_of(["HumanEval_1"], ["unknown"])
    with pytest.raises(InputError, match="APPS and MBPP"):
        paper.benchmark_of([], [])


def write_run(folder, difficulty):
    problem = LabelledProblem(Problem("0001", "x", difficulty), hidden_tests=(StdinTest("", "1"),))
    jsonl.write(folder / "p.jsonl", [problem])
    outcomes = (Outcome.PASSED_TEST, Outcome.FAILED_TEST)
    programs = [Program("0001", i, "x") for i in (0, 1)]
    tables.PartedTable(folder / "programs", Program).write(0, programs)
    rows = [(program.key, Verdict(outcome)) for program, outcome in zip(programs, outcomes, strict=True)]
    tables.PartedTable(folder / "verdicts", JUDGED, without=CLOCKS).write(0, rows)
    return ["evaluate", "--programs", str(folder), "--verdicts", str(folder), "--problems", str(folder / "p.jsonl"),
            "-k", "1", "--against", "paper"]  # fmt: skip


def test_a_run_stands_beside_the_paper(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(write_run(tmp_path, "interview"))
    out = capsys.readouterr().out
    (ours,) = (line for line in out.splitlines() if "this run" in line)
    assert ours.replace("│", " ").split() == ["this", "run", "-", "50.00", "-", "50.00"]
    assert any("CodeRL + CodeT5 770M" in line and "2.69" in line for line in out.splitlines())
    assert "not comparable: 1 problems" in out


def test_problems_of_another_benchmark_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(write_run(tmp_path, "easy"))
    assert stopped.value.code == 2
    assert "the paper has figures for APPS and MBPP" in capsys.readouterr().err
