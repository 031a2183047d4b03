"""What finished runs took beside what `coderl run --dry-run` says that they take.

    python benchmarks/cost.py runs/one runs/other

CPU-seconds are those of the stages and, apart, of the sandbox. Ratios are of what was reckoned to what was.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from coderl import records
from coderl.recipe import RECIPE, RunConfig
from coderl.stages import cost
from coderl.stages.split_problems import kept_splits


def main() -> None:
    rates = cost.Rates.load()
    for folder in map(Path, sys.argv[1:]):
        config = RunConfig.model_validate(records.read_json(folder / RECIPE))
        weights = cost.num_weights_of(config)
        assert weights is not None
        lengths = cost.lengths_of(config, kept_splits(folder / "problems"), rates)
        found = cost.total(cost.costs(cost.amounts(config, lengths, weights, rates), rates, "CPU core", weights))
        reckoned = {
            "programs": found.amount.num_programs,
            "tokens drawn": found.amount.num_drawn_tokens,
            "tokens trained on": found.amount.num_trained_tokens,
            "model CPU-s": found.model_s,
            "sandbox CPU-s": found.sandbox_s,
            "bytes": found.amount.num_bytes,
        }
        real = took(folder)
        for name, value in reckoned.items():
            print(json.dumps({"run": folder.name, "what": name, "reckoned": round(value or 0), "was": round(real[name]),
                              "ratio": round((value or 0) / max(real[name], 1e-9), 2)}))  # fmt: skip


def took(folder: Path) -> dict[str, float]:
    """Return what the manifests of a run say that it did."""
    facts = {m.parent.relative_to(folder).as_posix(): records.facts_of(m.parent) for m in folder.rglob("manifest.json")}
    drawn = [
        f for name, f in facts.items() if (name.endswith("/sample") and "num_tokens" in f) or name.endswith("/more")
    ]
    size = sum(p.stat().st_size for p in records.visible_files(folder) if "problems" not in p.parts)
    return {
        "programs": sum(f.get("num_programs", 0) + f.get("num_repaired", 0) for f in drawn),
        "tokens drawn": sum(f["num_tokens"] for f in drawn),
        "tokens trained on": sum(each.get("num_trained_tokens", 0) for f in facts.values() for each in trainings(f)),
        "model CPU-s": sum(f["cpu_s"] for name, f in facts.items() if name != "problems"),
        "sandbox CPU-s": sum(f.get("sandbox_cpu_s", 0) for f in facts.values()),
        "bytes": size,
    }


def trainings(facts: dict[str, object]) -> list[dict[str, float]]:
    return [facts, *(value for value in facts.values() if isinstance(value, dict))]  # type: ignore[list-item]


if __name__ == "__main__":
    main()
