"""From a corpus to a model: both objectives, a validation loss, and the same weights whatever interrupts it."""

import pytest
from safetensors.numpy import load_file

from coderl import records, tables
from coderl.corpus.build import CorpusConfig, build_corpus
from coderl.models.settings import TinyConfig
from coderl.records import facts_of
from coderl.stages import pretrain as pretraining
from coderl.stages.console import Reporter
from coderl.stages.init import init
from coderl.stages.stage import Work
from coderl.training.packed import CorpusFile, Windows
from coderl.training.settings import OptimConfig, PretrainConfig
from coderl.types import InputError, LabelledProblem, Problem

QUIET = Reporter(quiet=True)
TINY = TinyConfig(vocab_size=400, d_model=16, d_ff=16, num_layers=1, num_heads=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for project in range(6):
        (root / "src" / f"p{project}").mkdir(parents=True)
        for number in range(4):
            name = f"{project}_{number}"
            lines = [f"def function_{name}_{i}(value):\n    return value + {i}\n\n\n" for i in range(6)]
            (root / "src" / f"p{project}" / f"m{number}.py").write_text("".join(lines))
    config = CorpusConfig(any_licence=True, validation_share=0.2, shard_bytes=2_000, similarity=1.0)
    build_corpus(root / "corpus", folders=[root / "src"], config=config, reporter=QUIET)
    return root / "corpus"


@pytest.fixture(scope="module")
def untrained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("init") / "init"
    init(out, corpus=corpus, config=TINY, seed=0, reporter=QUIET)
    return out / "model"


def config_of(corpus, **more):
    optim = {"batch_size": 4, "learning_rate": 1e-2, "validate_every_steps": 3, "checkpoint_every_steps": 3}
    settings = {
        "masked_span": OptimConfig(num_steps=8, **optim),
        "next_token": OptimConfig(num_steps=8, **optim),
        "window_tokens": 64,
        "num_validation": 5,
    }
    return PretrainConfig(corpus=corpus, **{**settings, **more})


def run(out, model, config):
    pretraining.pretrain(out, actor=model, config=config, reporter=QUIET)
    return load_file(out / "model" / "model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def test_both_objectives_report_a_falling_validation_loss(corpus, untrained, tmp_path):
    weights = run(tmp_path / "out", untrained, config_of(corpus))
    facts = facts_of(tmp_path / "out")
    for objective in ("masked_span", "next_token"):
        rows = records.read_jsonl(tmp_path / "out" / objective / "metrics.jsonl")
        assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6, 8]
        assert "validation_start_loss" in rows[0]
        assert facts[objective]["validation_loss"] < facts[objective]["validation_loss_before"]
    between = load_file(tmp_path / "out" / "masked_span" / "model" / "model.safetensors")
    assert not same(between, weights)
    assert not list((tmp_path / "out").glob(".*")), "what was packed is gone"


def test_no_token_of_the_corpus_is_lost(corpus, untrained, tmp_path):
    model = pretraining.LanguageModel.load(untrained)
    pretraining.pack_corpus(Work(tmp_path, QUIET), model, corpus, config_of(corpus))
    for split in ("train", "validation"):
        packed = [t for window in Windows(tmp_path / pretraining.PACKED / split) for t in window]
        files = [f for part in tables.parts_of(corpus / split) for f in tables.read_table(part, CorpusFile)]
        assert packed == [t for file in files for t in model.encode_program(file.text)]
        assert model.decode(packed) == "".join(file.text for file in files)


def test_the_first_shards_alone(corpus, untrained, tmp_path):
    model = pretraining.LanguageModel.load(untrained)
    assert len(tables.parts_of(corpus / "train")) > 2
    pretraining.pack_corpus(Work(tmp_path, QUIET), model, corpus, config_of(corpus, num_shards=2))
    assert len(tables.parts_of(tmp_path / pretraining.PACKED / "train")) == 2


@pytest.mark.parametrize("objective", ["packing", "masked_span", "next_token"])
def test_an_interrupted_run_ends_with_the_same_weights(corpus, untrained, tmp_path, monkeypatch, objective):
    whole = run(tmp_path / "whole", untrained, config_of(corpus))
    log_steps, pack = Work.log_steps, pretraining.pack
    num_packed = []

    def interrupted_log(work, steps, title, *, below, **more):
        def some():
            for step in steps:
                yield step
                if step.step == 5:
                    raise KeyboardInterrupt

        return log_steps(work, some() if below == objective else steps, title, below=below, **more)

    def interrupted_pack(*arguments):
        num_packed.append(1)
        if objective == "packing" and len(num_packed) == 3:
            raise KeyboardInterrupt
        return pack(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "log_steps", interrupted_log)
        patch.setattr(pretraining, "pack", interrupted_pack)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", untrained, config_of(corpus))
    assert same(run(tmp_path / "out", untrained, config_of(corpus)), whole)
    rows = records.read_jsonl(tmp_path / "out" / "next_token" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))


def test_the_solutions_of_problems(corpus, untrained, tmp_path):
    """The other source: what a recipe without a corpus pretrains on."""
    problems = [
        LabelledProblem(Problem(f"p{n}", "Print."), solutions=(f"for i in range({n}):\n    print(i)\n",))
        for n in range(8)
    ]
    config = config_of(None)
    pretraining.pretrain(tmp_path, actor=untrained, problems=problems, config=config, reporter=QUIET)
    facts = facts_of(tmp_path)
    assert facts["masked_span"]["num_steps"] == facts["next_token"]["num_steps"] == 8
    losses = [row["loss"] for row in records.read_jsonl(tmp_path / "next_token" / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_the_same_seed_makes_the_same_model(corpus, untrained, tmp_path):
    init(tmp_path / "again", corpus=corpus, config=TINY, seed=0, reporter=QUIET)
    init(tmp_path / "other", corpus=corpus, config=TINY, seed=1, reporter=QUIET)
    first, again, other = (
        load_file(p / "model.safetensors") for p in (untrained, tmp_path / "again/model", tmp_path / "other/model")
    )
    assert same(first, again)
    assert not same(first, other)
    assert (untrained / "tokenizer.json").read_bytes() == (tmp_path / "other/model/tokenizer.json").read_bytes()


def test_what_cannot_be_used_is_refused(corpus, untrained, tmp_path):
    with pytest.raises(InputError, match="not a finished corpus"):
        run(tmp_path / "a", untrained, config_of(tmp_path))
    with pytest.raises(InputError, match="nothing to do"):
        run(tmp_path / "b", untrained, config_of(corpus, masked_span=None, next_token=None))
    assert not (tmp_path / "a").exists()


def test_a_broken_shard_is_refused(corpus, untrained, tmp_path):
    import shutil

    broken = tmp_path / "corpus"
    shutil.copytree(corpus, broken)
    part = tables.parts_of(broken / "train")[1]
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-000001\.parquet: not a readable Parquet file"):
        run(tmp_path / "a", untrained, config_of(broken))
    part.unlink()
    with pytest.raises(InputError, match=r"part-000001\.parquet is missing"):
        run(tmp_path / "b", untrained, config_of(broken))
