"""What finished runs took beside what `coderl run --dry-run` says that they take.

    python benchmarks/cost.py runs/one runs/other

CPU-seconds are those of the stages and, apart, of the sandbox. Ratios are of what was reckoned to what was.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from coderl import records
from coderl.recipe import RECIPE, RunConfig
from coderl.stages import cost
from coderl.stages.split_problems import kept_splits

RANKS = ("evaluate/search/plain", "evaluate/search/searched")


def main() -> None:
    rates = cost.Rates.load()
    for folder in map(Path, sys.argv[1:]):
        config = RunConfig.model_validate(records.read_json(folder / RECIPE))
        weights = cost.num_weights_of(config)
        assert weights is not None
        lengths = cost.lengths_of(config, kept_splits(folder / "problems"), rates)
        whole = cost.costs(cost.amounts(config, lengths, weights, rates), rates, "CPU core", weights)
        done = [each for each in whole if all((folder / place / "manifest.json").exists() for place in places(each))]
        found, real = cost.total(done), took(folder, [place for each in done for place in places(each)])
        reckoned = {
            "programs": found.amount.num_programs,
            "tokens drawn": found.amount.num_drawn_tokens,
            "tokens trained on": found.amount.num_trained_tokens,
            "model CPU-s": found.model_s,
            "sandbox CPU-s": found.sandbox_s,
            "bytes": found.amount.num_bytes,
        }
        print(f"{folder.name}: {len(done)} of {len(whole)} stages done")
        for name, value in reckoned.items():
            was = real[name]
            print(f"  {name}: reckoned {value or 0:,.0f}, was {was:,.0f}, ratio {(value or 0) / max(was, 1e-9):.2f}")


def places(each: cost.Cost) -> list[str]:
    """Return the folders of the stages that a line of the dry run stands for."""
    place = each.amount.stage.split(" (")[0]
    if place == "evaluate/search/rank":
        return [f"{arm}/{stage}" for arm in RANKS for stage in ("sample", "execute", "rank")]
    examples = place.replace("/execute", "/examples")
    is_first = each.amount.num_runs and place.startswith("evaluate/") and "_cs" not in place and "t0.6" in place
    return [place, examples] if is_first else [place]


def took(folder: Path, chosen: list[str]) -> dict[str, float]:
    """Return what the manifests of some stages say that they did."""
    facts = {place: records.facts_of(folder / place) for place in dict.fromkeys(chosen)}
    drawn = [f for place, f in facts.items() if place.endswith("/sample") and "num_tokens" in f]
    files = (file for place in facts for file in records.visible_files(folder / place))
    return {
        "programs": sum(f.get("num_programs", 0) + f.get("num_repaired", 0) for f in drawn),
        "tokens drawn": sum(f["num_tokens"] for f in drawn),
        "tokens trained on": sum(each.get("num_trained_tokens", 0) for f in facts.values() for each in trainings(f)),
        "model CPU-s": sum(f["cpu_s"] for f in facts.values()),
        "sandbox CPU-s": sum(f.get("sandbox_cpu_s", 0) for f in facts.values()),
        "bytes": sum(file.stat().st_size for file in files),
    }


def trainings(facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [facts, *(value for value in facts.values() if isinstance(value, dict))]


if __name__ == "__main__":
    main()
