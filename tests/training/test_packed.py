"""Packing loses no token, and what is read from disk is what was packed."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl import tables
from coderl.training.loop import train
from coderl.training.losses import cross_entropy_of, num_tokens, validation_loss
from coderl.training.optim import plan_batches
from coderl.training.packed import Window, Windows, pack
from coderl.training.pretrain import WindowExamples, pretrain_on_windows
from coderl.training.settings import OptimConfig
from coderl.types import InputError

many_files = st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=20)


@given(many_files, st.integers(4, 12))
@settings(max_examples=300, deadline=None)
def test_no_token_is_lost(files, size):
    windows = [w.tokens for w in pack(files, size)]
    assert [t for w in windows for t in w] == [t for f in files for t in f]
    assert all(len(w) == size for w in windows[:-2])
    assert all(len(w) <= size for w in windows)
    if sum(map(len, files)) >= 4:
        assert all(len(w) >= 2 for w in windows), "each can be cut in two"


@pytest.fixture
def shards(tmp_path):
    """Three shards of windows of 8 tokens, each window of numbers of its own; the last of a shard is shorter."""

    def write(windows_of_shards=(5, 3, 6)):
        table = tables.PartedTable(tmp_path / "packed", Window)
        for index, count in enumerate(windows_of_shards):
            first = sum(windows_of_shards[:index])
            rows = [Window(tuple(range(5 + 8 * n, 13 + 8 * n))) for n in range(first, first + count)]
            table.write(index, [*rows[:-1], Window(rows[-1].tokens[:5])])
        return Windows(tmp_path / "packed")

    return write


def test_windows_are_read_back_in_order(shards):
    windows = shards()
    assert len(windows) == 14
    assert windows.sizes == [5, 3, 6]
    expected = [list(range(5 + 8 * n, (10 if n in (4, 7, 13) else 13) + 8 * n)) for n in range(14)]
    assert [windows[i] for i in range(14)] == expected
    assert [windows[i] for i in reversed(range(14))] == expected[::-1]
    assert windows.lengths() == [len(w) for w in expected]


def test_a_folder_without_windows_is_refused(tmp_path):
    tables.PartedTable(tmp_path, Window).write(0, [])
    with pytest.raises(InputError, match="no tokens"):
        Windows(tmp_path)


def test_a_torn_shard_is_one_clear_line(shards):
    windows = shards()
    part = windows.parts[1]
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-000001.parquet: not a readable Parquet file"):
        Windows(part.parent)


def test_one_shard_is_used_up_before_the_next():
    sizes = [40, 25, 60]
    bounds = np.cumsum([0, *sizes])
    plans = [
        plan_batches([1] * 125, 8, seed=0, epoch=epoch, bucket_by_length=bucket, group_sizes=sizes)
        for epoch in range(6)
        for bucket in (False, True)
    ]
    for plan in plans:
        assert sorted(i for batch in plan for i in batch) == list(range(125))
        shards_used = [{int(np.searchsorted(bounds, i, side="right")) for i in batch} for batch in plan]
        assert all(len(used) == 1 for used in shards_used)
        changes = sum(a != b for a, b in pairwise(shards_used))
        assert changes == 2
    assert len({str(plan) for plan in plans}) == len(plans)


def test_examples_hold_the_window(shards, tiny):
    """Masked spans end the sequence; next tokens are left open, for the file goes on."""
    model, windows = tiny(), shards()
    for epoch in range(3):
        for index, example in enumerate(WindowExamples(model, windows, "next_token", seed=3, epoch=epoch)):
            assert [*example.prompt[:-1], *example.program] == windows[index]
            assert example.prompt[-1] == model.eos_id
    masked = WindowExamples(model, windows, "masked_span", seed=3, epoch=0)
    assert all(example.program[-1] == model.eos_id for example in masked)


def test_lengths_are_those_of_the_examples_drawn(shards, tiny):
    model, windows = tiny(), shards()
    examples = WindowExamples(model, windows, "next_token", seed=1, epoch=2)
    assert examples.lengths() == [len(example.prompt) - 1 for example in examples]
    assert len(set(examples.lengths())) > 1
    masked = WindowExamples(model, windows, "masked_span", seed=1, epoch=2)
    assert masked.lengths() == windows.lengths()


@pytest.mark.parametrize("objective", ["masked_span", "next_token"])
def test_a_stopped_training_goes_on_to_the_same_weights(shards, tiny, tmp_path, objective):
    windows = shards()
    config = OptimConfig(learning_rate=1e-2, batch_size=4, num_epochs=3, checkpoint_every_steps=2)
    whole = tiny()
    losses = [s.loss for s in pretrain_on_windows(whole, windows, objective, config)]
    stopped = tiny()
    for step in pretrain_on_windows(stopped, windows, objective, config, checkpoint_dir=tmp_path / "c"):
        if step.step == 5:
            break
    resumed = tiny()
    rest = [s.loss for s in pretrain_on_windows(resumed, windows, objective, config, checkpoint_dir=tmp_path / "c")]
    assert rest == losses[4:]
    assert all(bool((a == b).all()) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_stored_and_listed_examples_train_alike(shards, tiny):
    """One shard: the plan, and so every loss, is that of the same examples held in a list."""
    windows = shards((9,))
    config = OptimConfig(learning_rate=1e-2, batch_size=4, num_epochs=2, bucket_by_length=False)
    stored, listed = tiny(), tiny()
    first = [s.loss for s in pretrain_on_windows(stored, windows, "next_token", config)]

    def draw(epoch):
        return list(WindowExamples(listed, windows, "next_token", seed=0, epoch=epoch))

    second = [s.loss for s in train(listed, draw, cross_entropy_of, config, length_of=num_tokens)]
    assert len(first) == 6
    assert first == second


def test_validation_loss_is_the_mean_over_tokens(shards, tiny):
    """Whatever the batches: the sum of the tokens' losses by their number."""
    model, windows = tiny(), shards()
    examples = list(WindowExamples(model, windows, "next_token", seed=0, epoch=0))
    total = sum(cross_entropy_of(model, [e])[0].item() * len(e.program) for e in examples)
    expected = total / sum(len(e.program) for e in examples)
    for size in (1, 3, 20):
        assert validation_loss(model, examples, batch_size=size)["loss"] == pytest.approx(expected, rel=1e-5)
