"""What a language model promises: exact text, values that padding cannot change, files that load as they were saved."""

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from coderl.models import lm
from coderl.models.depth import keep_first_layers
from coderl.models.lm import LanguageModel
from coderl.models.tiny import tiny_llama, tiny_t5, train_tokenizer
from coderl.types import InputError

TEXTS = [
    "QUESTION:\nRead n and print the sum of the first n numbers.\nANSWER:\n",
    "n = int(input())\ntotal = 0\nfor i in range(n):\n\ttotal += i\nprint(total)\n",
    "def add(a, b):\n    if a == b:\n        return 2 * a\n    return a + b\n",
] * 10


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400, num_sentinels=10)


@pytest.fixture(scope="module", params=["t5", "llama"])
def model(request, tokenizer) -> LanguageModel:
    make = {"t5": tiny_t5, "llama": tiny_llama}[request.param]
    return make(tokenizer, d_model=32, num_layers=2, num_heads=2, seed=1)


@pytest.fixture
def batch(model):
    prompts = [model.encode_prompt(TEXTS[0]), model.encode_prompt("Print 7.\n")]
    programs = [model.encode_program("print(7)\n"), model.encode_program(TEXTS[1])]
    return prompts, programs


# ------------------------------------------------------------------------------------------------------- text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_text_round_trips(model, text):
    """Tabs, spaces before punctuation, blank lines, other scripts: the program is read back as it was written."""
    tokens = model.encode_program(text)
    assert tokens[-1] == model.eos_id
    assert model.decode(tokens) == text


@pytest.mark.parametrize("text", ["print('</s>')\n", "x = '<extra_id_3><mask><pad>'", "a , b . don 't  !\n\n\n"])
def test_special_tokens_in_a_program_are_text(model, text):
    tokens = model.encode_program(text)
    assert tokens.count(model.eos_id) == 1
    assert model.decode(tokens) == text


def test_tokenizer_training_is_deterministic():
    first, second = (train_tokenizer(TEXTS, 380, num_sentinels=3) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert first.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<extra_id_0>"]) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_tokenizer_keeps_a_lines_indent_whole_and_digits_apart(tokenizer):
    assert [tokenizer.decode([t]) for t in tokenizer.encode("\n\ttotal", add_special_tokens=False)] == ["\n\t", "total"]
    assert len(tokenizer.encode("1234", add_special_tokens=False)) == 4


def test_tokenizer_needs_room_for_the_bytes():
    with pytest.raises(InputError, match="at least 264"):
        train_tokenizer(TEXTS, 200, num_sentinels=3)


def test_prompt_ends_as_its_family_wants(model):
    """An encoder reads the end of sequence; a decoder must not, or it would have nothing to continue."""
    assert (model.encode_prompt("hello")[-1] == model.eos_id) == model.is_encoder_decoder


def test_long_prompt_loses_its_middle(model):
    """The beginning of the statement and the answer marker both stay, within the limit exactly."""
    text = "HEAD " + "word " * 200 + "\nANSWER:\n"
    tokens = model.encode_prompt(text, max_tokens=60)
    assert len(tokens) == 60
    assert model.decode(tokens).startswith("HEAD ")
    assert model.decode(tokens).endswith("\nANSWER:\n")
    short = model.encode_prompt("short")
    assert model.encode_prompt("short", max_tokens=len(short)) == short


def test_cut_program_loses_its_end_of_sequence(model):
    whole = model.encode_program(TEXTS[1])
    assert model.encode_program(TEXTS[1], max_tokens=5) == whole[:5]
    assert model.encode_program(TEXTS[1], max_tokens=len(whole)) == whole


def test_no_room_for_a_prompt_is_refused(model):
    with pytest.raises(InputError, match="no room"):
        model.encode_prompt("hello", max_tokens=0)


def test_an_empty_prompt(tokenizer):
    """An encoder can read nothing but the end of sequence; a decoder has nothing to continue."""
    assert tiny_t5(tokenizer, d_model=8, num_heads=1).encode_prompt("") == [2]
    with pytest.raises(InputError, match="empty prompt"):
        tiny_llama(tokenizer, d_model=8, num_heads=1).encode_prompt("")


# ---------------------------------------------------------------------------------------------------- forward


def test_log_probs_are_those_of_the_backbone_called_by_hand(model, batch):
    """One row, one token at a time, without padding, cache or batch: the definition of p(w_t | w_<t, D)."""
    prompts, programs = batch
    found = model.log_probs(model.collate(prompts, programs))
    for row, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        for t, token in enumerate(program):
            if model.is_encoder_decoder:
                inputs = {"input_ids": [prompt], "decoder_input_ids": [[model.start_id, *program[:t]]]}
            else:
                inputs = {"input_ids": [[*prompt, *program[:t]]]}
            logits = model.backbone(**{name: torch.tensor(ids) for name, ids in inputs.items()}).logits[0, -1]
            assert found[row, t].item() == pytest.approx(logits.log_softmax(-1)[token].item(), abs=2e-5)


def test_log_probs_are_zero_where_there_is_no_token(model, batch):
    collated = model.collate(*batch)
    found = model.log_probs(collated)
    assert (found[~collated.program_mask] == 0).all()
    assert (found[collated.program_mask] < 0).all()


def test_padding_changes_no_value(model, batch):
    """A row gives the same numbers alone as beside a longer prompt and a longer program."""
    prompts, programs = batch
    together = model.collate(prompts, programs)
    for row in range(2):
        alone = model.collate(prompts[row : row + 1], programs[row : row + 1])
        length = len(programs[row])
        torch.testing.assert_close(model.log_probs(together)[row, :length], model.log_probs(alone)[0])
        torch.testing.assert_close(model.states(together)[row, :length], model.states(alone)[0], atol=2e-5, rtol=1e-4)


def test_what_fills_the_padding_changes_nothing(model, batch):
    collated = model.collate(*batch)
    other = type(collated)(
        torch.where(collated.prompt_mask, collated.prompt_ids, 77),
        collated.prompt_mask,
        torch.where(collated.program_mask, collated.program_ids, 78),
        collated.program_mask,
    )
    mask = collated.program_mask
    torch.testing.assert_close(model.log_probs(other), model.log_probs(collated))
    torch.testing.assert_close(model.states(other)[mask], model.states(collated)[mask], atol=2e-5, rtol=1e-4)


def test_state_t_has_read_token_t_and_nothing_after_it(model, batch):
    """Changing w_t changes the states from t on, and none before: the prefix includes w_t (Eq. 10)."""
    prompts, programs = batch
    changed = list(programs[1])
    changed[5] += 1
    before, after = (model.states(model.collate(prompts[1:], [program]))[0] for program in (programs[1], changed))
    moved = (before - after).abs().amax(-1) > 1e-4
    assert not moved[:5].any()
    assert moved[5:].all()


def test_states_predict_the_next_token(model, batch):
    """The head on the state that has read w_t gives log p(w_{t+1}): the two methods see the same sequence."""
    collated = model.collate(*batch)
    scale = model.hidden_size**-0.5 if model.is_encoder_decoder else 1.0
    logits = model.backbone.get_output_embeddings()(model.states(collated) * scale)
    predicted = logits.log_softmax(-1)[:, :-1].gather(-1, collated.program_ids[:, 1:, None]).squeeze(-1)
    mask = collated.program_mask[:, 1:]
    torch.testing.assert_close(predicted[mask], model.log_probs(collated)[:, 1:][mask], atol=2e-5, rtol=1e-4)


def test_shapes_are_checked(model, batch):
    collated = model.collate(*batch)
    with pytest.raises(jaxtyping.TypeCheckError):
        type(collated)(collated.prompt_ids, collated.program_mask, collated.program_ids, collated.program_mask)


# ------------------------------------------------------------------------------------------------------ files


def test_saved_model_loads_bit_for_bit(model, batch, tmp_path):
    model.save(tmp_path / "model")
    loaded = LanguageModel.load(tmp_path / "model")
    for name, weight in model.backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[name], weight), name
    collated = model.collate(*batch)
    assert torch.equal(loaded.log_probs(collated), model.log_probs(collated))
    assert loaded.encode_prompt(TEXTS[0]) == model.encode_prompt(TEXTS[0])
    assert loaded.encode_program("x = '</s>'") == model.encode_program("x = '</s>'")
    assert loaded.is_encoder_decoder == model.is_encoder_decoder
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_loaded_in_bfloat16(model, tmp_path):
    model.save(tmp_path / "model")
    assert LanguageModel.load(tmp_path / "model", dtype="bfloat16").backbone.dtype == torch.bfloat16


def test_seed_makes_the_model(tokenizer):
    def first_weight(seed):
        return next(iter(tiny_t5(tokenizer, d_model=16, num_heads=2, seed=seed).parameters()))

    assert torch.equal(first_weight(3), first_weight(3))
    assert not torch.equal(first_weight(3), first_weight(4))


@pytest.mark.parametrize("name", ["nothing/here/at/all", "models/not-fetched", "./missing", "missing"])
def test_missing_folder_is_one_line(name):
    with pytest.raises(InputError, match="no such model folder"):
        LanguageModel.load(name)


def test_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no model in this folder"):
        LanguageModel.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        LanguageModel.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_dtype_is_one_line(tmp_path):
    with pytest.raises(InputError, match="float32, bfloat16, float16"):
        LanguageModel.load(tmp_path, dtype="float8")


def test_tokenizer_of_another_model_is_refused(tokenizer, tmp_path):
    model = tiny_t5(tokenizer, d_model=16, num_heads=2)
    model.save(tmp_path / "model")
    train_tokenizer([*TEXTS, "many other words to merge " * 9], 500, num_sentinels=120).save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(InputError, match="do not belong together"):
        LanguageModel.load(tmp_path / "model")


def test_a_damaged_weights_file_is_one_line(model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        LanguageModel.load(tmp_path / "model")


def test_weights_that_lack_a_layer_are_refused(model, tmp_path):
    """The library would fill the hole with random numbers and go on."""
    model.save(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    hole = next(name for name in weights if "norm" in name)
    save_file(
        {n: w for n, w in weights.items() if n != hole}, tmp_path / "model" / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match=f"lack {hole}"):
        LanguageModel.load(tmp_path / "model")


def test_the_codet5_tokenizer_round_trips(shared_data, tmp_path):
    """With the original's vocabulary a program is framed as it was in the original: <s> ... </s>."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast

    folder = shared_data / "codet5_tokenizer"
    (vocab,) = folder.glob("*vocab.json")
    (merges,) = folder.glob("*merges.txt")
    backend = ByteLevelBPETokenizer(str(vocab), str(merges))._tokenizer
    backend.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 1), add_prefix_space=False)
    roles = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, **{f"{role}_token": t for role, t in roles.items()})
    model = tiny_t5(fast, d_model=8, num_layers=1, num_heads=1)
    program = model.encode_program(TEXTS[1])
    assert (program[0], program[-1]) == (1, 2)
    assert model.decode(program) == TEXTS[1]
    cut = model.encode_prompt("word " * 100 + "\nANSWER:\n", max_tokens=20)
    assert (cut[0], cut[-1], len(cut)) == (1, 2, 20)


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama])
def test_a_model_cut_to_its_first_layer_is_the_same_model_after_a_save(make, tokenizer, tmp_path):
    model = make(tokenizer, d_model=32, num_layers=3, num_heads=2, seed=1)
    num_weights = sum(p.numel() for p in model.parameters())
    keep_first_layers(model, 1)
    assert sum(p.numel() for p in model.parameters()) < num_weights
    batch = model.collate([model.encode_prompt("Print 7.\n")], [model.encode_program("print(7)\n")])
    model.save(tmp_path / "cut")
    again = LanguageModel.load(tmp_path / "cut")
    torch.testing.assert_close(again.states(batch), model.eval().states(batch), rtol=0, atol=0)
    with pytest.raises(InputError, match="num_layers 2: expected 1 to 1"):
        keep_first_layers(model, 2)


def test_a_process_uses_the_processor_or_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lm.best_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lm.best_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert lm.best_device() == "cuda:3"


@pytest.mark.parametrize("with_logits", [False, True])
def test_rows_read_from_the_left_have_the_same_states(tiny, monkeypatch, with_logits):
    """A GPU's way of padding and the processor's agree at every real token, and so do their gradients."""
    model = tiny("llama")
    batch = model.collate([(10, 11, 12, 13, 14), (15,)], [(20, 2), (21, 22, 23, 2)])
    readings, gradients = [], []
    for pads_right in (False, True):
        monkeypatch.setattr(LanguageModel, "pads_right", pads_right)
        readings.append(model.read(batch, with_logits=with_logits))
        model.zero_grad()
        model.log_probs(batch).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for ours, theirs, mask in [
        (readings[0].states, readings[1].states, batch.program_mask),
        (readings[0].prompt_states, readings[1].prompt_states, batch.prompt_mask),
        *([(readings[0].logits, readings[1].logits, batch.program_mask)] if with_logits else []),
    ]:
        assert torch.allclose(ours[mask], theirs[mask], atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
