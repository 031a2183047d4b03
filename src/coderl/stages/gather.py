"""The stage that makes one list of programs of several, or of a search's candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from coderl import tables
from coderl.critic_sampling.candidates import NOT_IN_TABLES, Candidate
from coderl.stages.rollouts import programs_of
from coderl.stages.stage import Candidates, Facts, Programs, Work, stage
from coderl.types import InputError, Program, ProgramKind


@stage
def gather(work: Work, *, programs: Sequence[Programs] = (), candidates: Candidates | None = None) -> Facts:
    """Write the samples of several stages, or all candidates of a search, as the programs of one stage.

        coderl gather --programs runs/a/sample runs/b/sample --out runs/both
        coderl gather --candidates runs/demo/search --out runs/demo/searched

    The samples of a problem are numbered anew, in the order of the folders.

    Args:
        programs: Folders of `sample` stages.

    Raises:
        InputError: both are given, or neither.
    """
    if bool(programs) == (candidates is not None):
        raise InputError("give either --programs or --candidates")
    if candidates is not None:
        found = tables.read_table(candidates / "candidates", Candidate, without=NOT_IN_TABLES)
        rows = [candidate.program for candidate in found]
    else:
        rows, counts = [], Counter[str]()
        for program in (p for source in programs for p in programs_of(source) if p.kind is ProgramKind.SAMPLE):
            rows.append(replace(program, index=counts[program.problem_id]))
            counts[program.problem_id] += 1
    return {"num_programs": tables.PartedTable(work.folder / "programs", Program).write(0, rows)}
