"""What a stage is: a function declared once, from typed inputs and frozen settings to the files of its folder.

    @stage
    def score(work: Work, *, critic: ModelFolder, programs: Programs, prompt: PromptConfig = PromptConfig()) -> Facts:

From the declaration follow the request (the content hash of each input, every setting that is not `Incidental`), the
refusal of stale results, resume, the manifest with what it cost, and the subcommand with its flags and help. The
function receives its inputs, its settings and `Work`, and nothing else, so its result cannot depend on anything else.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, TypeVar

from coderl import processes, records
from coderl.processes import Group
from coderl.records import StageFolder
from coderl.settings import Incidental, decisive
from coderl.stages.console import Bar, Reporter
from coderl.tables import PartedTable
from coderl.types import InputError, LabelledProblem, Problem

Item = TypeVar("Item")
Function = TypeVar("Function", bound=Callable[..., Any])
Facts = dict[str, Any]
"""What a stage says of its result, for people: counts and measures; its cost is added."""

# ------------------------------------------------------------------------------------------------------------ inputs


@dataclass(frozen=True, slots=True)
class Input:
    """Marks a parameter as something that a stage reads, which is hashed into its request."""

    help: str
    table: str | None = None
    """The folder within a stage's folder that is read; None for all of it."""

    def digest(self, value: Any) -> Any:
        """Return the content hash of the input, or those of several; None for one that is not given.

        Raises:
            InputError: it is not there.
        """
        if value is None:
            return None
        if isinstance(value, list | tuple):
            return [self.digest(each) for each in value]
        return self.hash_of(value)

    def hash_of(self, value: Any) -> str:
        """Return the content hash of one input that is given.

        Raises:
            InputError: it is not there.
        """
        return records.hash_path(Path(value) / self.table if self.table else Path(value))


class ModelInput(Input):
    """A model: a folder, whose content counts, or a name on a hub."""

    def hash_of(self, value: Any) -> str:
        """Return the content hash of the folder, or the name."""
        return records.hash_path(Path(value)) if Path(value).exists() else f"hub:{value}"


@dataclass(frozen=True, slots=True)
class ProblemsInput(Input):
    """Problems in memory: all that the stage is given of them counts."""

    is_bare: bool = False
    """Whether the stage is given `Problem`s only, without hidden tests."""

    def digest(self, value: Any) -> Any:
        """Return the hash of the problems, in their order."""
        return None if value is None else _joined_hash(map(_hash_of_problem, value))


ModelSource = Annotated[str | Path, ModelInput("A model folder or hub name.")]
ModelFolder = Annotated[Path, ModelInput("A folder that a training stage wrote.")]
Programs = Annotated[Path, Input("The folder of a `sample` or `critic-sample` stage.", "programs")]
Candidates = Annotated[Path, Input("The folder of a `critic-sample` stage.", "candidates")]
Verdicts = Annotated[Path, Input("The folder of the programs' `execute` stage.", "verdicts")]
Scores = Annotated[Path, Input("The folder of the programs' `score` stage.", "scores")]
Labelled = Annotated[
    Sequence[LabelledProblem], ProblemsInput("A file or folder of problems, `miniapps`, or `hub:owner/name`.")
]
Shown = Annotated[
    Sequence[Problem],
    ProblemsInput("A file or folder of problems, `miniapps`, or `hub:owner/name`; no hidden test is used.", None, True),
]
SourceFile = Annotated[Path, Input("A file or folder.")]


def _input_in(hint: Any) -> Input | None:
    """Return the mark of an input, also inside `... | None` and `Sequence[...]`."""
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Input)]
    return marks[0] if marks else next(filter(None, map(_input_in, typing.get_args(hint))), None)


_HASHES: dict[int, tuple[object, str]] = {}
"""Problem in memory -> itself, held so that its id stays its own, and its hash."""


def _hash_of_problem(problem: Problem | LabelledProblem) -> str:
    held = _HASHES.get(id(problem))
    if held is None:
        held = _HASHES[id(problem)] = (problem, records.hash_value(asdict(problem)))
    return held[1]


def _joined_hash(hashes: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for each in hashes:
        digest.update(each.encode())
    return digest.hexdigest()


def derive_seed(seed: int, *parts: object) -> int:
    """Return a seed for one part of a run, independent of the others'."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:4], "big")


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Return consecutive slices of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


# -------------------------------------------------------------------------------------------------------------- work


@dataclass(slots=True)
class Work:
    """What the function of a stage is given besides its inputs and settings."""

    folder: Path
    """Where it writes."""
    reporter: Reporter
    group: Group = field(default_factory=processes.Group)
    """The processes that share the stage."""
    _bar: Bar | None = None

    @property
    def is_main(self) -> bool:
        """True in the process that writes what there is one of: in a shared stage, all but parts."""
        return self.group.is_main

    @property
    def checkpoints(self) -> Path:
        """Where a training leaves what it continues from; removed when the stage ends."""
        return self.folder / ".checkpoints"

    def parts(
        self,
        table: PartedTable,
        parts: Sequence[Item],
        title: str,
        unit: str = "chunks",
        sizes: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Item]]:
        """Yield, with their numbers, the parts of a table that this process is to write, and show progress.

        Parts that were written before are left out. Several processes share the rest; when the last part has been
        yielded, all wait until every part is there.

        Args:
            table: a part is done when it has it.
            parts: what each is made from.
            title: what is being done.
            unit: what `sizes` count.
            sizes: how much each part is, for a stage that says within a part what it `did`.
        """
        sizes = [1] * len(parts) if sizes is None else sizes
        todo = self.group.on_main(lambda: [index for index in range(len(parts)) if not table.has(index)])
        done = sum(sizes) - sum(sizes[index] for index in todo)
        ends = [done, *(done + size for size in accumulate(sizes[index] for index in todo))]
        with self.reporter.progress(title, total=sum(sizes), unit=unit, done=done) as self._bar:
            for number, index in self.group.deal(todo):
                self._bar.move_to(ends[number])  # another process may have done those before
                yield index, parts[index]
            self.group.gather(None)
            self._bar.move_to(ends[-1])
        self._bar = None
        self.group.wait_for_files([table.part(index) for index in todo])

    def did(self, count: int = 1) -> None:
        """Show that so much of the part under way is done."""
        if self._bar is not None:
            self._bar.advance(count)

    def facts(self, function: Callable[[], Facts]) -> Facts:
        """Return the facts that a function counts, in the process where they are written down; elsewhere none."""
        return function() if self.is_main else {}

    def save(self, network: Any, name: str = "model") -> None:
        """Write a network that all processes have trained to a folder of the stage."""
        self.group.on_main(lambda: network.save(self.folder / name))

    def log_steps(self, steps: Iterable[Any], title: str, *, total: int | None = None, below: str = "") -> Facts:
        """Run a training to its end, with the figures of each update in `metrics.jsonl`; return its facts."""
        path = self.folder / below / "metrics.jsonl"
        noted = {record["step"] for record in records.read_jsonl(path)}
        for step in self.reporter.track(steps, title, total=total, unit="updates"):
            if self.is_main and step.step not in noted:
                records.append_jsonl(path, step.record())
        last = records.read_jsonl(path)[-1:] if self.is_main else []  # also where an earlier run took the last step
        if not last:
            return {"num_steps": 0}
        spent = {"num_trained_tokens": last[0]["num_tokens"], "update_cpu_s": round(last[0]["cpu_s"], 2)}
        return {"num_steps": last[0]["step"], "last_loss": round(last[0]["loss"], 4), **spent}


# ------------------------------------------------------------------------------------------------------------- stage


@dataclass(frozen=True)
class Stage:
    """A declared stage. Called with a folder, its inputs and its settings, it does what is left to do there."""

    function: Callable[..., Facts]
    is_shared: bool = False
    """Whether several processes do it together, part by part or update by update; else the main one does it alone."""
    inputs: dict[str, Input] = field(init=False)
    settings: dict[str, Any] = field(init=False)
    """Setting -> its type, marks included."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(self.function, include_extras=True)
        given = {name: hints[name] for name in list(self.signature.parameters)}
        inputs = {name: mark for name, hint in given.items() if (mark := _input_in(hint)) is not None}
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "settings", {name: hint for name, hint in given.items() if name not in inputs})

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.function.__name__.replace("_", "-")

    @property
    def signature(self) -> inspect.Signature:
        """The inputs and settings: what the function takes but for `Work`."""
        signature = inspect.signature(self.function)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def request(self, given: dict[str, Any]) -> tuple[Facts, Facts]:
        """Return the settings and the hashes of the inputs that decide the stage's result.

        Raises:
            InputError: an input is not there.
        """
        hashes = {name: mark.digest(given[name]) for name, mark in self.inputs.items()}
        return self.request_of_settings(given), hashes

    def request_of_settings(self, given: dict[str, Any]) -> Facts:
        """Return the settings that decide the stage's result."""
        marks = {name: getattr(hint, "__metadata__", ()) for name, hint in self.settings.items()}
        decide = [name for name, of in marks.items() if not any(isinstance(mark, Incidental) for mark in of)]
        return {name: decisive(given[name]) for name in decide}

    def __call__(self, out: Path, *, reporter: Reporter | None = None, title: str | None = None, **given: Any) -> Facts:
        """Do the stage's work in the folder `out` unless it was done before; return its facts.

        Raises:
            InputError: `out` holds the work of another request, or another process works there.
        """
        bound = self.signature.bind(**given)
        bound.apply_defaults()
        work = Work(out, reporter or Reporter(), processes.group())
        self._do(work, title or out.name, bound.arguments)
        manifest = work.group.on_main(lambda: records.read_json(out / records.MANIFEST))
        work.group.wait_for_files([out / name for name in manifest["outputs"]])
        return manifest["facts"]

    def _do(self, work: Work, title: str, given: dict[str, Any]) -> None:
        folder, is_complete = work.group.on_main(lambda: self._open(work.folder, given))
        if not is_complete:
            with work.group.held_by_main(lambda: records.locked(work.folder)):
                if not work.group.on_main(lambda: folder.is_complete):
                    work.reporter.say(title)
                    self._work(folder, work, given)
                    return
        work.reporter.say(f"{title}: done before")

    def _open(self, out: Path, given: dict[str, Any]) -> tuple[StageFolder, bool]:
        settings, hashes = self.request(given)
        folder = StageFolder.open(out, config=settings, inputs=hashes)
        return folder, folder.is_complete

    def _work(self, folder: StageFolder, work: Work, given: dict[str, Any]) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        try:
            if self.is_shared:
                facts = self.function(work, **given)
            else:
                facts = work.group.on_main(lambda: self._alone(work, given))
        except InputError:
            if work.is_main:
                folder.discard_if_empty()
            raise
        cpu_s = sum(work.group.gather(time.process_time() - cpu))
        spent = {"wall_s": round(time.monotonic() - wall, 2), "cpu_s": round(cpu_s, 2)}
        work.group.on_main(lambda: folder.finish({**facts, **spent}))

    def _alone(self, work: Work, given: dict[str, Any]) -> Facts:
        with processes.alone():
            return self.function(replace(work, group=processes.group()), **given)

    # ------------------------------------------------------------------------------------------------- the command

    def command(self) -> Callable[..., None]:
        """Return the subcommand: its flags are the inputs by path, the settings, and where the stage is kept."""
        parameters, doc = [_flag("out", Path, "The stage's folder.")], inspect.getdoc(self.function) or ""
        for name, parameter in self.signature.parameters.items():
            mark, default = self.inputs.get(name), ... if parameter.default is parameter.empty else parameter.default
            if isinstance(mark, ProblemsInput):
                parameters += _problem_flags(mark, default)
            elif mark is not None:
                hint = typing.get_type_hints(self.function)[name]
                text = "" if f"    {name}:" in doc else mark.help
                parameters.append(_flag(name, hint, text, default).replace(kind=parameter.kind))
            else:
                parameters.append(_flag(name, self.settings[name], "", default, is_flat=name == "config"))

        parameters.sort(key=lambda parameter: parameter.kind)
        signature = inspect.Signature(parameters)

        def command(*args: Any, **flags: Any) -> None:
            bound = signature.bind(*args, **flags)
            bound.apply_defaults()
            values, reporter = dict(bound.arguments), Reporter()
            out = values.pop("out")
            num_bad = 0
            if values.get("problems") is not None:
                values["problems"], num_bad = self._problems(values, reporter)
            else:
                values = {name: value for name, value in values.items() if name not in ("split", "limit")}
            reporter.facts(self(out, reporter=reporter, **values), out)
            if num_bad:
                sys.exit(1)

        command.__doc__ = self.function.__doc__
        command.__name__ = self.function.__name__
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    def _problems(self, values: dict[str, Any], reporter: Reporter) -> tuple[Sequence[Any], int]:
        """Return the problems that the flags name, as the stage is given them, and how many cannot be used."""
        from coderl.stages.reading import load_problems

        asked = {name: values.pop(name) for name in ("split", "limit")}
        found, num_bad = load_problems(values["problems"], **asked, reporter=reporter)
        mark = self.inputs["problems"]
        assert isinstance(mark, ProblemsInput)
        return [p.problem for p in found] if mark.is_bare else found, num_bad


@typing.overload
def stage(function: Callable[..., Facts]) -> Stage: ...
@typing.overload
def stage(*, is_shared: bool) -> Callable[[Callable[..., Facts]], Stage]: ...
def stage(function: Callable[..., Facts] | None = None, *, is_shared: bool = False) -> Any:
    """Declare a stage: see the module."""
    return Stage(function, is_shared) if function else lambda declared: Stage(declared, is_shared)


def command(name: str) -> Callable[[Function], Function]:
    """Mark a function as the subcommand `name` (or `group name`), which `coderl.cli` finds by the mark."""
    return lambda function: function


def _flag(name: str, hint: Any, text: str, default: Any = ..., *, is_flat: bool = False) -> inspect.Parameter:
    """Return a parameter of a command; `...` stands for no default."""
    from cyclopts import Parameter

    default = inspect.Parameter.empty if default is ... else default

    marks = ([Parameter(name="*")] if is_flat else []) + ([Parameter(help=text)] if text else [])
    for mark in marks:
        hint = Annotated[hint, mark]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _problem_flags(mark: Input, default: Any) -> list[inspect.Parameter]:
    kind = str if default is ... else str | None
    return [
        _flag("problems", kind, mark.help, default),
        _flag("split", str | None, "Only this split of the problems.", None),
        _flag("limit", int | None, "Only the first so many problems.", None),
    ]
