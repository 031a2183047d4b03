"""The branches of a program, worked by hand and against every program of a tiny vocabulary."""

import heapq
from itertools import product
from math import log

import numpy as np
import pytest

from coderl.critic_sampling.branch import ROOT, Branch, branches

END = 0
RULE = {"num_alternatives": 3, "min_prob": 1e-4}


def test_the_rule_by_hand():
    """After a forced 7 the model chose 5 (0.6; 4 has 0.3, 9 has 0.1) and the end (0.5; 5 has 0.25, 4 has 0.25)."""
    found = branches(
        (7, 5, END),
        np.array([[5, 4, 9], [END, 5, 4]]),
        np.log(np.array([[0.6, 0.3, 0.1], [0.5, 0.25, 0.25]])),
        num_forced=1,
        score=-1.0,
        **RULE,
    )
    assert [(b.prefix, b.rank) for b in found] == [((7, 4), 1), ((7, 9), 2), ((7, 5, 5), 1), ((7, 5, 4), 2)]
    assert [b.score for b in found] == pytest.approx([-1 - log(2), -1 - log(6), -1 - log(2), -1 - log(2)])


def test_unlikely_tokens_and_those_beyond_the_alternatives_give_no_branch():
    """The fourth token of 0.01 is one too many, and 0.00009 is too little."""
    likeliest = np.array([[3, 4, 5, 6], [END, 3, 4, 5]])
    log_probs = np.log(np.array([[0.9, 0.05, 0.04, 0.01], [0.9, 0.0999, 0.0001001, 0.00009]]))
    found = branches((3, END), likeliest, log_probs, num_forced=0, score=0.0, num_alternatives=2, min_prob=1e-4)
    assert [b.prefix for b in found] == [(4,), (5,), (3, 3), (3, 4)]
    three = branches((3, END), likeliest, log_probs, num_forced=0, score=0.0, **RULE)
    assert [b.prefix for b in three] == [(4,), (5,), (6,), (3, 3), (3, 4)]


def test_a_program_that_was_not_drawn_greedily_branches_to_what_was_likelier():
    """The drawn 4 had 0.2 where 3 had 0.8: that branch scores above its parent."""
    (branch,) = branches((4,), np.array([[3, 4]]), np.log(np.array([[0.8, 0.2]])), num_forced=0, score=0.0, **RULE)
    assert (branch.prefix, branch.rank) == ((3,), 1)
    assert branch.score == pytest.approx(log(4))


def test_a_program_of_forced_tokens_alone_has_no_branches():
    assert branches((3, END), np.zeros((0, 2), int), np.zeros((0, 2)), num_forced=2, score=0.0, **RULE) == []


# ------------------------------------------------------------------------------------------------ a whole search

LONGEST = 4
VOCABULARY = (END, 1, 2)


def probs(prefix):
    """p(. | prefix) of a made-up model: some weight for each token, another after each prefix."""
    weights = np.array(
        [1 + (31 * (i + 1) + 17 * sum((j + 2) * t for j, t in enumerate(prefix))) % 23 for i in range(3)]
    )
    return weights / weights.sum()


def write(prefix):
    """The likeliest program from a prefix on, and the model's order of all tokens at each of its positions."""
    tokens, orders, logs = tuple(prefix), [], []
    while len(tokens) < LONGEST and END not in tokens:
        p = probs(tokens)
        order = np.argsort(-p, kind="stable")
        orders.append(order)
        logs.append(np.log(p[order]))
        tokens = (*tokens, int(order[0]))
    shape = (len(orders), len(VOCABULARY))
    return tokens, np.array(orders, dtype=int).reshape(shape), np.array(logs).reshape(shape)


def searched():
    """Every program in the order in which a best-first search comes to it, with its score."""
    heap, found = [(-ROOT.score, 0, ROOT)], []
    while heap:
        _, _, branch = heapq.heappop(heap)
        tokens, orders, logs = write(branch.prefix)
        found.append((tokens, branch.score))
        for child in branches(
            tokens, orders, logs, num_forced=len(branch.prefix), score=branch.score, num_alternatives=2, min_prob=1e-9
        ):
            heapq.heappush(heap, (-child.score, len(found) * 100 + len(heap), child))
    return found


def every_program():
    cut = [t[: t.index(END) + 1] if END in t else t for t in product(VOCABULARY, repeat=LONGEST)]
    return set(cut)


def test_a_search_without_a_floor_comes_to_every_program_once():
    found = [tokens for tokens, _ in searched()]
    assert len(found) == len(set(found))
    assert set(found) == every_program()


def test_a_score_is_what_the_exchanged_tokens_lost_beside_the_likeliest():
    """By enumeration: at each position the log of p(token) over the highest p there, added up; and best first."""
    scores = dict(searched())
    for tokens in every_program():
        lost = sum(log(probs(tokens[:t])[token] / probs(tokens[:t]).max()) for t, token in enumerate(tokens))
        assert scores[tokens] == pytest.approx(lost)
    order = [score for _, score in searched()]
    assert order == sorted(order, reverse=True)


def test_the_root_is_the_greedy_program():
    assert Branch(0.0, (), 0) == ROOT
    assert searched()[0] == (write(())[0], 0.0)
