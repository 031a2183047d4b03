"""Commands that write the original's files and read its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from coderl import problems as data
from coderl.stages.stage import command


@command("export-original")
def export_original(
    out: Path,
    *,
    programs: Path,
    verdicts: Path | None = None,
    scores: Path | None = None,
    problems: str,
    split: str | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write programs, verdicts and scores of our stages as the files of the original's scripts.

        coderl export-original outputs --programs runs/x/sample --verdicts runs/x/execute --problems data/APPS/train

    Args:
        out: Where to write `codes`, `test_results` and `problems`.
        programs: The folder of a `sample` or `critic-sample` stage.
        verdicts: The folder of its `execute` stage.
        scores: The folder of its `score` stage.
        problems: Where the programs' problems are.
        split: Only this split of the problems.
        tokenizer: A folder with the actor's tokenizer; needed with `--scores`.
    """
    from coderl.interop import original_export, original_files

    number = original_export.export_files(
        out,
        problems=data.load(problems, split=split),
        programs=programs,
        verdicts=verdicts,
        scores=scores,
        encode_prompt=original_files.encoder(tokenizer, original_files.NUM_PROMPT_TOKENS) if tokenizer else None,
    )
    print(f"{number} problems in {out}")


@command("import-checkpoint")
def import_checkpoint(
    checkpoint: Path, *, kind: Literal["actor", "critic", "binary-critic"], tokenizer: Path, out: Path
) -> None:
    r"""Turn a checkpoint of the original's trainer into an actor's or a critic's folder, without running its pickle.

        coderl import-checkpoint exps/codet5-large_rl/final_checkpoint --kind actor --tokenizer models/codet5-base \
            --out models/coderl-770m

    Args:
        checkpoint: A folder with `pytorch_model.bin` or `model.safetensors`.
        kind: What it is; a critic judges as the original's does (`legacy`).
        tokenizer: A folder with CodeT5's tokenizer, or with its `*vocab.json` and `*merges.txt`.
        out: The model's folder.
    """
    from coderl.interop import original_checkpoint
    from coderl.models.codet5 import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    if kind == "actor":
        model, distance = original_checkpoint.load_actor(checkpoint, loaded)
        if distance is not None:
            print(f"its RL head, {100 * distance:.2f} % away from its own, is left out: the original generates without")
        model.save(out)
    else:
        original_checkpoint.load_critic(checkpoint, loaded, binary=kind == "binary-critic").save(out)
    print(out)
