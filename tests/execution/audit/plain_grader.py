"""A grader for tests: every test in a plain interpreter, no isolation but a time limit, compared outside."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from coderl.execution.audit.cases import Case
from coderl.execution.judge import compare_stdout, compare_value

CALL = """
import json, sys
from collections import *
from typing import *
source, name, args = json.loads(sys.argv[1])
try:
    compiled = compile(source, "<program>", "exec")
except Exception:
    sys.exit(77)
space = {"__name__": "solution"}
for word in ("List", "Optional", "Dict", "deque", "defaultdict"):
    space[word] = globals()[word]
exec(compiled, space)
if name not in space and "Solution" not in space:
    sys.exit(77)
if name in space:
    function = space[name]
else:
    try:
        function = getattr(space["Solution"](), name)
    except TypeError as error:
        if error.__traceback__.tb_next is not None:
            raise
        function = getattr(object.__new__(space["Solution"]), name)

def plain(value):  # what JSON has no word for: a number or an array of numpy, a whole Fraction or Decimal
    return value.tolist() if hasattr(value, "tolist") else int(value)

text = json.dumps(function(*args), allow_nan=False, default=plain)
open(sys.argv[2], "w").write(text)
"""


def grade(case: Case, limit_s: float = 3.0) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for given, wanted in zip(case.inputs, case.outputs, strict=True):
            try:
                verdict = (_call if case.kind == "call" else _script)(case, given, wanted, Path(folder), limit_s)
            except subprocess.TimeoutExpired:
                verdict = "Timeout"
            if verdict != "PassedTest":
                return verdict
    return "PassedTest"


def _script(case: Case, given: str, wanted: str, folder: Path, limit_s: float) -> str:
    program = folder / "program.py"
    program.write_bytes(case.code.encode())
    stdin, stdout = folder / "in", folder / "out"
    stdin.write_bytes(given.encode())
    with stdin.open("rb") as source, stdout.open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-X", "int_max_str_digits=0", "-I", str(program)],
            stdin=source,
            stdout=sink,
            stderr=subprocess.PIPE,
            timeout=limit_s,
        )
    if done.returncode:
        kinds = (b"SyntaxError", b"IndentationError", b"TabError", b"null bytes")
        return "CompileError" if any(kind in done.stderr[-2000:] for kind in kinds) else "RuntimeError"
    return "PassedTest" if compare_stdout(stdout.read_bytes(), wanted) else "FailedTest"


def _call(case: Case, given: list, wanted: object, folder: Path, limit_s: float) -> str:
    answer = folder / "answer"
    answer.unlink(missing_ok=True)
    job = json.dumps([case.code, case.fn_name, list(given)])
    command = [sys.executable, "-X", "utf8", "-I", "-c", CALL, job, str(answer)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s)
    if done.returncode or not answer.exists():
        return "CompileError" if done.returncode == 77 else "RuntimeError"
    return "PassedTest" if compare_value(json.loads(answer.read_text()), wanted) else "FailedTest"
