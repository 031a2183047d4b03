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
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from coderl import records
from coderl.records import StageFolder
from coderl.settings import Incidental, decisive
from coderl.stages.console import Reporter
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


@dataclass(frozen=True, slots=True)
class Work:
    """What the function of a stage is given besides its inputs and settings."""

    folder: Path
    """Where it writes."""
    reporter: Reporter
    rank: int = 0
    """Which of the processes that share the stage this is."""
    num_processes: int = 1

    @property
    def checkpoints(self) -> Path:
        """Where a training leaves what it continues from; removed when the stage ends."""
        return self.folder / ".checkpoints"

    def parts(
        self, table: PartedTable, parts: Sequence[Item], title: str, unit: str = "chunks"
    ) -> Iterator[tuple[int, Item]]:
        """Yield the parts that this process has still to write to a table, with their numbers, and show progress."""
        mine = list(enumerate(parts))[self.rank :: self.num_processes]
        todo = [(index, part) for index, part in mine if not table.has(index)]
        yield from self.reporter.track(todo, title, total=len(mine), unit=unit, done=len(mine) - len(todo))

    def log_steps(self, steps: Iterable[Any], title: str, *, total: int | None = None, below: str = "") -> Facts:
        """Run a training to its end, with the figures of each update in `metrics.jsonl`; return its facts."""
        path = self.folder / below / "metrics.jsonl"
        done = {record["step"] for record in records.read_jsonl(path)}
        last = None
        for last in self.reporter.track(steps, title, total=total, unit="updates"):
            if last.step not in done:
                records.append_jsonl(path, last.record())
        if last is None:
            return {"num_steps": 0}
        spent = {"num_trained_tokens": last.num_tokens, "update_cpu_s": round(last.cpu_s, 2)}
        return {"num_steps": last.step, "last_loss": round(last.loss, 4), **spent}


# ------------------------------------------------------------------------------------------------------------- stage


@dataclass(frozen=True)
class Stage:
    """A declared stage. Called with a folder, its inputs and its settings, it does what is left to do there."""

    function: Callable[..., Facts]
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
        reporter, title = reporter or Reporter(), title or out.name
        settings, hashes = self.request(bound.arguments)
        folder = StageFolder.open(out, config=settings, inputs=hashes)
        if not folder.is_complete:
            with records.locked(out):
                if not folder.is_complete:
                    reporter.say(title)
                    self._work(folder, Work(folder.path, reporter), bound.arguments)
                    return records.facts_of(out)
        reporter.say(f"{title}: done before")
        return records.facts_of(out)

    def _work(self, folder: StageFolder, work: Work, given: dict[str, Any]) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        try:
            facts = self.function(work, **given)
        except InputError:
            folder.discard_if_empty()
            raise
        spent = {"wall_s": round(time.monotonic() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}
        folder.finish({**facts, **spent})

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
            if "problems" in values:
                values["problems"] = self._problems(values)
            reporter.facts(self(out, reporter=reporter, **values), out)

        command.__doc__ = self.function.__doc__
        command.__name__ = self.function.__name__
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    def _problems(self, values: dict[str, Any]) -> Sequence[Problem] | Sequence[LabelledProblem] | None:
        from coderl import problems as data

        source, split, limit = values["problems"], values.pop("split"), values.pop("limit")
        if source is None:
            return None
        found, mark = data.load(source, split=split, limit=limit), self.inputs["problems"]
        assert isinstance(mark, ProblemsInput)
        return [p.problem for p in found] if mark.is_bare else found


def stage(function: Callable[..., Facts]) -> Stage:
    """Declare a stage: see the module."""
    return Stage(function)


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
