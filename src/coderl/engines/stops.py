"""Texts that end a program, found token by token: a table says how each token moves a search through the texts.

The search is the automaton of Aho and Corasick over bytes, so that a text is found at the token with which it is
complete, however tokens cut it; a look into the table is all that a step costs, on a GPU too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from coderl.models.lm import LanguageModel

FOUND = -1
"""The state of a row in which a text was found."""
ANCHOR = "x"


class StopTable:
    """How each token moves the search for some texts; `moves[state, token]` is the next state, `FOUND` at the end."""

    def __init__(self, model: LanguageModel, texts: Sequence[str]):
        self.spellings = _spellings_of(model)
        steps = _automaton([text.encode() for text in texts])
        moves = torch.arange(len(steps)).unsqueeze(1).repeat(1, model.vocab_size)
        letters = {byte for step in steps for byte in step}
        for token, spelling in enumerate(self.spellings):
            if not spelling:
                continue
            if letters.isdisjoint(spelling):
                moves[:, token] = 0
                continue
            for state in range(len(steps)):
                moves[state, token] = _walk(steps, state, spelling)
        self.moves = moves
        self._on_host = moves.numpy()

    def read(self, tokens: Sequence[int], state: int = 0) -> int:
        """Return the state in which some tokens leave the search."""
        for token in tokens:
            state = int(self._on_host[state, token])
            if state == FOUND:
                break
        return state

    def end(self, tokens: Sequence[int], start: int = 0) -> int | None:
        """Return how many of the tokens there are up to the first text, if one is complete after token `start`."""
        state = 0
        for number, token in enumerate(tokens, start=1):
            state = int(self._on_host[state, token])
            if state == FOUND:
                return max(number, start)
        return None

    def after(self, states: Int[Tensor, " R"], tokens: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
        """Return the states after one more token a row; a row in which a text was found stays so."""
        return torch.where(states == FOUND, states, self.moves[states.clamp(min=0), tokens])

    def to(self, device: torch.device) -> StopTable:
        """Move the table to a device."""
        self.moves = self.moves.to(device)
        return self


_tables: dict[tuple[int, tuple[str, ...]], tuple[PreTrainedTokenizerBase, StopTable]] = {}


def stop_table(model: LanguageModel, texts: tuple[str, ...]) -> StopTable:
    """Return the table of some texts for a model's tokens, made once."""
    key = (id(model.tokenizer), texts)
    if key not in _tables:
        if len(_tables) >= 8:
            _tables.clear()
        _tables[key] = (model.tokenizer, StopTable(model, texts))  # the tokenizer is held: its id stays its own
    return _tables[key][1].to(model.device)


def _automaton(texts: Sequence[bytes]) -> list[dict[int, int]]:
    """Return each state's next states by byte; what is missing leads to state 0, the end of a text to `FOUND`."""
    prefixes = sorted({text[:n] for text in texts for n in range(len(text))}, key=len)
    letters = {byte for text in texts for byte in text}
    steps = []
    for prefix in prefixes:
        step = {}
        for byte in letters:
            read = prefix + bytes([byte])
            if any(text in read for text in texts):
                step[byte] = FOUND
            else:
                step[byte] = next(i for n in range(len(read) + 1) if (i := _index(prefixes, read[n:])) is not None)
        steps.append(step)
    return steps


def _index(prefixes: Sequence[bytes], text: bytes) -> int | None:
    return prefixes.index(text) if text in prefixes else None


def _walk(steps: Sequence[dict[int, int]], state: int, spelling: bytes) -> int:
    for byte in spelling:
        state = steps[state].get(byte, 0)
        if state == FOUND:
            break
    return state


# ------------------------------------------------------------------------------------------------ what tokens spell


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    return {sign: byte for byte, sign in bytes_to_unicode().items()}


def _spellings_of(model: LanguageModel) -> list[bytes]:
    """Return the bytes that each token adds to a program; none for special tokens, which are no text."""
    tokenizer = model.tokenizer
    silent = set(tokenizer.all_special_ids)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    is_byte_level = "ByteLevel" in str(getattr(backend, "decoder", ""))
    added = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    if not is_byte_level:
        (anchor,) = tokenizer.encode(ANCHOR, add_special_tokens=False)[-1:]
        before = model.decode([anchor])
        texts = tokenizer.batch_decode(
            [[anchor, token] for token in range(len(tokenizer))],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return [b"" if i in silent else text[len(before) :].encode() for i, text in enumerate(texts)]
    byte_of = _byte_of()
    return [
        b""
        if token in silent or name is None
        else added[token].encode()
        if token in added
        else bytes(byte_of[sign] for sign in name if sign in byte_of)
        for token, name in enumerate(names)
    ]
