"""Commands for CodeXGLUE, the benchmark of the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from coderl import records
from coderl.codexglue.pairs import Language, Split, Task, read_pairs
from coderl.codexglue.settings import CodexglueTask
from coderl.stages.console import print_facts
from coderl.stages.stage import command
from coderl.types import InputError

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@command("evaluate-codexglue")
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
        asked = {"task": task, **{name: n for name, n in lengths.items() if n is not None}}
        how = {"split": split, "language": language, "num_beams": num_beams, "limit": limit}
        codexglue.predict_codexglue(out, model=model, data=data, config=CodexglueTask.model_validate(asked), **how)
        wanted = [pair.target for pair in read_pairs(task, data, split, language=language)[:limit]]
        written = codexglue.predictions_of(out)
        scores = metrics.score(task, written, wanted, language=language, with_codebleu=codebleu)
    else:
        raise InputError("give either --predictions and --references, or --model, --data and --out")
    print_facts({f"{name}, %": f"{value:.2f}" for name, value in scores.items()})
    if json_file:
        records.write_json(json_file, scores)
