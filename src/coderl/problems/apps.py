"""APPS: a folder a problem, or one JSON line a problem as on the Hugging Face hub; TACO, which has the same fields.

Source: Hendrycks et al. 2021, "Measuring Coding Challenge Competence With APPS"; the layout that CodeRL reads.
Li et al. 2023, "TACO: Topics in Algorithmic COde generation dataset".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from coderl.problems.examples import extract as example_tests
from coderl.problems.json_files import OnBad, parse_json, read_text, refuse, text_field, write_json
from coderl.problems.unread import refuse_unread_tests
from coderl.types import (
    CallTest,
    InputError,
    LabelledProblem,
    Problem,
    StdinTest,
    UnitTest,
)

ExampleRules = Literal["default", "legacy", "file"]
"""Where example tests come from: the description by our rules, by the original's, or `example_input_output.json`."""

_FIELDS = frozenset(
    {"problem_id", "id", "question", "starter_code", "difficulty"}
    | {"input_output", "solutions", "example_input_output"}
)
_FILES = ("input_output.json", "metadata.json", "solutions.json", "starter_code.py")


def is_folder_tree(folder: Path) -> bool:
    """True when a folder holds problem folders, or folders (its splits) that do."""
    return any(folder.glob("*/question.txt")) or any(folder.glob("*/*/question.txt"))


def splits(folder: Path) -> dict[str, Path]:
    """Return the split folders inside `folder`, by name; none when it holds problems itself."""
    if any(folder.glob("*/question.txt")):
        return {}
    return {child.name: child for child in sorted(folder.iterdir()) if any(child.glob("*/question.txt"))}


def read_splits(
    folder: Path, names: Iterable[str], *, example_rules: ExampleRules = "default", on_bad: OnBad = refuse
) -> Iterator[LabelledProblem]:
    """Yield the problems of some splits of a folder.

    The id is the problem folder's name, behind the split's where two splits use the same names (`train-0000`): APPS
    numbers the problems of each split from zero, and ids must tell problems apart.

    Raises:
        InputError: see `read_folders`.
    """
    found = splits(folder)
    children = [child.name for split in found.values() for child in split.iterdir() if child.is_dir()]
    is_shared = len(set(children)) < len(children)
    for name in names:
        for labelled in read_folders(found[name], example_rules=example_rules, on_bad=on_bad):
            yield with_id_prefix(labelled, f"{name}-") if is_shared else labelled


def with_id_prefix(labelled: LabelledProblem, prefix: str) -> LabelledProblem:
    """Return the problem under a longer id."""
    shown = dataclasses.replace(labelled.problem, problem_id=prefix + labelled.problem.problem_id)
    return dataclasses.replace(labelled, problem=shown)


def read_folders(
    folder: Path, *, example_rules: ExampleRules = "default", on_bad: OnBad = refuse
) -> Iterator[LabelledProblem]:
    """Yield the problems of a folder of problem folders, in the order of their names.

    Raises:
        InputError: see `read_folder`, where `on_bad` raises it.
    """
    for child in sorted(folder.iterdir()):
        if (child / "question.txt").exists() or any((child / name).exists() for name in _FILES):
            try:
                refuse_leaving(child, folder)
                found = read_folder(child, example_rules=example_rules)
            except InputError as error:
                on_bad(error)
                continue
            yield found


def read_folder(folder: Path, *, example_rules: ExampleRules = "default") -> LabelledProblem:
    """Return the problem of one folder; its name is the problem's id.

    Tests and solutions may be absent, null or empty: then the problem has none.

    Raises:
        InputError: `question.txt` is missing or empty, a file is malformed, or a link leads out of the folder.
    """
    description = _text(folder / "question.txt")
    metadata = _optional_json(folder / "metadata.json") or {}
    examples = _optional_json(folder / "example_input_output.json") if example_rules == "file" else None
    starter = folder / "starter_code.py"
    return _Parts(
        problem_id=folder.name,
        description=description,
        where=folder / "question.txt",
        difficulty=_difficulty(metadata, str(folder / "metadata.json")),
        starter_code=_text(starter) if starter.exists() else "",
        input_output=_optional_json(folder / "input_output.json"),
        tests_where=str(folder / "input_output.json"),
        solutions=_solutions(_optional_json(folder / "solutions.json"), str(folder / "solutions.json")),
        examples=examples,
    ).problem(example_rules)


def _optional_json(path: Path) -> Any:
    if not path.exists():
        return None
    text = _text(path)
    return parse_json(text, str(path)) if text.strip() else None


def _text(path: Path) -> str:
    refuse_leaving(path, path.parent)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file")
    return read_text(path)


def refuse_leaving(path: Path, folder: Path) -> None:
    """Refuse a link inside a folder that leads out of it.

    Raises:
        InputError: `path` is one.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path}: leads out of {folder}")


def problem(
    record: dict[str, Any], where: str, *, number: int | None = None, example_rules: ExampleRules = "default"
) -> LabelledProblem:
    """Return the problem of one record of the hub's form, whose tests and solutions are JSON inside strings.

    Args:
        record: its fields.
        where: its place in the file, for complaints.
        number: its place as a number, which names it where the record does not (TACO); None: it must name itself.
        example_rules: how the example tests are found.

    Raises:
        InputError: the id or the question is missing, or a field is malformed.
    """
    refuse_unread_tests(record, _FIELDS, where)
    own = record.get("problem_id", record.get("id"))
    if own is None and number is not None:
        own = f"taco_{number}"
    if not isinstance(own, int | str) or isinstance(own, bool):
        raise InputError(f"{where}: field 'problem_id' must be a number or text, found {type(own).__name__}")
    return _Parts(
        problem_id=f"{own:04d}" if isinstance(own, int) else own,
        description=text_field(record, "question", where),
        where=where,
        difficulty=_difficulty(record, where),
        starter_code=text_field(record, "starter_code", where, default=""),
        input_output=_inner_json(record.get("input_output"), f"{where} input_output"),
        tests_where=f"{where} input_output",
        solutions=_solutions(_inner_json(record.get("solutions"), f"{where} solutions"), f"{where} solutions"),
        examples=_inner_json(record.get("example_input_output"), f"{where} example_input_output"),
    ).problem(example_rules)


def _inner_json(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    return parse_json(value, where) if value.strip() else None


def _difficulty(metadata: Any, where: str) -> str:
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(metadata).__name__}")
    return text_field(metadata, "difficulty", where, default="unknown")


def _solutions(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: expected a list of programs")
    return tuple(value)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a folder's files or a record's fields hold, decoded, with where it stands for complaints."""

    problem_id: str
    description: str
    where: Path | str
    difficulty: str
    starter_code: str
    input_output: Any
    tests_where: str
    solutions: tuple[str, ...]
    examples: Any

    def problem(self, example_rules: ExampleRules) -> LabelledProblem:
        if not self.description.strip():
            raise InputError(f"{self.where}: the question is empty")
        fn_name = _fn_name(self.input_output, self.starter_code, self.tests_where)
        if example_rules == "file":
            shown = example_file_tests(self.examples, fn_name, f"{self.where} examples")
        else:
            shown = example_tests.extract(self.description, fn_name=fn_name, rules=example_rules)
        return LabelledProblem(
            Problem(self.problem_id, self.description, self.difficulty, fn_name, self.starter_code, shown),
            hidden_tests=_tests(self.input_output, fn_name, self.starter_code, self.tests_where),
            solutions=self.solutions,
        )


def _fn_name(input_output: Any, starter_code: str, where: str) -> str | None:
    """The function named beside the tests; only a problem without tests is judged by its starter code."""
    if input_output is None or input_output == {}:
        return fn_name_of(starter_code)
    if not isinstance(input_output, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(input_output).__name__}")
    name = input_output.get("fn_name")
    if name is not None and (not isinstance(name, str) or not name.isidentifier()):
        raise InputError(f"{where}: fn_name must name a function, found {name!r}")
    return name


def fn_name_of(starter_code: str) -> str | None:
    """Return the first function that starter code opens, special methods and comments aside; None without one."""
    names = re.findall(r"^[ \t]*(?:async )?def[ \t]+(\w+)", starter_code, flags=re.MULTILINE)
    return next((name for name in names if not name.startswith("__")), None)


def _tests(input_output: Any, fn_name: str | None, starter_code: str, where: str) -> tuple[UnitTest, ...]:
    if input_output is None or input_output == {}:
        return ()
    if not isinstance(input_output, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(input_output).__name__}")
    refuse_unread_tests(input_output, ("inputs", "outputs", "fn_name"), where)
    inputs, outputs = (input_output.get(key) or [] for key in ("inputs", "outputs"))
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise InputError(f"{where}: inputs and outputs must be lists of one length")
    if fn_name is None:
        pairs = enumerate(zip(inputs, outputs, strict=True))
        return tuple(
            StdinTest(_joined(i, f"{where}: inputs[{n}]"), _joined(o, f"{where}: outputs[{n}]")) for n, (i, o) in pairs
        )
    is_wrapped = is_single_wrapped(outputs, starter_code)
    if is_wrapped:
        outputs = [output[0] for output in outputs]
    return tuple(_call_test(i, o, is_wrapped) for i, o in zip(inputs, outputs, strict=True))


def example_file_tests(value: Any, fn_name: str | None, where: str) -> tuple[UnitTest, ...]:
    """Return the tests of an `example_input_output.json`; those that the original wrote hold text even for functions.

    Raises:
        InputError: it is neither null nor lists of inputs and outputs.
    """
    is_text = isinstance(value, dict) and all(isinstance(i, str) for i in value.get("inputs") or [])
    return _tests(value, None if is_text else fn_name, "", where)


def _call_test(arguments: Any, expected: Any, is_wrapped: bool) -> CallTest:
    arguments = arguments if isinstance(arguments, list) else [arguments]
    return CallTest(tuple(map(_with_int_keys, arguments)), expected, is_wrapped)


_INT_KEY = re.compile(r"0|-?[1-9][0-9]{0,999}", re.ASCII)


def _with_int_keys(argument: Any) -> Any:
    """A dictionary whose keys all write integers gets them back; JSON has no other keys than texts.

    Deviation: the original does so for the first argument and then drops the others.
    """
    if isinstance(argument, dict) and argument and all(map(_INT_KEY.fullmatch, argument)):
        return {int(key): value for key, value in argument.items()}
    return argument


def _joined(text: Any, where: str) -> str:
    """The text of an input or output, which may be stored as a number or a list of lines."""
    lines = text if isinstance(text, list) else [text]
    for line in lines:
        if not isinstance(line, str | int | float) or isinstance(line, bool):
            found = "a list in the list of lines" if isinstance(line, list) else f"{line!r:.40}"
            raise InputError(f"{where}: what a program reads or prints must be text, or a list of lines; found {found}")
    return "\n".join(line if isinstance(line, str) else write_json(line) for line in lines)


def is_single_wrapped(outputs: list[Any], starter_code: str = "") -> bool:
    """True when each output of a call-based problem is a one-element list round the value to return.

    The tests are judged together: all outputs must be one-element lists, since Codewars problems are wrapped and
    LeetCode problems are not. Starter code that declares a list as the result settles the doubtful case (one-element
    answers of a function that does return lists) against unwrapping.

    Deviation: APPS instead accepts at each comparison a result equal to `expected` or to `expected[0]`, so that a
    program that returns only the first of several values passes.
    """
    if not outputs or not all(isinstance(output, list) and len(output) == 1 for output in outputs):
        return False
    returns = re.search(r"\)\s*->\s*['\"]?([\w.]+)", starter_code)
    return returns is None or returns.group(1).split(".")[-1].lower() not in ("list", "sequence")
