"""The command that repairs one program of a person."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from coderl import records
from coderl.execution import ExecutionConfig
from coderl.stages import repair_program as repairing
from coderl.stages.stage import command
from coderl.types import InputError, Outcome


@command("repair")
def repair(
    file: Path,
    *,
    problem: str,
    problem_id: str | None = None,
    run_dir: Path = Path("runs/demo"),
    repair_model: Path | None = None,
    critic: Path | None = None,
    num_samples: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 20,
    seed: int = 0,
    execution: ExecutionConfig = ExecutionConfig(),
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Print what is wrong with a program, and repairs that pass the example tests; status 1 where none does.

        coderl repair solution.py --problem data/APPS/test/0000
        coderl repair solution.py --problem runs/demo/problems/test.jsonl --problem-id test-0003 --num-samples 50

    Args:
        file: The program.
        problem: A problem's folder, or a source of problems with `--problem-id`; only its example tests are used.
        problem_id: Which problem, where there are several.
        run_dir: The run whose repair model, binary critic and prompts are used.
        repair_model: In place of the run's.
        critic: A binary critic in place of the run's; it must share the repair model's tokenizer.
        num_samples: Repairs to draw.
        seed: Decides what is drawn.
        json_file: Also write the report here.
    """
    meant = repairing.read_problem(problem, problem_id)
    try:
        code = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a readable program ({error})") from None
    repairer, scorer = repairing.load_models(run_dir, repair_model, critic)
    found = repairing.repair_program(
        code, meant, repairer=repairer, critic=scorer, num_samples=num_samples, execution=execution, seed=seed
    )
    print(repairing.text_of(found, file.name))
    if json_file:
        records.write_json(json_file, records.plain(found))
    sys.exit(0 if found.repairs or found.result.outcome is Outcome.PASSED_TEST else 1)
