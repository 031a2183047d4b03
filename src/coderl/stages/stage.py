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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from coderl import processes, records
from coderl.processes import Group
from coderl.records import StageFolder
from coderl.settings import Incidental, decisive
from coderl.stages.console import Reporter
from coderl.stages.work import Facts, Work
from coderl.types import InputError, LabelledProblem, Problem

Item = TypeVar("Item")
Function = TypeVar("Function", bound=Callable[..., Any])
Backend = Literal["local", "ray"]
Sharing = Literal["parts", "updates"]
"""Several processes do the parts of a table, or the updates of a training, together."""

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


# ------------------------------------------------------------------------------------------------------------- stage


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster whose nodes do the parts of stages."""

    address: str | None = None
    """`auto`, or host:port; None starts one on this machine."""


@dataclass(frozen=True)
class Stage:
    """A declared stage. Called with a folder, its inputs and its settings, it does what is left to do there."""

    function: Callable[..., Facts]
    shared: Sharing | None = None
    """What several processes share of it; None: the main one does it alone."""
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

    def __call__(
        self,
        out: Path,
        *,
        reporter: Reporter | None = None,
        title: str | None = None,
        cluster: Cluster | None = None,
        **given: Any,
    ) -> Facts:
        """Do the stage's work in the folder `out` unless it was done before; return its facts.

        With a cluster, its nodes write the parts of a stage that has parts.

        Raises:
            InputError: `out` holds the work of another request, or another process works there.
        """
        bound = self.signature.bind(**given)
        bound.apply_defaults()
        group = processes.group()
        if cluster is not None and self.shared == "parts":
            group = self._on(cluster, out, bound.arguments)
        work = Work(out, reporter or Reporter(), group)
        self._do(work, title or out.name, bound.arguments)
        manifest = work.group.on_main(lambda: records.read_json(out / records.MANIFEST))
        work.group.wait_for_files([out / name for name in manifest["outputs"]])
        return manifest["facts"]

    def _on(self, cluster: Cluster, out: Path, given: dict[str, Any]) -> Group:
        """Return what hands the stage's parts to a cluster."""
        from coderl.stages.cluster import ClusterGroup, Task

        torch = sys.modules.get("torch")
        num_threads = torch.get_num_threads() if torch else None
        task = Task(self.function.__module__, self.function.__name__, out.absolute(), Path.cwd(), num_threads)
        return ClusterGroup(task, given, address=cluster.address, needs_model=self.name != "execute")

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
            if self.shared:
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
                parameters += _problem_flags(name, mark, default)
            elif mark is not None:
                hint = typing.get_type_hints(self.function)[name]
                text = "" if f"    {name}:" in doc else mark.help
                parameters.append(_flag(name, hint, text, default).replace(kind=parameter.kind))
            else:
                parameters.append(_flag(name, self.settings[name], "", default, is_flat=name == "config"))

        takes_cluster = self.shared == "parts" and self.name != "execute"  # which hands programs to a cluster itself
        parameters += _cluster_flags() if takes_cluster else []
        parameters.sort(key=lambda parameter: parameter.kind)
        signature = inspect.Signature(parameters)

        def command(*args: Any, **flags: Any) -> None:
            bound = signature.bind(*args, **flags)
            bound.apply_defaults()
            values, reporter = dict(bound.arguments), Reporter()
            out = values.pop("out")
            if takes_cluster:
                values["cluster"] = cluster_of(values.pop("backend"), values.pop("address"))
            sets = [name for name, mark in self.inputs.items() if isinstance(mark, ProblemsInput)]
            num_bad = sum(self._read_problems(name, values, reporter) for name in sets)
            reporter.facts(self(out, reporter=reporter, **values), out)
            if num_bad:
                sys.exit(1)

        command.__doc__ = self.function.__doc__
        command.__name__ = self.function.__name__
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    def _read_problems(self, name: str, values: dict[str, Any], reporter: Reporter) -> int:
        """Put in place of the flags of one set of problems what the stage is given of them; return how many are bad."""
        from coderl.stages.reading import load_problems

        asked = {part: values.pop(flag) for part, flag in _parts_of(name).items()}
        if values[name] is None:
            return 0
        found, num_bad = load_problems(values[name], **asked, reporter=reporter)
        mark = self.inputs[name]
        assert isinstance(mark, ProblemsInput)
        values[name] = [p.problem for p in found] if mark.is_bare else found
        return num_bad


@typing.overload
def stage(function: Callable[..., Facts]) -> Stage: ...
@typing.overload
def stage(*, shared: Sharing) -> Callable[[Callable[..., Facts]], Stage]: ...
def stage(function: Callable[..., Facts] | None = None, *, shared: Sharing | None = None) -> Any:
    """Declare a stage: see the module."""
    return Stage(function, shared) if function else lambda declared: Stage(declared, shared)


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


def _cluster_flags() -> list[inspect.Parameter]:
    return [
        _flag("backend", Backend, "Where parts are done: here, or on the nodes of a Ray cluster.", "local"),
        _flag("address", str | None, "Of the cluster; by default one is started here.", None),
    ]


def cluster_of(backend: Backend, address: str | None) -> Cluster | None:
    """Return the cluster that flags ask for."""
    return Cluster(address) if backend == "ray" else None


def _parts_of(name: str) -> dict[str, str]:
    """Return the flags that choose among the problems of an input: `split` and `limit`, or `validation_split`..."""
    return {part: part if name == "problems" else f"{name}_{part}" for part in ("split", "limit")}


def _problem_flags(name: str, mark: Input, default: Any) -> list[inspect.Parameter]:
    kind, flags = str if default is ... else str | None, _parts_of(name)
    return [
        _flag(name, kind, mark.help, default),
        _flag(flags["split"], str | None, "Only this split of the problems.", None),
        _flag(flags["limit"], int | None, "Only the first so many problems.", None),
    ]
