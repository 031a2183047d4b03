"""MinHash finds the pairs that brute force over sets of words finds."""

import random
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.corpus.near_duplicates import (
    NearDuplicates,
    jaccard,
    shingles,
    signature,
)


def brute_shingles(text):
    """Runs of five words by a regular expression; fewer than five words are one run."""
    words = re.findall(r"[0-9A-Za-z_\u0080-\U0010ffff]+|[^\s0-9A-Za-z_\u0080-\U0010ffff]", text, flags=re.ASCII)
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def brute_jaccard(first, second):
    a, b = brute_shingles(first), brute_shingles(second)
    return len(a & b) / len(a | b)


texts = st.text(st.sampled_from("ab_é1 \n\t(+="), max_size=60)


@given(texts, texts)
@settings(max_examples=300, deadline=None)
def test_shingles_are_those_of_brute_force(first, second):
    assert len(shingles(first)) == len(brute_shingles(first))
    assert jaccard(shingles(first), shingles(second)) == brute_jaccard(first, second)


def test_words_and_their_order_count():
    assert jaccard(shingles("a b c d e"), shingles("e d c b a")) == 0
    assert jaccard(shingles("a b"), shingles("a  b\n")) == 1
    assert jaccard(shingles("ab"), shingles("ba")) == 0
    assert jaccard(shingles("a b c d e f"), shingles("a b c d e g")) == 1 / 3
    assert jaccard(shingles("x" * 9000), shingles("x" * 9001)) == 0


def test_agreement_of_signatures_estimates_similarity():
    """Mean error 0 and standard error sqrt(J (1 - J) / 128) over 60 pairs of known similarity."""
    rng = random.Random(0)
    errors = []
    for _ in range(60):
        first = [f"w{rng.randrange(10**9)}" for _ in range(400)]
        second = first[: rng.randrange(100, 400)] + [f"w{rng.randrange(10**9)}" for _ in range(rng.randrange(200))]
        a, b = shingles(" ".join(first)), shingles(" ".join(second))
        true = jaccard(a, b)
        error = (signature(a) == signature(b)).mean() - true
        errors.append(error / max((true * (1 - true) / 128) ** 0.5, 0.01))
    assert abs(np.mean(errors)) < 4 / 60**0.5
    assert 0.7 < np.std(errors) < 1.4


def greedy_by_brute_force(files, threshold):
    kept, dropped = [], {}
    for number, text in enumerate(files):
        twins = [k for k in kept if brute_jaccard(text, files[k]) >= threshold]
        if twins:
            dropped[number] = twins
        else:
            kept.append(number)
    return dropped


def test_twins_are_those_of_brute_force():
    """Families of files with one to thirty of 120 words changed, some above and some below the threshold."""
    rng = random.Random(5)
    files = []
    for _ in range(25):
        words = [f"w{rng.randrange(300)}" for _ in range(120)]
        files.append(" ".join(words))
        for changes in (0, 1, 2, 3, 5, 8, 30):
            changed = list(words)
            for position in rng.sample(range(120), changes):
                changed[position] = f"v{rng.randrange(10**6)}"
            files.append(" ".join(changed))
    rng.shuffle(files)
    expected = greedy_by_brute_force(files, 0.85)
    seen = NearDuplicates(0.85, lambda number: files[number])
    found = {
        n: twin for n, text in enumerate(files) if (twin := seen.twin_of(n, signature(shingles(text)))) is not None
    }
    assert all(brute_jaccard(files[n], files[twin]) >= 0.85 for n, twin in found.items())
    assert len(expected) >= 50
    assert found.keys() == expected.keys()
    assert all(found[n] in expected[n] for n in found)
