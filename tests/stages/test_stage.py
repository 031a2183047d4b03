"""A stage is declared once: whatever it can read decides whether an old result is still its result."""

import importlib
import json
import sys
import typing
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import coderl.stages
from coderl import records, tables
from coderl.cli import declared, main
from coderl.processes import Group
from coderl.recipe import RunConfig, load_recipe
from coderl.settings import Incidental, Reads, is_incidental
from coderl.stages.console import Bar, Reporter
from coderl.stages.run import Run, method, plan
from coderl.stages.split_problems import Splits
from coderl.stages.stage import Input, ModelInput, ProblemsInput, Stage, Work
from coderl.types import AssertTest, CallTest, InputError, LabelledProblem, Problem, Program, StdinTest

QUIET = Reporter(quiet=True)


def stages() -> list[Stage]:
    """Every stage that the project declares."""
    found = [getattr(importlib.import_module(each.module), each.function) for each in declared()]
    execute = importlib.import_module("coderl.stages.execute").execute  # whose command is one of more options
    return [each for each in [*found, execute] if isinstance(each, Stage)]


# ------------------------------------------------------------------------------------- other values of any setting


def inner(hint: Any) -> Any:
    """Return a type without its marks and without None."""
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    options = [a for a in typing.get_args(hint) if a is not type(None)]
    is_optional = len(options) < len(typing.get_args(hint)) and len(options) >= 1
    return inner(options[0]) if is_optional else hint


def another(value: Any, hint: Any) -> Any:
    """Return a value that a setting could have in place of this one."""
    kind = inner(hint)
    if typing.get_origin(kind) is typing.Literal:
        return next(choice for choice in typing.get_args(kind) if choice != value)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return None if value is not None else kind()
    if isinstance(value, bool):
        return not value
    if value is None and typing.get_origin(kind) is tuple:
        return ("other",)
    if value is None:
        return {int: 7, float: 0.7, str: "other", Path: Path("other")}[kind]
    if isinstance(value, tuple):
        return (*value, another(value[-1], type(value[-1])) if value else "other")
    return {int: 1, float: 0.125, str: "x"}[type(value)] + value if not isinstance(value, Path) else value / "other"


def changes(config: BaseModel, path: tuple[str, ...] = ()) -> typing.Iterator[tuple[tuple[str, ...], BaseModel, bool]]:
    """Yield, for each setting of a group and of the groups in it, its path, the group changed, and if that decides."""
    for name, field in type(config).model_fields.items():
        value, at = getattr(config, name), (*path, name)
        if isinstance(value, BaseModel):
            for below, changed, decides in changes(value, at):
                yield below, config.model_copy(update={name: changed}), decides and not is_incidental(field)
        else:
            marked = any(isinstance(mark, Reads) for mark in field.metadata)
            new = another(value, field.annotation if not marked or value is None else str)
            yield at, config.model_copy(update={name: new}), not is_incidental(field)


def settings_of(stage: Stage) -> dict[str, Any]:
    """Return the defaults of a stage's settings; what has none is made up."""
    found = {}
    for name, hint in stage.settings.items():
        default = stage.signature.parameters[name].default
        kind = inner(hint)
        found[name] = kind.model_validate({"task": "refinement"}) if default is stage.signature.empty else default
    return found


# ---------------------------------------------------------------------------------------------- contents of any input

PROBLEM = LabelledProblem(Problem("p", "Add.", example_tests=(StdinTest("1", "2"),)), (CallTest((1,), 2),), ("x = 1",))


def content(mark: Input, folder: Path, text: str) -> Any:
    """Return an input that holds a text."""
    if isinstance(mark, ProblemsInput):
        problem = Problem("q", text)
        return [PROBLEM.problem, problem] if mark.is_bare else [PROBLEM, LabelledProblem(problem)]
    kind = type(mark).__name__
    name = {"OriginalInput": "codes/1.json", "SourcesInput": "a.py", "CorpusInput": "train/part-000000.parquet"}
    file = folder / (mark.table or "") / name.get(kind, "part-000000.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if kind == "CorpusInput":
        records.write_json(folder / records.MANIFEST, {"outputs": {"train/part-000000.parquet": text}})
    return [folder] if kind == "SourcesInput" else folder


def given_to(stage: Stage, folder: Path) -> dict[str, Any]:
    inputs = {name: content(mark, folder / name, "first") for name, mark in stage.inputs.items()}
    return {**settings_of(stage), **inputs}


def refused(folder: Path, stage: Stage, given: dict[str, Any]) -> str:
    """Return why a finished result of other settings or inputs is refused; nothing where it is not."""
    settings, inputs = stage.request(given)
    try:
        records.StageFolder.open(folder, config=settings, inputs=inputs)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("stage", stages(), ids=lambda stage: stage.name)
def test_every_setting_and_input_of_every_stage_refuses_the_old_result_by_name(stage: Stage, tmp_path: Path):
    given = given_to(stage, tmp_path)
    settings, inputs = stage.request(given)
    done = tmp_path / "done"
    records.StageFolder.open(done, config=settings, inputs=inputs).finish({})
    assert not refused(done, stage, given)
    for name, hint in stage.settings.items():
        if isinstance(given[name], BaseModel):
            for path, changed, decides in changes(given[name], (name,)):
                assert (path[-1] in refused(done, stage, {**given, name: changed})) == decides, path
        else:
            is_free = any(isinstance(mark, Incidental) for mark in getattr(hint, "__metadata__", ()))
            changed = {**given, name: another(given[name], hint)}
            assert (name in refused(done, stage, changed)) != is_free, name
    for name, mark in stage.inputs.items():
        other = content(mark, tmp_path / "other" / name, "second")
        assert name in refused(done, stage, {**given, name: other}), name
        if not isinstance(mark, ProblemsInput):
            content(mark, tmp_path / name, "in place, and longer")  # the same path with other content
            assert name in refused(done, stage, given), name
            content(mark, tmp_path / name, "first")


@pytest.mark.parametrize(
    "other",
    [
        LabelledProblem(
            Problem("p", "Add them.", example_tests=(StdinTest("1", "2"),)), PROBLEM.hidden_tests, ("x = 1",)
        ),
        LabelledProblem(Problem("p", "Add.", example_tests=(StdinTest("1", "3"),)), PROBLEM.hidden_tests, ("x = 1",)),
        LabelledProblem(PROBLEM.problem, (CallTest((1,), 3),), ("x = 1",)),
        LabelledProblem(PROBLEM.problem, (AssertTest("assert f(1) == 2"),), ("x = 1",)),
        LabelledProblem(PROBLEM.problem, PROBLEM.hidden_tests, ("x = 2",)),
        LabelledProblem(PROBLEM.problem, PROBLEM.hidden_tests, ("x = 1",), "def check(*a): return True"),
    ],
)
def test_whatever_a_stage_is_given_of_a_problem_counts(other: LabelledProblem):
    mark = ProblemsInput("")
    assert mark.digest([PROBLEM]) == mark.digest([LabelledProblem(PROBLEM.problem, PROBLEM.hidden_tests, ("x = 1",))])
    assert mark.digest([PROBLEM]) != mark.digest([other])


def test_the_order_of_models_and_a_hub_name_count(tmp_path: Path):
    mark = ModelInput("")
    first, second = (content(mark, tmp_path / name, name) for name in "ab")
    assert mark.digest([first, second]) != mark.digest([second, first])
    assert mark.digest("owner/name") == "hub:owner/name"
    assert mark.digest(None) is None


# ----------------------------------------------------------------------------------------------------- a whole recipe


class Recorder(Run):
    """A run that does nothing but note what each stage is asked to do."""

    def do(self, stage: Stage, place: str, **given: Any) -> Path:
        bound = stage.signature.bind(**given)
        bound.apply_defaults()
        hashed = {**bound.arguments, **{name: repr(bound.arguments[name]) for name in stage.inputs}}
        self.asked = {**getattr(self, "asked", {}), place: (stage.request_of_settings(hashed), repr(hashed.keys()))}
        self.texts = {**getattr(self, "texts", {}), place: {name: hashed[name] for name in stage.inputs}}
        return super().do(stage, place, **given)


TESTED = [LabelledProblem(Problem(f"t{i}", f"{i}"), (StdinTest("", "1"),), ("print(1)",)) for i in range(6)]
ELSEWHERE = {
    "name": "the folder and the page are named by it",
    "num_threads": "how fast, not what",
    "rounds.selection.max_drop": "tells after a round whether there is another",
    "evaluation.ks": "the report's",
    "evaluation.sampling.temperature": "refused: there are `evaluation.temperatures`",
    "evaluation.control_beside": "in which process the control is trained",
    "problems": "the problems' own stage reads them, see below",
}
"""Settings of a run that no stage is given, and what they are for."""


def asked_by(config: RunConfig) -> tuple[Any, Any]:
    run = Recorder(Path("run"), config, QUIET, splits=Splits(TESTED, TESTED[:3], TESTED[3:]), is_plan=True)
    method(run)
    return run.asked, run.texts


def test_every_setting_of_a_recipe_changes_what_some_stage_is_asked():
    """A setting that is read by nothing (the binary critic's `init` was) cannot exist."""
    optim = {"num_epochs": 1}
    config = RunConfig.model_validate({
        "rounds": {"num_rounds": 3, "problems_per_round": 2, "num_replayed": 1, "selection": {"num_problems": 2}},
        "pretrain": {"masked_span": optim, "next_token": optim},
        "search_pool": {"num_samples": 1},
        "evaluation": {"ce_control_steps": 5},
    })  # fmt: skip
    before, unread = asked_by(config), []
    for path, changed, decides in changes(config):
        name = ".".join(path)
        if decides and not any(name == known or name.startswith(f"{known}.") for known in ELSEWHERE):
            unread += [] if asked_by(typing.cast(RunConfig, changed)) != before else [name]
    assert unread == []


def test_a_temperature_that_would_not_be_used_is_refused():
    with pytest.raises(ValueError, match=r"give evaluation\.temperatures"):
        RunConfig.model_validate({"evaluation": {"sampling": {"temperature": 1.0}}})


def test_the_plan_names_every_place_once_and_in_order():
    places = plan(RunConfig())
    assert len(set(places)) == len(places)
    assert places[:3] == ["problems", "init", "warm-start"]
    assert (
        places.index("round-00/sample")
        < places.index("round-00/actor")
        < places.index("evaluate/warm_start/t0.6/sample")
    )


# ------------------------------------------------------------------------------------------------- a stranger's stage

COUNT_TOKENS = '''
"""A stage that a stranger adds: how many tokens each program has."""

from coderl import tables
from coderl.stages.rollouts import programs_of
from coderl.stages.stage import Facts, Programs, Work, chunks, stage
from coderl.types import Program


@stage
def count_tokens(work: Work, *, programs: Programs, at_least: int = 1) -> Facts:
    """Count the tokens of programs.

        coderl count-tokens --programs runs/mbpp/sample --out runs/mbpp/counted

    Args:
        at_least: Shorter programs do not count.
    """
    table = tables.PartedTable(work.folder / "counted", Program)
    for index, part in work.parts(table, chunks(programs_of(programs), 2), "counting"):
        table.write(index, [p for p in part if len(p.tokens) >= at_least])
    return {"num_tokens": sum(len(p.tokens) for p in table.rows())}
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "count_tokens.py").write_text(COUNT_TOKENS)
    assert COUNT_TOKENS.count("\n") < 40
    monkeypatch.setattr(coderl.stages, "__path__", [*coderl.stages.__path__, str(tmp_path / "added")])
    rows = [Program("p", i, "", tokens=(1,) * i) for i in range(5)]
    tables.PartedTable(tmp_path / "drawn" / "programs", Program).write(0, rows)
    yield tmp_path
    sys.modules.pop("coderl.stages.count_tokens", None)


def test_a_stage_in_one_file_is_a_command_resumes_and_refuses(stranger: Path, capsys: pytest.CaptureFixture[str]):
    """1 + 2 + 3 + 4 tokens; with at least 3: 3 + 4."""
    main(["--help"])
    assert "count-tokens" in capsys.readouterr().out
    command = ["count-tokens", "--programs", str(stranger / "drawn"), "--out", str(stranger / "counted")]
    main(command)
    assert "num_tokens  10" in capsys.readouterr().out
    (stranger / "counted" / "counted" / "part-000001.parquet").unlink()
    main(command)  # what was lost is done again
    assert records.facts_of(stranger / "counted")["num_tokens"] == 10
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--at-least", "3"])
    assert stopped.value.code == 2
    assert "at_least: 1 then, 3 now" in capsys.readouterr().err
    tables.PartedTable(stranger / "drawn" / "programs", Program).write(0, [Program("q", 0, "", tokens=(1,))])
    with pytest.raises(SystemExit):
        main(command)
    assert "made with other inputs (programs:" in capsys.readouterr().err


def test_a_stage_stands_in_a_run_with_its_place(stranger: Path, capsys: pytest.CaptureFixture[str]):
    count_tokens = importlib.import_module("coderl.stages.count_tokens").count_tokens
    run = Run(stranger / "run", RunConfig(), Reporter(), total=7)
    out = run.do(count_tokens, "round-00/counted", programs=stranger / "drawn", at_least=3)
    assert "[1/7] round-00/counted" in capsys.readouterr().err
    assert out == stranger / "run" / "round-00" / "counted"
    assert json.loads((out / records.MANIFEST).read_text())["facts"]["num_tokens"] == 7


class OneOfTwo(Group):
    """A process that is dealt every other part, and finds the others there."""

    def __init__(self, rank: int):
        self.rank = rank

    def deal(self, items: Any, show: Any) -> typing.Iterator[Any]:
        for number, item in list(enumerate(items))[self.rank :: 2]:
            show(number)
            yield item


def test_processes_share_the_parts(stranger: Path):
    """Five programs in parts of two: process 0 of 2 writes parts 0 and 2, process 1 part 1."""
    stage = importlib.import_module("coderl.stages.count_tokens").count_tokens
    for rank, written in ((0, ["part-000000.parquet", "part-000002.parquet"]), (1, ["part-000001.parquet"])):
        folder = stranger / f"of-{rank}"
        stage.function(Work(folder, QUIET, OneOfTwo(rank)), programs=stranger / "drawn")
        assert sorted(p.name for p in (folder / "counted").iterdir()) == written


def test_progress_counts_within_parts_and_what_others_have_done():
    """Parts of 3, 4 and 5 programs, the first written before: 3 of 12, then what this process and another do."""
    seen: list[int] = []

    class Shown(Reporter):
        @contextmanager
        def progress(self, title: str, **given: Any) -> typing.Iterator[Bar]:
            assert (given["total"], given["done"], given["unit"]) == (12, 3, "programs")
            bar = Bar(self, title, 12, "programs", 3)
            bar.show = lambda: seen.append(bar.done)
            yield bar

    class Table(tables.PartedTable):
        def has(self, index: int) -> bool:
            return index == 0

    work = Work(Path(), Shown(quiet=True), OneOfTwo(1))
    for _ in work.parts(Table(Path(), Program), ["a", "b", "c"], "running", "programs", [3, 4, 5]):
        work.did(2)
    assert seen == [7, 9, 12]


# -------------------------------------------------------------------------------------------------------------- locks


def test_a_folder_in_use_is_refused_and_names_who_has_it(tmp_path: Path):
    with records.locked(tmp_path / "run"):
        with pytest.raises(InputError, match=r"in use by process \d+ on .+ since "), records.locked(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / records.LOCK).exists()
    with records.locked(tmp_path / "run"):  # and is free again
        pass
    assert not (tmp_path / "run").exists()


def test_a_recipe_takes_lists_as_people_give_them(tmp_path: Path):
    recipe = tmp_path / "r.toml"
    recipe.write_text("")
    for flags in (["1", "5"], ["1,5"], ["[1, 5]"]):
        assert load_recipe(recipe, ["--evaluation.ks", *flags]).evaluation.ks == (1, 5)
    assert load_recipe(recipe, ["--evaluation.ks=[3]"]).evaluation.ks == (3,)
    assert load_recipe(recipe, ["rounds.num_rounds=3", "--repair", "none"]).rounds.num_rounds == 3
    with pytest.raises(InputError, match=r"Did you mean --warm-start\.optim\.learning-rate"):
        load_recipe(recipe, ["--warm-start.learning-rate", "1e-3"])
