"""Files that repeat others but for a few words: MinHash signatures find candidates, the shingles themselves decide.

Source: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and Ullman, "Mining of
massive datasets", chapter 3, for the bands. Signatures are of 128 hashes in 16 bands of 8: a pair of Jaccard similarity
0.85 is found with a probability of 0.994, one of 0.5 is compared in vain with 0.06.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import UInt32, UInt64

SHINGLE_WORDS = 5
NUM_HASHES = 128
NUM_BANDS = 16
MARGIN = 0.12
"""A pair is looked at if its signatures agree to within so much of the threshold: four standard errors."""
MAX_WORD_BYTES = 4096
BLOCK = 512
CACHED_FILES = 64

_RANDOM = np.random.default_rng(20260101)
_BYTE_CODES = _RANDOM.integers(1, 2**64, 256, dtype=np.uint64)
_PLACE_CODES = _RANDOM.integers(0, 2**63, MAX_WORD_BYTES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_WORD_CODES = _RANDOM.integers(0, 2**63, SHINGLE_WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_FACTORS = _RANDOM.integers(0, 2**63, (NUM_HASHES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**64, (NUM_HASHES, 1), dtype=np.uint64)
_MIXER = np.uint64(0x9E3779B97F4A7C15)
_IS_WORD = np.array([chr(b).isalnum() or b == ord("_") or b > 127 for b in range(256)])
_IS_SPACE = np.array([chr(b).isspace() and b < 128 for b in range(256)])


def shingles(text: str) -> UInt64[np.ndarray, " S"]:
    """Return the distinct codes, ascending, of each five words in a row; a text of fewer words is one shingle.

    A name, a number, or one other sign that is not a space, is a word. Equal codes are equal words but for a chance of
    about one in 2^64 a pair.
    """
    raw = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    is_word = _IS_WORD[raw]
    follows = np.zeros(len(raw), bool)
    follows[1:] = is_word[1:] & is_word[:-1]
    seen = ~_IS_SPACE[raw]
    starts = np.flatnonzero(~follows[seen])
    if not len(starts):
        return np.zeros(1, np.uint64)
    written = raw[seen]
    lengths = np.diff(np.append(starts, len(written)))
    places = np.arange(len(written)) - np.repeat(starts, lengths)
    words = _mix(np.add.reduceat(_BYTE_CODES[written] * _PLACE_CODES[places % MAX_WORD_BYTES], starts))
    count = max(len(words) - SHINGLE_WORDS + 1, 1)
    codes = np.zeros(count, np.uint64)
    for k, code in enumerate(_WORD_CODES[: len(words)]):
        codes += words[k : k + count] * code
    return np.unique(_mix(codes))


def _mix(codes: UInt64[np.ndarray, " S"]) -> UInt64[np.ndarray, " S"]:
    codes = (codes ^ (codes >> np.uint64(32))) * _MIXER
    return codes ^ (codes >> np.uint64(29))


def signature(codes: UInt64[np.ndarray, " S"]) -> UInt32[np.ndarray, " K"]:
    """Return the smallest value of each of 128 hash functions over the shingles."""
    smallest = np.full(NUM_HASHES, 2**64 - 1, np.uint64)
    for start in range(0, len(codes), BLOCK):
        hashed = _FACTORS * codes[start : start + BLOCK] + _OFFSETS
        np.minimum(smallest, hashed.min(axis=1), out=smallest)
    return (smallest >> np.uint64(32)).astype(np.uint32)


def jaccard(first: UInt64[np.ndarray, " S"], second: UInt64[np.ndarray, " R"]) -> float:
    """Return the share of the shingles of both that both have."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


class NearDuplicates:
    """The files kept so far, and which of them a new one repeats.

    Memory: about 3 kB a file kept, and the shingles of a few; texts are read again when a pair must be compared.
    """

    def __init__(self, threshold: float, read: Callable[[int], str]):
        """Files of at least this Jaccard similarity are twins; `read` returns a file's text by its number."""
        self.threshold = threshold
        self.shingles_of = lru_cache(CACHED_FILES)(lambda number: shingles(read(number)))
        self.signatures: dict[int, UInt32[np.ndarray, " K"]] = {}
        self.buckets: dict[bytes, list[int]] = {}

    def twin_of(self, number: int, signed: UInt32[np.ndarray, " K"]) -> int | None:
        """Return the kept file that this one repeats most; None if there is none, and from now on it is kept itself."""
        keys = _band_keys(signed)
        candidates = {other for key in keys for other in self.buckets.get(key, ())}
        likeness = {other: float((self.signatures[other] == signed).mean()) for other in candidates}
        close = sorted(
            (n for n, like in likeness.items() if like >= self.threshold - MARGIN), key=lambda n: (-likeness[n], n)
        )
        for other in close:
            if jaccard(self.shingles_of(number), self.shingles_of(other)) >= self.threshold:
                return other
        self.signatures[number] = signed
        for key in keys:
            self.buckets.setdefault(key, []).append(number)
        return None


def _band_keys(signed: UInt32[np.ndarray, " K"]) -> list[bytes]:
    return [bytes([band]) + rows.tobytes() for band, rows in enumerate(signed.reshape(NUM_BANDS, -1))]
