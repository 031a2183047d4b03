"""The project's own networks as what a search asks for, and example tests that crash in the real sandbox."""

import pytest

from coderl.critic.model import Critic
from coderl.critic_sampling.candidates import NoRound, PrefixRequest, Tools
from coderl.critic_sampling.models import PrefixScorer, RepairModel
from coderl.critic_sampling.search import critic_sample
from coderl.critic_sampling.settings import CriticSamplingConfig
from coderl.engines.actor import Actor
from coderl.engines.settings import SamplingConfig
from coderl.execution import ExecutionConfig, open_executor
from coderl.models.tiny import tiny_t5, train_tokenizer
from coderl.prompts import PromptConfig
from coderl.stages.critic_sample import run_example_tests
from coderl.types import (
    AssertTest,
    CallTest,
    Outcome,
    Problem,
    Program,
    ProgramKind,
)

TEXT = "s = 'né'\n"
PROBLEM = Problem("p", "Print.", fn_name="f", example_tests=(CallTest((2,), 4),))


@pytest.fixture(scope="module")
def model():
    shape = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.0}
    return tiny_t5(train_tokenizer(["print(input())"] * 20, 400), seed=0, **shape)


@pytest.fixture(scope="module")
def actor(model):
    return Actor(model, PromptConfig(max_prompt_tokens=64), SamplingConfig(temperature=1.0, max_new_tokens=6))


def test_a_prefix_that_ends_inside_a_letter_is_continued_token_by_token(model, actor):
    """é is two bytes and two tokens here: the prefix holds the first, and only the second makes it a letter again."""
    tokens = tuple(model.encode_program(TEXT))
    cut = next(i for i in range(len(tokens)) if model.decode(tokens[:i]).endswith("\ufffd"))
    (drawn,) = actor.continue_prefixes([PrefixRequest(PROBLEM, tokens[:cut], 4)], seed=0)
    assert len(drawn) == 4
    for program in drawn:
        assert program.tokens[:cut] == tokens[:cut]
        assert program.code == model.decode(program.tokens)
        assert program.code.startswith("s = 'n")
    assert model.decode(tokens[:cut] + tokens[cut:]) == TEXT
    score, *_ = PrefixScorer(Critic(model, num_outcomes=2), actor.prompt).score([(PROBLEM, drawn[0])])
    assert len(score.token_probs) == len(drawn[0].tokens)


def run_search(actor, model, problem, *codes):
    with open_executor(ExecutionConfig(num_workers=1)) as executor:
        return critic_sample(
            problem,
            [Program("p", i, code, tokens=tuple(model.encode_program(code))) for i, code in enumerate(codes)],
            Tools(
                actor,
                PrefixScorer(Critic(model, num_outcomes=2), actor.prompt),
                RepairModel(actor),
                lambda items: run_example_tests(executor, items),
            ),
            config=CriticSamplingConfig(keep="all", num_samples=3),
            seed=0,
        )


def test_a_whole_search_with_networks_of_random_weights(actor, model):
    """One program passes and is refined with all three draws; no critic of random weights is needed to be right."""
    result = run_search(actor, model, PROBLEM, "def f(x): return x + 2", "def f(x): return x")
    kinds = [c.program.kind for c in result.candidates]
    assert kinds == [ProgramKind.SAMPLE] * 2 + [ProgramKind.REFINED] * 3
    assert [c.result.outcome for c in result.candidates[:2]] == [Outcome.PASSED_TEST, Outcome.FAILED_TEST]
    kept = result.candidates[2].num_prefix_tokens
    assert result.candidates[2].program.tokens[:kept] == result.candidates[0].program.tokens[:kept]


def test_without_a_passing_program_the_repair_model_draws_all(actor, model):
    result = run_search(actor, model, PROBLEM, "def f(x): return x", "def f(x):")
    repaired = [c for c in result.candidates if c.round == 1]
    assert [c.program.kind for c in repaired] == [ProgramKind.REPAIRED] * 3
    assert len({c.parent for c in repaired}) == 1


def test_example_tests_that_crash_make_no_program_pass(actor, model):
    """An example that raises by itself blames every program alike: all are failing, and the search goes on."""
    crashing = Problem("p", "d", fn_name="f", example_tests=(AssertTest("assert f(nowhere) == 4\nassert [][1]"),))
    result = run_search(actor, model, crashing, "def f(x): return x + 2")
    assert result.candidates[0].result.outcome is not Outcome.PASSED_TEST
    assert {c.program.kind for c in result.candidates[1:]} == {ProgramKind.REPAIRED}
    assert result.no_round is None


def test_programs_that_crash_on_an_example_are_failing_and_not_masked(actor, model):
    codes = ("def f(x): return 1 // 0", "import os\ndef f(x): os._exit(3)", "def f(x): raise SystemExit")
    result = run_search(actor, model, PROBLEM, *codes)
    assert [c.result.outcome for c in result.candidates[:3]] == [Outcome.RUNTIME_ERROR] * 3
    assert result.num_masked == 0
    assert result.no_round is not NoRound.NO_VERDICTS
