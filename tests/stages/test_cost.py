"""What a recipe will cost: amounts by hand arithmetic, rates between measured sizes, and no model library."""

import pytest

from coderl.recipe import RunConfig
from coderl.stages import cost
from coderl.stages.cost import Amount, Lengths, Rates

RATES = Rates(
    rates=[
        {"hardware": "h", "work": "draw", "num_weights": 100, "tokens_per_s": 1000},
        {"hardware": "h", "work": "draw", "num_weights": 10_000, "tokens_per_s": 10},
        {"hardware": "h", "work": "train", "num_weights": 100, "batch_size": 4, "tokens_per_s": 50},
        {"hardware": "h", "work": "train", "num_weights": 100, "batch_size": 64, "tokens_per_s": 200},
    ],
    characters=[
        {"vocab_size": 100, "program": 1.0, "prompt": 2.0},
        {"vocab_size": 10_000, "program": 3.0, "prompt": 4.0},
    ],
    sandbox={"core_s_per_program": 0.5},
    bytes=dict.fromkeys(("per_program", "per_token", "per_scored_token", "per_verdict", "per_stored_verdict"), 1.0)
    | {"per_weight": 4.0},
    overhead={"cpu_s_per_stage": 1.0},
)
LENGTHS = Lengths(num_solved=10, num_solutions=20, num_tested=40, num_validation=0, num_test=5, prompt=30, program=10)


def test_rates_between_sizes_beyond_them_and_of_unknown_hardware():
    """Halfway in the logarithm between 1,000 and 10 is 100; ten times the largest size takes ten times as long."""
    assert RATES.tokens_per_s("h", "draw", 1000, 1) == pytest.approx(100)
    assert RATES.tokens_per_s("h", "draw", 100_000, 1) == pytest.approx(1)
    assert RATES.tokens_per_s("h", "train", 100, 8) == pytest.approx(50)
    assert RATES.tokens_per_s("h", "train", 100, 32) == pytest.approx(200)
    assert RATES.tokens_per_s("another", "draw", 100, 1) is None
    assert RATES.characters_per_token(1000) == pytest.approx((2.0, 3.0))


def test_amounts_by_hand():
    """One round of 40 problems x (3 samples and a greedy one), not replayed; two models on 5 test problems."""
    config = RunConfig.model_validate(
        {
            "warm_start": {"optim": {"num_epochs": 3, "batch_size": 4}},
            "rounds": {"num_rounds": 1, "sample": {"num_samples": 3}},
            "returns": {"spread": "uniform", "baseline": "greedy"},
            "actor_training": {"optim": {"num_steps": 2, "batch_size": 8}},
            "evaluation": {"num_samples": 2, "ks": [1], "temperatures": [0.6], "ce_control": False},
            "critic_sampling": None,
        }
    )
    found = {a.stage: a for a in cost.amounts(config, LENGTHS, 100, RATES)}
    assert found["warm-start"] == Amount("warm-start", num_trained_tokens=20 * 3 * 40, num_bytes=400, batch_size=4)
    drawn = found["round-00/sample"]
    assert (drawn.num_programs, drawn.num_drawn_tokens, drawn.num_bytes) == (160, 1600, 160 + 1600)
    assert found["round-00/execute"].num_runs == 160
    assert found["round-00/actor"].num_trained_tokens == 2 * 8 * 40
    assert found["evaluate/warm_start/t0.6/sample"].num_programs == 15  # the greedy one too
    assert found["evaluate/warm_start/t0.6/execute"].num_runs == 30  # on hidden and on example tests
    assert "round-00/critic" not in found
    (one,) = cost.costs([drawn], RATES, "h", 100)
    assert one.model_s == pytest.approx(1.0 + 1600 / 1000)
    runs, *_ = cost.costs([found["round-00/execute"]], RATES, "h", 100)
    assert (runs.model_s, runs.sandbox_s) == (1.0, 80.0)
    assert cost.total(cost.costs([drawn], RATES, "another", 100)).model_s is None


@pytest.mark.parametrize(
    ("init", "weights"),
    [("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6), ("Qwen/Qwen2.5-Coder-0.5B", 0.5e9), ("x", None)],
)
def test_a_name_says_how_many_weights(init, weights):
    assert cost.num_weights_of(RunConfig.model_validate({"actor": {"init": init}})) == weights


def test_weights_are_counted_without_loading_them(tmp_path, tiny):
    model = tiny()
    model.save(tmp_path)
    own = sum(p.numel() for p in model.parameters())
    assert cost.num_weights_of(RunConfig.model_validate({"actor": {"init": str(tmp_path)}})) == own


def test_the_rates_that_come_with_the_package_cover_each_work():
    rates = Rates.load()
    for hardware in rates.hardware:
        assert all(rates.tokens_per_s(hardware, work, 1e6, 16) for work in ("draw", "train", "read"))
