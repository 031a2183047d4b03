"""The loop: it learns, resumes bit for bit, does not depend on its surroundings, and stops for clear reasons."""

import itertools
import json
import random
import shutil
import sys

import pytest
import torch
from torch import nn

from coderl.training import losses
from coderl.training.loop import TrainingError, train
from coderl.training.settings import OptimConfig
from coderl.types import InputError

CONFIG = OptimConfig(learning_rate=1e-2, batch_size=8, num_epochs=3, warmup_steps=2, schedule="linear", seed=5)


def run(model, examples, config=CONFIG, **options):
    return list(train(model, examples, losses.cross_entropy_of, config, length_of=losses.num_tokens, **options))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_bitwise_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_cross_entropy_falls(tiny, examples):
    steps = run(tiny(), examples, CONFIG.model_copy(update={"num_epochs": 15, "schedule": "constant"}))
    assert steps[-1].loss < 0.5 * steps[0].loss
    assert [s.step for s in steps] == list(range(1, 46))
    assert steps[-1].epoch == 15
    assert all(later.cpu_s >= earlier.cpu_s for earlier, later in itertools.pairwise(steps))


def test_one_step_is_adamw_by_hand():
    """One weight 1, gradient 2 clipped to 1, rate 0.1: Adam's first step is rate * sign, after decay 0.1 * 0.05 * 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    config = OptimConfig(learning_rate=0.1, batch_size=1, num_steps=1, weight_decay=0.05, max_grad_norm=1.0)
    (step,) = train(model, [3.0], lambda m, part: (2 * m.weight.sum(), {"seen": part[0]}), config)
    assert step.loss == 2.0
    assert step.grad_norm == pytest.approx(2.0)
    assert step.metrics == {"seen": 3.0}
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.05 - 0.1, rel=1e-6)


@pytest.mark.parametrize(("weight", "moved"), [(4.0, 3.6), (-4.0, -4.4), (0.0, -0.0001)])
def test_one_step_of_adafactor_is_a_share_of_the_weights_size(weight, moved):
    """The first step is rate * sign * max(size, 0.001): with rate 0.1, 0.4 of a weight of size 4."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    config = OptimConfig(optimiser="adafactor", learning_rate=0.1, batch_size=1, num_steps=1, weight_decay=0.0)
    list(train(model, [3.0], lambda m, part: (2 * m.weight.sum(), {}), config))
    assert model.weight.item() == pytest.approx(moved, rel=1e-5)


GOLDEN = [6.74619, 6.53854, 5.8708, 5.57561, 5.5272, 5.68714]


def test_golden_loss_trace(tiny, examples):
    """The losses of a fixed seed stay what they were: a change here is a change of the training arithmetic."""
    steps = run(tiny(dropout=0.1), examples, CONFIG.model_copy(update={"num_epochs": 2}))
    assert [s.loss for s in steps] == pytest.approx(GOLDEN, rel=1e-3)


@pytest.mark.parametrize(
    ("stop_after", "optimiser"), [(1, "adamw"), (3, "adamw"), (5, "adamw"), (5, "adafactor"), (8, "adamw")]
)
def test_a_run_killed_after_any_step_resumes_to_the_same_weights(tiny, examples, tmp_path, stop_after, optimiser):
    """With dropout on, checkpoints every second step, and a caller that uses random numbers of its own."""
    config = CONFIG.model_copy(update={"checkpoint_every_steps": 2, "optimiser": optimiser})
    whole = tiny(dropout=0.2)
    expected = run(whole, examples, config)

    first = tiny(dropout=0.2)
    for step in train(
        first, examples, losses.cross_entropy_of, config, length_of=losses.num_tokens, checkpoint_dir=tmp_path
    ):
        torch.rand(7), random.random()
        if step.step == stop_after:
            break
    (tmp_path / ".step-00000099.xyz.tmp").mkdir()  # as a kill during a save leaves it
    torch.manual_seed(12345)
    second = tiny(dropout=0.2, seed=0 if stop_after < 2 else 99)  # a checkpoint brings its own weights
    resumed = run(second, examples, config, checkpoint_dir=tmp_path)
    assert_bitwise_equal(weights(second), weights(whole))
    saved = (stop_after - 1) // 2 * 2  # a step is noted before it is kept, so one that ends the loop is done again
    assert [s.loss for s in resumed] == [s.loss for s in expected[saved:]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000008", "step-00000009"]


def test_a_finished_run_is_loaded_and_not_repeated(tiny, examples, tmp_path):
    model = tiny()
    run(model, examples, checkpoint_dir=tmp_path)
    other = tiny(seed=99)
    assert run(other, examples, checkpoint_dir=tmp_path) == []
    assert_bitwise_equal(weights(other), weights(model))


def test_another_runs_checkpoint_is_refused(tiny, examples, tmp_path):
    run(tiny(), examples, checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="another config"):
        run(tiny(), examples, CONFIG.model_copy(update={"learning_rate": 1e-4}), checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="another number of weights"):
        run(tiny(d_model=32), examples, checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="another number of examples"):
        run(tiny(), examples[1:], checkpoint_dir=tmp_path)


def test_the_callers_random_numbers_are_left_alone(tiny, examples):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(tiny(dropout=0.3), examples)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_does_not_change_the_update(tiny, examples, parts):
    """Programs differ in length, so that means of means would differ; parts are shares of the whole batch instead."""
    plain, split = tiny(), tiny()
    expected = run(plain, examples)
    found = run(split, examples, CONFIG.model_copy(update={"gradient_accumulation_steps": parts}))
    assert [s.loss for s in found] == pytest.approx([s.loss for s in expected], rel=1e-4)
    assert [s.grad_norm for s in found] == pytest.approx([s.grad_norm for s in expected], rel=1e-3)


def test_a_loss_that_knows_no_whole_counts_by_examples():
    """Four examples in two parts of 2 and 2: (mean + mean) / 2 = 2.5."""
    model = nn.Linear(1, 1)
    config = OptimConfig(batch_size=4, num_steps=1, gradient_accumulation_steps=2)
    (step,) = train(
        model,
        [1.0, 2.0, 3.0, 4.0],
        lambda m, part: (m.weight.sum() * 0 + sum(part) / len(part), {"mean": sum(part) / len(part)}),
        config,
    )
    assert (step.loss, step.metrics) == (2.5, {"mean": 2.5})


def test_examples_may_be_drawn_anew_every_epoch(tiny, examples):
    asked = []

    def draw(epoch):
        asked.append(epoch)
        return examples[epoch * 8 : epoch * 8 + 8]

    assert len(run(tiny(), draw)) == 3
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_names_the_step(value):
    model = nn.Linear(1, 1)
    seen = []

    def loss_fn(m, part):
        seen.append(part)
        return m.weight.sum() * (float(value) if len(seen) == 3 else 1.0), {}

    with pytest.raises(TrainingError, match="loss of step 3"):
        list(train(model, [0] * 8, loss_fn, OptimConfig(batch_size=1, num_steps=5)))


def test_a_gradient_that_is_no_number_names_the_step():
    """sqrt at 0 has a finite value and an infinite slope."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    with pytest.raises(TrainingError, match="gradient of step 1"):
        list(train(model, [0], lambda m, part: (m.weight.sum().sqrt(), {}), OptimConfig(batch_size=1, num_steps=1)))
    assert model.weight.item() == 0.0


def test_cpu_seconds_end_a_run(tiny, examples):
    steps = run(tiny(), examples, OptimConfig(batch_size=8, max_cpu_s=0.05))
    assert steps[-1].cpu_s >= 0.05
    assert all(s.cpu_s < 0.05 for s in steps[:-1])


def validation_of(values):
    """A validation that reads from a list, and where it was read."""
    return iter(values).__next__


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_best_validation_is_kept_and_patience_stops(tiny, examples, tmp_path, checkpointed):
    """Start 5, then 4, 3 (best, after epoch 2), 6, 7: patience 2 ends after epoch 4 with the weights of epoch 2."""
    values = validation_of({"loss": v} for v in (5.0, 4.0, 3.0, 6.0, 7.0, 0.0))
    config = CONFIG.model_copy(update={"num_epochs": 9, "patience": 2})
    model, kept = tiny(), {}
    folder = tmp_path / "checkpoints" if checkpointed else None
    for step in train(model, examples, losses.cross_entropy_of, config, validate=values, checkpoint_dir=folder):
        if step.step == 6:
            kept = weights(model)
        if step.step == 1:
            assert step.validation == {"start_loss": 5.0}
    assert step.step == 12
    assert step.validation == {"loss": 7.0}
    assert_bitwise_equal(weights(model), kept)
    if checkpointed:
        other = tiny(seed=99)
        assert (
            list(train(other, examples, losses.cross_entropy_of, config, validate=values, checkpoint_dir=folder)) == []
        )
        assert_bitwise_equal(weights(other), kept)


def test_training_that_only_hurts_ends_with_the_weights_it_began_with(tiny, examples):
    values = validation_of({"pass_at_1": v} for v in (0.5, 0.4, 0.3, 0.2))
    config = CONFIG.model_copy(update={"best_metric": "pass_at_1", "best_is": "highest"})
    model = tiny()
    before = weights(model)
    run(model, examples, config, validate=values)
    assert_bitwise_equal(weights(model), before)


def test_without_keep_best_the_last_weights_stay(tiny, examples):
    plain, validated = tiny(), tiny()
    run(plain, examples)
    values = validation_of({"loss": float(v)} for v in range(9))
    run(validated, examples, CONFIG.model_copy(update={"keep_best": False}), validate=values)
    assert_bitwise_equal(weights(validated), weights(plain))


def test_too_few_examples_are_refused(tiny):
    with pytest.raises(ValueError, match="too few"):
        run(tiny(), [])


def test_bfloat16_then_float32_in_one_process(tiny, examples):
    """accelerate keeps its precision for a process; stages must not inherit it from each other."""
    half = run(tiny(), examples, CONFIG.model_copy(update={"mixed_precision": "bf16"}))
    single = run(tiny(), examples)
    assert half[0].loss == pytest.approx(single[0].loss, rel=1e-2)
    assert half[0].loss != single[0].loss


def test_a_step_is_one_flat_json_record(tiny, examples):
    values = validation_of({"loss": v} for v in (2.0, 1.0))
    *_, last = run(tiny(), examples, CONFIG.model_copy(update={"num_epochs": 1}), validate=values)
    record = json.loads(json.dumps(last.record()))
    assert record["validation_loss"] == 1.0
    assert record["ce_loss"] == last.loss
    assert record["step"] == 3


WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from coderl.models import tiny as tiny_models
from coderl.training import losses
from coderl.training.loop import train
from coderl.training.losses import CrossEntropyExample
from coderl.training.settings import OptimConfig
tokenizer = tiny_models.train_tokenizer(["print(int(input()) + 1)\\n", "for i in range(3):\\n    print(i)\\n"], 400)
examples = [CrossEntropyExample((10, 11 + i % 3), (*range(20 + i % 4, 22 + i % 4 + i % 5), 2)) for i in range(24)]
config = OptimConfig(**json.loads(sys.argv[1]))
found = []
for folder in map(Path, sys.argv[2:]):
    model = tiny_models.tiny_t5(tokenizer, d_model=16, num_layers=1, num_heads=2, dropout=0.1)
    steps = list(train(model, examples, losses.cross_entropy_of, config, checkpoint_dir=folder))
    trace = [[s.step, s.loss, s.grad_norm, s.metrics] for s in steps]
    found.append([trace, sum(p.double().abs().sum().item() for p in model.parameters())])
print(json.dumps(found))
"""


def test_two_processes_train_as_one(tiny, examples, tmp_path, launched):
    """Two processes that share three parts of each batch end with the weights and the trace of one, bit for bit.

    They do so from the start, and from a checkpoint that one process wrote. The main process's clock is the limit.
    """
    parts = {"gradient_accumulation_steps": 3, "max_cpu_s": 1e9, "checkpoint_every_steps": 2}
    settings = {"learning_rate": 1e-2, "batch_size": 8, "num_epochs": 2, **parts}
    model, from_one, from_none = tiny(dropout=0.1), tmp_path / "one", tmp_path / "none"
    steps = list(train(model, examples, losses.cross_entropy_of, OptimConfig(**settings), checkpoint_dir=from_one))
    trace = [[s.step, s.loss, s.grad_norm, s.metrics] for s in steps]
    sizes = sum(p.double().abs().sum().item() for p in model.parameters())
    shutil.rmtree(from_one / "step-00000006")
    command = [sys.executable, "-W", "ignore", "-c", WORKER, json.dumps(settings), str(from_none), str(from_one)]
    for output in launched(command, 2):
        assert json.loads(output.splitlines()[-1]) == [[trace, sizes], [trace[4:], sizes]]
    for folder in (from_none, from_one):
        assert sorted(p.name for p in folder.iterdir()) == ["step-00000004", "step-00000006"]
