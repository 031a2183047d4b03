"""The original's files to our stages and back: real ones, and ones that are wrong."""

import json
import math
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coderl import problems as data
from coderl import records
from coderl.cli import main
from coderl.interop import original_export
from coderl.interop import original_files as original
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.problems import jsonl
from coderl.stages.console import Reporter
from coderl.stages.rollouts import programs_of, scores_of, verdicts_of
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    ProgramKind,
    StdinTest,
)

PROBLEM = LabelledProblem(Problem("train-0007", "Add.", example_tests=(StdinTest("1 2\n", "3\n"),)))
CODES = ["print(1)", "x", "1/0", "def", "never run"]


def import_files(out: Path, source: Path, problems: list[LabelledProblem] | None = None) -> None:
    original.import_original(out, source=source, problems=problems or [PROBLEM], reporter=Reporter(quiet=True))


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value) if path.suffix == ".pkl" else json.dumps(value).encode())
    return path


def write_outputs(folder: Path, results: Any = None) -> Path:
    write(folder / "codes" / "7.json", {"7": {"code": CODES, "prompt": "p"}})
    if results is not None:
        write(folder / "test_results" / "7.pkl", results)
    return folder


RESULTS = {
    7: {
        "results": [[True, np.bool_(True)], [True, False], [True, -1], [-2], []],
        "errors": [[None, None], [None, None], [None, (ZeroDivisionError("division by zero"), ["..."])],
                   [(SyntaxError("invalid syntax"), [])], []],
        "sols": CODES,
    }
}  # fmt: skip


def test_outcomes_of_test_results_are_the_worst_of_the_tests(tmp_path):
    import_files(tmp_path / "out", write_outputs(tmp_path / "outputs", RESULTS))
    assert [p.code for p in programs_of(tmp_path / "out")] == CODES
    verdicts = list(verdicts_of(tmp_path / "out").values())
    assert [v.outcome for v in verdicts] == [
        Outcome.PASSED_TEST, Outcome.FAILED_TEST, Outcome.RUNTIME_ERROR, Outcome.COMPILE_ERROR
    ]  # fmt: skip
    assert [v.error_subtype for v in verdicts] == [None, None, "zerodivisionerror", "syntaxerror"]
    assert verdicts[2].message == "division by zero"
    assert verdicts[2].test_outcomes == (Outcome.PASSED_TEST, Outcome.RUNTIME_ERROR)
    assert len(verdicts) == 4  # nothing of the program whose list is empty


def test_codes_alone_are_programs_without_verdicts(tmp_path):
    import_files(tmp_path / "out", write_outputs(tmp_path / "outputs"))
    assert len(programs_of(tmp_path / "out")) == len(CODES)
    assert not (tmp_path / "out" / "verdicts").exists()


def test_the_outputs_round_trip(tmp_path):
    import_files(tmp_path / "a", write_outputs(tmp_path / "outputs", RESULTS))
    original_export.export_files(tmp_path / "b", problems=[PROBLEM], programs=tmp_path / "a", verdicts=tmp_path / "a")
    import_files(tmp_path / "c", tmp_path / "b")
    assert programs_of(tmp_path / "c") == programs_of(tmp_path / "a")
    assert verdicts_of(tmp_path / "c") == verdicts_of(tmp_path / "a")
    theirs = pickle.loads((tmp_path / "b" / "test_results" / "7.pkl").read_bytes())[7]  # as the original reads it
    assert theirs["results"] == [[True, True], [True, False], [True, -1], [-2], []]
    assert type(theirs["errors"][2][1][0]) is ZeroDivisionError
    assert json.loads((tmp_path / "b" / "codes" / "7.json").read_text())["7"]["prompt"] == (
        "\nQUESTION:\nAdd.\nUse Standard Input format\nANSWER:\n"
    )


# ------------------------------------------------------------------------------------------------- problem folders

GENERATED = [
    {"code": "a", "result": True, "error_type": "passed unit tests"},
    {"code": "b", "result": False, "error_type": "failed unit tests"},
    {"code": "c", "result": -1, "error_type": "timeoutexception"},
    {"code": "d", "result": -2, "error_type": "nameerror"},
]
WRAPPED = (
    "import sys\nimport time\nimport itertools\nfrom heapq import *\nimport re\nfrom os import path\n"
    "stdin = sys.stdin\n"
    "stdout = sys.stdout\ndef code():\n\tn = int(input())\n\tfor i in range(n):\n\t\tprint(i)\n"
)


def test_a_problem_folder(tmp_path):
    folder = tmp_path / "train" / "0007"
    write(folder / "gen_solutions.json", GENERATED)
    write(folder / "baseline_solutions.json", [{"code": WRAPPED, "result": -1}, {"code": "no", "result": True}])
    write(folder / "example_input_output.json", {"inputs": ["5 6\n"], "outputs": ["11\n"]})
    import_files(tmp_path / "out", tmp_path / "train")
    rows = programs_of(tmp_path / "out")
    assert [(p.kind, p.index, p.code) for p in rows] == [
        *[(ProgramKind.SAMPLE, i, code) for i, code in enumerate("abcd")],
        (ProgramKind.BASELINE, 0, "import re\nfrom os import path\nn = int(input())\nfor i in range(n):\n\tprint(i)\n"),
    ]
    found = [(v.outcome, v.error_subtype) for v in verdicts_of(tmp_path / "out").values()]
    assert found == [(3, None), (2, None), (1, "timeout"), (0, "nameerror"), (1, None)]
    (with_tests,) = data.load(tmp_path / "out" / "problems.jsonl")
    assert with_tests.problem.example_tests == (StdinTest("5 6\n", "11\n"),)

    original_export.export_files(
        tmp_path / "back", problems=[with_tests], programs=tmp_path / "out", verdicts=tmp_path / "out"
    )
    back = tmp_path / "back" / "problems" / "0007"
    assert json.loads((back / "gen_solutions.json").read_text()) == GENERATED
    assert json.loads((back / "baseline_solutions.json").read_text())[0]["result"] == -1
    assert json.loads((back / "example_input_output.json").read_text())["outputs"] == ["11\n"]


def score_record(**changes: Any) -> dict[str, Any]:
    logits = np.zeros((4, 512, 4), np.float32)
    logits[0, 1, 3] = math.log(3)  # softmax 1/6 1/6 1/6 3/6
    logits[0, 300, 0] = math.log(7)  # padding decides the program: maxima log 7, 0, 0, log 3 -> 7/12 1/12 1/12 3/12
    record = {
        "code": [[1, 50, 2] + [-100] * 509, [1, 2] + [-100] * 510, list(range(512)), [2] + [-100] * 511],
        "prompt": [[1] * 600] * 4,
        "gt_error_type": [3, 2, 1, 0],
        "pred_error_type": np.array([0, 0, 0, 0]),
        "error_hidden_states": logits,
    }
    return {**record, **changes}


def test_critic_scores_by_hand(tmp_path):
    folder = tmp_path / "train" / "0007"
    write(folder / "gen_solutions.json", GENERATED)
    write(folder / "gen_solutions_critic_scores.pkl", score_record())
    import_files(tmp_path / "out", tmp_path / "train")
    first, *_ = scores_of(tmp_path / "out").values()
    assert first.program_probs == pytest.approx((7 / 12, 1 / 12, 1 / 12, 3 / 12), abs=1e-6)
    assert [row[3] for row in first.token_probs] == pytest.approx((0.25, 0.5, 0.25), abs=1e-6)  # it passed
    assert [p.tokens for p in programs_of(tmp_path / "out")][:2] == [(1, 50, 2), (1, 2)]
    assert len(programs_of(tmp_path / "out")[2].tokens) == 512

    original_export.export_files(
        tmp_path / "back", problems=[PROBLEM], programs=tmp_path / "out", verdicts=tmp_path / "out",
        scores=tmp_path / "out", encode_prompt=lambda text: [1, 9, 2],
    )  # fmt: skip
    content = (tmp_path / "back" / "problems" / "0007" / "gen_solutions_critic_scores.pkl").read_bytes()
    assert b"numpy._core" not in content  # NumPy 1 of the original has no such module
    import_files(tmp_path / "again", tmp_path / "back" / "problems")
    for ours, theirs in zip(scores_of(tmp_path / "out").values(), scores_of(tmp_path / "again").values(), strict=True):
        assert np.array(theirs.token_probs) == pytest.approx(np.array(ours.token_probs), abs=1e-6)
    assert [p.tokens for p in programs_of(tmp_path / "again")] == [p.tokens for p in programs_of(tmp_path / "out")]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"gt_error_type": [3, 2, 1, 1]}, "stale"),
        ({"gt_error_type": [1, 0, 0, 0]}, "binary"),
        ({"gt_error_type": [3, 2, 1]}, "scores of 4 programs beside 4|belong|4 programs"),
        ({"error_hidden_states": np.zeros((4, 512, 3), np.float32)}, "expected logits"),
        ({"error_hidden_states": np.zeros((3, 512, 4), np.float32)}, "expected logits"),
        ({"error_hidden_states": np.zeros((4, 100, 4), np.float32)}, "belong together"),
        ({"error_hidden_states": np.full((4, 512, 4), np.nan, np.float32)}, "not finite"),
        ({"code": [[1], [2], [3], ["x"]]}, "whole numbers"),
        ({"code": 5}, "list"),
    ],
)
def test_wrong_scores_are_refused(tmp_path, changes, line):
    folder = tmp_path / "train" / "0007"
    write(folder / "gen_solutions.json", GENERATED)
    write(folder / "gen_solutions_critic_scores.pkl", score_record(**changes))
    with pytest.raises(InputError, match=line):
        import_files(tmp_path / "out", tmp_path / "train")


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codes/7.json", {"8": {"code": []}}),
        ("codes/7.json", {"7": {"code": [1]}}),
        ("codes/7.json", []),
        ("codes/8.json", {"8": {"code": ["x"]}}),
        ("codes/seven.json", {"7": {"code": ["x"]}}),
        ("test_results/7.pkl", {7: {"results": [[True]] * 9, "errors": [[None]] * 9}}),
        ("test_results/7.pkl", {7: {"results": [[2]], "errors": [[None]]}}),
        ("test_results/7.pkl", {7: {"results": [True], "errors": [[None]]}}),
        ("test_results/7.pkl", {7: {"results": [[1.0]], "errors": [[None]]}}),
        ("test_results/7.pkl", [1]),
    ],
)
def test_wrong_outputs_are_refused(tmp_path, name, value):
    source = write_outputs(tmp_path / "outputs", RESULTS)
    write(source / name, value)
    with pytest.raises(InputError, match=str(source)) as error:
        import_files(tmp_path / "out", source)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gen_solutions.json", '[{"code": "a", "result": 1}]'),
        ("gen_solutions.json", '[{"code": "a"}]'),
        ("gen_solutions.json", '[{"result": true}]'),
        ("gen_solutions.json", '{"code": "a"}'),
        ("gen_solutions.json", "[" * 100_000),
        ("gen_solutions.json", '[{"code": "a", "resul'),
        ("baseline_solutions.json", "[3]"),
        ("example_input_output.json", '{"inputs": 3}'),
        ("example_input_output.json", '{"inputs": ["a"], "outputs": []}'),
        ("example_input_output.json", "[]"),
    ],
)
def test_wrong_problem_folders_are_refused(tmp_path, name, text):
    folder = tmp_path / "train" / "0007"
    write(folder / "gen_solutions.json", GENERATED)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=name):
        import_files(tmp_path / "out", tmp_path / "train")


def test_a_path_that_leaves_the_folder_is_refused(tmp_path):
    secret = write(tmp_path / "secret.json", {"7": {"code": ["x"]}})
    (tmp_path / "outputs" / "codes").mkdir(parents=True)
    (tmp_path / "outputs" / "codes" / "7.json").symlink_to(secret)
    with pytest.raises(InputError, match="leads out of"):
        import_files(tmp_path / "out", tmp_path / "outputs")


def test_two_problems_with_one_number_are_refused(tmp_path):
    both = [LabelledProblem(Problem(f"{split}-0007", "x")) for split in ("train", "test")]
    with pytest.raises(InputError, match="one number"):
        import_files(tmp_path / "out", write_outputs(tmp_path / "outputs"), both)
    with pytest.raises(InputError, match="ends with none"):
        original.number_of("sum")


def test_a_hostile_pickle_is_one_line_and_status_2(tmp_path, capsys):
    write_outputs(tmp_path / "outputs")
    (tmp_path / "outputs" / "test_results").mkdir()
    (tmp_path / "outputs" / "test_results" / "7.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    jsonl.write(tmp_path / "p.jsonl", [PROBLEM])
    with pytest.raises(SystemExit) as stopped:
        main(["import-original", str(tmp_path / "outputs"), "--problems", str(tmp_path / "p.jsonl"),
              "--out", str(tmp_path / "out")])  # fmt: skip
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("coderl: ")
    assert "refused, it names 'os.system'" in line


# -------------------------------------------------------------------------------------------------------- real data


def test_the_five_real_problems(shared_data, tmp_path):
    source = shared_data / "apps" / "train"
    if not source.is_dir():
        pytest.skip(f"no APPS at {source}")
    problems = data.load(source)
    import_files(tmp_path / "out", source, problems)
    samples = [v for key, v in verdicts_of(tmp_path / "out").items() if key.kind is ProgramKind.SAMPLE]
    counts = Counter(v.outcome for v in samples if v.outcome is not None)
    assert [counts[outcome] for outcome in Outcome] == [2, 23, 23, 35]  # counted by hand in the original's files
    assert sum(v.error_subtype == "timeout" for v in samples) == 4
    baselines = [p for p in programs_of(tmp_path / "out") if p.kind is ProgramKind.BASELINE]
    assert len(baselines) == 5
    assert not any("def code():" in p.code or "heapq" in p.code for p in baselines)

    original_export.export_files(
        tmp_path / "e", problems=problems, programs=tmp_path / "out", verdicts=tmp_path / "out"
    )
    for folder in sorted(source.iterdir()):
        name = "gen_solutions.json"
        assert records.read_json(tmp_path / "e" / "problems" / folder.name / name) == records.read_json(folder / name)


def test_call_based_examples_are_exported_as_lists(tmp_path):
    called = LabelledProblem(Problem("0007", "x", fn_name="f", example_tests=(CallTest((1, [2]), 3),)))
    import_files(tmp_path / "out", write_outputs(tmp_path / "outputs"), [called])
    original_export.export_files(tmp_path / "e", problems=[called], programs=tmp_path / "out")
    found = records.read_json(tmp_path / "e" / "problems" / "0007" / "example_input_output.json")
    assert found == {"inputs": [[1, [2]]], "outputs": [3]}


def test_imported_programs_have_the_tokens_that_training_gives_solutions(tmp_path):
    """The original tokenizes a program's text: `<s> ... </s>`, the end cut off."""
    tokenizer = train_tokenizer(CODES * 3, 400, num_sentinels=10)
    tokenizer.save_pretrained(tmp_path / "t")
    model = tiny_t5(tokenizer, d_model=8, num_layers=1, num_heads=1)
    for max_tokens in (512, 3):
        encode = original.encoder(tmp_path / "t", max_tokens)
        assert [list(encode(code)) for code in CODES] == [model.encode_program(code, max_tokens) for code in CODES]
    with pytest.raises(InputError, match="no tokenizer"):
        original.encoder(tmp_path, 5)
