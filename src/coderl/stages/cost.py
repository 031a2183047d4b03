"""What a recipe will cost, before it runs: programs, tokens, hours and bytes of each stage, from measured rates.

The amounts follow from the recipe and its problems, in the order of `stages.run`. Where only the run can tell (how long
a program gets, how many fail), a program is taken to be as long as a reference solution, and all that can be learned
from is taken to be. `rates.toml` has the rates; nothing here needs a model or torch.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from coderl import prompts
from coderl.models.settings import TinyConfig
from coderl.recipe import RunConfig
from coderl.training.settings import CriticConfig, OptimConfig
from coderl.types import LabelledProblem

Number = int | float
MORE_SAMPLES = 1.5
"""As in `stages.run`: plain samples beside a search, in samples of the first round."""
DEFAULT_NUM_EPOCHS = 10
"""As in `training.optim`."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What one stage does."""

    stage: str
    num_programs: Number = 0
    """Drawn."""
    num_drawn_tokens: Number = 0
    num_trained_tokens: Number = 0
    """Of prompts and programs."""
    num_read_tokens: Number = 0
    """In passes without gradients."""
    num_runs: Number = 0
    """Programs run on tests."""
    num_bytes: Number = 0
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage takes by the rates of some hardware."""

    amount: Amount
    model_s: Number | None
    """None where the hardware has no measured rates."""
    sandbox_s: Number


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many problems there are, and the mean tokens of what is read and written."""

    num_solved: int
    num_solutions: int
    num_tested: int
    num_validation: int
    num_test: int
    prompt: Number
    program: Number


@dataclass(frozen=True)
class Rates:
    """The measured rates; see `rates.toml`."""

    rates: list[dict[str, Any]]
    characters: list[dict[str, Any]]
    sandbox: dict[str, Any]
    bytes: dict[str, Any]
    overhead: dict[str, Any]

    @classmethod
    def load(cls) -> Rates:
        """Return those that come with the package."""
        text = (resources.files("coderl.stages") / "rates.toml").read_text(encoding="utf-8")
        return cls(**tomllib.loads(text))

    @property
    def hardware(self) -> list[str]:
        """What there are rates of."""
        return list(dict.fromkeys(row["hardware"] for row in self.rates))

    def tokens_per_s(self, hardware: str, work: str, num_weights: Number, batch_size: int) -> Number | None:
        """Return a rate: between two measured sizes by their logarithms, beyond them by the number of weights."""
        rows = [r for r in self.rates if r["hardware"] == hardware and r["work"] == work]
        if not rows:
            return None
        sizes = sorted({row.get("batch_size", 1) for row in rows})
        nearest = min(sizes, key=lambda size: abs(math.log(size / batch_size)))
        points = sorted((r["num_weights"], r["tokens_per_s"]) for r in rows if r.get("batch_size", 1) == nearest)
        largest, rate = points[-1]
        if num_weights > largest:
            return rate * largest / num_weights
        known, found = np.log(np.array(points, dtype=float)).T
        return float(np.exp(np.interp(math.log(num_weights), known, found)))

    def characters_per_token(self, vocab_size: int) -> tuple[Number, Number]:
        """Return how many characters a token of a program and of a prompt has."""
        known = [math.log(row["vocab_size"]) for row in self.characters]
        of = [[row[name] for row in self.characters] for name in ("program", "prompt")]
        program, prompt = (float(np.interp(math.log(vocab_size), known, values)) for values in of)
        return program, prompt


# ----------------------------------------------------------------------------------------------------------- the model


def num_weights_of(config: RunConfig) -> Number | None:
    """Return how many weights the actor has; None where neither a folder nor a name tells."""
    if config.actor.init == "tiny":
        return _num_t5_weights(config.actor.tiny)
    weights = list(Path(config.actor.init).glob("*.safetensors"))
    if weights:
        return float(sum(map(_num_weights_in, weights)))
    published = re.search(r"codet5-(small|base|large)", config.actor.init)
    if published:
        return {"small": 60e6, "base": 220e6, "large": 770e6}[published[1]]
    found = re.search(r"(\d+(?:\.\d+)?)\s*([bm])\b", config.actor.init.lower().replace("_", "-"))
    return float(found[1]) * {"b": 1e9, "m": 1e6}[found[2]] if found else None


def _num_t5_weights(tiny: TinyConfig) -> Number:
    attention, feed_forward = 4 * tiny.d_model**2, 2 * tiny.d_model * tiny.d_ff
    return tiny.vocab_size * tiny.d_model + tiny.num_layers * (3 * attention + 2 * feed_forward)


def _num_weights_in(file: Path) -> int:
    """Return the weights of a safetensors file, from its header."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def lengths_of(config: RunConfig, splits: Any, rates: Rates) -> Lengths:
    """Return the sizes of a run's problems; `splits` are those of `stages.split_problems`."""
    vocab_size = config.actor.tiny.vocab_size if config.actor.init == "tiny" else 32_000
    per_program, per_prompt = rates.characters_per_token(vocab_size)
    solutions = [s for p in splits.solved for s in p.solutions]
    longest = config.prompt.max_program_tokens
    program = fmean([min(len(s) / per_program + 1, longest) for s in solutions] or [longest / 2])
    shown: Sequence[LabelledProblem] = [*splits.train, *splits.test][:2000]
    texts = [prompts.actor_prompt(p.problem, style=config.prompt.style) for p in shown]
    prompt = fmean(min(len(text) / per_prompt, config.prompt.max_prompt_tokens) for text in texts)
    num_validation = sum(bool(p.hidden_tests) for p in splits.validation)
    sizes = (len(splits.solved), len(solutions), len(splits.tested), num_validation, len(splits.test))
    return Lengths(*sizes, prompt, program)


# --------------------------------------------------------------------------------------------------------- the amounts


@dataclass
class Reckoning:
    """The amounts of a recipe's stages, in the order in which they are done."""

    config: RunConfig
    lengths: Lengths
    num_weights: Number
    rates: Rates
    amounts: list[Amount] = field(default_factory=list)
    num_pooled: Number = 0
    """Programs that were drawn for training problems so far."""

    @property
    def example(self) -> Number:
        """Tokens of a prompt and a program."""
        return self.lengths.prompt + self.lengths.program

    def add(self, stage: str, **amount: Any) -> None:
        """Note what a stage does."""
        self.amounts.append(Amount(stage, **amount))

    def draw(self, place: str, num_problems: Number, per_problem: Number, max_tokens: int, *, runs: int = 1) -> Number:
        """Note `sample` and `execute` stages; return the programs drawn."""
        count, sizes = num_problems * per_problem, self.rates.bytes
        tokens = count * min(self.lengths.program, max_tokens)
        drawn_bytes = count * sizes["per_program"] + tokens * sizes["per_token"]
        self.add(f"{place}/sample", num_programs=count, num_drawn_tokens=tokens, num_bytes=drawn_bytes)
        per_verdict = sizes["per_verdict"] + sizes["per_stored_verdict"]
        self.add(f"{place}/execute", num_runs=runs * count, num_bytes=runs * count * per_verdict)
        return count

    def train(self, stage: str, num_examples: Number, optim: OptimConfig | None, *, reads: Number = 0) -> Number:
        """Note a training; return the tokens it goes through."""
        tokens = 0.0 if optim is None else _num_examples(num_examples, optim) * self.example
        if optim is not None and optim.max_tokens is not None:
            tokens = min(tokens, optim.max_tokens)
        weights = self.num_weights * self.rates.bytes["per_weight"]
        batch_size = optim.batch_size if optim else 1
        amount = {"num_trained_tokens": tokens, "num_read_tokens": reads * self.example}
        self.add(stage, **amount, num_bytes=weights, batch_size=batch_size)
        return tokens

    def fit_critic(self, stage: str, num_programs: Number, config: CriticConfig) -> None:
        """Note a critic's training: its linear layer first, then all of it."""
        learnt = num_programs * (1 - config.held_out)
        reads = learnt * config.training.fit_head + 2 * num_programs * config.held_out
        self.train(stage, learnt, config.training.optim, reads=reads)


def _num_examples(num_examples: Number, optim: OptimConfig) -> Number:
    """Return the examples that a training goes through, each as often as it does."""
    limits = []
    if optim.num_steps is not None:
        limits.append(optim.num_steps * float(min(optim.batch_size, max(num_examples, 1))))
    if optim.num_epochs is not None:
        limits.append(optim.num_epochs * num_examples)
    if not limits and optim.max_tokens is None and optim.max_cpu_s is None:
        limits.append(DEFAULT_NUM_EPOCHS * num_examples)
    return min(limits, default=math.inf)


def amounts(config: RunConfig, lengths: Lengths, num_weights: Number, rates: Rates) -> list[Amount]:
    """Return what each stage of a recipe does, with models of so many weights."""
    this = Reckoning(config, lengths, num_weights, rates)
    _supervised(this)
    num_rl_tokens = _reinforced(this)
    _evaluated(this, num_rl_tokens)
    return this.amounts


def _supervised(this: Reckoning) -> None:
    config, lengths = this.config, this.lengths
    for name in ("masked_span", "next_token"):
        if (optim := getattr(config.pretrain, name)) is not None:
            share = lengths.program / this.example
            if config.pretrain.corpus:
                share = config.pretrain.window_tokens / this.example
            this.train(f"pretrain ({name.replace('_', ' ')})", lengths.num_solutions * share, optim)
    if config.warm_start:
        this.train("warm-start", lengths.num_solutions, config.warm_start.optim)
    online = getattr(config, "online", None)
    if online is not None:
        optim = online.training.optim
        per_draw = online.problems_per_draw * online.num_samples
        updates = max(math.ceil(per_draw / optim.batch_size), 1) * online.num_passes
        num_draws = (optim.num_steps or 100) / updates
        drawn = this.draw("online", num_draws, per_draw, online.sampling.max_new_tokens)
        this.train("online", drawn, optim.model_copy(update={"num_steps": None, "num_epochs": online.num_passes}))


def _reinforced(this: Reckoning) -> Number:
    """Note the rounds; return the tokens they draw and train on."""
    config, lengths, rounds = this.config, this.lengths, this.config.rounds
    size = min(rounds.problems_per_round or lengths.num_tested, lengths.num_tested)
    per_problem = rounds.sample.num_samples + (config.returns.baseline == "greedy")
    longest = rounds.sample.sampling.max_new_tokens
    _validated(this, "validate")
    spent = 0.0
    for index in range(rounds.num_rounds):
        name = f"round-{index:02d}"
        drawn = this.draw(name, size, per_problem, longest)
        this.num_pooled += drawn
        if config.returns.spread == "critic":
            this.fit_critic(f"{name}/critic", this.num_pooled if config.critic.all_rounds else drawn, config.critic)
            num_bytes = drawn * lengths.program * this.rates.bytes["per_scored_token"]
            this.add(f"{name}/score", num_read_tokens=drawn * this.example, num_bytes=num_bytes)
        learnt = drawn * min(index + 1, rounds.num_replayed + 1)
        spent += drawn * lengths.program
        spent += this.train(f"{name}/actor", learnt, config.actor_training.optim)
        _validated(this, f"{name}/validate")
    return spent


def _validated(this: Reckoning, place: str) -> None:
    settings, sample = this.config.rounds.selection, this.config.rounds.sample
    if settings is not None and this.lengths.num_validation:
        size = min(settings.num_problems or this.lengths.num_validation, this.lengths.num_validation)
        this.draw(place, size, settings.num_samples, sample.sampling.max_new_tokens)


def _evaluated(this: Reckoning, num_rl_tokens: Number) -> None:
    config, settings, lengths = this.config, this.config.evaluation, this.lengths
    longest = settings.sampling.max_new_tokens

    def evaluate(name: str) -> None:
        for at, temperature in enumerate(settings.temperatures):
            per_problem = settings.num_samples + (at == 0)
            place = f"evaluate/{name}/t{temperature:g}"
            this.draw(place, lengths.num_test, per_problem, longest, runs=2 if at == 0 else 1)

    evaluate("warm_start")
    evaluate("actor_critic")
    if config.critic_sampling:
        _searched(this, longest)
    if settings.ce_control and config.warm_start:
        limits = {"num_epochs": None, "num_steps": settings.ce_control_steps}
        if settings.ce_control_steps is None:
            limits["max_tokens"] = max(int(num_rl_tokens), 1)
        optim = config.warm_start.optim.model_copy(update=limits)
        this.train("ce-control", lengths.num_solutions, optim)
        evaluate("ce_control")


def _searched(this: Reckoning, longest: int) -> None:
    config, lengths = this.config, this.lengths
    if config.search_pool:
        count = config.search_pool.num_samples
        this.num_pooled += this.draw(
            "search-pool", lengths.num_tested, count, config.search_pool.sampling.max_new_tokens
        )
    this.fit_critic("binary-critic", this.num_pooled, config.binary_critic)
    if config.repair:
        pairs = min(config.repair.max_pairs, this.num_pooled)
        this.train("repair", pairs, config.repair.training.optim)
    per_problem = config.evaluation.num_samples
    this.draw("evaluate/actor_critic_cs", lengths.num_test, per_problem, longest, runs=2)
    if config.evaluation.search_control:
        plain = math.ceil(MORE_SAMPLES * per_problem)
        count = this.draw("evaluate/search/more", lengths.num_test, plain, longest)
        ranked = count + 3 * per_problem * lengths.num_test
        this.add("evaluate/search/rank", num_read_tokens=ranked * this.example, num_runs=2 * ranked)


# ------------------------------------------------------------------------------------------------------------ the costs


def costs(found: Sequence[Amount], rates: Rates, hardware: str, num_weights: Number) -> list[Cost]:
    """Return what the stages take in seconds of one device and of one processor core of the sandbox."""
    return [Cost(a, _model_s(a, rates, hardware, num_weights), _sandbox_s(a, rates)) for a in found]


def _model_s(amount: Amount, rates: Rates, hardware: str, num_weights: Number) -> Number | None:
    seconds = rates.overhead["cpu_s_per_stage"]
    done = {"draw": amount.num_drawn_tokens, "train": amount.num_trained_tokens, "read": amount.num_read_tokens}
    for work, num_tokens in done.items():
        if num_tokens:
            rate = rates.tokens_per_s(hardware, work, num_weights, amount.batch_size)
            if rate is None:
                return None
            seconds += num_tokens / rate
    return seconds


def _sandbox_s(amount: Amount, rates: Rates) -> Number:
    return amount.num_runs * rates.sandbox["core_s_per_program"]


def total(found: Sequence[Cost]) -> Cost:
    """Return the sum of some costs."""
    summed = {
        f.name: sum(getattr(c.amount, f.name) for c in found) for f in fields(Amount) if f.name.startswith("num_")
    }
    model = [c.model_s for c in found]
    model_s = None if None in model else sum(s for s in model if s is not None)
    return Cost(Amount("all", **summed), model_s, sum(c.sandbox_s for c in found))


def lines(found: Sequence[Cost]) -> Iterator[tuple[str, ...]]:
    """Yield a row of text for each stage and one for all."""
    for cost in [*found, total(found)]:
        amount = cost.amount
        counts = (
            amount.num_programs,
            amount.num_drawn_tokens,
            amount.num_trained_tokens,
            amount.num_read_tokens,
            amount.num_runs,
        )
        hours = "unknown" if cost.model_s is None else f"{cost.model_s / 3600:.3g}"
        size = f"{amount.num_bytes / 1e9:.2g}"
        shown = [f"{count:,.0f}" if count else "" for count in counts]
        yield (amount.stage, *shown, hours, f"{cost.sandbox_s / 3600:.3g}", size)
