"""APPS folders and JSON lines: every variant of the layout that the data set holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from coderl import problems
from coderl.problems import apps
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    StdinTest,
)


def write_folder(root: Path, name: str = "0000", question: str = "Add.\n", **files: Any) -> Path:
    """Write a problem folder; a value that is not text is written as JSON."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "question.txt").write_text(question, "utf-8")
    for stem, value in files.items():
        suffix = ".py" if stem == "starter_code" else ".json"
        (folder / (stem + suffix)).write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return folder


def read(root: Path, **files: Any) -> LabelledProblem:
    return apps.read_folder(write_folder(root, **files))


def test_a_stdin_problem(tmp_path):
    found = read(
        tmp_path,
        input_output={"inputs": ["1 2\n"], "outputs": ["3\n"]},
        metadata={"difficulty": "competition", "url": "u"},
        solutions=["print(3)"],
    )
    assert found.problem.problem_id == "0000"
    assert found.problem.description == "Add.\n"
    assert found.problem.difficulty == "competition"
    assert found.problem.fn_name is None
    assert found.hidden_tests == (StdinTest("1 2\n", "3\n"),)
    assert found.solutions == ("print(3)",)


def test_lists_of_lines_are_joined_by_newlines(tmp_path):
    found = read(tmp_path, input_output={"inputs": [["1", "2"]], "outputs": [["3", "4"]]})
    assert found.hidden_tests == (StdinTest("1\n2", "3\n4"),)


def test_numbers_among_lines_are_their_text(tmp_path):
    found = read(tmp_path, input_output={"inputs": [[1, "2 3"], 7], "outputs": [0.5, [1]]})
    assert found.hidden_tests == (StdinTest("1\n2 3", "0.5"), StdinTest("7", "1"))


@pytest.mark.parametrize(
    ("value", "found"),
    [(["1", ["2", "3"]], "a list in the list of lines"), (None, "None"), ({"a": 1}, r"{'a': 1}"), (True, "True")],
)
def test_what_is_no_text_that_a_program_reads_is_refused(tmp_path, value, found):
    with pytest.raises(InputError) as caught:
        read(tmp_path, input_output={"inputs": ["1", value], "outputs": ["1", "2"]})
    expected = f"inputs[1]: what a program reads or prints must be text, or a list of lines; found {found}"
    assert str(caught.value) == f"{tmp_path}/0000/input_output.json: {expected}"


@pytest.mark.parametrize(
    ("inputs", "args"),
    [
        ([{"1": 10, "-2": 20, "0": 0}], ({1: 10, -2: 20, 0: 0},)),
        (["x", {"1": 2}], ("x", {1: 2})),
        ([{"1": 2, "a": 3}], ({"1": 2, "a": 3},)),
        ([{"01": 2}], ({"01": 2},)),
        ([{}], ({},)),
        ([[{"1": 2}]], ([{"1": 2}],)),  # inside other values JSON's texts stay: the original does so too
    ],
)
def test_integer_keys_of_arguments_come_back(tmp_path, inputs, args):
    found = read(tmp_path, input_output={"fn_name": "f", "inputs": [inputs], "outputs": [1]})
    assert found.hidden_tests == (CallTest(args, 1),)


def test_unwrapped_outputs_say_so(tmp_path):
    found = read(tmp_path, input_output={"fn_name": "f", "inputs": [[1]], "outputs": [["a"]]})
    assert found.hidden_tests == (CallTest((1,), "a", is_wrapped=True),)


def test_taco_has_no_ids_and_is_numbered(tmp_path):
    line = {
        "question": "Add.",
        "input_output": json.dumps({"inputs": ["1"], "outputs": ["2"]}),
        "name": None,
        "tags": "[]",
    }
    line["Expected Auxiliary Space"] = "O(1)"
    (tmp_path / "train.jsonl").write_text("\n".join([json.dumps(line), "{", json.dumps(line)]))
    found = problems.load(tmp_path / "train.jsonl", on_bad=lambda error: None)
    assert [p.problem.problem_id for p in found] == ["taco_0", "taco_2"]
    with pytest.raises(InputError, match="x: field 'problem_id' must be a number or text, found NoneType"):
        apps.problem(line, "x")


def test_stdin_text_is_not_touched(tmp_path):
    stdin = " 1\r\n\n\u2028x  "
    found = read(tmp_path, input_output={"inputs": [stdin], "outputs": [""]})
    assert found.hidden_tests == (StdinTest(stdin, ""),)


@pytest.mark.parametrize("stored", [None, "", " \n", "null", "{}", {"inputs": [], "outputs": []}])
def test_a_problem_without_tests_loads_with_none(tmp_path, stored):
    found = read(tmp_path, **({} if stored is None else {"input_output": stored}))
    assert found.hidden_tests == ()
    assert found.solutions == ()
    assert found.problem.difficulty == "unknown"


def test_a_call_based_problem(tmp_path):
    stored = {"fn_name": "add", "inputs": [[1, [2]], [3, [4]]], "outputs": [3, 7]}
    found = read(tmp_path, input_output=stored, starter_code="def add(a, b):\n\t")
    assert found.problem.fn_name == "add"
    assert found.problem.starter_code == "def add(a, b):\n\t"
    assert found.hidden_tests == (CallTest((1, [2]), 3), CallTest((3, [4]), 7))


def test_an_argument_that_is_no_list_is_the_only_one(tmp_path):
    found = read(tmp_path, input_output={"fn_name": "f", "inputs": [5, "ab"], "outputs": [6, "ba"]})
    assert found.hidden_tests == (CallTest((5,), 6), CallTest(("ab",), "ba"))


@pytest.mark.parametrize(
    ("outputs", "starter", "expected"),
    [
        ([[True], [False]], "def f(n):\n\t", [True, False]),  # Codewars: wrapped
        ([[[1, 2]], [[]]], "", [[1, 2], []]),  # wrapped lists, of any length
        ([[[1]]], "", [[1]]),  # once, not twice
        ([[1], [2, 3]], "", [[1], [2, 3]]),  # lists: not all have one element
        ([[1], []], "", [[1], []]),
        ([9, [1]], "", [9, [1]]),
        ([[1]], "class Solution:\n    def f(self, n: int) -> List[int]:\n        ", [[1]]),  # a list is declared
        ([["a"]], "class Solution:\n    def f(self, n: int) -> typing.List[str]:\n        ", [["a"]]),
        ([[1]], "class Solution:\n    def f(self, n: int) -> int:\n        ", [1]),
    ],
)
def test_single_wrapped_outputs_are_unwrapped_once_by_the_whole_problem(tmp_path, outputs, starter, expected):
    stored = {"fn_name": "f", "inputs": [[0]] * len(outputs), "outputs": outputs}
    found = read(tmp_path, input_output=stored, starter_code=starter)
    assert [test.expected for test in found.hidden_tests] == expected


def test_without_tests_the_starter_code_names_the_function(tmp_path):
    commented = "# class Node:\n#     def left(self):\n"
    starter = commented + "class Solution:\n    def __init__(self):\n        pass\n    def go(self):"
    assert read(tmp_path, starter_code=starter).problem.fn_name == "go"


def test_tests_without_a_function_name_make_a_stdin_problem_in_spite_of_starter_code(tmp_path):
    found = read(tmp_path, input_output={"inputs": ["1"], "outputs": ["2"]}, starter_code="def f():")
    assert found.problem.fn_name is None


def test_integers_longer_than_the_interpreter_allows(tmp_path):
    """10**5000 has 5,001 digits; Python refuses text of more than 4,300."""
    text = '{"fn_name": "f", "inputs": [[1]], "outputs": [1' + "0" * 5000 + "]}"
    assert read(tmp_path, input_output=text).hidden_tests == (CallTest((1,), 10**5000),)


def test_examples_come_from_the_description_or_by_request_from_the_file(tmp_path):
    question = "Add.\n-----Example-----\nInput\nAb\n\nOutput\n3\n"
    write_folder(tmp_path, question=question, example_input_output={"inputs": ["5\n"], "outputs": ["6"]})
    write_folder(tmp_path, "0001", question=question, example_input_output="null")

    def shown(rules: str):
        return [p.problem.example_tests for p in problems.load(tmp_path, example_rules=rules)]

    assert shown("default") == [(StdinTest("Ab\n", "3\n"),)] * 2
    assert shown("legacy") == [(StdinTest("Ab\n", "3\n"),)] * 2
    assert shown("file") == [(StdinTest("5\n", "6"),), ()]


def test_an_example_file_of_text_stays_text_for_a_function_and_a_typed_one_makes_calls():
    stored = {"inputs": [" n = 2\n"], "outputs": [" 9\n"]}
    assert apps.example_file_tests(stored, "f", "x") == (StdinTest(" n = 2\n", " 9\n"),)
    assert apps.example_file_tests({"inputs": [[2]], "outputs": [9]}, "f", "x") == (CallTest((2,), 9),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"question": " \n"}, "question.txt: the question is empty"),
        ({"input_output": '{"inputs": ['}, "input_output.json: not valid JSON"),
        ({"input_output": [1]}, "input_output.json: expected a JSON object, found list"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "inputs and outputs must be lists of one length"),
        ({"input_output": {"inputs": {"a": 1}, "outputs": [1]}}, "inputs and outputs must be lists of one length"),
        ({"input_output": {"fn_name": "f(x", "inputs": [], "outputs": []}}, "fn_name must name a function"),
        ({"solutions": {"a": "b"}}, "solutions.json: expected a list of programs"),
        ({"metadata": [1]}, "metadata.json: expected a JSON object, found list"),
        ({"metadata": {"difficulty": 3}}, "metadata.json: field 'difficulty' must be text, found int"),
        ({"metadata": "[" * 100_000}, "metadata.json: not usable JSON"),
    ],
)
def test_malformed_files_give_one_line_that_names_them(tmp_path, files, message):
    folder = write_folder(tmp_path, **files)
    with pytest.raises(InputError, match=r"^[^\n]+$") as caught:
        apps.read_folder(folder)
    assert message in str(caught.value)
    assert "0000" in str(caught.value)


def test_a_question_in_another_encoding(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "question.txt").write_bytes("größer".encode("latin-1"))
    with pytest.raises(InputError, match=r"question.txt: not UTF-8 \(byte 0xf6 at 2"):
        apps.read_folder(folder)


def test_a_folder_without_its_question_is_an_error_and_an_unrelated_folder_is_not(tmp_path):
    write_folder(tmp_path)
    (tmp_path / ".cache").mkdir()
    assert len(problems.load(tmp_path)) == 1
    write_folder(tmp_path, "0001", solutions=["x"])
    (tmp_path / "0001" / "question.txt").unlink()
    with pytest.raises(InputError, match=r"0001.question.txt: cannot be read"):
        problems.load(tmp_path)


def test_split_folders(tmp_path):
    write_folder(tmp_path / "train", "a")
    write_folder(tmp_path / "test", "b")
    assert [p.problem.problem_id for p in problems.load(tmp_path)] == ["b", "a"]
    assert [p.problem.problem_id for p in problems.load(tmp_path, split="train")] == ["a"]
    with pytest.raises(InputError, match="unknown split 'tran'; did you mean 'train'"):
        problems.load(tmp_path, split="tran")
    with pytest.raises(InputError, match="holds problems, not splits"):
        problems.load(tmp_path / "train", split="train")


def test_one_problem_folder_is_a_data_set_of_one(tmp_path):
    assert problems.load(write_folder(tmp_path)) == problems.load(tmp_path)


def test_splits_that_share_folder_names_are_told_apart_by_their_own(tmp_path):
    """APPS itself: train/0000 and test/0000 are two problems, also when they are loaded one split at a time."""
    write_folder(tmp_path / "train", "0000")
    write_folder(tmp_path / "test", "0000")
    assert [p.problem.problem_id for p in problems.load(tmp_path)] == ["test-0000", "train-0000"]
    assert [p.problem.problem_id for p in problems.load(tmp_path, split="train")] == ["train-0000"]
    assert [p.problem.problem_id for p in problems.load(tmp_path / "train")] == ["0000"]


def hub_record(**changes: Any) -> dict[str, Any]:
    record = {
        "problem_id": 7,
        "question": "Add.",
        "solutions": json.dumps(["a", "b"]),
        "input_output": json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [[2]]}),
        "difficulty": "interview",
        "url": "u",
        "starter_code": "def f(x):\n\t",
    }
    return {**record, **changes}


def test_a_record_of_the_hub_is_the_problem_of_its_folder(tmp_path):
    """The same content in both layouts gives the same problem."""
    record = hub_record()
    folder = write_folder(
        tmp_path,
        "0007",
        question=record["question"],
        solutions=record["solutions"],
        input_output=record["input_output"],
        starter_code=record["starter_code"],
        metadata={"difficulty": "interview"},
    )
    assert apps.problem(record, "line 1") == apps.read_folder(folder)


def test_empty_fields_of_the_hub():
    found = apps.problem(hub_record(solutions="", input_output="", starter_code="", problem_id="x1"), "line 1")
    assert found.problem.problem_id == "x1"
    assert (found.hidden_tests, found.solutions, found.problem.fn_name) == ((), (), None)


def test_malformed_json_inside_a_record():
    with pytest.raises(InputError, match="line 1 input_output: not valid JSON"):
        apps.problem(hub_record(input_output="{"), "line 1")
    with pytest.raises(InputError, match="field 'problem_id' must be a number or text"):
        apps.problem(hub_record(problem_id=None), "line 1")


def test_the_five_real_problems(shared_data):
    """Counts, difficulties and wrapping as a person reads them in the folders."""
    found = {p.problem.problem_id: p for p in problems.load(shared_data / "apps" / "train")}
    facts = {
        name: (p.problem.difficulty, p.problem.fn_name, len(p.hidden_tests), len(p.solutions))
        for name, p in found.items()
    }
    assert facts == {
        "0001": ("interview", None, 1, 24),
        "0111": ("interview", None, 1, 1),
        "2287": ("competition", None, 3, 10),
        "2404": ("introductory", "findKthPositive", 1, 58),
        "4184": ("introductory", "is_prime", 8, 8),
    }
    assert found["2404"].hidden_tests == (CallTest(([2, 3, 4, 7, 11], 5), 9),)
    primes = [(test.args, test.expected) for test in found["4184"].hidden_tests]
    assert primes[:3] == [((1,), False), ((2,), True), ((5,), True)]
