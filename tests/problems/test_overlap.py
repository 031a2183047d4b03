"""The measure of section 4.5 by hand."""

import json

import pytest

from coderl import problems as data
from coderl.cli import main
from coderl.problems import jsonl
from coderl.problems.overlap import overlap
from coderl.types import InputError, LabelledProblem, Problem


def solved(name: str, *solutions: str) -> LabelledProblem:
    return LabelledProblem(Problem(name, "x"), solutions=solutions)


A = [
    solved("none", "a = 1\nb = 2"),
    solved("half", "\tc = 3\n\nd = 4\n"),
    solved("most", "e\nf\n  g\nh"),
    solved("common", "return x"),
    solved("commoner", "return x\nreturn x"),
    solved("twin", "c = 3"),  # the second use of this line: it still counts
    solved("unsolved"),
]
B = [solved("0", "c = 3 \nreturn x", "zzz"), solved("1", "  e\nf\ng\nh")]


def test_lines_are_compared_without_indent_and_common_ones_do_not_count():
    found = overlap(A, B)
    assert [(p.problem_id, p.num_lines, p.num_shared) for p in found.programs] == [
        ("none", 2, 0), ("half", 2, 1), ("most", 4, 4), ("common", 0, 0), ("commoner", 0, 0), ("twin", 1, 1)
    ]  # fmt: skip
    assert [p.share for p in found.programs] == [0.0, 0.5, 1.0, 0.0, 0.0, 1.0]
    assert found.num_other_programs == 3
    assert (found.num_disjoint, found.num_mostly_shared, found.num_at_most_3) == (3, 2, 5)


def test_all_lines_count_when_asked():
    found = overlap(A, B, max_uses=None)
    assert [(p.num_lines, p.num_shared) for p in found.programs] == [(2, 0), (2, 1), (4, 4), (1, 1), (2, 2), (1, 1)]
    assert (found.num_disjoint, found.num_mostly_shared, found.num_at_most_3) == (1, 4, 5)


def test_a_data_set_shares_all_with_itself():
    found = overlap(B, B)
    assert all(p.num_shared == p.num_lines for p in found.programs)
    assert found.num_disjoint == 0


def test_what_cannot_be_compared_is_one_line():
    with pytest.raises(InputError, match="second data set has no solutions"):
        overlap(A, [solved("x")])
    with pytest.raises(InputError, match="first data set has no solutions"):
        overlap([], A)
    with pytest.raises(InputError, match="max_uses 0"):
        overlap(A, B, max_uses=0)


def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    jsonl.write(tmp_path / "a.jsonl", A)
    jsonl.write(tmp_path / "b.jsonl", B)
    main(
        [
            "problems",
            "overlap",
            str(tmp_path / "a.jsonl"),
            str(tmp_path / "b.jsonl"),
            "--json",
            str(tmp_path / "o.json"),
        ]
    )
    out = capsys.readouterr().out
    assert "50.0" in out  # 3 of 6 share nothing
    assert "52.8" in out  # the paper's 514 of 974
    found = json.loads((tmp_path / "o.json").read_text())
    assert (found["num_programs"], found["num_disjoint"], found["num_at_most_3"]) == (6, 3, 5)
    assert found["programs"][1] == {"problem_id": "half", "index": 0, "num_lines": 2, "num_shared": 1}


def test_mbpp_against_the_sample_of_apps(shared_data):
    found = overlap(data.load(shared_data / "mbpp" / "mbpp.jsonl"), data.load(shared_data / "apps" / "train"))
    assert len(found.programs) == 974
    # A sample of 5 of APPS' 5,000 training problems shares less than all of APPS, where the paper finds 514.
    assert 514 < found.num_disjoint < 974
