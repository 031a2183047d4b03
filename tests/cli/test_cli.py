"""The command line: every subcommand explains itself, and what a person gets wrong is one line."""

import json
from pathlib import Path

import pytest

from coderl.cli import declared, main
from coderl.execution import ExecutionConfig
from coderl.execution.remote.serve import Service

COMMANDS = [each.name for each in declared()]


def fails_with(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    """Run a command that must fail; return the one line it prints."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line for line in lines if line.startswith("coderl: ")] == lines[-1:]
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


def test_there_are_commands():
    assert {"run", "demo", "problems check", "sample", "execute", "evaluate", "build-corpus"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    main([*command.split(), "--help"])
    assert f"coderl {command}" in capsys.readouterr().out


@pytest.fixture
def problem_folder(tmp_path: Path) -> Path:
    """Two APPS problems, one of them without tests."""
    for name, tests in (("0000", {"inputs": ["1 2\n"], "outputs": ["3\n"]}), ("0001", None)):
        folder = tmp_path / "apps" / name
        folder.mkdir(parents=True)
        (folder / "question.txt").write_text(
            f"Problem {name}: print the sum.\n\n-----Examples-----\nInput\n1 2\n\nOutput\n3\n"
        )
        (folder / "solutions.json").write_text(json.dumps(["print(sum(map(int, input().split())))"]))
        if tests is not None:
            (folder / "input_output.json").write_text(json.dumps(tests))
    return tmp_path / "apps"


def test_check_passes_right_solutions_and_counts_problems_without_tests(
    problem_folder: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        main(["problems", "check", str(problem_folder), "--num-workers", "1"])
    assert stopped.value.code == 0
    assert "1 of 1 reference solutions of 2 problems pass (1 problems without tests" in capsys.readouterr().out


def test_check_names_a_wrong_solution_and_fails(problem_folder: Path, capsys: pytest.CaptureFixture[str]):
    (problem_folder / "0000" / "solutions.json").write_text(json.dumps(["print(1/0)"]))
    with pytest.raises(SystemExit) as stopped:
        main(["problems", "check", str(problem_folder), "--num-workers", "1"])
    assert stopped.value.code == 1
    assert "0000 solution 0: RUNTIME_ERROR zerodivisionerror" in capsys.readouterr().out


def test_convert_keeps_every_problem(problem_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["problems", "convert", str(problem_folder), str(tmp_path / "out.jsonl")])
    assert capsys.readouterr().out.startswith("2 problems in")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_example_tests_are_printed_and_written(problem_folder: Path, capsys: pytest.CaptureFixture[str]):
    main(["extract-examples", str(problem_folder), "--rules", "legacy", "--write"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"problem_id": "0000", "inputs": ["1 2\n"], "outputs": ["3\n"]}
    assert json.loads((problem_folder / "0000" / "example_input_output.json").read_text())["outputs"] == ["3\n"]


def test_a_dry_run_prints_the_resolved_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "x"\n[problems]\nsource = "/nowhere/at/all"\n[rounds]\nnum_rounds = 2\n')
    main(["run", str(recipe), "--dry-run", "--rounds.num-rounds", "3"])
    said = capsys.readouterr()
    assert json.loads(said.out)["rounds"]["num_rounds"] == 3
    assert "no costs: /nowhere/at/all" in said.err


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("[rounds]\nnum_round = 2\n", [], "unknown key 'rounds.num_round'; did you mean 'num_rounds'?"),
        ("[rounds]\nnum_rounds = -1\n", [], "rounds.num_rounds = -1: input should be greater than or equal to 0"),
        ("not toml", [], "not a TOML recipe"),
        ("", ["--rounds.num-rounds"], "--rounds.num-rounds"),
        ("", ["--roundz.num-rounds", "2"], "--roundz.num-rounds"),
        ("", ["--critic-sampling.num-repair-candidates", "0"], "greater than or equal to 1"),
        ('[problems]\nsource = "/nowhere/at/all"\n', [], "/nowhere/at/all"),
    ],
)
def test_a_bad_recipe_is_one_line_and_leaves_no_run(
    text: str, flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)
    line = fails_with(capsys, "run", str(recipe), *flags, "--quiet", "--run-dir", str(tmp_path / "run"))
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.toml"], "missing.toml: no such recipe"),
        (["problems", "check", "missing"], "missing"),
        (["sample", "--actor", "models/none", "--problems", "tests.jsonl", "--out", "out"], "models/none"),
        (["sampel"], "sampel"),
        (["sample", "--actor", "x", "--problems", "y", "--out", "z", "--num-sampels", "3"], "--num-sampels"),
        (["sample", "--actor", "x", "--problems", "y", "--out", "z", "--num-samples", "many"], "many"),
        (["evaluate", "--programs", "none", "--verdicts", "none", "--problems", "tests.jsonl"], "none"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests.jsonl").write_text('{"problem_id": "p", "description": "Print 1."}\n')
    assert said in fails_with(capsys, *arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["tests.jsonl"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("question.txt", b""),
        ("question.txt", b"\xff\xfe"),
        ("input_output.json", b"{"),
        ("solutions.json", b'{"a": 1}'),
    ],
)
def test_a_broken_problem_names_its_file(
    name: str, content: bytes, problem_folder: Path, capsys: pytest.CaptureFixture[str]
):
    """It is left out, the other problem is served, and the command does not end well."""
    (problem_folder / "0000" / name).write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        main(["problems", "convert", str(problem_folder), str(problem_folder / "out.jsonl")])
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert name in lines[0]
    assert lines[1:] == ["coderl: 1 records left out, 1 problems read"]
    assert len((problem_folder / "out.jsonl").read_text().splitlines()) == 1


@pytest.fixture
def samples(problem_folder: Path, tmp_path: Path) -> Path:
    """Programs for the problem with tests: right; right in the original's eyes only; wrong; not a program."""
    programs = ["print(sum(map(int, input().split())))", "print('3 3')", "print(4)", "print("]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps({"task_id": "0000", "solution": code}) + "\n" for code in programs))
    return path


def outcomes_in(path: Path) -> list[str]:
    return [json.loads(line)["outcome"] for line in path.read_text().splitlines()]


def test_a_samples_file_is_judged_and_kept(samples: Path, tmp_path: Path):
    arguments = ["execute", "--samples", str(samples), "--problems", str(tmp_path / "apps"), "--num-workers", "1"]
    store = ["--store-path", str(tmp_path / "verdicts.sqlite")]
    main([*arguments, *store, "--out", str(tmp_path / "first")])
    wanted = ["PASSED_TEST", "FAILED_TEST", "FAILED_TEST", "COMPILE_ERROR"]
    assert outcomes_in(tmp_path / "first" / "results.jsonl") == wanted
    main([*arguments, *store, "--out", str(tmp_path / "second")])
    for name in ("verdicts", "costs"):  # the same times: nothing was run again
        first, second = (tmp_path / run / name / "part-000000.parquet" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_comparators_are_compared(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    main(["execute", "--samples", str(samples), "--problems", str(tmp_path / "apps"), "--out", str(out),
          "--comparator", "apps", "--compare", "strict", "--num-workers", "1"])  # fmt: skip
    assert "1 of 4 verdicts differ between apps and strict" in capsys.readouterr().out
    (flip,) = [json.loads(line) for line in (out / "flips.jsonl").read_text().splitlines()]
    assert (flip["index"], flip["apps"], flip["strict"]) == (1, "passed test", "failed test")


def test_example_tests_judge_apart_from_the_hidden_ones(problem_folder: Path, tmp_path: Path):
    """The statement shows 1 2 -> 3; with 2 2 -> 4 hidden, each constant is right for one of the two."""
    (problem_folder / "0000" / "input_output.json").write_text(json.dumps({"inputs": ["2 2\n"], "outputs": ["4\n"]}))
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps({"task_id": "0000", "solution": f"print({n})"}) + "\n" for n in (3, 4)))
    for tests, wanted in (("example", ["PASSED_TEST", "FAILED_TEST"]), ("hidden", ["FAILED_TEST", "PASSED_TEST"])):
        out = tmp_path / tests
        main(["execute", "--samples", str(path), "--problems", str(problem_folder), "--out", str(out),
              "--tests", tests, "--num-workers", "1"])  # fmt: skip
        assert outcomes_in(out / "results.jsonl") == wanted


def test_execute_needs_programs_from_one_place(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    where = ["execute", "--problems", str(tmp_path / "apps"), "--out", str(tmp_path / "out")]
    assert "either --programs or --samples" in fails_with(capsys, *where)
    monkeypatch.delenv("CODERL_EXECUTION_TOKEN", raising=False)
    elsewhere = ["--samples", str(samples), "--backend", "http"]
    assert "needs the service's address" in fails_with(capsys, *where, *elsewhere)
    address = ["--address", "http://127.0.0.1:1"]
    assert "CODERL_EXECUTION_TOKEN" in fails_with(capsys, *where, *elsewhere, *address)


def test_programs_run_on_a_service_get_the_same_verdicts(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Service(ExecutionConfig(num_workers=1), token="secret") as service:
        monkeypatch.setenv("CODERL_EXECUTION_TOKEN", "secret")
        where = ["--problems", str(tmp_path / "apps"), "--out", str(tmp_path / "out")]
        main(["execute", "--samples", str(samples), *where, "--backend", "http", "--address", service.url])
    wanted = ["PASSED_TEST", "FAILED_TEST", "FAILED_TEST", "COMPILE_ERROR"]
    assert outcomes_in(tmp_path / "out" / "results.jsonl") == wanted
