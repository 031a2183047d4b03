"""Our own JSON lines: what is written comes back, whatever it is."""

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
call_tests = st.tuples(st.just(CallTest), st.lists(json_values, max_size=3).map(tuple), json_values)
assert_tests = st.tuples(st.just(AssertTest), texts, texts)
tests = st.lists(stdin_tests | call_tests | assert_tests, max_size=3)
ids = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
maybe_texts = st.none() | texts
shown = st.tuples(ids, texts.filter(str.strip), texts, maybe_texts, texts, tests)
labelled = st.tuples(shown, tests, st.lists(texts, max_size=2).map(tuple), maybe_texts)


def build(drawn) -> LabelledProblem:
    def built(tests):
        return tuple(kind(*fields) for kind, *fields in tests)

    (*fields, example_tests), hidden_tests, solutions, checker = drawn
    return LabelledProblem(Problem(*fields, built(example_tests)), built(hidden_tests), solutions, checker)


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(labelled, max_size=3), is_packed=st.booleans())
def test_round_trip(tmp_path_factory, drawn, is_packed):
    """All three kinds of tests, every character, control and surrogate ones too."""
    found = [build(fields) for fields in drawn]
    path = tmp_path_factory.mktemp("jsonl") / ("p.jsonl.gz" if is_packed else "p.jsonl")
    assert jsonl.write(path, found) == len(found)
    assert list(jsonl.read(path)) == found


def test_huge_integers_and_infinities_round_trip(tmp_path):
    found = [LabelledProblem(Problem("a", "b"), (CallTest((10**6000, -float("inf")), float("inf")),))]
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


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"problem_id": "a"}, "x: field 'description' must be text, found nothing"),
        ({"problem_id": "a", "description": " "}, "x: the description is empty"),
        ({"problem_id": 1, "description": "b"}, "x: field 'problem_id' must be text, found int"),
        ({"problem_id": "a", "description": "b", "hiden_tests": []}, "x: unknown field 'hiden_tests'"),
        ({"problem_id": "a", "description": "b", "hidden_tests": [{"in": 1}]}, r"x hidden_tests\[0\]: a test is"),
        ({"problem_id": "a", "description": "b", "hidden_tests": {"in": 1}}, "'hidden_tests' must be a list of tests"),
        ({"problem_id": "a", "description": "b", "solutions": "s"}, "'solutions' must be a list of texts"),
    ],
)
def test_malformed_records(record, message):
    with pytest.raises(InputError, match=message):
        jsonl.problem(record, "x")
