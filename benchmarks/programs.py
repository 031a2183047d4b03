"""The corpus of the execution benchmark: 48 small programs of 5 tests, the mixture that sampling gives.

24 read stdin and 24 are functions; of each, 20 are right, 2 are wrong on some test, 1 raises and 1 does not compile.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One program, its tests and the outcome that is right."""

    code: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    fn_name: str | None
    outcome: str


def corpus(seed: int = 0) -> list[Sample]:
    """Return the 48 programs, stdin first."""
    draw = random.Random(seed)
    return [*_stdin_samples(draw), *_call_samples(draw)]


def _numbers(draw: random.Random, count: int, top: int = 1000) -> list[int]:
    return [draw.randint(1, top) for _ in range(count)]


def _sieve(n: int) -> int:
    return sum(all(k % d for d in range(2, int(k**0.5) + 1)) for k in range(2, n + 1))


# name -> a program over `values` (a list of ints) with `answer` to set, and the same in Python here
TASKS: list[tuple[str, Callable[[list[int]], Any]]] = [
    ("answer = sum(v * v for v in values)", lambda v: sum(x * x for x in v)),
    ("answer = max(values) - min(values)", lambda v: max(v) - min(v)),
    ("answer = sum(1 for v in values if v % 3 == 0)", lambda v: sum(x % 3 == 0 for x in v)),
    ("values.sort()\nanswer = values[len(values) // 2]", lambda v: sorted(v)[len(v) // 2]),
    (
        "from math import gcd\nanswer = 0\nfor v in values:\n    answer = gcd(answer, v)",
        lambda v: gcd(*v),
    ),
    (
        "best = run = values[0]\nfor v in values[1:]:\n    run = max(v, run + v)\n"
        "    best = max(best, run)\nanswer = best",
        lambda v: max(sum(v[i:j]) for i in range(len(v)) for j in range(i + 1, len(v) + 1)),
    ),
    (
        "from collections import Counter\ncounts = Counter(v % 10 for v in values)\n"
        "answer = sorted(counts, key=lambda d: (-counts[d], d))[0]",
        lambda v: min(range(10), key=lambda d: (-sum(x % 10 == d for x in v), d)),
    ),
    (
        "import heapq\nheap = list(values)\nheapq.heapify(heap)\nanswer = 0\nwhile len(heap) > 1:\n"
        "    a = heapq.heappop(heap) + heapq.heappop(heap)\n    answer += a\n    heapq.heappush(heap, a)",
        lambda v: _merge_cost(v),
    ),
    (
        "limit = max(values)\nflags = [True] * (limit + 1)\nanswer = 0\nfor k in range(2, limit + 1):\n"
        "    if flags[k]:\n        answer += 1\n        for m in range(k * k, limit + 1, k):\n"
        "            flags[m] = False",
        lambda v: _sieve(max(v)),
    ),
    (
        "import bisect\ntails = []\nfor v in values:\n    at = bisect.bisect_left(tails, v)\n"
        "    tails[at:at + 1] = [v]\nanswer = len(tails)",
        lambda v: _longest_rise(v),
    ),
]


def _merge_cost(values: list[int]) -> int:
    values, cost = sorted(values), 0
    while len(values) > 1:
        joined = values.pop(0) + values.pop(0)
        cost += joined
        values = sorted([*values, joined])
    return cost


def _longest_rise(values: list[int]) -> int:
    best = [1] * len(values)
    for j, high in enumerate(values):
        best[j] = 1 + max((best[i] for i in range(j) if values[i] < high), default=0)
    return max(best)


STYLES = (
    "n = int(input())\nvalues = list(map(int, input().split()))\n{body}\nprint(answer)\n",
    "import sys\n\ndef main():\n    values = [int(v) for v in sys.stdin.read().split()[1:]]\n{indented}\n"
    "    print(answer)\n\nmain()\n",
)
FUNCTIONS = (
    "def solve(values):\n{indented}\n    return answer\n",
    "class Solution:\n    def solve(self, values):\n{twice}\n        return answer\n",
)


def _written(template: str, body: str) -> str:
    once = "\n".join("    " + line for line in body.split("\n"))
    twice = "\n".join("        " + line for line in body.split("\n"))
    return template.format(body=body, indented=once, twice=twice)


def _spoilt(code: str, outcome: str) -> str:
    if outcome == "CompileError":
        return code.replace("(", "((", 1)
    if outcome == "RuntimeError":
        return code.replace("values.sort()", "values.sort(key=None, wrong=1)").replace("sum(", "sum(1 // 0 + ")
    return code


_KINDS = ["PassedTest"] * 20 + ["FailedTest"] * 2 + ["RuntimeError", "CompileError"]


def _stdin_samples(draw: random.Random) -> list[Sample]:
    return [_sample(draw, index, outcome, STYLES, None) for index, outcome in enumerate(_KINDS)]


def _call_samples(draw: random.Random) -> list[Sample]:
    return [_sample(draw, index, outcome, FUNCTIONS, "solve") for index, outcome in enumerate(_KINDS)]


def _sample(draw: random.Random, index: int, outcome: str, styles: tuple[str, ...], fn_name: str | None) -> Sample:
    body, right = TASKS[0] if outcome == "RuntimeError" else TASKS[index % len(TASKS)]
    code = _spoilt(_written(styles[index % 2], body), outcome)
    lists = [_numbers(draw, draw.randint(5, 30)) for _ in range(5)]
    answers = [right(list(values)) for values in lists]
    if outcome == "FailedTest":
        answers[3] += 1
    if fn_name:
        return Sample(code, tuple([values] for values in lists), tuple(answers), fn_name, outcome)
    inputs = tuple(f"{len(values)}\n{' '.join(map(str, values))}\n" for values in lists)
    return Sample(code, inputs, tuple(f"{answer}\n" for answer in answers), None, outcome)
