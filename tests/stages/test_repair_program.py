"""One program of a person: the outcome, where the critic's value falls, and the repairs that pass."""

import json

import pytest

from coderl.critic.lines import line_values, token_texts
from coderl.critic_sampling.models import PrefixScorer, RepairModel
from coderl.engines.actor import Actor
from coderl.execution import ExecutionConfig
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.stages.repair_program import read_problem, repair_program, text_of
from coderl.types import (
    InputError,
    Outcome,
    Problem,
    Program,
    Score,
    StdinTest,
)

PROBLEM = Problem("p", "Add one.", example_tests=(StdinTest("1\n", "2\n"), StdinTest("4\n", "5\n")))
BROKEN = "n = int(input())\nm = [][n]\nprint(n + 1)\n"
RIGHT = "print(int(input()) + 1)\n"


@pytest.fixture(scope="module")
def model():
    return tiny_t5(
        train_tokenizer([BROKEN, RIGHT] * 20, 400), d_model=8, d_ff=8, num_layers=1, num_heads=1, dropout=0.0, seed=0
    )


class Repairer(RepairModel):
    """Draws the given texts in turn, whatever it is asked."""

    def __init__(self, model, *texts):
        self.texts = texts
        self.asked = []
        self.actor = Actor(model)

    def repair(self, requests, *, seed):
        self.asked += [(r.program.code, r.result.outcome, r.num_samples) for r in requests]
        texts = [self.texts[i % len(self.texts)] for i in range(requests[0].num_samples)]
        return [[Program("p", 0, text, tokens=(5, 6)) for text in texts]]


class Critic(PrefixScorer):
    """Values a program 0.9 to pass, 0.2 from the token on that holds a [."""

    def __init__(self, model):
        self.model = model

    def score(self, items):
        scores = []
        for _, program in items:
            seen = ["[" in self.model.decode(program.tokens[: t + 1]) for t in range(len(program.tokens))]
            rows = tuple((0.8, 0.2) if bad else (0.1, 0.9) for bad in seen)
            scores.append(Score(rows[-1], rows))
        return scores


def report_of(code, model, *texts, num_samples=4):
    repairer = Repairer(model, *texts)
    found = repair_program(
        code,
        PROBLEM,
        repairer=repairer,
        critic=Critic(model),
        num_samples=num_samples,
        execution=ExecutionConfig(num_workers=1),
        seed=0,
    )
    return repairer, found


def test_a_crashing_program_is_explained_and_its_passing_repairs_are_given_once(model):
    """Of four repairs drawn, two have one text and pass, one is wrong and one does not compile."""
    repairer, found = report_of(BROKEN, model, RIGHT, "print(0)\n", "print(\n", RIGHT)
    assert repairer.asked == [(BROKEN, Outcome.RUNTIME_ERROR, 4)]
    assert (found.result.error_subtype, found.result.error_line) == ("indexerror", 2)
    assert [line.value for line in found.lines] == [0.9, 0.2, 0.2]
    assert found.suspect == 2
    assert [c.program.code for c in found.repairs] == [RIGHT]
    assert (found.num_drawn, found.num_distinct) == (4, 3)
    text = text_of(found, "broken.py")
    assert text.splitlines()[0] == (
        "broken.py: runtime error (indexerror) on line 2: IndexError: list index out of range"
    )
    assert "   2  0.20  m = [][n]        <- critic <- error" in text
    assert text.endswith(f"--- repair 1 (critic 0.90)\n{RIGHT}")


def test_a_program_that_passes_is_not_repaired(model):
    repairer, found = report_of(RIGHT, model, "print(0)\n")
    assert not repairer.asked
    assert found.repairs == ()
    assert "nothing to repair" in text_of(found, "right.py")


def test_where_no_repair_passes_none_is_given(model):
    _, found = report_of("print(0)\n", model, "print(1)\n", num_samples=3)
    assert found.repairs == ()
    assert "3 repairs drawn, 1 distinct, 0 pass" in text_of(found, "x.py")


def test_a_line_has_the_value_of_its_last_token(model):
    """The end of sequence stands behind the last line's end and counts for it; lines that are not read have none."""
    tokens = model.encode_program(BROKEN)
    values = [i / 100 for i in range(len(tokens))]
    texts = token_texts(model, tokens)
    lines = line_values(BROKEN, texts, values)
    assert [line.text for line in lines] == BROKEN.splitlines()
    assert lines[-1].value == values[-1]
    assert lines[0].value < lines[1].value < lines[2].value
    cut = line_values(BROKEN, texts[:3], values[:3])
    assert (cut[0].value, cut[2].value) == (values[2], None)
    assert [line.value for line in line_values(BROKEN, texts, None)] == [None] * 3


def test_a_problem_that_cannot_be_used_is_one_line(tmp_path):
    folder = tmp_path / "0000"
    folder.mkdir()
    (folder / "question.txt").write_text("Add one.\n")
    with pytest.raises(InputError, match="no example test"):
        read_problem(str(folder), None)
    (folder / "question.txt").write_text("Add one.\n\n-----Examples-----\nInput\n1\n\nOutput\n2\n")
    (folder / "input_output.json").write_text(json.dumps({"inputs": ["7\n"], "outputs": ["8\n"]}))
    found = read_problem(str(folder), None)
    assert found.example_tests == (StdinTest("1\n", "2\n"),)
    assert isinstance(found, Problem)
    with pytest.raises(InputError, match="no problem '1'"):
        read_problem(str(folder), "1")
