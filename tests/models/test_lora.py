"""Adapters: they change nothing at first, they alone are trained, and what is saved computes the same."""

import sys

import pytest
import torch

from coderl.models import lora
from coderl.models import tiny as tiny_models
from coderl.models.lm import LanguageModel
from coderl.models.settings import LoraConfig
from coderl.training.losses import CrossEntropyExample
from coderl.training.settings import OptimConfig, WarmStartConfig
from coderl.training.warm_start import warm_start
from coderl.types import InputError

pytest.importorskip("peft")
EXAMPLES = [CrossEntropyExample((10, 11), (20, 21, 22, 2)), CrossEntropyExample((10,), (30, 2))]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.train_tokenizer(["print(int(input()) + 1)\n", "for i in range(3):\n    print(i)\n"], 400)


@pytest.fixture
def base(tokenizer, tmp_path):
    tiny_models.tiny_llama(tokenizer, d_model=16, num_layers=2, num_heads=2).save(tmp_path / "base")
    return tmp_path / "base"


def log_probs(model):
    with torch.no_grad():
        return model.log_probs(model.collate([e.prompt for e in EXAMPLES], [e.program for e in EXAMPLES]))


def trained(base, **options):
    """A model adapted and trained for three steps, with the weights it had before."""
    model = LanguageModel.load(base).adapt(LoraConfig(rank=2, alpha=4, **options))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = WarmStartConfig(optim=OptimConfig(learning_rate=1e-2, batch_size=2, num_steps=3, weight_decay=0.0))
    list(warm_start(model, EXAMPLES, config))
    return model, before


def test_fresh_adapters_change_nothing(base):
    plain = LanguageModel.load(base)
    assert torch.allclose(log_probs(LanguageModel.load(base).adapt(LoraConfig())), log_probs(plain), atol=1e-6)
    assert LanguageModel.load(base).adapt(None).lora is None


def test_only_adapters_are_trained_and_they_are_few(base):
    """Seven matrices a layer; rank 2 on 16 x 16 is 2 * (16 + 16) weights."""
    model, before = trained(base, target_modules=("q_proj",))
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 2 * (16 + 16)


def test_the_merged_weights_by_hand(base):
    """W + alpha / rank * B A, and a folder that knows nothing of adapters."""
    model, _ = trained(base)
    layer = model.backbone.get_submodule("model.layers.1.self_attn.q_proj")
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = layer.base_layer.weight + 4 / 2 * product
    merged = lora.merged_state(model.backbone)
    assert torch.allclose(merged["model.layers.1.self_attn.q_proj.weight"], expected, atol=1e-6)
    assert merged.keys() == LanguageModel.load(base).backbone.state_dict().keys()


@pytest.mark.parametrize("saved_as", ["merged", "adapter"])
def test_what_is_saved_computes_the_same(base, tmp_path, saved_as):
    model, _ = trained(base, saved_as=saved_as)
    model.save(tmp_path / "model")
    other = LanguageModel.load(tmp_path / "model")
    assert torch.allclose(log_probs(other), log_probs(model), atol=1e-5)
    assert not torch.allclose(log_probs(other), log_probs(LanguageModel.load(base)), atol=1e-3)
    assert (other.lora is None) == (saved_as == "merged")
    assert (tmp_path / "model" / "adapter_model.safetensors").exists() == (saved_as == "adapter")
    assert (tmp_path / "model" / "model.safetensors").exists() == (saved_as == "merged")


def test_states_are_those_of_the_adapted_model(base, tmp_path):
    """A critic on an adapted backbone sees what the merged one computes."""
    model, _ = trained(base)
    model.save(tmp_path / "model")
    merged = LanguageModel.load(tmp_path / "model")
    batch = merged.collate([(10, 11)], [(20, 21)])
    assert torch.allclose(model.states(batch), merged.states(batch), atol=1e-5)


def test_what_cannot_be_adapted_is_one_line(base, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="LoRA: "):
        LanguageModel.load(base).adapt(LoraConfig(target_modules=("no_such_layer",)))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="not an adapter that coderl wrote"):
        LanguageModel.load(tmp_path / "odd")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'coderl\[lora\]'"):
        LanguageModel.load(base).adapt(LoraConfig())
