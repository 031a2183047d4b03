"""Do pretrained models go on with held-out code in Python that parses?

    python benchmarks/pretraining.py --corpus data/corpus --out runs/parsable \
        --models before=runs/pretrain/masked_span/model after=runs/pretrain/model

From each of so many files of the corpus's validation projects one function or class of at least eight lines is taken.
A model reads the first half of the statements of its body (fewer if they are over 128 tokens) and writes on, greedily
and by sampling. The last line counts only if the model ended the sequence itself. A continuation parses if `ast.parse`
takes the given lines with the first m of its n complete lines, m at least half of n, and one of the m is not blank and
no comment: what may be cut is a statement that the token limit left open. `whole` asks for m = n; `begins` only for
such an m, which tells models apart that are too weak for more. The authors' own continuation, cut to as many tokens, is
measured in the same way. A model that has learned masked spans alone is also asked in its own format: what
`<extra_id_0>` after the given lines stands for. Differences are of the last model's samples minus the first's best way,
with intervals of paired differences over the functions.
"""

import argparse
import ast
import hashlib
import random
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import cast

import torch

from coderl import records, tables
from coderl.engines import transformers as sampling
from coderl.engines.settings import SamplingConfig
from coderl.evaluation.pass_at_k import paired_difference
from coderl.models.lm import LanguageModel
from coderl.training.packed import CorpusFile

Scores = dict[str, dict[str, float]]
"""Measure -> function's file -> mean over its continuations."""
AUTHORS = "the authors"
MIN_LINES = 8
MAX_GIVEN_TOKENS = 128


@dataclass(frozen=True)
class Task:
    """The head of a function, and what its author wrote after it."""

    path: str
    given: str
    rest: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-files", type=int, default=100)
    parser.add_argument("--num-samples", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[tuple[str, str], Scores] = {}
    at = f"T {arguments.temperature}"
    for name, folder in (pair.split("=", 1) for pair in arguments.models):
        model = LanguageModel.load(folder)
        tasks = tasks_of(arguments.corpus, model, arguments.num_files)
        table.setdefault((AUTHORS, f"{len(tasks)} functions"), score(tasks, authors(model, tasks, arguments)))
        config = SamplingConfig(temperature=arguments.temperature, max_new_tokens=arguments.max_new_tokens)
        prompts = [model.encode_prompt(task.given) for task in tasks]
        started = time.process_time()
        drawn = [[tokens] for tokens in sampling.greedy(model, prompts, config=config)]
        table[name, "greedy"] = score(tasks, texts(model, drawn))
        drawn = sampling.sample(model, prompts, num_samples=arguments.num_samples, config=config, seed=0)
        written = texts(model, drawn)
        table[name, at] = score(tasks, written)
        records.write_jsonl(
            arguments.out / f"{name}.jsonl",
            (
                {"path": t.path, "given": t.given, "written": [w for w, _ in ws]}
                for t, ws in zip(tasks, written, strict=True)
            ),
        )
        table[name, f"{at}, span format"] = score(tasks, spans(model, tasks, arguments, config))
        print(f"{name}: {time.process_time() - started:.0f} CPU-s")
    print("| continuations | % that parse | % whole | % that begin with a statement | % of lines kept | lines each |")
    print("|---|---|---|---|---|---|")
    means = {", ".join(row): {key: fmean(of.values()) for key, of in scores.items()} for row, scores in table.items()}
    for name, row in means.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
    records.write_json(arguments.out / "parsable.json", {"means": means, "differences": differences(table, at)})


def differences(table: dict[tuple[str, str], Scores], at: str) -> dict[str, dict[str, float]]:
    """Print and return, for each measure, the last model's samples minus the best of the first model's rows."""
    models = [model for model, _ in table if model != AUTHORS]
    first, last = [row for row in table if row[0] == models[0]], (models[-1], at)
    found = {}
    for key in ("parses", "begins"):
        best = max(first, key=lambda row: fmean(table[row][key].values()))
        ours, theirs = ({name: value / 100 for name, value in table[row][key].items()} for row in (last, best))
        interval = paired_difference(ours, theirs)
        low, high = 100 * interval.low, 100 * interval.high
        found[key] = {"mean": 100 * interval.mean, "low": low, "high": high}
        bounds = f"({low:+.1f} to {high:+.1f})"
        print(f"{key}: {', '.join(last)} minus {', '.join(best)}: {100 * interval.mean:+.1f} {bounds}")
    return found


def tasks_of(corpus: Path, model: LanguageModel, num_files: int) -> list[Task]:
    """One function or class of each file, the files in an order that their names decide."""
    files = sorted(tables.read_table(corpus / "validation", CorpusFile), key=lambda f: _digest(f.path))
    tasks = []
    for file in files:
        heads = [head for node in ast.parse(file.text).body if (head := _head(node, file.text, model)) is not None]
        if heads:
            given, rest = random.Random(file.path).choice(heads)
            tasks.append(Task(file.path, given, rest))
        if len(tasks) == num_files:
            break
    return tasks


def _head(node: ast.stmt, text: str, model: LanguageModel) -> tuple[str, str] | None:
    """The lines up to the half of a function's or class's statements, and all that follows; None if it is too small."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or len(node.body) < 2:
        return None
    lines = text.split("\n")
    for count in range(len(node.body) // 2, 0, -1):
        end = node.body[count - 1].end_lineno
        given = "\n".join(lines[node.lineno - 1 : end]) + "\n"
        if len(model.encode_program(given)) <= MAX_GIVEN_TOKENS:
            is_large = (node.end_lineno or 0) - node.lineno + 1 >= MIN_LINES
            return (given, "\n".join(lines[end:])) if is_large else None
    return None


def texts(model: LanguageModel, drawn: list[list[tuple[int, ...]]]) -> list[list[tuple[str, bool]]]:
    """Each continuation, and whether the model ended it itself."""
    return [[(model.decode(tokens), tokens[-1:] == (model.eos_id,)) for tokens in row] for row in drawn]


def authors(model: LanguageModel, tasks: list[Task], arguments: argparse.Namespace) -> list[list[tuple[str, bool]]]:
    cut = [[tuple(model.encode_program(task.rest, arguments.max_new_tokens))] for task in tasks]
    return texts(model, cut)


def spans(
    model: LanguageModel, tasks: list[Task], arguments: argparse.Namespace, config: SamplingConfig
) -> list[list[tuple[str, bool]]]:
    """What the model puts in place of the first sentinel, which may not go on past the second."""
    first, second = cast(list[int], model.tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"]))
    leading, trailing = model.prompt_frame
    prompts = [[*leading, *model.encode_program(task.given)[:-1], first, *trailing] for task in tasks]
    prefixes = [(first,)] * len(prompts)
    drawn = sampling.sample(model, prompts, num_samples=arguments.num_samples, config=config, seed=0, prefixes=prefixes)
    rows = []
    for row in drawn:
        rows.append([])
        for tokens in row:
            is_ended = second in tokens or tokens[-1:] == (model.eos_id,)
            end = tokens.index(second) if second in tokens else len(tokens)
            rows[-1].append((model.decode(tokens[:end]), is_ended))
    return rows


def score(tasks: list[Task], written: list[list[tuple[str, bool]]]) -> Scores:
    """Shares in %, the mean over each function's continuations."""
    scores: Scores = {key: {} for key in ("parses", "whole", "begins", "kept", "lines")}
    for task, row in zip(tasks, written, strict=True):
        found = [_judge(task.given, text.split("\n") if is_ended else text.split("\n")[:-1]) for text, is_ended in row]
        for key, of in scores.items():
            of[task.path] = fmean(one[key] for one in found)
    return scores


def _judge(given: str, lines: list[str]) -> dict[str, float]:
    kept = num_parsed(given, lines)
    begins = any(line.strip() and not line.strip().startswith("#") for line in lines[:kept])
    return {
        "parses": 100.0 * (begins and 2 * kept >= len(lines)),
        "whole": 100.0 * (begins and kept == len(lines)),
        "begins": 100.0 * begins,
        "kept": 100.0 * kept / max(len(lines), 1),
        "lines": float(len(lines)),
    }


def num_parsed(given: str, lines: list[str]) -> int:
    """The most of the first lines that parse after the given ones."""
    for count in range(len(lines), 0, -1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                ast.parse(given + "\n".join(lines[:count]) + "\n")
                return count
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
    return 0


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


if __name__ == "__main__":
    main()
