"""Commands for CodeXGLUE, the benchmark of the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table

from coderl import records
from coderl.cli.apps import app
from coderl.codexglue.pairs import Language, Split, Task
from coderl.codexglue.settings import CodexglueConfig, codexglue_config
from coderl.stages.console import Reporter
from coderl.types import InputError

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@app.command(name="finetune-codexglue")
def finetune_codexglue(
    *,
    task: Task,
    actor: str,
    data: Path,
    out: Path,
    language: Language = "java",
    limit: Count | None = None,
    config: Annotated[CodexglueConfig, Parameter(name="*", show_default=False)] = CodexglueConfig(),
) -> None:
    r"""Fine-tune a model on a task of CodeXGLUE, until its validation loss no longer falls; a killed command continues.

    Settings that are not given are those of CodeT5-base for the task.

        coderl finetune-codexglue --task refinement --actor Salesforce/codet5-base --data data/refine/small \
            --out runs/refine
        coderl finetune-codexglue --task code-to-code --language c_sharp --actor models/tiny --data data/translate \
            --out runs/java-cs --optim.num-epochs 10 --optim.patience 2 --optim.checkpoint-every-steps 200

    Args:
        task: What is learned: a summary of code, a method from a description, another language, a repaired method.
        actor: A model folder or hub name, encoder-decoder or decoder-only.
        data: The folder of the task's files, as published: of one language, or of one size of refinement.
        out: The stage's folder; the model goes to OUT/model.
        language: What code-to-code writes: `c_sharp` or `java`.
        limit: Only the first so many pairs of each split.
    """
    from coderl.codexglue import stages as codexglue

    codexglue.finetune(
        out,
        actor=actor,
        task=task,
        data=data,
        language=language,
        config=codexglue_config(task, config),
        reporter=Reporter(),
        limit=limit,
    )


@app.command(name="evaluate-codexglue")
def evaluate_codexglue(
    *,
    task: Task,
    predictions: Path | None = None,
    references: Path | None = None,
    model: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    split: Split = "test",
    num_beams: Count = 1,
    max_source_tokens: Count | None = None,
    max_target_tokens: Count | None = None,
    limit: Count | None = None,
    language: Language = "java",
    codebleu: bool = True,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    r"""Print CodeXGLUE's scores, in percent as its evaluators have them, of a model or of a file of predictions.

        coderl evaluate-codexglue --task refinement --model runs/refine/model \
            --data data/refine/small --out runs/refined
        coderl evaluate-codexglue --task code-to-text --predictions test.output --references test.jsonl
        coderl evaluate-codexglue --task code-to-code --language c_sharp --predictions out.cs --references test.cs

    Args:
        task: `code-to-text` (smoothed BLEU-4), or one that writes code (exact match, BLEU, CodeBLEU).
        predictions: One a line; `ID<tab>text` for code-to-text.
        references: The data set's file: JSON lines, or one a line.
        model: In place of the two: the model folder or hub name that writes the predictions.
        data: The folder of the task's files, with `--model`.
        out: The stage's folder, with `--model`; the predictions go to OUT/predictions.txt.
        split: Which pairs, with `--model`.
        num_beams: 1 takes the likeliest token each time; the published figures are of 10 beams.
        max_source_tokens: What the model reads; CodeT5's for the task by default.
        max_target_tokens: What it writes at most; CodeT5's for the task by default.
        limit: Only the first so many pairs, with `--model`.
        language: Of the code, for CodeBLEU; with `--model`, also what code-to-code writes.
        codebleu: Also compute CodeBLEU; it needs `pip install 'coderl[codexglue]'`.
        json_file: Also write the scores here.
    """
    from coderl.codexglue import metrics

    if predictions is not None and references is not None and model is None:
        scores = metrics.evaluate(task, predictions, references, language=language, with_codebleu=codebleu)
    elif model is not None and data is not None and out is not None and predictions is None and references is None:
        from coderl.codexglue import stages as codexglue

        lengths = {"max_source_tokens": max_source_tokens, "max_target_tokens": max_target_tokens}
        given = CodexglueConfig.model_validate({name: n for name, n in lengths.items() if n is not None})
        written, wanted = codexglue.predict(
            out,
            model=model,
            task=task,
            data=data,
            split=split,
            language=language,
            config=codexglue_config(task, given),
            num_beams=num_beams,
            reporter=Reporter(),
            limit=limit,
        )
        scores = metrics.score(task, written, wanted, language=language, with_codebleu=codebleu)
    else:
        raise InputError("give either --predictions and --references, or --model, --data and --out")
    table = Table("metric", "%")
    for name, value in scores.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    if json_file:
        records.write_json(json_file, scores)
