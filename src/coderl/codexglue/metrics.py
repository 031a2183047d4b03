"""CodeXGLUE: its files, and its metrics as its own evaluators compute them; all scores are percentages.

    task              predictions            references                  metrics
    code-to-text      ID<tab>text            JSON lines (docstring_tokens), or ID<tab>text     smoothed BLEU-4
    text-to-code      a program a line       JSON lines (code), CONCODE                        EM, BLEU, CodeBLEU
    code-to-code      a program a line       a program a line                                  EM, BLEU, CodeBLEU
    refinement        a program a line       a program a line                                  EM, BLEU, CodeBLEU

Source: Lu et al. 2021, "CodeXGLUE", and the evaluators in github.com/microsoft/CodeXGLUE, which Wang et al. 2021
("CodeT5") and CodeRL's tables 7 to 9 report.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coderl.codexglue.pairs import (
    Language,
    Task,
    read_code_to_text,
    read_concode,
    read_lines,
)
from coderl.problems.json_files import read_text
from coderl.types import InputError

Ngram = tuple[str, ...]
MAX_ORDER = 4


def evaluate(
    task: Task, predictions: Path, references: Path, *, language: Language = "java", with_codebleu: bool = True
) -> dict[str, float]:
    """Return the scores of a file of predictions by metric, in percent.

    Args:
        task: What the files are; it decides the metrics, see the module.
        predictions: What a model wrote.
        references: The data set's own file.
        language: Of the code, for CodeBLEU.
        with_codebleu: False leaves CodeBLEU, and the packages it needs, out.

    Raises:
        InputError: a file is malformed, the two do not pair, or CodeBLEU's packages are not installed.
    """
    if task == "code-to-text":
        return score(task, *read_summaries(predictions, references))
    written = read_lines(predictions)
    is_concode = task == "text-to-code"
    wanted = [pair.target for pair in read_concode(references)] if is_concode else read_lines(references)
    if len(written) != len(wanted) or not wanted:
        raise InputError(f"{predictions}: {len(written)} predictions for {len(wanted)} references of {references}")
    return score(task, written, wanted, language=language, with_codebleu=with_codebleu)


def score(
    task: Task,
    written: Sequence[str],
    wanted: Sequence[str],
    *,
    language: Language = "java",
    with_codebleu: bool = True,
) -> dict[str, float]:
    """Return the scores of what a model wrote for each text that was wanted, by metric, in percent; see `evaluate`.

    Raises:
        InputError: all that was wanted is empty, or CodeBLEU's packages are not installed.
    """
    if not any(wanted):
        raise InputError(f"all {len(wanted)} references are empty, as in test files whose answers are kept secret")
    if task == "code-to-text":
        return {"smoothed_bleu": smoothed_bleu(written, wanted)}
    is_spaced = task == "text-to-code"
    scores = {"exact_match": exact_match(written, wanted, ignores_spaces=is_spaced), "bleu": bleu(written, wanted)}
    return scores | (codebleu(written, wanted, language) if with_codebleu else {})


# ----------------------------------------------------------------------------------------------------------- files


def read_summaries(predictions: Path, references: Path) -> tuple[list[str], list[str]]:
    """Return the predicted and the true texts of code-to-text, paired by id.

    A reference file is CodeSearchNet's JSON lines (`docstring_tokens`; ids count from 0, or are `idx`) or CodeXGLUE's
    gold file, whose lines are `ID<tab>text` as those of the predictions. Predictions may also be lines without ids.

    Raises:
        InputError: a file is malformed, an id stands twice, or a reference has no prediction.
    """
    is_gold = references.suffix not in (".jsonl", ".gz")
    wanted = _by_id(references) if is_gold else {pair.name: pair.target for pair in read_code_to_text(references)}
    written = _by_id(predictions)
    missing = [name for name in wanted if name not in written]
    if missing or not wanted:
        raise InputError(f"{predictions}: no prediction for {len(missing)} of {len(wanted)} ids, such as {missing[:1]}")
    return [written[name] for name in wanted], list(wanted.values())


def _by_id(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines):
        name, tab, text = line.partition("\t")
        name, text = (name.strip(), text) if tab or name.strip().isdigit() else (str(number), line)
        if name in found:
            raise InputError(f"{path}:{number + 1}: the id {name[:20]!r} stands twice")
        found[name] = text
    return found


# --------------------------------------------------------------------------------------------------------- metrics


def exact_match(predictions: Sequence[str], references: Sequence[str], *, ignores_spaces: bool = False) -> float:
    """Return the percentage of programs that are the reference, blanks around them aside.

    Args:
        predictions: What a model wrote, one for each reference.
        references: What it should have written.
        ignores_spaces: Compare the tokens between blanks, as text-to-code does.
    """
    normal: Callable[[str], Any] = str.split if ignores_spaces else str.strip
    hits = sum(normal(p) == normal(r) for p, r in zip(predictions, references, strict=True))
    return 100.0 * hits / len(references)


def bleu(predictions: Sequence[str], references: Sequence[str], *, smooth: bool = True) -> float:
    """Return the corpus' BLEU-4 of tokens between blanks, in percent, one added to matches and totals of every order.

    Source: CodeXGLUE's `bleu.py` (smoothing of Lin and Och 2004); all its tasks that write code are scored so. With
        `smooth=False` it is Papineni et al. 2002.
    """
    counts = [_matches(p.split(), r.split()) for p, r in zip(predictions, references, strict=True)]
    extra = int(smooth)
    matches, totals = ([sum(c[part][n] for c in counts) + extra for n in range(MAX_ORDER)] for part in (0, 1))
    num_written, num_wanted = sum(len(p.split()) for p in predictions), sum(len(r.split()) for r in references)
    if not num_written or not all(matches):
        return 0.0
    precision = sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / MAX_ORDER
    return 100.0 * math.exp(precision + min(0.0, 1.0 - num_wanted / num_written))


def smoothed_bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean over texts of smoothed BLEU-4, in percent: the score of code-to-text.

    Source: CodeXGLUE's code-to-text evaluator, after Moses: lower case, signs split off, one added to matches and
        totals of orders 2 to 4 and to both lengths of the brevity penalty. An empty text is only penalised: nothing of
        nothing matches.
    """
    scores = [_sentence_bleu(_words(p), _words(r)) for p, r in zip(predictions, references, strict=True)]
    return 100.0 * sum(scores) / len(scores)


def _sentence_bleu(prediction: list[str], reference: list[str]) -> float:
    matches, totals = _matches(prediction, reference)
    if not matches[0] and totals[0]:
        return 0.0
    extra = [int(order > 0 or not totals[0]) for order in range(MAX_ORDER)]
    logs = [math.log((m + e) / (t + e)) for m, t, e in zip(matches, totals, extra, strict=True)]
    penalty = min(0.0, 1.0 - (len(reference) + 1) / (len(prediction) + 1))
    return math.exp(sum(logs) / MAX_ORDER + penalty)


def _matches(prediction: Sequence[str], reference: Sequence[str]) -> tuple[list[int], list[int]]:
    """How many n-grams of a prediction stand in the reference, and how many it has, for n = 1 to 4."""
    matches, totals = [], []
    for order in range(1, MAX_ORDER + 1):
        written, wanted = _ngrams(prediction, order), _ngrams(reference, order)
        matches.append((written & wanted).total())
        totals.append(written.total())
    return matches, totals


def _ngrams(tokens: Sequence[str], order: int) -> Counter[Ngram]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def _words(text: str) -> list[str]:
    """Runs of letters and digits, every other sign alone: what the evaluator's two rounds of splitting come to."""
    return re.findall(r"[^\W_]+|_|[^\s\w]", text.strip().lower())


def codebleu(predictions: Sequence[str], references: Sequence[str], language: Language) -> dict[str, float]:
    """Return CodeBLEU and its four parts (n-grams, weighted n-grams, syntax, data flow), in percent.

    Source: Ren et al. 2020, by the package `codebleu`, a maintained copy of CodeXGLUE's; each part weighs a quarter.
    Deviation: CodeXGLUE counts a data flow of nothing as 0, the package as 1.

    Raises:
        InputError: `codebleu` or its grammars are not installed.
    """
    try:
        import codebleu as package
    except ImportError:
        raise InputError("CodeBLEU needs packages that are not there: pip install 'coderl[codexglue]'") from None
    try:
        found = package.calc_codebleu([[r] for r in references], list(predictions), language)
    except ImportError as error:
        raise InputError(f"CodeBLEU of {language}: {error}") from None
    except RecursionError:
        raise InputError("CodeBLEU: a program is nested too deeply to parse") from None
    return {name.removesuffix("_score"): 100.0 * value for name, value in found.items()}
