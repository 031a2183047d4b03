"""Online learning on a tiny model, with a judge that needs no sandbox: credit by hand, memory, resume; it climbs."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from coderl.critic.prefix import PrefixCritic, expected_returns, outcome_row
from coderl.engines.actor import Actor
from coderl.prompts import PromptConfig
from coderl.rl import online
from coderl.rl.advantages import Record
from coderl.rl.credit import corrected, examples_of, measure
from coderl.rl.losses import ActorCritic, OnlineExample, online_loss, prefix_cross_entropy, read
from coderl.rl.settings import ActorTrainingConfig, OnlineConfig, OnlineOptimConfig, ReturnsConfig
from coderl.training.losses import CrossEntropyExample
from coderl.types import (
    InputError,
    LabelledProblem,
    Outcome,
    Problem,
    Program,
    ProgramKind,
    Rollout,
    SandboxError,
    StdinTest,
    Verdict,
)

PROBLEMS = [LabelledProblem(Problem(f"p{i}", f"write {i}"), (StdinTest("", "1"),)) for i in range(5)]
PROMPT = PromptConfig(max_prompt_tokens=24, max_program_tokens=8)


class Judge:
    """Passes a program whose first character is even; every third program is a fault where asked."""

    def __init__(self, *, has_faults=False):
        self.has_faults = has_faults

    def run(self, jobs):
        for index, job in enumerate(jobs):
            if self.has_faults and index % 3 == 0:
                yield Verdict(None, fault="the sandbox broke")
            else:
                yield Verdict(Outcome.PASSED_TEST if ord(job.code[:1] or "\1") % 2 == 0 else Outcome.FAILED_TEST)


def settings(num_steps=4, **options):
    training = {"optim": OnlineOptimConfig(batch_size=256, num_steps=num_steps, learning_rate=1e-2), "ce_weight": 0.0}
    given = {"problems_per_draw": 3, "num_samples": 4, **options}
    training |= given.pop("training", {})
    sampling = {"max_new_tokens": 6}
    return OnlineConfig.model_validate({**given, "training": training, "sampling": sampling})


def draws_of(model, config, judge=None, seed=3):
    built, drawing = online.build(model, config, seed=seed)
    drawer = Actor(drawing, PROMPT, config.sampling)
    return online.Draws(built, drawer, PROBLEMS, judge or Judge(), config, seed=seed)


def learn(model, config, folder=None, *, stop_after=None, **options):
    draws = draws_of(model, config, **options)
    metrics = []
    for step in online.learn(draws, config, checkpoint_dir=folder):
        metrics.append(step)
        if step.step == stop_after:
            break
    return draws, metrics


WAYS = {
    "grpo": {},
    "ppo": {
        "critic": "head",
        "returns": {"spread": "gae", "baseline": "none", "gae_decay": 0.9, "reward": "passing"},
        "num_passes": 2,
        "critic_draws": 2,
        "training": {"clip_range": 0.2, "clip_high": 0.3},
        "entropy_weight": 0.01,
    },
    "coderl": {"critic": "network", "returns": {"baseline": "greedy", "spread": "critic"}, "replay_passes": True},
    "tracker": {
        "returns": {"baseline": "tracker", "spread": "uniform", "reward": "passing"},
        "whiten": True,
        "averaging": 0.9,
        "choose": "uncertain",
    },
}


@pytest.mark.parametrize("way", ["ppo", *(pytest.param(w, marks=pytest.mark.slow) for w in WAYS if w != "ppo")])
def test_a_run_that_is_killed_goes_on_bit_for_bit(tiny, tmp_path, way):
    """Checkpoints fall in the middle of draws too (two passes a draw)."""
    optim = OnlineOptimConfig(batch_size=64, num_steps=5, learning_rate=1e-2, checkpoint_every_steps=1)
    config = settings(**{**WAYS[way], "training": {**WAYS[way].get("training", {}), "optim": optim}})
    whole, _ = learn(tiny(), config, tmp_path / "whole")
    learn(tiny(), config, tmp_path / "killed", stop_after=2)
    resumed, steps = learn(tiny(), config, tmp_path / "killed")
    assert [s.step for s in steps][-3:] == [3, 4, 5]
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.dumps(whole.state(), sort_keys=True) == json.dumps(resumed.state(), sort_keys=True) or (
        without_clocks(whole) == without_clocks(resumed)
    )


def without_clocks(draws):
    state = draws.state()
    state["metrics"] = {n: v for n, v in state["metrics"].items() if not n.endswith("_s") and v == v}
    return state


def test_it_climbs(tiny):
    """The judge is pleased more often after some updates than before."""
    _, steps = learn(tiny(), settings(num_steps=20, problems_per_draw=5, num_samples=16))
    first, last = ([s.metrics["pass_rate"] for s in part] for part in (steps[:5], steps[-5:]))
    assert sum(last) > sum(first) + 0.5


def rollout(outcome, tokens=(20, 21, 2), problem="p0", kind=ProgramKind.SAMPLE, index=0):
    return Rollout(Program(problem, index, "x", kind, tokens), Verdict(outcome))


def test_group_normalised_credit_by_hand(tiny):
    """One right of four: mean 1/4, deviation sqrt(3)/4; the right one earns 3/sqrt(3), the others -1/sqrt(3)."""
    group = [rollout(Outcome.PASSED_TEST)] + [rollout(Outcome.FAILED_TEST, (20 + i, 2)) for i in range(3)]
    model = ActorCritic(tiny())
    found, figures = examples_of([group], model, {"p0": (10, 11)}, {}, settings())
    assert [e.token_returns for e in found] == [
        pytest.approx((3**0.5,) * 3),
        *[pytest.approx((-(3**-0.5),) * 2)] * 3,
    ]
    assert figures == {}


def test_a_group_of_one_outcome_teaches_nothing(tiny):
    group = [rollout(Outcome.FAILED_TEST, (20 + i, 2)) for i in range(4)]
    assert examples_of([group], ActorCritic(tiny()), {"p0": (10, 11)}, {}, settings())[0] == []


def test_the_tracker_takes_the_running_return(tiny):
    config = settings(returns={"baseline": "tracker", "spread": "uniform", "reward": "passing"})
    records = {"p0": Record(8.0, 0.25, 0.25)}
    found, _ = examples_of([[rollout(Outcome.PASSED_TEST)]], ActorCritic(tiny()), {"p0": (10, 11)}, records, config)
    assert found[0].token_returns == (0.75,) * 3


def test_a_fresh_critic_expects_the_mean_of_the_returns(tiny):
    """It starts at zero, so each outcome has 1/4 and V = (-1 - 0.6 - 0.3 + 1) / 4 at every prefix."""
    config = settings(critic="head", returns={"spread": "gae", "baseline": "none", "reward": "outcome"})
    model, _ = online.build(tiny(), config)
    found, figures = examples_of([[rollout(Outcome.PASSED_TEST)]], model, {"p0": (10, 11)}, {}, config)
    assert found[0].token_returns == pytest.approx((1 + 0.225,) * 3)
    assert figures["critic_loss_before"] == pytest.approx(1.3862944)
    assert expected_returns([(0.0, 0.0, 0.5, 0.5)], [-1.0, -0.6, -0.3, 1.0]) == [0.35]


def test_programs_that_were_cut_teach_nothing(tiny):
    group = [rollout(Outcome.PASSED_TEST), replace(rollout(Outcome.FAILED_TEST, (20,) * 6), is_cut=True)]
    found, _ = examples_of([group], ActorCritic(tiny()), {"p0": (10, 11)}, {}, settings(mask_cut=True))
    assert [len(e.program) for e in found] == [3]


def test_the_loss_by_hand(tiny):
    """-(a + b + c) / 3 of a return of one, and the critic's cross-entropy ln 4 over four prefixes."""
    config = settings(critic="head")
    model, _ = online.build(tiny(), config)
    row = outcome_row(Outcome.PASSED_TEST)
    example = OnlineExample((10, 11), (20, 21, 2), (1.0, 1.0, 1.0), (), (row,) * 4)
    loss, figures = online_loss(model, [example], config=config)
    with torch.no_grad():
        expected = -model.actor.log_probs(model.actor.collate([(10, 11)], [(20, 21, 2)]))[0].mean().item()
    assert figures["rl_loss"] == pytest.approx(expected, rel=1e-5)
    assert figures["critic_loss"] == pytest.approx(1.3862944)
    assert loss.item() == pytest.approx(expected + 0.5 * 1.3862944, rel=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole(tiny):
    config = settings(critic="head", entropy_weight=0.1, training={"ce_weight": 0.5})
    model, _ = online.build(tiny(), config)
    row = outcome_row(Outcome.FAILED_TEST)
    anchor = CrossEntropyExample((10,), (22, 2))
    examples = [OnlineExample((10, 11), (20, 21, 2), (1.0, -1.0, 0.5), (), (row,) * 4, anchor),
                OnlineExample((10,), (23, 2), (0.5, 0.5), (), (row,) * 3)]  # fmt: skip
    whole = online_loss(model, examples, config=config)[0]
    parts = [online_loss(model, [e], examples, config=config)[0] for e in examples]
    assert sum(p.item() for p in parts) == pytest.approx(whole.item(), rel=1e-5)


def test_temperature_and_entropy_are_those_of_drawing(tiny):
    model = ActorCritic(tiny())
    batch = model.actor.collate([(10, 11)], [(20, 2)])
    with torch.no_grad():
        logits = model.actor.read(batch, with_logits=True).logits[0] / 0.5
        said = read(model, batch, temperature=0.5)
    probs = logits.softmax(-1)
    assert said.log_probs[0].tolist() == pytest.approx([probs[0, 20].log().item(), probs[1, 2].log().item()], rel=1e-4)
    assert said.entropies[0].tolist() == pytest.approx((-(probs * probs.log()).sum(-1)).tolist(), rel=1e-4)


def test_another_engines_draws_are_corrected():
    """Ratios e^0.5 and e^-0.5 by hand; e^2 is cut at 2."""
    found = corrected((1.0, 2.0, -1.0), (-1.0, -1.5, -1.0), (-1.5, -1.0, -3.0), most=2.0)
    assert found == pytest.approx((1.6487213, 2 * 0.6065307, -2.0))


def test_rounded_weights_draw_and_take_over_what_was_learned(tiny):
    """A bfloat16 copy draws; after training it holds the float32 weights, rounded, and drew tokens are corrected."""
    config = settings()
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update={"dtype": "bfloat16"})})
    draws, _ = learn(tiny(), config)
    drawing = draws.actor.model
    assert drawing is not draws.model.actor
    draws.model.refresh(drawing)
    ours, theirs = draws.model.actor.state_dict(), drawing.state_dict()
    assert all(torch.equal(ours[name].bfloat16(), theirs[name]) for name in ours)


def test_adapters_draw_merged(tiny):
    pytest.importorskip("peft")
    config = settings(training={"lora": {"rank": 2}})
    draws, _ = learn(tiny("llama"), config)
    draws.model.refresh(draws.actor.model)
    batch = draws.model.actor.collate([(10, 11)], [(20, 2)])
    with torch.no_grad():
        ours, theirs = (m.eval().log_probs(batch) for m in (draws.model.actor, draws.actor.model))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_clipping_is_measured_from_the_policy_that_drew(tiny):
    """Before any update the ratio is one, so the clipped loss is minus the mean return."""
    config = settings(training={"clip_range": 0.2})
    model = ActorCritic(tiny())
    drawn = rollout(Outcome.PASSED_TEST)
    (measured,) = measure(model, [drawn], {"p0": (10, 11)}, config)
    example = OnlineExample((10, 11), (20, 21, 2), (1.0, 2.0, 3.0), measured.log_probs)
    loss, _ = online_loss(model, [example], config=config)
    assert loss.item() == pytest.approx(-2.0, rel=1e-5)


def test_the_critic_alone_learns_until_it_has_settled(tiny):
    assert not online.has_settled([1.0, 0.9, 0.8], most=20)
    assert not online.has_settled([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], most=20)
    assert online.has_settled([0.7] * 8, most=20)
    assert online.has_settled([1.0, 0.5], most=2)
    config = settings(num_steps=2, critic="head", critic_draws=50)
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    config = config.model_copy(update={"critic_weight": 0.0})
    draws, _ = learn(model, config)
    after = draws.model.actor.state_dict()
    decayed = config.training.optim.weight_decay * config.training.optim.learning_rate
    assert all(torch.allclose(before[n] * (1 - decayed) ** 2, after[n], rtol=1e-2, atol=1e-4) for n in before)


def test_faults_teach_nothing_and_too_many_stop_the_run(tiny):
    with pytest.raises(SandboxError, match="the sandbox failed on"):
        learn(tiny(), settings(), judge=Judge(has_faults=True))


def test_a_rare_pass_is_kept_and_comes_back(tiny):
    draws = draws_of(tiny(), settings(replay_passes=True))
    rare = [rollout(Outcome.PASSED_TEST, (25, 2))] + [rollout(Outcome.FAILED_TEST, (20 + i, 2)) for i in range(3)]
    draws._remember([rare])
    failed = [rollout(Outcome.FAILED_TEST, (20 + i, 2)) for i in range(4)]
    assert [r.program.tokens for r in draws._with_kept_pass("p0", failed)][-1] == (25, 2)
    assert draws._with_kept_pass("p0", rare) == rare
    draws._remember([failed])
    assert draws.memory.records["p0"].pass_rate == pytest.approx(0.9 * 1 / (0.9 * 4 + 4))


def test_uncertain_problems_are_chosen_more_often(tiny):
    draws = draws_of(tiny(), settings(choose="uncertain", problems_per_draw=1))
    sure = {f"p{i}": Record(50.0, 1.0, 1.0) for i in range(4)}
    draws.memory.records = {**sure, "p4": Record(50.0, 0.5, 0.5)}
    chosen = []
    for draw in range(60):
        draws.memory.num_draws = draw
        chosen += draws._choose()
    assert chosen.count("p4") > 45


def test_shuffled_problems_all_come_once_a_turn(tiny):
    draws = draws_of(tiny(), settings(problems_per_draw=1))
    chosen = []
    for draw in range(10):
        draws.memory.num_draws = draw
        chosen += draws._choose()
    assert sorted(chosen[:5]) == sorted(chosen[5:]) == [f"p{i}" for i in range(5)]
    assert chosen[:5] != chosen[5:]


def test_a_run_that_finds_nothing_says_so(tiny, monkeypatch):
    monkeypatch.setattr(online, "MAX_EMPTY_DRAWS", 3)

    class Never:
        def run(self, jobs):
            return (Verdict(Outcome.FAILED_TEST) for _ in jobs)

    with pytest.raises(InputError, match="nothing to learn from in 3 draws of 3 x 4"):
        learn(tiny(), settings(), judge=Never())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampling": {"top_p": 0.9}}, "top_p"),
        ({"num_passes": 2}, "need training.clip_range"),
        ({"returns": {"spread": "gae"}}, "need a critic"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        OnlineConfig.model_validate(options)


def test_the_returns_of_the_tests_passed(tiny):
    verdict = Verdict(Outcome.FAILED_TEST, test_outcomes=(Outcome.PASSED_TEST, Outcome.FAILED_TEST, None, None))
    from coderl.rl.rollout import return_of

    found = Rollout(Program("p0", 0, "x"), verdict)
    assert return_of(found, ReturnsConfig(reward="tests")) == 0.25
    assert return_of(found, ReturnsConfig(reward="passing")) == 0
    assert return_of(found, ReturnsConfig()) == -0.3


def test_the_critics_loss_by_hand(tiny):
    """Logits 0 and a one-sided target: ln 4 at each of the three prefixes of a program of two tokens."""
    batch = tiny().collate([(10,)], [(20, 2)])
    critic = PrefixCritic(16)
    logits = critic(torch.ones(1, 3, 16), batch)
    targets = torch.tensor([[outcome_row(Outcome.RUNTIME_ERROR)] * 3])
    assert prefix_cross_entropy(logits, targets, batch).item() == pytest.approx(1.3862944)
    shifted = logits + torch.tensor([0.0, 3.0, 0.0, 0.0])
    assert prefix_cross_entropy(shifted, targets, batch).item() < 0.2


def test_training_config_defaults_are_grpos():
    config = OnlineConfig()
    assert (config.returns.baseline, config.returns.spread, config.training.ce_weight) == (
        "group_normalised",
        "uniform",
        0.0,
    )
    assert isinstance(config.training, ActorTrainingConfig)
