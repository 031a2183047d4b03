"""CodeXGLUE's metrics by hand, by sacreBLEU, and by the figures that public evaluators print."""

import json
import math
from pathlib import Path

import pytest

from coderl.cli import main
from coderl.codexglue import metrics as codexglue
from coderl.codexglue.metrics import bleu, exact_match, smoothed_bleu
from coderl.types import InputError

PREDICTED = ["public int add ( int a , int b ) { return a + b ; }", "return x ;", "void f ( ) { }", "a b c d e f"]
WANTED = [
    "public int sum ( int a , int b ) { return a + b ; }",
    "return x ;",
    "void f ( ) { g ( ) ; }",
    "a b x d e f g",
]


def test_smoothed_bleu_by_hand():
    # 'returns the sum .' for 'returns the sum of two numbers .': 4/4, then with one added 3/4, 2/3, 1/2;
    # penalty exp(1 - 8/5)
    expected = 100 * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * math.exp(1 - 8 / 5)
    assert smoothed_bleu(["Returns the sum."], ["Returns the sum of two numbers."]) == pytest.approx(expected)
    # one text that matches wholly and one that shares no word
    assert smoothed_bleu(["a b c d", "x"], ["a b c d", "y"]) == pytest.approx(50.0)
    assert smoothed_bleu([""], ["y"]) == pytest.approx(100 * math.exp(-1))  # the evaluator's own oddity


def test_smoothed_bleu_of_a_short_text():
    # one word of one: 1/1 and then (0+1)/(0+1) thrice; penalty exp(1 - 3/2)
    assert smoothed_bleu(["max"], ["max value"]) == pytest.approx(100 * math.exp(-0.5))


def test_signs_are_words_and_case_is_none():
    assert smoothed_bleu(["Foo(BAR).baz"], ["foo ( bar ) . BAZ"]) == pytest.approx(100.0)
    assert codexglue._words("don't x_y 3.14,a") == ["don", "'", "t", "x", "_", "y", "3", ".", "14", ",", "a"]


def test_corpus_bleu_by_hand():
    # 'a b c d' for 'a b c e': 3/4 2/3 1/2 0/1; with one added to each: 4/5 3/4 2/3 1/2; no penalty
    assert bleu(["a b c d"], ["a b c e"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["a b c d"], ["a b c d e f g h"]) == pytest.approx(100 * math.exp(-1))
    assert bleu([""], ["a"]) == 0.0
    assert bleu(["a b c d"], ["a b c e"], smooth=False) == 0.0


def test_corpus_bleu_without_smoothing_is_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    assert bleu(PREDICTED, WANTED, smooth=False) == pytest.approx(scorer.corpus_score(PREDICTED, [WANTED]).score)


def test_smoothed_bleu_is_sacrebleu_with_add_1_but_for_the_penalty():
    sacrebleu = pytest.importorskip("sacrebleu")
    scorer = sacrebleu.BLEU(tokenize="none", smooth_method="add-k", smooth_value=1, force=True)
    for prediction, reference in zip(PREDICTED, WANTED, strict=True):
        if len(prediction.split()) == len(reference.split()):  # where both penalties are none
            theirs = scorer.corpus_score([prediction], [[reference]]).score
            assert smoothed_bleu([prediction], [reference]) == pytest.approx(theirs)


def test_exact_match():
    assert exact_match(["a b ", "a  b"], ["a b", "a b"]) == 50.0
    assert exact_match(["a b ", "a  b"], ["a b", "a b"], ignores_spaces=True) == 100.0


def test_codebleu_of_the_packages_own_example():
    pytest.importorskip("codebleu")
    found = codexglue.codebleu(
        ["def add ( a , b ) :\n return a + b"], ["def sum ( first , second ) :\n return second + first"], "python"
    )
    assert found["codebleu"] == pytest.approx(55.37, abs=0.01)  # printed in its README
    assert found["ngram_match"] == pytest.approx(10.41, abs=0.01)
    assert (found["syntax_match"], found["dataflow_match"]) == (100.0, 100.0)


@pytest.mark.parametrize("language", ["java", "c_sharp"])
def test_three_packages_agree_on_the_same_cases(language):
    """CodeBLEU's n-gram part is BLEU: the package's, sacreBLEU's and ours; CodeBLEU is the mean of its four parts.

    A text of three tokens is left out: in the package it counts one 4-gram that it does not have.
    """
    pytest.importorskip("codebleu")
    sacrebleu = pytest.importorskip("sacrebleu")
    written, wanted = zip(
        *(pair for pair in zip(PREDICTED, WANTED, strict=True) if pair[0] != "return x ;"), strict=True
    )
    found = codexglue.codebleu(written, wanted, language)
    theirs = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(written, [wanted]).score
    assert found["ngram_match"] == pytest.approx(theirs) == pytest.approx(bleu(written, wanted, smooth=False))
    parts = [found[name] for name in ("ngram_match", "weighted_ngram_match", "syntax_match", "dataflow_match")]
    assert found["codebleu"] == pytest.approx(sum(parts) / 4)
    assert 20 < theirs < 80
    assert codexglue.codebleu(WANTED[:1], WANTED[:1], language)["codebleu"] == pytest.approx(100.0)


# ----------------------------------------------------------------------------------------------------------- files


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_code_to_text_pairs_by_id(tmp_path):
    references = write(
        tmp_path / "test.jsonl",
        {"code": "x", "docstring_tokens": ["Adds", "two", "\n", "numbers", "."]},
        {"idx": 1, "docstring_tokens": ["Stops", "."]},
    )
    written = write(tmp_path / "out", "1\tStops.", "0\tadds two numbers.")
    assert codexglue.read_summaries(written, references) == (
        ["adds two numbers.", "Stops."], ["Adds two numbers .", "Stops ."]
    )  # fmt: skip
    assert codexglue.evaluate("code-to-text", written, references) == {"smoothed_bleu": pytest.approx(100.0)}
    gold = write(tmp_path / "gold", "0\tadds two numbers .", "1\tgoes on .")
    score = codexglue.evaluate("code-to-text", written, gold)["smoothed_bleu"]
    # 'stops .' for 'goes on .': 1/2, then 1/2, 1/1, 1/1; penalty exp(1 - 4/3)
    assert score == pytest.approx((100 + 100 * (1 / 4) ** 0.25 * math.exp(-1 / 3)) / 2)


def test_text_to_code_reads_concode(tmp_path):
    references = write(tmp_path / "test.json", {"nl": "n", "code": "int f ( )  { }"}, {"nl": "n", "code": "a b c d"})
    written = write(tmp_path / "out", "int f ( ) { }", "a b c e")
    found = codexglue.evaluate("text-to-code", written, references, with_codebleu=False)
    assert found["exact_match"] == 50.0
    # 9 of 10, then 6 of 8, 5 of 6 ... by hand: unigrams 6+3 of 10, bigrams 5+2 of 8, trigrams 4+1 of 6, 3+0 of 4
    assert found["bleu"] == pytest.approx(100 * (10 / 11 * 8 / 9 * 6 / 7 * 4 / 5) ** 0.25)


def test_the_command(tmp_path, capsys):
    pytest.importorskip("codebleu")
    written, wanted = write(tmp_path / "out", *PREDICTED[:3]), write(tmp_path / "ref", *WANTED[:3])
    main(["evaluate-codexglue", "--task", "refinement", "--predictions", str(written), "--references", str(wanted),
          "--json", str(tmp_path / "s.json")])  # fmt: skip
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["exact_match"] == pytest.approx(100 / 3)
    assert set(found) >= {"bleu", "codebleu", "syntax_match", "dataflow_match"}
    assert "33.33" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "predictions", "references", "line"),
    [
        ("refinement", "a\n", "a\nb\n", "1 predictions for 2 references"),
        ("refinement", "", "", "0 predictions"),
        ("text-to-code", "a\n", '{"nl": "x"}\n', "field 'code'"),
        ("text-to-code", "a\n", '{"code": 3}\n', "field 'code'"),
        ("text-to-code", "a\n", "[" * 100_000, "nested too deeply"),
        ("text-to-code", "a\n", '{"code": "tr', "not valid JSON"),
        ("code-to-text", "0\ta\n0\tb\n", "0\ta\n", "stands twice"),
        ("code-to-text", "1\ta\n", "0\ta\n", "no prediction for 1 of 1"),
        ("code-to-text", "", "", "no prediction for 0 of 0"),
        ("code-to-text", "\xff", "0\ta\n", "not UTF-8"),
    ],
)
def test_bad_files_are_one_line_and_status_2(tmp_path, capsys, task, predictions, references, line):
    (tmp_path / "p").write_text(predictions, "latin-1")
    (tmp_path / "r").write_text(references)
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate-codexglue", "--task", task, "--predictions", str(tmp_path / "p"), "--references",
              str(tmp_path / "r"), "--no-codebleu"])  # fmt: skip
    assert stopped.value.code == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert line in error


def test_jsonl_without_docstrings_is_refused(tmp_path):
    written = write(tmp_path / "out", "0\ta")
    for record in ({"code": "x"}, {"idx": [], "docstring_tokens": []}, {"docstring_tokens": "text"}):
        with pytest.raises(InputError, match=r"test.jsonl:1"):
            codexglue.read_summaries(written, write(tmp_path / "test.jsonl", record))


def test_a_language_without_its_grammar_is_one_line(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith(("codebleu", "tree_sitter")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"coderl\[codexglue\]"):
        codexglue.codebleu(["a"], ["a"], "java")
