"""The whole method on a model of a few thousand weights: every stage runs, resumes and refuses what is stale."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from coderl import records, tables
from coderl.models.lm import LanguageModel
from coderl.recipe import RunConfig, load_recipe
from coderl.records import facts_of
from coderl.rl.settings import ActorTrainingConfig, ReturnsConfig
from coderl.stages.console import Reporter
from coderl.stages.report import stage_facts
from coderl.stages.rollouts import programs_of, scores_of, verdicts_of
from coderl.stages.run import run
from coderl.stages.sample import sample
from coderl.stages.split_problems import read_splits
from coderl.stages.stage import derive_seed
from coderl.stages.train_actor import TrainedSample, train_actor
from coderl.types import InputError, Outcome, ProgramKind

RECIPE = """
name = "tiny"
num_threads = 1
[problems]
source = "miniapps:num_solved=30,num_unsolved=10,num_validation=6,num_test=6"
[prompt]
max_prompt_tokens = 96
max_program_tokens = 48
[actor.tiny]
vocab_size = 400
d_model = 16
d_ff = 32
num_layers = 1
num_heads = 2
[pretrain.masked_span]
learning_rate = 1e-3
num_steps = 2
[pretrain.next_token]
learning_rate = 1e-3
num_steps = 2
[warm_start.optim]
learning_rate = 3e-3
num_steps = 3
[rounds]
num_rounds = 2
problems_per_round = 8
num_replayed = 1
selection = { num_problems = 4, num_samples = 2, max_drop = 0.9 }
[rounds.sample]
num_samples = 3
chunk_size = 4
sampling = { temperature = 1.0, max_new_tokens = 12 }
[execution]
num_workers = 1
[critic]
held_out = 0.3
[critic.training.optim]
learning_rate = 1e-3
num_steps = 2
[binary_critic.training.optim]
learning_rate = 1e-3
num_steps = 2
[returns]
baseline = "none"
[actor_training.optim]
learning_rate = 1e-4
num_steps = 2
[repair.training.optim]
learning_rate = 1e-3
num_steps = 2
[evaluation]
num_samples = 3
ks = [1, 3]
temperatures = [0.6, 0.2]
sampling = { max_new_tokens = 12 }
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


READ: Counter[str] = Counter()
"""How often the run of `finished` read a file to hash it, a table from disk, and a model."""


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            READ[name] += 1
            return function(*arguments, **named)

        return call

    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_read_hash", counted("hashes", records._read_hash))
        patch.setattr(tables, "_read", counted("tables", tables._read))
        patch.setattr(LanguageModel, "load", counted("models", LanguageModel.load))
        run(load_recipe(recipe), run_dir, Reporter(quiet=True))
    return run_dir


def test_what_is_in_memory_is_not_read_again(finished: Path):
    """Before the stages shared what they have: 201 passes to hash, 136 table reads, 29 model loads."""
    assert 0 < READ["hashes"] <= 60
    assert READ["tables"] <= 60
    assert 0 < READ["models"] <= 12


def test_the_summary_has_what_is_promised(finished: Path):
    summary = json.loads((finished / "summary.json").read_text())
    for model in ("warm_start", "ce_control", "actor_critic"):
        assert {"pass_at_1", "greedy", "pass_at_1_t0.2"} <= summary[model].keys()
    assert "pass_at_1" in summary["actor_critic_cs"]
    assert summary["num_test_problems"] == 6
    assert {"seed", "wall_s"} <= summary.keys()


def test_the_report_compares_critic_sampling_with_plain_sampling_of_as_many_tokens(finished: Path):
    """Nothing that a random model draws is right, so there is no gain; the counts are those of the stages."""
    found = json.loads((finished / "summary.json").read_text())["search"]
    facts = facts_of(finished / "evaluate" / "actor_critic_cs" / "sample")
    assert found["num_problems"] == 6
    assert found["num_repaired"] == facts["num_repaired"] > 0
    assert found["num_sample"] == facts["num_sample"] == 6 * 3
    gain = found["pass_at_all_gain"]  # six differences of 0: (0 + 1) / 8 of variance, 1.96 root(1/64) around 0
    assert gain == {"mean": 0.0, "low": pytest.approx(-0.245, abs=1e-3), "high": -gain["low"], "num_problems": 6}
    plain = programs_of(finished / "evaluate" / "search" / "plain" / "sample")
    assert [p.index for p in plain if p.problem_id == plain[0].problem_id] == list(range(3 + 5))
    page = (finished / "report.html").read_text()
    assert "Critic sampling at equal cost" in page
    assert "tokens drawn a problem" in page


def test_every_program_has_one_verdict_and_every_judged_one_a_value_a_token(finished: Path):
    folder = finished / "round-01"
    programs, verdicts, scores = (
        programs_of(folder / "sample"),
        verdicts_of(folder / "execute"),
        scores_of(folder / "score"),
    )
    assert (
        len(programs) == len(verdicts) == len(scores) == 8 * 3
    )  # without a greedy program, which only the greedy baseline asks for
    for program in programs:
        assert len(scores[program.key].token_probs) == len(program.tokens)
        assert verdicts[program.key].fault is None


def test_the_samples_of_a_round_come_from_the_actor_of_the_round_before(finished: Path):
    request = records.read_json(finished / "round-01" / "sample" / records.MANIFEST)
    assert request["inputs"]["actor"] == records.hash_path(finished / "round-00" / "actor" / "model")


def test_training_and_test_problems_never_mix(finished: Path):
    chosen = {p.problem_id for p in programs_of(finished / "round-00" / "sample")}
    tested = {p.problem_id for p in programs_of(finished / "evaluate" / "actor_critic" / "t0.6" / "sample")}
    assert chosen.isdisjoint(tested)


def test_the_critic_is_measured_on_problems_it_has_not_seen(finished: Path):
    """Round 1 draws the next 8 problems: its 24 programs are all new to the critic of round 0."""
    facts = facts_of(finished / "round-01" / "drift")
    assert facts["num_held_out"] == 8 * 3
    assert {"accuracy", "majority_accuracy", "calibration_error", "prefix_auroc"} <= facts.keys()
    trained = facts_of(finished / "round-01" / "critic")
    assert trained["num_programs"] + trained["num_held_out"] <= 2 * 8 * 3
    assert trained["num_programs"] > 8 * 3


def test_canaries_and_staleness_are_recorded(finished: Path):
    facts = facts_of(finished / "round-01" / "actor")
    for name in ("compile_error_rate", "unique_share", "mean_tokens", "zero_return_share", "kl_to_reference"):
        assert facts[name] >= 0, name
    assert {"grad_norm_positive", "grad_norm_negative"} <= facts.keys()
    rows = list(tables.read_table(finished / "round-01" / "actor" / "samples", TrainedSample))
    assert {row.staleness for row in rows} == {0, 1}
    drawn = {p.problem_id for p in programs_of(finished / "round-00" / "sample")}
    assert {row.problem_id for row in rows if row.staleness == 1} <= drawn


def test_the_runs_actor_is_the_one_kept_on_validation_problems(finished: Path):
    found = records.read_json(finished / "selection.json")
    assert list(found["pass_rates"]) == ["warm-start", "round-00", "round-01"]
    folder = finished / ("warm-start" if found["kept"] == "warm-start" else f"{found['kept']}/actor") / "model"
    used = records.read_json(finished / "evaluate" / "actor_critic" / "t0.6" / "sample" / records.MANIFEST)
    assert used["inputs"]["actor"] == records.hash_path(folder)


def test_clipping_kl_error_lines_and_adapters_go_through_the_stage(finished: Path, recipe: Path, tmp_path: Path):
    """Each pool is clipped against the policy that drew it, the KL divergence taken from the warm start."""
    warm, first = finished / "warm-start" / "model", finished / "round-00" / "actor" / "model"
    splits = read_splits(load_recipe(recipe).problems)
    train_actor(
        tmp_path / "actor",
        actor=first,
        programs=[finished / f"round-{i:02d}" / "sample" for i in (0, 1)],
        verdicts=[finished / f"round-{i:02d}" / "execute" for i in (0, 1)],
        problems=[replace(p, solutions=()) for p in splits.train],
        config=ActorTrainingConfig.model_validate(
            {"clip_range": 0.2, "kl_weight": 0.1, "lora": {"rank": 2}, "optim": {"num_steps": 2, "learning_rate": 1e-3}}
        ),
        returns=ReturnsConfig(baseline="none", spread="error_line"),
        prompt=load_recipe(recipe).prompt,
        reporter=Reporter(quiet=True),
        policies=[warm, first],
        reference=warm,
    )
    asked = records.read_json(tmp_path / "actor" / records.MANIFEST)["inputs"]
    assert [*asked["policies"], asked["reference"]] == [records.hash_path(folder) for folder in (warm, first, warm)]
    lines = records.read_jsonl(tmp_path / "actor" / "metrics.jsonl")
    assert all(line["kl"] > 0 for line in lines)
    before, after = (LanguageModel.load(folder).state_dict() for folder in (first, tmp_path / "actor" / "model"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_report_shows_the_critics_and_the_canaries(finished: Path):
    page = (finished / "report.html").read_text()
    for text in ("Critics on held-out problems", "Canaries", "round-01/drift", "predicted probability of passing"):
        assert text in page


def test_the_report_is_one_page_without_network(finished: Path):
    page = (finished / "report.html").read_text()
    assert "Reinforcement learning was rejected" in page  # of a random model nothing is right, before and after
    assert "actor-critic RL" not in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_does_nothing_again(finished: Path, recipe: Path):
    before = {str(p): p.stat().st_mtime_ns for p in finished.rglob("part-*.parquet")}
    run(load_recipe(recipe), finished, Reporter(quiet=True))
    assert {str(p): p.stat().st_mtime_ns for p in finished.rglob("part-*.parquet")} == before


def test_another_setting_in_the_same_directory_is_refused_by_name(finished: Path, recipe: Path):
    config = load_recipe(recipe, ["--rounds.sample.num-samples", "4"])
    with pytest.raises(InputError, match="num_samples: 3 then, 4 now"):
        run(config, finished, Reporter(quiet=True))
    run(load_recipe(recipe), finished, Reporter(quiet=True))


def test_a_run_killed_at_any_stage_ends_with_the_same_tables(finished: Path, recipe: Path, tmp_path: Path):
    """An attempt is killed (SIGKILL) once a stage is done; the next one ends as the uninterrupted run did."""
    run_dir = tmp_path / "killed"
    command = [sys.executable, "-m", "coderl", "run", str(recipe), "--run-dir", str(run_dir), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for stage in ("round-00/execute",):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (run_dir / stage / records.MANIFEST).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0
    for path in sorted(finished.glob("round-*/*/model/model.safetensors")):
        assert records.hash_path(path) == records.hash_path(run_dir / path.relative_to(finished)), path
    for path in sorted(finished.glob("round-*/*/*/part-*.parquet")):
        if "costs" not in str(path):  # which are times
            assert records.hash_path(path) == records.hash_path(run_dir / path.relative_to(finished)), path


def test_the_control_beside_a_run_ends_when_the_run_is_killed(finished: Path, tmp_path: Path):
    """The control runs in a process of its own; killed with it alive, the run leaves no process that writes."""
    run_dir = tmp_path / "beside"
    shutil.copytree(finished, run_dir)
    for stage in ("ce-control", "evaluate"):
        shutil.rmtree(run_dir / stage)
    recipe = tmp_path / "beside.toml"
    recipe.write_text(RECIPE + "control_beside = true\n")
    command = [sys.executable, "-m", "coderl", "run", str(recipe), "--run-dir", str(run_dir), "--quiet"]
    environment = {**os.environ, "CODERL_TEST": str(run_dir)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (run_dir / "ce-control").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for _ in range(600):
        if not processes_about(run_dir):
            break
        time.sleep(0.05)
    assert not processes_about(run_dir)
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def processes_about(run_dir: Path) -> list[str]:
    """Return the processes that were started for a run: its own and those it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"CODERL_TEST={run_dir}".encode() in environment:
            found.append(entry.name)
    return found


def test_a_stage_whose_part_is_lost_draws_that_part_again_alike(finished: Path, recipe: Path, tmp_path: Path):
    folder = tmp_path / "sample"
    shutil.copytree(finished / "round-00" / "sample", folder)
    whole = list(programs_of(folder))
    (folder / "programs" / "part-000001.parquet").unlink()
    config = load_recipe(recipe)
    by_id = {p.problem.problem_id: p.problem for p in read_splits(config.problems).train}
    problems = [by_id[i] for i in dict.fromkeys(p.problem_id for p in whole)]
    sample(
        folder,
        actor=finished / "warm-start" / "model",
        problems=problems,
        config=config.rounds.sample,
        prompt=config.prompt,
        seed=derive_seed(0, "round", 0),
        greedy=False,
        reporter=Reporter(quiet=True),
    )
    assert list(programs_of(folder)) == whole


def test_the_stages_cost_is_recorded(finished: Path):
    for name, facts in stage_facts(finished):
        assert facts["wall_s"] >= 0, name
        assert facts["cpu_s"] >= 0, name


def test_candidates_of_the_search_are_numbered_and_only_handed_in_ones_are_judged(finished: Path):
    folder = finished / "evaluate" / "actor_critic_cs"
    programs, verdicts = programs_of(folder / "sample"), verdicts_of(folder / "execute")
    assert len({(p.problem_id, p.kind, p.index) for p in programs}) == len(programs) == len(verdicts)
    assert all(p.kind is not ProgramKind.BASELINE for p in programs)
    assert all(v.outcome in Outcome for v in verdicts.values())


def test_splits_that_share_a_problem_are_refused_or_give_it_up_to_the_later_split(tmp_path: Path):
    statements = {"train": ["sum", "product", "bits"], "validation": ["bits", "product", "digits"], "test": ["product"]}
    for split, asked in statements.items():
        for number, what in enumerate(asked):
            folder = tmp_path / split / f"{number:04d}"
            folder.mkdir(parents=True)
            (folder / "question.txt").write_text(f"Print the {what}.{' ' * (split == 'test')}")
            (folder / "input_output.json").write_text('{"inputs": ["1 2\\n"], "outputs": ["3\\n"]}')
    settings = {"source": str(tmp_path)}
    with pytest.raises(InputError, match="also stands in train"):
        read_splits(RunConfig.model_validate({"problems": settings}).problems)
    splits = read_splits(RunConfig.model_validate({"problems": {**settings, "drop_overlap": True}}).problems)
    left = {name: [p.problem.description.strip() for p in getattr(splits, name)] for name in statements}
    assert left == {
        "train": ["Print the sum."],
        "validation": ["Print the bits.", "Print the digits."],
        "test": ["Print the product."],
    }


def test_torch_was_told_how_many_threads_to_use(finished: Path):
    assert torch.get_num_threads() == 1
