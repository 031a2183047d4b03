"""docs/original.md has every script, flag and file of the original; its commands and the recipes are read as meant."""

import json
import re
import shlex
from pathlib import Path

import pytest

from coderl.cli import build, main
from coderl.evaluation import paper
from coderl.recipe import RunConfig, load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "original.md"
COMMANDS = [c for c in re.findall(r"`(coderl [^`]+)`", PAGE.read_text("utf-8")) if "..." not in c and " --" in c]

GENERATE = """test_path output_path model_path tokenizer_path critic_scores binary_prediction num_seqs num_seqs_per_iter
max_len source_len gt_solutions temperature start end"""
TEST = "code_path index max_tests example_tests"
TRAIN = """model save_dir train-path sample-mode tuning_mode relative_returns clone_rl_head epochs lr fp16 local_rank db
batch-size-per-replica grad-acc-steps deepspeed log-freq save-freq save_total_limit"""


@pytest.mark.parametrize("flag", f"{GENERATE} {TEST} {TRAIN}".split())
def test_every_flag_of_the_original_has_its_line(flag):
    assert re.search(rf"`[^`]*--{flag}[ `]", PAGE.read_text("utf-8"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_is_understood(command):
    arguments = shlex.split(command)[1:]
    build(arguments).parse_args(arguments, exit_on_error=False, print_error=False)


def test_the_page_has_commands():
    assert len(COMMANDS) > 8


def recipe(name: str) -> RunConfig:
    return load_recipe(ROOT / "recipes" / f"{name}.toml")


def test_the_papers_settings():
    """Section 4.2: 64 a batch, 500 steps of warm-up to 2e-5, then (power 0.5) down to 1e-5 over 10 epochs; 600/512."""
    config = recipe("apps_codet5")
    assert config.warm_start is not None
    optim = config.warm_start.optim
    assert (optim.batch_size, optim.learning_rate, optim.warmup_steps) == (64, 2e-5, 500)
    assert (optim.schedule, optim.power, optim.min_learning_rate, optim.num_epochs) == ("polynomial", 0.5, 1e-5, 10)
    assert (config.prompt.max_prompt_tokens, config.prompt.max_program_tokens) == (600, 512)
    assert (config.rounds.sample.num_samples, config.rounds.sample.sampling.temperature) == (20, 0.6)
    assert (config.returns.baseline, config.returns.spread, config.returns.filter) == ("greedy", "critic", "all")
    assert config.critic_sampling is not None
    assert (config.critic_sampling.num_samples, config.critic_sampling.num_repair_candidates) == (200, 1)


def test_the_scripts_settings():
    """train_critic.sh 8 x 1, train_actor.sh and train_actor_rl.sh 1 x 4, all 2e-5, 10 epochs, constant, decay 0.05."""
    config = recipe("apps_codet5_legacy")
    assert config.warm_start is not None
    critic = config.critic.training.optim
    assert critic is not None
    for optim, size in ((config.warm_start.optim, 4), (critic, 8), (config.actor_training.optim, 4)):
        assert (optim.batch_size, optim.learning_rate, optim.num_epochs) == (size, 2e-5, 10)
        assert (optim.schedule, optim.warmup_steps, optim.weight_decay, optim.max_grad_norm) == ("constant", 0, 0.05, 1)
    assert (config.seed, config.critic.pooling, config.critic.held_out) == (42, "legacy", 0.0)
    assert (config.critic.use_solutions, config.critic.training.fit_head) == (True, False)
    sampling = config.rounds.sample.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens) == (0.6, 0.95, 50, 512)
    assert (config.execution.comparator, config.execution.cpu_limit_s) == ("apps", 4.0)


def test_the_setting_on_mbpp():
    """Sections 4.2 and B.2: 60 epochs, constant 2e-5, 32 a batch, 382/306, temperature 1.2."""
    config = recipe("mbpp_codet5")
    assert config.warm_start is not None
    optim = config.warm_start.optim
    assert (optim.num_epochs, optim.schedule, optim.learning_rate, optim.batch_size) == (60, "constant", 2e-5, 32)
    assert (config.prompt.max_prompt_tokens, config.prompt.max_program_tokens) == (382, 306)
    assert (config.rounds.sample.sampling.temperature, config.evaluation.temperatures) == (1.2, (1.2,))


@pytest.mark.parametrize(
    ("name", "column"), [("apps_codet5", "apps"), ("apps_codet5_legacy", "scripts"), ("mbpp_codet5", "mbpp")]
)
def test_a_dry_run_puts_a_recipe_beside_what_it_follows(name, column, capsys, monkeypatch):
    """Every setting that the paper (or the scripts) states has the stated value in the recipe that follows it."""
    monkeypatch.setenv("COLUMNS", "250")
    main(["run", str(ROOT / "recipes" / f"{name}.toml"), "--dry-run"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == recipe(name).model_dump(mode="json")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.err.splitlines() if "│" in line]
    stated = 0
    for setting, own, apps, mbpp, scripts, where in rows:
        cell = {"apps": apps, "mbpp": mbpp, "scripts": scripts}[column]
        assert cell in ("", own), setting
        assert where
        stated += cell != ""
    assert stated == sum(column in setting.values for setting in paper.settings()) > 10
    assert len(rows) == len(paper.settings())


def test_what_a_dry_run_changes_is_marked(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    path = ROOT / "recipes" / "apps_codet5.toml"
    main(["run", str(path), "--dry-run", "--warm-start.optim.batch-size", "8", "--critic-sampling", "none"])
    lines = capsys.readouterr().err.splitlines()
    (batch,) = (line for line in lines if "warm_start.optim.batch_size" in line)
    assert [cell.strip() for cell in batch.split("│")[2:6]] == ["8", "≠ 64", "≠ 32", "≠ 4"]
    (search,) = (line for line in lines if "critic_sampling.num_samples" in line)
    assert [cell.strip() for cell in search.split("│")[2:4]] == ["none", "≠ 200"]
