"""Fine-tuning and evaluation on generated data in each of CodeXGLUE's formats, by the commands."""

import json
import random
import re
from pathlib import Path

import pytest
import torch

from coderl import records
from coderl.cli import main
from coderl.codexglue import stages as codexglue
from coderl.codexglue.pairs import read_pairs
from coderl.codexglue.settings import CodexglueConfig, CodexglueTask
from coderl.models import tiny as tiny_models
from coderl.models.lm import LanguageModel
from coderl.stages.console import Reporter
from coderl.training.losses import CrossEntropyExample, validation_loss
from coderl.training.settings import OptimConfig

NAMES, SIGNS = "abcdefgh", "+-*/%&"
SPLITS = {"train": 12, "valid": 6, "test": 6}
FLAGS = ["--optim.warmup-steps", "10", "--optim.patience", "60", "--max-target-tokens", "24"]
FLAGS_OF = {
    "t5": ["--optim.learning-rate", "1e-2", "--optim.batch-size", "6", "--optim.num-epochs", "60"],
    "llama": ["--optim.learning-rate", "5e-3", "--optim.batch-size", "12", "--optim.num-epochs", "60"],
}


def lines(language: str, name: str, sign: str) -> str:
    """The same line in four languages: what differs is to be learned, the name and the sign are to be copied."""
    return {
        "java": f"return {name} {sign} 1 ;",
        "c_sharp": f"yield {name} {sign} 1 ;",
        "fixed": f"return {name} {sign} 2 ;",
        "text": f"Gives {name} {sign} one .",
    }[language]


def write_task(task: str, folder: Path) -> Path:
    """Write a data set in the task's format: 12 pairs to train on, and the first six of them again in the others."""
    combinations = [(name, sign) for name in NAMES for sign in SIGNS]
    random.Random(0).shuffle(combinations)
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in SPLITS.items():
        part = combinations[:size]
        java, c_sharp, fixed, text = ([lines(kind, *c) for c in part] for kind in ("java", "c_sharp", "fixed", "text"))
        files = {
            "refinement": {f"{split}.buggy-fixed.buggy": java, f"{split}.buggy-fixed.fixed": fixed},
            "code-to-code": {f"{split}.java-cs.txt.java": java, f"{split}.java-cs.txt.cs": c_sharp},
            "text-to-code": {
                f"{split}.json": [json.dumps({"nl": t, "code": j}) for t, j in zip(text, java, strict=True)]
            },
            "code-to-text": {
                f"{split}.jsonl": [
                    json.dumps({"code_tokens": j.split(), "docstring_tokens": t.split()})
                    for j, t in zip(java, text, strict=True)
                ]
            },
        }[task]
        for name, content in files.items():
            (folder / name).write_text("".join(f"{line}\n" for line in content))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    texts = [lines(kind, n, s) for kind in ("java", "c_sharp", "fixed", "text") for n in NAMES for s in SIGNS]
    tokenizer = tiny_models.train_tokenizer(texts, 300, num_sentinels=1)
    tiny_models.tiny_t5(tokenizer, d_model=32, num_layers=1, num_heads=2, dropout=0.0).save(folder / "t5")
    tiny_models.tiny_llama(tokenizer, d_model=64, num_layers=2, num_heads=4).save(folder / "llama")
    return folder


def scores_of(model: Path, task: str, data: Path, out: Path, *flags: str) -> dict[str, float]:
    main(["evaluate-codexglue", "--task", task, "--model", str(model), "--data", str(data), "--out", str(out),
          "--max-target-tokens", "24", "--no-codebleu", "--json", str(out.with_suffix(".json")), *flags])  # fmt: skip
    return json.loads(out.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("task", "flags", "family"),
    [
        ("refinement", (), "t5"),
        ("code-to-code", ("--language", "c_sharp"), "llama"),
        ("text-to-code", (), "t5"),
        ("code-to-text", (), "t5"),
    ],
)
def test_a_tiny_model_learns_the_task(task, flags, family, models, tmp_path):
    """It writes the pairs that it was trained on, which the untrained model does not."""
    data = write_task(task, tmp_path / "data")
    main(["finetune-codexglue", "--task", task, "--actor", str(models / family), "--data", str(data),
          "--out", str(tmp_path / "run"), *flags, *FLAGS, *FLAGS_OF[family]])  # fmt: skip
    before = scores_of(models / family, task, data, tmp_path / "before", *flags)
    after = scores_of(tmp_path / "run" / "model", task, data, tmp_path / "after", *flags)
    metric = "smoothed_bleu" if task == "code-to-text" else "exact_match"
    assert before[metric] < 20
    assert after[metric] > 80
    # the file of predictions is what the evaluators read, and gives the same scores
    references = {"code-to-text": "test.jsonl", "text-to-code": "test.json", "refinement": "test.buggy-fixed.fixed",
                  "code-to-code": "test.java-cs.txt.cs"}[task]  # fmt: skip
    main(["evaluate-codexglue", "--task", task, "--predictions", str(tmp_path / "after" / "predictions.txt"),
          "--references", str(data / references), "--no-codebleu", "--json", str(tmp_path / "again.json")])  # fmt: skip
    assert json.loads((tmp_path / "again.json").read_text()) == after
    beams = scores_of(tmp_path / "run" / "model", task, data, tmp_path / "beams", *flags, "--num-beams", "3")
    assert beams[metric] > 80


def finetune(models: Path, data: Path, out: Path, **optim: object) -> None:
    config = CodexglueConfig(
        task="refinement", optim=OptimConfig(learning_rate=1e-2, batch_size=12, warmup_steps=0, **optim)
    )
    how = {"config": config, "reporter": Reporter(quiet=True)}
    codexglue.finetune_codexglue(out, actor=models / "t5", data=data, **how)


def test_a_killed_run_ends_with_the_same_weights(models, tmp_path, monkeypatch):
    data = write_task("refinement", tmp_path / "data")
    settings = {"num_epochs": 4, "checkpoint_every_steps": 2}
    finetune(models, data, tmp_path / "whole", **settings)
    real, count = codexglue.warm_start_steps, 0

    def dies(*args, **kwargs):
        nonlocal count
        for step in real(*args, **kwargs):
            yield step
            count += 1
            if count == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(codexglue, "warm_start_steps", dies)
    with pytest.raises(KeyboardInterrupt):
        finetune(models, data, tmp_path / "killed", **settings)
    monkeypatch.undo()
    finetune(models, data, tmp_path / "killed", **settings)
    whole, killed = (LanguageModel.load(tmp_path / name / "model").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    steps = [row["step"] for row in records.read_jsonl(tmp_path / "killed" / "metrics.jsonl")]
    assert steps == list(range(1, 5))


def test_it_stops_when_the_validation_loss_no_longer_falls(models, tmp_path):
    """Validation asks for the opposite of what training teaches: the first weights stay the best."""
    data = write_task("refinement", tmp_path / "data")
    (data / "valid.buggy-fixed.fixed").write_text("# # # # # # # # #\n" * 6)
    finetune(models, data, tmp_path / "run", num_epochs=50, patience=2)
    rows = records.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    losses = [rows[0]["validation_start_loss"], *(row["validation_loss"] for row in rows if "validation_loss" in row)]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2 < 50
    config = CodexglueConfig(task="refinement")
    model = LanguageModel.load(tmp_path / "run" / "model")
    examples = codexglue._examples(model, read_pairs("refinement", data, "valid"), config)
    assert validation_loss(model, examples)["loss"] == pytest.approx(min(losses), abs=1e-4)


def test_a_killed_evaluation_goes_on_where_it_was(models, tmp_path, monkeypatch):
    data = write_task("refinement", tmp_path / "data")
    monkeypatch.setattr(codexglue, "CHUNK_SIZE", 2)
    real, count = codexglue._predictions, 0

    def dies(*args):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(codexglue, "_predictions", dies)
    config = CodexglueTask(task="refinement", max_target_tokens=8)
    settings = {"model": models / "t5", "data": data, "config": config, "reporter": Reporter(quiet=True)}
    with pytest.raises(KeyboardInterrupt):
        codexglue.predict_codexglue(tmp_path / "out", **settings)
    codexglue.predict_codexglue(tmp_path / "out", **settings)
    assert count == 4  # three parts, one of them begun twice
    assert len((tmp_path / "out" / "predictions.txt").read_text().splitlines()) == 6


def test_the_validation_loss_is_the_mean_over_tokens(models):
    model = LanguageModel.load(models / "t5")
    examples = [CrossEntropyExample((10, 2), (20, 21, 2)), CrossEntropyExample((11, 12, 2), (22, 2))]
    by_hand = 0.0
    for example in examples:
        batch = model.collate([example.prompt], [example.program])
        by_hand -= model.log_probs(batch).sum().item()
    for size in (1, 2):
        assert validation_loss(model, examples, batch_size=size)["loss"] == pytest.approx(by_hand / 5, rel=1e-5)


def test_a_decoder_only_model_sees_where_the_answer_begins(models):
    llama, t5 = (LanguageModel.load(models / name) for name in ("llama", "t5"))
    assert llama.decode(codexglue.encode_source(llama, "return a ;", 320)) == "return a ;\n"
    assert t5.decode(codexglue.encode_source(t5, "return a ;", 320)) == "return a ;"


def test_a_prediction_is_one_line(models, monkeypatch):
    model = LanguageModel.load(models / "t5")
    drawn = tuple(model.encode_program(" a\r\n\n\tb\n"))
    monkeypatch.setattr(codexglue, "greedy", lambda *_args, **_kwargs: [drawn])
    found = codexglue._predictions(model, [codexglue.Pair("3", "x", "y")], CodexglueTask(task="refinement"), 1)
    assert found == [codexglue.Prediction("3", "a \tb")]


def test_the_settings_are_codet5s_unless_given():
    """CodeT5's sh/run_exp.py, codet5_base: batch, rate, lengths, patience, epochs."""
    wanted = {
        "code-to-text": (48, 5e-5, 256, 128, 2, 15),
        "text-to-code": (32, 10e-5, 320, 150, 3, 30),
        "code-to-code": (25, 5e-5, 320, 256, 5, 100),
        "refinement": (32, 5e-5, 240, 240, 5, 50),
    }
    for task, row in wanted.items():
        found = CodexglueConfig.model_validate({"task": task})
        optim = found.optim
        lengths = (found.max_source_tokens, found.max_target_tokens)
        assert (optim.batch_size, optim.learning_rate, *lengths, optim.patience, optim.num_epochs) == row
        assert (optim.schedule, optim.warmup_steps, optim.weight_decay) == ("linear", 1000, 0.0)
    changed = CodexglueConfig(task="refinement", max_source_tokens=64, optim=OptimConfig(batch_size=3))
    assert (changed.max_source_tokens, changed.max_target_tokens) == (64, 240)
    assert (changed.optim.batch_size, changed.optim.num_epochs) == (3, 50)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["evaluate-codexglue", "--task", "refinement", "--model", "MODELS/t5"], "give either --predictions"),
        (["evaluate-codexglue", "--task", "refinement"], "give either --predictions"),
        (["evaluate-codexglue", "--task", "refinement", "--model", "MODELS/t5", "--data", "OUT", "--out", "OUT/x"],
         "no test split"),
        (["finetune-codexglue", "--task", "refinement", "--actor", "MODELS/none", "--data", "DATA", "--out", "OUT/x"],
         "no such model"),
        (["finetune-codexglue", "--task", "sorting", "--actor", "MODELS/t5", "--data", "DATA", "--out", "OUT/x"],
         "sorting"),
        (["finetune-codexglue", "--task", "code-to-text", "--actor", "MODELS/t5", "--data", "DATA", "--out", "OUT/x"],
         "no train split of code-to-text"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_one_line_and_status_2(arguments, line, models, tmp_path, capsys):
    places = {"MODELS": str(models), "DATA": str(write_task("refinement", tmp_path / "d")), "OUT": str(tmp_path / "o")}
    (tmp_path / "o").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main([re.sub("MODELS|DATA|OUT", lambda m: places[m[0]], argument) for argument in arguments])
    assert stopped.value.code == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("coderl: ")]
    assert len(said) == 1
    assert line in said[0]
    assert not (tmp_path / "o" / "x").exists()


def test_secret_answers_are_no_references(models, tmp_path, capsys):
    data = write_task("text-to-code", tmp_path / "d")
    (data / "test.json").write_text('{"nl": "Adds", "code": ""}\n')
    with pytest.raises(SystemExit) as stopped:
        scores_of(models / "t5", "text-to-code", data, tmp_path / "out")
    assert stopped.value.code == 2
    assert "all 1 references are empty" in capsys.readouterr().err
    assert (tmp_path / "out" / "predictions.txt").exists()  # to be handed in
