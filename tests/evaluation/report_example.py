"""A full report with made-up numbers: `python tests/evaluation/report_example.py OUT.html` to look at the design."""

import math
import random
import re
import sys
from pathlib import Path

from coderl.evaluation.figures import Curve
from coderl.evaluation.pass_at_k import ProblemCounts, Summary, paired_bootstrap, summarise, with_metric
from coderl.evaluation.report import (
    Contrast,
    CurveGroup,
    HeadlineRow,
    OutcomeDistribution,
    ReportData,
    SampleProgram,
    Timing,
    write,
)
from coderl.types import Outcome

DIFFICULTIES = {"introductory": (60, 0.42), "interview": (60, 0.2), "competition": (40, 0.07)}


def _summary(gain: float, seed: int) -> Summary:
    rng = random.Random(seed)
    counts, greedy = [], []
    for difficulty, (size, rate) in DIFFICULTIES.items():
        for index in range(size):
            chance = min(1.0, max(0.0, rng.betavariate(rate * 2 + 0.1, 2 * (1 - rate) + 0.1) * gain))
            correct = sum(rng.random() < chance for _ in range(20))
            passing = correct + sum(rng.random() < 0.15 for _ in range(20 - correct))
            name = f"{difficulty}-{index}"
            counts.append(ProblemCounts(name, difficulty, 20, correct, passing, correct))
            greedy.append(ProblemCounts(name, difficulty, 1, int(rng.random() < chance * 1.1)))
    return with_metric(summarise(counts, [1, 5, 20], [(1, 20)]), "greedy", summarise(greedy, [1]))


def _curve(name: str, start: float, end: float, noise: float, unit: str = "", points: int = 160) -> Curve:
    rng = random.Random(name)
    values = ((10 * i, end + (start - end) * math.exp(-i / 30) + rng.gauss(0, noise)) for i in range(points))
    return Curve(name, tuple(values), unit)


def _pieces(code: str, turn: int, good: bool) -> tuple[tuple[str, float | None], ...]:
    rng, value, pieces = random.Random(code), 0.52, []
    for place, text in enumerate(re.findall(r"\n[ ]*|[ ]?\w+|[ ]*[^\w\s]", code)):
        drift = 0.05 if good or place < turn else -0.14
        value = min(0.97, max(0.03, value + drift + rng.gauss(0, 0.05)))
        pieces.append((text, value))
    return tuple(pieces)


def example() -> ReportData:
    """Return numbers of the size a demo makes."""
    warm, control, actor, sampled = _summary(0.55, 1), _summary(0.58, 1), _summary(0.8, 1), _summary(1.0, 1)
    rows = (
        HeadlineRow("warm start", "T=0.6, 20 samples", warm),
        HeadlineRow("warm start, low temperature", "T=0.2, 20 samples", _summary(0.6, 1), is_control=True),
        HeadlineRow("more cross-entropy", "T=0.6, 20 samples", control, is_control=True),
        HeadlineRow("actor-critic", "T=0.6, 20 samples", actor),
        HeadlineRow("actor-critic + critic sampling", "N=20, M=1, one round", sampled),
    )
    contrasts = tuple(
        Contrast(
            better, baseline, "pass@1", b.scores["pass@1"]["all"].mean,
            paired_bootstrap(a.by_problem["pass@1"], b.by_problem["pass@1"], seed=0),
        )
        for better, a, baseline, b in (
            ("actor-critic", actor, "warm start", warm),
            ("actor-critic", actor, "more cross-entropy", control),
            ("more cross-entropy", control, "warm start", warm),
        )
    )  # fmt: skip
    good = "n = int(input())\nvalues = list(map(int, input().split()))\ntotal = 0\nfor v in values:\n    if v % 2 == 0:\n        total += v\nprint(total)\n"
    bad = "n = int(input())\nvalues = list(map(int, input().split()))\nbest = values[n]\nfor v in values:\n    best = max(best, v)\nprint(best)\n"
    return ReportData(
        title="coderl demo: MiniAPPS, T5 of 2.1 million weights, seed 0",
        abstract="A model trained from scratch on 500 reference solutions learns from the unit tests of 2,000 more problems. "
        "160 test problems whose compositions were never seen in training.",
        rows=rows,
        contrasts=contrasts,
        warnings=("One seed. The interval covers the choice of test problems, not of the training seed.",),
        outcomes=tuple(
            OutcomeDistribution(label, dict(zip(Outcome, numbers, strict=True)))
            for label, numbers in (
                ("warm start", (310, 820, 1270, 800)),
                ("more cross-entropy", (290, 800, 1290, 820)),
                ("actor-critic", (90, 610, 1310, 1190)),
            )
        ),
        curves=(
            CurveGroup("Warm start", (_curve("cross-entropy", 4.2, 0.3, 0.08, "nats a token"), _curve("learning rate", 1e-3, 2e-4, 0))),
            CurveGroup(
                "Actor-critic",
                (
                    _curve("outcome return", -0.35, 0.05, 0.08, "mean r(W)"),
                    _curve("entropy", 0.42, 0.21, 0.02, "nats a token"),
                    _curve("compile errors", 0.1, 0.03, 0.01, "share of samples"),
                    _curve("RL loss", 0.02, -0.04, 0.02),
                    _curve("pass@1 on validation", 0.18, 0.28, 0, "share of problems", points=9),
                ),
            ),
        ),
        samples=(
            SampleProgram("train-0042", "introductory", "Print the sum of the even numbers.\n\n-----Input-----\nn and n numbers.", "actor-critic",
                          "sample", Outcome.PASSED_TEST, _pieces(good, 0, True), program_value=0.93),
            SampleProgram("train-0042", "introductory", "Print the largest number.", "warm start", "sample", Outcome.RUNTIME_ERROR,
                          _pieces(bad, 21, False), "indexerror", "IndexError: list index out of range", 3, 0.08),
        ),
        tallies={"test problems without hidden tests": 0, "problems without verdicts": 1, "sandbox faults": 3},
        timings=(Timing("pretrain", 41.2), Timing("warm start", 118), Timing("sample", 64), Timing("execute", 37.5),
                 Timing("critic", 48), Timing("actor", 96), Timing("critic sampling", 81), Timing("evaluate", 52)),
        settings={"recipe": "recipes/demo.toml", "seed": "0", "actor": "T5, 2.1M weights", "threads": "2", "isolation": "strong"},
    )  # fmt: skip


if __name__ == "__main__":
    write(Path(sys.argv[1]), example())
