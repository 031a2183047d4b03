"""What each row of a batch has drawn so far, kept on the model's device: a step asks the host for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from coderl.engines.drawing import draw_scored, entropies, row_uniforms, token_log_probs
from coderl.engines.engine import Drawn, Finish
from coderl.engines.settings import SamplingConfig
from coderl.engines.stops import FOUND, StopTable, stop_table
from coderl.models.lm import LanguageModel, pad_rows


@dataclass(frozen=True, slots=True)
class Row:
    """One program to draw."""

    request: int
    sample: int
    prompt: tuple[int, ...]
    prefix: tuple[int, ...]
    occurrence: int
    """How many equal requests come before its own."""
    seed: int

    @property
    def read(self) -> tuple[int, ...]:
        """Prompt and prefix: what a decoder-only model reads before it draws."""
        return (*self.prompt, *self.prefix)

    def uniforms(self, length: int) -> np.ndarray:
        """Return the uniform numbers that decide its tokens."""
        return row_uniforms(self.seed, self.prompt, self.prefix, self.occurrence, self.sample, length)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How rows are drawn, and what is told of their tokens."""

    config: SamplingConfig
    has_log_probs: bool = False
    has_entropies: bool = False
    waits: bool = True
    """See `draw_scored`."""

    def table(self, model: LanguageModel) -> StopTable | None:
        """Return the search for the texts that end a program."""
        return stop_table(model, self.config.stop) if self.config.stop else None


class Tape:
    """Rows side by side: their uniform numbers, what they drew, and which are still under way."""

    def __init__(self, model: LanguageModel, num_rows: int, wanted: Wanted, *, num_forced: int = 0):
        device, self.width = model.device, wanted.config.max_new_tokens + num_forced
        self.model, self.wanted = model, wanted
        self.table = wanted.table(model)
        shape = (num_rows, self.width + 1)  # the last column takes what rows that have ended would still write
        self.uniforms = torch.zeros(shape, device=device)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.figures = [torch.zeros(shape, device=device) for _ in range(2 * wanted.has_log_probs)]
        self.entropies = torch.zeros(shape, device=device) if wanted.has_entropies else None
        self.forced = torch.zeros(num_rows, num_forced, dtype=torch.long, device=device)
        self.num_forced, self.steps, self.limits, self.states = (
            torch.zeros(num_rows, dtype=torch.long, device=device) for _ in range(4)
        )
        self.is_alive = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.rows: list[Row | None] = [None] * num_rows

    def put(self, places: Sequence[int], rows: Sequence[Row], forced: Sequence[Sequence[int]] = ()) -> None:
        """Begin some rows; each reads its forced tokens before it draws."""
        forced = forced or [()] * len(rows)
        config, device = self.wanted.config, self.uniforms.device
        numbers = np.zeros((len(rows), self.width + 1), dtype=np.float32)
        if config.temperature > 0:
            for line, row, rest in zip(numbers, rows, forced, strict=True):
                line[len(rest) : len(rest) + config.max_new_tokens] = row.uniforms(config.max_new_tokens)
        at = torch.tensor(places, device=device)
        self.uniforms[at] = torch.from_numpy(numbers).to(device)
        ids, mask = pad_rows(forced, self.model.pad_id, side="right")
        self.forced[at, : ids.shape[1]] = ids.to(device)
        self.num_forced[at] = mask.sum(-1).to(device)
        self.limits[at] = (mask.sum(-1) + config.max_new_tokens).to(device)
        self.steps[at] = 0
        states = (
            [self.table.read(r.prefix[: len(r.prefix) - len(f)]) for r, f in zip(rows, forced, strict=True)]
            if (self.table)
            else [0] * len(rows)
        )
        self.states[at] = torch.tensor(states, device=device)
        self.is_alive[at] = True
        for place, row in zip(places, rows, strict=True):
            self.rows[place] = row

    def choose(self, logits: Float[Tensor, "R V"]) -> Int[Tensor, " R"]:
        """Return the next token of each row and write it down."""
        config, wanted, at = self.wanted.config, self.wanted, self.steps[:, None]
        how = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
        drawn = draw_scored(logits, self.uniforms.gather(1, at).squeeze(1), **how, waits=wanted.waits)
        tokens = drawn.tokens
        if self.forced.shape[1]:
            given = self.forced.gather(1, at.clamp(max=self.forced.shape[1] - 1)).squeeze(1)
            tokens = torch.where(self.steps < self.num_forced, given, tokens)
        self.tokens.scatter_(1, at, tokens[:, None])
        if wanted.has_log_probs:
            for tape, found in zip(self.figures, (drawn.log_probs, token_log_probs(logits, tokens)), strict=True):
                tape.scatter_(1, at, found[:, None])
        if self.entropies is not None:
            self.entropies.scatter_(1, at, entropies(logits)[:, None])
        self.steps.add_(self.is_alive)
        self.is_alive.logical_and_((tokens != self.model.eos_id) & (self.steps < self.limits))
        if self.table is not None:
            self.states.copy_(self.table.after(self.states, tokens))
            self.is_alive.logical_and_(self.states != FOUND)
        return tokens

    def take(self, places: Sequence[int]) -> list[tuple[Row, Drawn]]:
        """Return what some rows have drawn, and leave their places free."""
        at = torch.tensor(places, dtype=torch.long, device=self.uniforms.device)
        counts, num_forced, states = (t[at].tolist() for t in (self.steps, self.num_forced, self.states))
        most = max(counts, default=0)
        lines = self.tokens[at, :most].tolist()
        figures = [tape[at, :most].tolist() for tape in self.figures]
        own = None if self.entropies is None else self.entropies[at, :most].tolist()
        found = []
        for i, place in enumerate(places):
            row, drawn = self.rows[place], slice(num_forced[i], counts[i])
            assert row is not None
            self.rows[place] = None
            read = row.prefix[: len(row.prefix) - num_forced[i]]
            tokens = (*read, *lines[i][: counts[i]])
            ended = Finish.END if tokens[-1] == self.model.eos_id else Finish.LENGTH
            given = Drawn(
                tokens,
                len(row.prefix),
                Finish.STOP if states[i] == FOUND and ended is not Finish.END else ended,
                tuple(figures[0][i][drawn]) if figures else None,
                tuple(figures[1][i][drawn]) if figures else None,
                None if own is None else tuple(own[i][drawn]),
            )
            found.append((row, given))
        return found

    def select(self, kept: Sequence[int]) -> None:
        """Keep the given rows."""
        at = torch.tensor(kept, dtype=torch.long, device=self.uniforms.device)
        for name in ("uniforms", "tokens", "forced", "num_forced", "steps", "limits", "states", "is_alive"):
            setattr(self, name, getattr(self, name)[at])
        self.figures = [tape[at] for tape in self.figures]
        self.entropies = None if self.entropies is None else self.entropies[at]
        self.rows = [self.rows[place] for place in kept]
