"""What counts as the same run: every weight and row, no time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coderl import records, tables
from coderl.evaluation.counts import JUDGED
from coderl.stages.train_actor import TrainedSample
from coderl.stages.verify import compare, num_steps_of, verify_resume
from coderl.types import (
    InputError,
    Outcome,
    Program,
    Verdict,
)


def write_run(folder: Path, *, weight=1.0, mean_return=0.5, loss=2.0, cpu_s=1.0, staleness=0, num_steps=1):
    """One stage with a weight, two tables, a log and a manifest."""
    stage = folder / "round-00" / "actor"
    (stage / "model").mkdir(parents=True)
    save_file({"w": torch.tensor([weight])}, stage / "model" / "model.safetensors")
    tables.PartedTable(stage / "samples", TrainedSample).write(0, [TrainedSample("a", 3, staleness, mean_return)])
    judged = (Program("a", 0, "").key, Verdict(Outcome.PASSED_TEST, cpu_s=cpu_s))
    tables.PartedTable(stage / "verdicts", JUDGED).write(0, [judged])
    (stage / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "cpu_s": cpu_s}) + "\n")
    hashes = {"metrics.jsonl": f"of {cpu_s}", "model/model.safetensors": "the same"}
    facts = {"num_steps": num_steps, "wall_s": cpu_s, "packed": {"cpu_s": cpu_s}}
    records.write_json(stage / records.MANIFEST, {"outputs": hashes, "facts": facts})
    return folder


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({}, ()),
        ({"cpu_s": 9.0}, ()),
        ({"weight": 1.0000001}, ("model/model.safetensors",)),
        ({"mean_return": 0.5000001}, ("samples/part-000000.parquet",)),
        ({"staleness": 1}, ("samples/part-000000.parquet",)),
        ({"loss": 2.0000001}, ("metrics.jsonl",)),
        ({"num_steps": 2}, ("manifest.json",)),
    ],
)
def test_any_weight_row_or_figure_counts_and_no_time_does(tmp_path, change, differing):
    (found,) = compare(write_run(tmp_path / "one"), write_run(tmp_path / "other", **change))
    assert (found.stage, found.num_files, found.differing) == ("round-00/actor", 5, differing)


def test_what_only_one_run_has_differs(tmp_path):
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other")
    (other / "round-00" / "actor" / "metrics.jsonl").unlink()
    assert compare(one, other)[0].differing == ("metrics.jsonl",)
    (found,) = compare(one, tmp_path / "absent")
    assert len(found.differing) == 5


def test_writes_are_counted(tmp_path):
    """Two tables, one line of metrics, one manifest."""
    assert num_steps_of(write_run(tmp_path / "one")) == 4
    assert num_steps_of(tmp_path / "absent") == 0


def test_a_folder_with_runs_is_refused(tmp_path):
    from importlib import resources

    from coderl.stages.console import Reporter

    write_run(tmp_path / "whole")
    recipe = resources.files("coderl") / "verify.toml"
    with pytest.raises(InputError, match="holds runs already"):
        verify_resume(Path(str(recipe)), [], tmp_path, num_kills=1, seed=0, reporter=Reporter(quiet=True))


@pytest.mark.slow
def test_a_run_killed_at_random_steps_ends_the_same(tmp_path):
    from importlib import resources

    from coderl.stages.console import Reporter

    recipe = Path(str(resources.files("coderl") / "verify.toml"))
    found = verify_resume(recipe, [], tmp_path, num_kills=3, seed=1, reporter=Reporter(quiet=True))
    assert len(found) > 20
    assert not any(row.differing for row in found)
