"""The original's checkpoints against a plain rendering of what its code does with them."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from coderl.cli import main
from coderl.critic.model import Critic
from coderl.interop import original_checkpoint
from coderl.models.lm import LanguageModel
from coderl.models.tiny import train_tokenizer
from coderl.types import InputError

WIDTH = 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["print(1)\n"] * 3, 300, num_sentinels=10)


@pytest.fixture(scope="module")
def backbone(tokenizer):
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def error_head():
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, 4))


def weights_of(backbone, **heads):
    """All that the original's `state_dict` holds: tied weights under every name."""
    weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    return weights | {f"{n}.{key}": w for n, head in heads.items() for key, w in head.state_dict().items()}


def write(folder, weights):
    folder.mkdir(exist_ok=True)
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def test_a_critic_does_what_the_original_does(backbone, error_head, tokenizer, tmp_path):
    critic = original_checkpoint.load_critic(
        write(tmp_path / "c", weights_of(backbone, error_head=error_head)), tokenizer
    )
    prompt, program = [5, 6, 7, 2], [1, 40, 41, 2]
    batch = critic.model.collate([prompt], [program])
    # as in the original: labels padded by -100 to 512 positions, shifted right, padding seen as 0, no mask
    decoder_inputs = torch.tensor([[0, *program, *[0] * (512 - len(program) - 1)]])
    with torch.no_grad():
        states = backbone(
            input_ids=torch.tensor([prompt]), decoder_input_ids=decoder_inputs, output_hidden_states=True
        ).decoder_hidden_states[-1]
        by_position = error_head(states * WIDTH**-0.5)
        of_program, of_tokens = critic.both_logits(batch)
    torch.testing.assert_close(of_program, by_position.max(1).values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_tokens, by_position[:, : len(program)], rtol=1e-5, atol=1e-6)

    critic.save(tmp_path / "ours")
    again = Critic.load(tmp_path / "ours")
    torch.testing.assert_close(again.program_logits(batch), of_program)


def test_a_binary_critic_uses_the_first_two_of_four_outputs(backbone, error_head, tokenizer, tmp_path):
    folder = write(tmp_path / "c", weights_of(backbone, error_head=error_head))
    four, two = (original_checkpoint.load_critic(folder, tokenizer, binary=b) for b in (False, True))
    batch = four.model.collate([[5, 2]], [[1, 40, 2]])
    torch.testing.assert_close(two.program_logits(batch), four.program_logits(batch)[:, :2])
    assert two.num_outcomes == 2


def test_an_actor_generates_with_its_own_head(backbone, tokenizer, tmp_path):
    cloned = nn.Linear(WIDTH, len(tokenizer), bias=False)
    cloned.weight.data = 1.5 * backbone.lm_head.weight.data
    folder = write(tmp_path / "a", weights_of(backbone, rl_head=cloned))
    actor, distance = original_checkpoint.load_actor(folder, tokenizer)
    assert distance == pytest.approx(0.5)
    batch = actor.collate([[5, 2]], [[1, 40, 2]])
    expected = LanguageModel(backbone, tokenizer).log_probs(batch)
    torch.testing.assert_close(actor.log_probs(batch), expected)
    actor.save(tmp_path / "ours")
    torch.testing.assert_close(LanguageModel.load(tmp_path / "ours").log_probs(batch), expected)


def test_half_precision_and_safetensors_and_the_old_name_are_read(backbone, tokenizer, tmp_path):
    weights = {name: w.half() for name, w in weights_of(backbone).items()}
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 2)
    (tmp_path / "a").mkdir()
    save_file(weights, tmp_path / "a" / "model.safetensors")
    actor, distance = original_checkpoint.load_actor(tmp_path / "a", tokenizer)
    assert distance is None
    assert actor.backbone.dtype == torch.float32


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def changed(backbone, **changes):
    weights = weights_of(backbone) | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in weights.items() if value is not None}


LAST = "decoder__block__2__layer__2__DenseReluDense__wo__weight"


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda b: changed(b, shared__weight=None), "no usable shared.weight"),
        (lambda b: changed(b, shared__weight=torch.zeros(3)), "no usable shared.weight"),
        (lambda b: changed(b, shared__weight=torch.zeros(0, WIDTH)), "no usable shared.weight"),
        (lambda b: changed(b, **{LAST: None}), "lacks the weights decoder.block.2"),
        (lambda b: changed(b, **{LAST: torch.zeros(WIDTH, 23)}), r"is \(16, 23\), expected \(16, 24\)"),
        (lambda b: changed(b, **{LAST: torch.full((WIDTH, 24), torch.inf)}), "not finite"),
        (lambda b: changed(b, classifier__weight=torch.zeros(2)), "holds the weights classifier.weight"),
        (lambda b: changed(b, encoder__block__999__x=torch.zeros(2)), "lacks|holds"),
        (lambda b: changed(b, error_head__0__weight=torch.zeros(2)), "a critic"),
        (lambda b: changed(b, rl_head__weight=torch.zeros(2)), "RL head"),
        (lambda b: changed(b, rl_head__bias=torch.zeros(2)), "RL head"),
        (lambda b: [1, 2], "weights by name"),
        (lambda b: {"shared.weight": 3}, "weights by name"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(backbone, tokenizer, tmp_path, make, line):
    with pytest.raises(InputError, match=line) as error:
        original_checkpoint.load_actor(write(tmp_path / "a", make(backbone)), tokenizer)
    assert "\n" not in str(error.value)


def test_a_wrong_error_head_is_one_line(backbone, tokenizer, tmp_path):
    with pytest.raises(InputError, match="without an error head"):
        original_checkpoint.load_critic(write(tmp_path / "a", weights_of(backbone)), tokenizer)
    narrow = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 4))
    folder = write(tmp_path / "b", weights_of(backbone, error_head=narrow))
    for binary in (False, True):
        with pytest.raises(InputError, match="not the original's error head") as error:
            original_checkpoint.load_critic(folder, tokenizer, binary=binary)
        assert "\n" not in str(error.value)


def test_a_hostile_or_torn_checkpoint_is_one_line_and_status_2(backbone, tokenizer, tmp_path, capsys):
    tokenizer.save_pretrained(tmp_path / "t")
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "pytorch_model.bin"
    whole = write(tmp_path / "whole", weights_of(backbone)) / "pytorch_model.bin"
    torch.save({"x": Runs(f"touch {tmp_path / 'canary'}")}, tmp_path / "hostile")
    contents = [
        pickle.dumps(Runs(f"touch {tmp_path / 'canary'}")),
        (tmp_path / "hostile").read_bytes(),
        whole.read_bytes()[:-500],
        whole.read_bytes()[:100],
        b"",
        b"text",
    ]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(SystemExit) as stopped:
            main(["import-checkpoint", str(tmp_path / "a"), "--kind", "actor", "--tokenizer", str(tmp_path / "t"),
                  "--out", str(tmp_path / "out")])  # fmt: skip
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "refused, not a file of weights alone" in line
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_critic_and_an_actor(backbone, error_head, tokenizer, tmp_path, capsys):
    tokenizer.save_pretrained(tmp_path / "t")
    write(tmp_path / "c", weights_of(backbone, error_head=error_head))
    write(tmp_path / "a", weights_of(backbone))
    for folder, kind in (("c", "critic"), ("a", "actor")):
        main(["import-checkpoint", str(tmp_path / folder), "--kind", kind, "--tokenizer", str(tmp_path / "t"),
              "--out", str(tmp_path / f"{folder}-ours")])  # fmt: skip
    assert Critic.load(tmp_path / "c-ours").pooling == "legacy"
    assert LanguageModel.load(tmp_path / "a-ours").hidden_size == WIDTH
