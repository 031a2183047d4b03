"""Our own JSON lines: what is written comes back, whatever it is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl import problems
from coderl.problems import jsonl
from coderl.types import (
    AssertTest,
    CallTest,
    InputError,
    LabelledProblem,
    Problem,
    StdinTest,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
texts = st.text(st.characters(codec=None))
# plain tuples: the test builds the dataclasses, since their type checker may not run inside a strategy
stdin_tests = st.tuples(st.just(StdinTest), texts, texts)
arguments = json_values | st.dictionaries(st.integers(), json_values, min_size=1, max_size=3)
call_tests = st.tuples(st.just(CallTest), st.lists(arguments, max_size=3).map(tuple), json_values, st.booleans())
assert_tests = st.tuples(st.just(AssertTest), texts.map(lambda t: f"assert f({t!r})"), texts.map(repr))
tests = st.lists(stdin_tests | call_tests | assert_tests, max_size=3)
ids = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
names = st.sampled_from(["f", "größe", "_1"])
sources = st.just("") | texts.map(repr)
shown = st.tuples(ids, texts.filter(str.strip), texts, names, texts, sources, tests)
labelled = st.tuples(shown, tests, st.lists(texts, max_size=2).map(tuple), st.none() | sources)


def build(drawn) -> LabelledProblem:
    def built(tests):
        return tuple(kind(*fields) for kind, *fields in tests)

    (*fields, prelude, example_tests), hidden_tests, *others = drawn
    return LabelledProblem(Problem(*fields, built(example_tests), prelude), built(hidden_tests), *others)


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(labelled, max_size=3), is_packed=st.booleans())
def test_round_trip(tmp_path_factory, drawn, is_packed):
    """All three kinds of tests, every character, control and surrogate ones too."""
    found = [build(fields) for fields in drawn]
    path = tmp_path_factory.mktemp("jsonl") / ("p.jsonl.gz" if is_packed else "p.jsonl")
    assert jsonl.write(path, found) == len(found)
    assert list(jsonl.read(path)) == found


def test_huge_integers_and_infinities_round_trip(tmp_path):
    found = [LabelledProblem(Problem("a", "b", fn_name="f"), (CallTest((10**6000, -float("inf")), float("inf")),))]
    jsonl.write(tmp_path / "p.jsonl", found)
    assert list(jsonl.read(tmp_path / "p.jsonl")) == found


def test_equal_problems_make_equal_bytes(tmp_path):
    found = [LabelledProblem(Problem("a", "b"))]
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        jsonl.write(tmp_path / name, found)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.jsonl"
    jsonl.write(path, [LabelledProblem(Problem("a", "b"))])

    def broken():
        yield LabelledProblem(Problem("c", "d"))
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        jsonl.write(path, broken())
    assert [p.problem.problem_id for p in jsonl.read(path)] == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]


def test_load_sees_the_format(tmp_path):
    found = [LabelledProblem(Problem("a", "b"), (StdinTest("1", "2"),)), LabelledProblem(Problem("c", "d"))]
    jsonl.write(tmp_path / "p.jsonl", found)
    assert problems.load(tmp_path / "p.jsonl") == found
    assert problems.load(tmp_path, limit=1) == found[:1]


def test_only_id_and_description_are_required():
    assert jsonl.problem({"problem_id": "a", "description": "b"}, "x") == LabelledProblem(Problem("a", "b"))


NEEDED = {"problem_id": "a", "description": "b"}
CALLS = {**NEEDED, "fn_name": "f"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"problem_id": "a"}, "x: field 'description' must be text, found nothing"),
        ({"problem_id": "a", "description": " "}, "x: field 'description' is empty"),
        ({**NEEDED, "problem_id": 1}, "x: field 'problem_id' must be text, found int"),
        ({**NEEDED, "hiden_tests": []}, "x: unknown field 'hiden_tests'; did you mean 'hidden_tests'?"),
        ({**NEEDED, "hidden_tests": {"in": 1}}, "x: field 'hidden_tests' must be a list of tests, found dict"),
        ({**NEEDED, "solutions": "s"}, "'solutions' must be a list of texts"),
        ({**NEEDED, "fn_name": "Solution().f"}, "x: field 'fn_name' must name a function or a method of Solution"),
        (
            {**NEEDED, "hidden_tests": [{"in": 1}]},
            "x: field 'hidden_tests[0]': its fields are in; a test is {stdin, stdout}, {args, expected} or {assert}",
        ),
        (
            {**NEEDED, "hidden_tests": ["assert f(1)"]},
            "'hidden_tests[0]': expected an object, found str; a test is {std",
        ),
        (
            {**NEEDED, "hidden_tests": [{"stdin": "1", "stdout": "2"}, {"stdin": "1", "output": "2"}]},
            "x: field 'hidden_tests[1]': lacks 'stdout'; such a test is {stdin, stdout}",
        ),
        (
            {**NEEDED, "example_tests": [{"stdin": ["1"], "stdout": "2"}]},
            "'example_tests[0]': 'stdin' must be text, found",
        ),
        (
            {**CALLS, "hidden_tests": [{"args": 3, "expected": 4}]},
            "'args' must be a list, one item an argument; found int",
        ),
        ({**CALLS, "hidden_tests": [{"args": [3], "expect": 4}]}, "lacks 'expected'; such a test is {args, expected}"),
        (
            {**CALLS, "hidden_tests": [{"assert": "x", "sotup": ""}]},
            "has the unknown field 'sotup'; such a test is {asse",
        ),
        ({**CALLS, "hidden_tests": [{"args": [3], "expected": 4, "int_keys": [0]}]}, "'int_keys' must list the places"),
        (
            {**NEEDED, "hidden_tests": [{"args": [3], "expected": 4}]},
            "x: field 'fn_name' is missing: tests with args call a function, and it must be named",
        ),
        (
            {**CALLS, "hidden_tests": [{"assert": "a = 1\nassert f(1) == = 2"}]},
            "x: field 'hidden_tests[0]': not Python (invalid syntax, line 2): 'assert f(1) == = 2'",
        ),
        (
            {**NEEDED, "checker": "def check(:"},
            "x: field 'checker': not Python (invalid syntax, line 1): 'def check(:'",
        ),
        ({**NEEDED, "prelude": "import"}, "x: field 'prelude': not Python ("),
        ({**CALLS, "hidden_tests": [{"assert": "1", "setup": "="}]}, "x: field 'hidden_tests[0]' setup: not Python ("),
        ({**CALLS, "hidden_tests": [{"assert": "-" * 100_000 + "1"}]}, "x: field 'hidden_tests[0]': not Python ("),
    ],
)
def test_malformed_records_are_named_with_the_nearest_right_form(record, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        jsonl.problem(record, "x")
    assert "\n" not in str(caught.value)


def test_the_template_is_a_file_of_our_format_with_a_problem_of_each_kind(tmp_path):
    (tmp_path / "mine.jsonl").write_text(jsonl.TEMPLATE)
    found = problems.load(tmp_path / "mine.jsonl")
    kinds = [{type(test) for test in labelled.hidden_tests} for labelled in found]
    assert kinds == [{StdinTest}, {CallTest}, {AssertTest}, {StdinTest}]
    assert found[3].checker is not None
    assert all(line.startswith(("#", "{")) for line in jsonl.TEMPLATE.splitlines())


def test_a_bad_line_is_named_and_the_others_are_read(tmp_path):
    lines = [
        '{"problem_id": "a", "description": "b"}',
        "{",
        '{"problem_id": "c"}',
        '{"problem_id": "d", "description": "e"}',
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    bad = []
    assert [p.problem.problem_id for p in jsonl.read(tmp_path / "p.jsonl", bad.append)] == ["a", "d"]
    assert [str(error).split(": ")[0] for error in bad] == [f"{tmp_path}/p.jsonl:2", f"{tmp_path}/p.jsonl:3"]
