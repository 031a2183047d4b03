"""CodeT5 without a network: the original's token ids, its shapes, and what is refused."""

import json
import shutil

import pytest
import torch
from transformers import T5ForConditionalGeneration

from coderl.models import codet5, lm
from coderl.models import tiny as tiny_models
from coderl.types import InputError


@pytest.fixture(scope="module")
def codet5_folder(shared_data):
    folder = shared_data / "codet5_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"no CodeT5 tokenizer at {folder}")
    return folder


def test_the_tokenizer_of_codet5_gives_its_ids(codet5_folder, shared_data):
    """The reference is the class that reproduced the ids the original shipped for APPS problem 2404."""
    from tokenizers import ByteLevelBPETokenizer

    from coderl import problems, prompts

    reference = ByteLevelBPETokenizer.from_file(
        str(codet5_folder / "codet5-vocab.json"), str(codet5_folder / "codet5-merges.txt")
    )
    ours = codet5.load_codet5_tokenizer(codet5_folder)
    assert len(ours) == codet5.VOCAB_SIZE
    lengths = {}
    for labelled in problems.load(shared_data / "apps" / "train"):
        for style in ("apps_train", "apps_generate"):
            text = prompts.actor_prompt(labelled.problem, style)
            assert ours.encode(text) == [1, *reference.encode(text).ids, 2]
            lengths[labelled.problem.problem_id, style] = len(ours.encode(text))
        for text in labelled.solutions:
            assert ours.encode(text, verbose=False) == [1, *reference.encode(text).ids, 2]
    assert lengths["2404", "apps_train"] - lengths["2404", "apps_generate"] == 2  # as measured on the original


def test_the_special_tokens_of_codet5(codet5_folder):
    ours = codet5.load_tokenizer(codet5_folder)
    assert ours.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    assert ours.convert_tokens_to_ids(["<extra_id_99>", "<extra_id_1>", "<extra_id_0>"]) == [32000, 32098, 32099]
    assert ours.encode("a<extra_id_0>b", add_special_tokens=False)[1] == 32099
    text = "def f(x):\n\treturn  x  # é </s>\n"
    assert ours.decode(ours.encode(text, split_special_tokens=True), skip_special_tokens=True) == text


def test_the_tokenizer_of_codet5_is_kept_with_its_model(codet5_folder, tmp_path):
    tokenizer = codet5.load_codet5_tokenizer(codet5_folder)
    tiny_models.tiny_t5(tokenizer, d_model=8, num_layers=1, num_heads=1).save(tmp_path / "m")
    again = lm.LanguageModel.load(tmp_path / "m")
    assert again.encode_prompt("print( 1 )\n") == tokenizer.encode("print( 1 )\n")
    assert again.encode_program("x") == tokenizer.encode("x")
    assert codet5.load_tokenizer(tmp_path / "m").encode("x") == tokenizer.encode("x")


def test_a_folder_laid_out_as_on_the_hub_is_loaded_as_it_is(codet5_folder, tmp_path):
    """`Salesforce/codet5-*` there: pickled weights, a RoBERTa tokenizer, the sentinels as added tokens; no fork."""
    ours = codet5.load_codet5_tokenizer(codet5_folder)
    model = tiny_models.tiny_t5(ours, d_model=8, num_layers=1, num_heads=1)
    model.backbone.config.save_pretrained(tmp_path)
    torch.save(model.backbone.state_dict(), tmp_path / "pytorch_model.bin")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(codet5_folder / f"codet5-{name}", tmp_path / name)
    sentinels = [f"<extra_id_{i}>" for i in range(99, -1, -1)]
    added = {token: 32_000 + i for i, token in enumerate(sentinels)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
             "cls_token": "<s>", "mask_token": "<mask>", "additional_special_tokens": sentinels}  # fmt: skip
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    settings = {**roles, "add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))

    loaded = lm.LanguageModel.load(tmp_path)
    text = "\nQUESTION:\nprint( 1 )  \n\tdef f():\n    return '</s>'  # é\nANSWER:\n"
    assert loaded.encode_prompt(text) == ours.encode(text, split_special_tokens=True)
    assert loaded.tokenizer.convert_tokens_to_ids(["<s>", "<extra_id_99>", "<extra_id_0>"]) == [1, 32000, 32099]
    assert loaded.decode(loaded.encode_program(text)) == text
    batch = loaded.collate([[1, 5, 2]], [[1, 7, 2]])
    torch.testing.assert_close(loaded.log_probs(batch), model.log_probs(batch))


def test_what_is_no_tokenizer_of_codet5_is_refused(tmp_path):
    words = {token: i for i, token in enumerate([*tiny_models.SPECIAL_TOKENS, "a", "b", "ab"])}
    cases = [
        (None, None, "expected one"),
        (words, None, "expected one"),
        (words, "#version: 0.2\na b\nb c\n", "not the merges"),
        (words, "a b c\n", "not the merges"),
        (words, "ab\n", "not the merges"),
        ({**words, "ab": 70}, "a b\n", "ids 0 to the number"),
        ([1, 2], "a b\n", "token -> id"),
        ({"a": 0, "b": 1}, "a b\n", "<pad>"),
        ("[" * 100_000, "a b\n", "not valid JSON"),
    ]
    for number, (vocab, merges, line) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        if vocab is not None:
            (folder / "vocab.json").write_text(vocab if isinstance(vocab, str) else json.dumps(vocab))
        if merges is not None:
            (folder / "merges.txt").write_text(merges)
        with pytest.raises(InputError, match=line) as error:
            codet5.load_codet5_tokenizer(folder)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no tokenizer"):
        codet5.load_tokenizer(tmp_path / "none")


@pytest.mark.parametrize(("size", "width", "depth"), [("small", 512, 6), ("base", 768, 12), ("large", 1024, 24)])
def test_codet5_has_the_published_number_of_weights(size, width, depth):
    """By hand: embeddings; a layer's four attention matrices, two feed-forward ones and norms; 32 x heads positions."""
    with torch.device("meta"):
        model = T5ForConditionalGeneration(codet5.config_of(size))
    inner = width  # heads x 64 is the width in all three
    attention, feed_forward = 4 * width * inner, 2 * width * 4 * width
    encoder = depth * (attention + feed_forward + 2 * width) + width + 32 * inner // 64
    decoder = depth * (2 * attention + feed_forward + 3 * width) + width + 32 * inner // 64
    assert sum(p.numel() for p in model.parameters()) == 32_100 * width + encoder + decoder
    published = {"small": 60e6, "base": 220e6, "large": 770e6}[size]
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(published, rel=0.05)
    assert model.lm_head.weight is model.shared.weight
    with pytest.raises(InputError, match="one of small, base, large"):
        codet5.config_of("huge")


def test_an_untrained_codet5_is_the_same_for_the_same_seed(codet5_folder):
    tokenizer = codet5.load_codet5_tokenizer(codet5_folder)
    model = codet5.untrained("small", tokenizer, seed=3)
    assert (model.start_id, model.pad_id, model.eos_id, model.hidden_size) == (0, 0, 2, 512)
    assert model.prompt_frame == ((1,), (2,))
