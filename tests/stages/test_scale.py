"""The commands on a whole small data set: 50 APPS folders, killed and continued; MBPP by a model of APPS."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest

from coderl import records, tables
from coderl.cli import main
from coderl.evaluation.counts import CLOCKS, JUDGED
from coderl.execution import ExecutionConfig
from coderl.interop import grade
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.stages import execute as stage
from coderl.stages.console import Reporter
from coderl.types import AssertTest, LabelledProblem, Problem, Program, Verdict

NUM_PROBLEMS, NUM_PROGRAMS, PROBLEMS_A_PART = 50, 8, 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problem i asks for i; of its eight programs the first i % 9 are right. Every tenth problem has no tests."""
    folder = tmp_path_factory.mktemp("scale")
    programs = []
    for i in range(NUM_PROBLEMS):
        problem = folder / "apps" / f"{i:04d}"
        problem.mkdir(parents=True)
        (problem / "question.txt").write_text(f"Print {i}.")
        (problem / "metadata.json").write_text(json.dumps({"difficulty": ("interview", "competition")[i % 2]}))
        if i % 10:
            (problem / "input_output.json").write_text(json.dumps({"inputs": [""], "outputs": [str(i)]}))
        texts = [f"print({i if n < i % 9 else -1})" for n in range(NUM_PROGRAMS)]
        programs.append([Program(problem.name, n, text, tokens=(1, 2)) for n, text in enumerate(texts)])
    table = tables.PartedTable(folder / "sample" / "programs", Program)
    for part in range(math.ceil(NUM_PROBLEMS / PROBLEMS_A_PART)):
        chosen = programs[part * PROBLEMS_A_PART : (part + 1) * PROBLEMS_A_PART]
        table.write(part, [program for group in chosen for program in group])
    return folder


def execute(data: Path, out: Path) -> None:
    main(["execute", "--programs", str(data / "sample"), "--problems", str(data / "apps"), "--out", str(out),
          "--num-workers", "1"])  # fmt: skip


def test_fifty_folders_killed_continued_and_scored(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    execute(data, tmp_path / "whole")
    parts = sorted(p.name for p in (tmp_path / "whole" / "verdicts").iterdir())
    assert len(parts) == 4
    run_part, num_done = stage._run_part, itertools.count()

    def killed_in_the_third_part(executor, part, by_id, tests, did):
        def counted():
            did()
            if next(num_done) == 2 * PROBLEMS_A_PART * NUM_PROGRAMS + 5:
                raise KeyboardInterrupt

        return run_part(executor, part, by_id, tests, counted)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_run_part", killed_in_the_third_part)
        with pytest.raises(SystemExit):
            execute(data, tmp_path / "killed")
    assert sorted(p.name for p in (tmp_path / "killed" / "verdicts").iterdir()) == parts[:2]
    execute(data, tmp_path / "killed")
    for part in parts:
        assert (tmp_path / "killed" / "verdicts" / part).read_bytes() == (
            tmp_path / "whole" / "verdicts" / part
        ).read_bytes()
    facts = records.facts_of(tmp_path / "killed")
    tested = [i for i in range(NUM_PROBLEMS) if i % 10]
    assert facts["outcomes"]["passed_test"] == sum(i % 9 for i in tested)
    assert facts["num_untested"] == 5 * NUM_PROGRAMS

    main(["evaluate", "--programs", str(data / "sample"), "--verdicts", str(tmp_path / "killed"),
          "--problems", str(data / "apps"), "-k", "1", "8", "--json", str(tmp_path / "scores.json")])  # fmt: skip
    scores = records.read_json(tmp_path / "scores.json")["scores"]
    assert scores["pass@1"]["all"]["mean"] == pytest.approx(sum(i % 9 / 8 for i in tested) / NUM_PROBLEMS)
    assert scores["pass@8"]["all"]["mean"] == pytest.approx(sum(i % 9 > 0 for i in tested) / NUM_PROBLEMS)
    odd = [i for i in tested if i % 2]
    assert scores["pass@1"]["competition"]["mean"] == pytest.approx(sum(i % 9 / 8 for i in odd) / 25)


def test_programs_are_read_without_their_tokens(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def job(program: Program, *_):
        seen.append(program)

    monkeypatch.setattr(stage, "_job", job)
    execute(data, tmp_path / "out")
    assert len(seen) == NUM_PROBLEMS * NUM_PROGRAMS
    assert {program.tokens for program in seen} == {()}


def test_a_samples_file_becomes_parts_of_bounded_size(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grade, "PART_ROWS", 3)
    names = [f"{i:04d}" for i in (1, 10, 2, 1, 10, 3, 1)]  # 10 has no tests
    lines = [json.dumps({"task_id": name, "solution": f"print({int(name)})"}) + "\n" for name in names]
    (tmp_path / "samples.jsonl").write_text("".join(lines))
    main(["execute", "--samples", str(tmp_path / "samples.jsonl"), "--problems", str(data / "apps"),
          "--out", str(tmp_path / "out"), "--num-workers", "1"])  # fmt: skip
    assert len(list((tmp_path / "out" / "sample" / "programs").iterdir())) == 3
    results = records.read_jsonl(tmp_path / "out" / "results.jsonl")
    assert [row["task_id"] for row in results] == [name for name in names if name != "0010"]
    assert all(row["passed"] for row in results)


def test_a_fault_is_a_row_of_the_results(tmp_path: Path):
    program = Program("0001", 0, "print(1)")
    tables.PartedTable(tmp_path / "s" / "programs", Program).write(0, [program])
    tables.PartedTable(tmp_path / "v" / "verdicts", JUDGED).write(0, [(program.key, Verdict(None, fault="no fork"))])
    (row,) = records.read_jsonl(grade.write_results(tmp_path / "v", tmp_path / "s"))
    assert (row["passed"], row["result"]) == (None, "sandbox error: no fork")


def test_mbpp_by_a_model_of_apps_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The three commands that recipes/README.md gives, on the official test split."""
    tokenizer = train_tokenizer(["QUESTION ANSWER print assert def return"] * 3, 300, num_sentinels=10)
    tiny_t5(tokenizer, d_model=8, num_layers=1, num_heads=1).save(tmp_path / "model")
    tasks = [
        {"task_id": i, "text": "Add.", "code": "def add(a):\n    return a + 1", "test_list": ["assert add(1) == 2"]}
        for i in (10, 11, 510, 511, 601)
    ]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    where = ["--problems", str(tmp_path / "mbpp.jsonl"), "--split", "test"]
    main(["sample", "--actor", str(tmp_path / "model"), *where, "--out", str(tmp_path / "s"), "--num-samples", "6",
          "--sampling.temperature", "1.2", "--sampling.max-new-tokens", "5",
          "--prompt.max-prompt-tokens", "382"])  # fmt: skip
    main(["execute", "--programs", str(tmp_path / "s"), *where, "--out", str(tmp_path / "v"), "--num-workers", "1"])
    drawn = {p.problem_id for p in tables.read_table(tmp_path / "s" / "programs", Program)}
    assert drawn == {"mbpp_11", "mbpp_510"}
    shutil.rmtree(tmp_path / "model")
    judged = ["evaluate", "--programs", str(tmp_path / "s"), "--verdicts", str(tmp_path / "v"), *where]
    main([*judged, "-k", "1", "6", "--against", "paper"])
    out = capsys.readouterr().out
    assert "pass@6" in out
    assert "not comparable: 2 problems, the paper's are 500" in out
    with pytest.raises(SystemExit) as stopped:
        main([*judged, "-k", "80", "1000"])
    assert stopped.value.code == 2
    assert "k=1000" in capsys.readouterr().err


def test_tests_that_cannot_be_run_are_named_and_do_not_stop_the_stage(tmp_path: Path):
    """Ten problems, nine of which ask with an assertion that is no Python: faults of the tests, not of the sandbox."""
    problems = [
        LabelledProblem(Problem(f"p{i}", "x", fn_name="f"), (AssertTest("assert f(1) == 2" if i == 0 else "assert ("),))
        for i in range(10)
    ]
    rows = [Program(f"p{i}", 0, "def f(x):\n    return x + 1\n") for i in range(10)]
    tables.PartedTable(tmp_path / "s" / "programs", Program).write(0, rows)
    how = {"config": ExecutionConfig(num_workers=1), "reporter": Reporter(quiet=True)}
    facts = stage.execute(tmp_path / "v", programs=tmp_path / "s", problems=problems, **how)
    assert (facts["outcomes"]["passed_test"], facts["outcomes"]["sandbox_fault"]) == (1, 9)
    faults = [v.fault for _, v in tables.read_table(tmp_path / "v" / "verdicts", JUDGED, without=CLOCKS) if v.fault]
    assert all(fault.startswith("test 1 of 1: ") for fault in faults)
