"""The page: one file, nothing fetched, and nothing a program says is taken for markup."""

import html
from dataclasses import replace
from pathlib import Path

import pytest

from coderl.evaluation import report
from coderl.evaluation.illustrations import Illustration
from coderl.evaluation.pass_at_k import Estimate, ProblemCounts, summarise
from coderl.evaluation.report import Contrast, HeadlineRow, ReportData, Selection
from coderl.types import Outcome, ProgramKind

HOSTILE = "<script>alert(1)</script>"


def example(text: str = "print(1)") -> ReportData:
    """One model that solves one of two problems with each of two samples."""
    summary = summarise([ProblemCounts("a", "introductory", 2, 2), ProblemCounts("b", "interview", 2, 0)], [1])
    shown = Illustration(
        text, "interview", text, "round 1", ProgramKind.SAMPLE, 0, Outcome.FAILED_TEST, text, text, 1, (text, "\n"),
        (0.25, 0.5), 0.25,
    )  # fmt: skip
    return ReportData(
        title=text,
        abstract=text,
        rows=(HeadlineRow(text, text, summary),),
        contrasts=(Contrast(text, text, "pass@1", 0.25, Estimate(0.25, 0.1, 0.4, 2)),),
        outcomes=((text, {Outcome.PASSED_TEST: 2, Outcome.FAILED_TEST: 2}),),
        illustrations=(shown,),
        timings=((text, 2.0, 3.0),),
        settings={text: text},
        warnings=(text,),
        tables=(report.Table(text, text, (text,), ((text,),)),),
        reliability=((text, ((0.2, 0.25, 4), (0.0, 0.0, 0))),),
    )


def test_hostile_text_is_escaped_wherever_it_stands():
    page = report.render(example(HOSTILE))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_is_whole_and_shows_the_mean_in_percent(tmp_path: Path):
    report.write(tmp_path / "r.html", example())
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "50.0" in page


def test_nothing_is_fetched():
    page = report.render(example()).replace("http://www.w3.org/2000/svg", "")
    assert not any(word in page for word in ("http://", "https://", "@import", "url(", "src="))


def contrast(low: float, high: float) -> Contrast:
    return Contrast("a", "b", "pass@1", 0.25, Estimate((low + high) / 2, low, high, 9))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.3, "a beats b: pass@1 of 45.0% against 25.0%."),
        (-0.1, 0.2, "No clear difference between a and b"),
        (-0.2, -0.1, "a is worse than b: pass@1 of 10.0%"),
    ],
)
def test_the_headline_says_whether_the_interval_leaves_zero_out(low, high, words):
    assert words in report.finding(replace(example(), contrasts=(contrast(low, high),)))


def test_a_kept_warm_start_is_the_headline_and_no_difference_is():
    """Validation fell from 62.5% to 25%: what is new is that reinforcement learning was rejected."""
    fell = Selection("warm-start", {"warm-start": 0.625, "round-00": 0.25})
    data = replace(example(), selection=fell)
    said = "Reinforcement learning was rejected: on validation problems 62.5% of the warm start's programs pass, 25.0% "
    assert report.finding(data) == said + "after round-00."
    page = report.render(data)
    assert "paired over" not in page
    assert said in html.unescape(page)


def test_an_earlier_round_that_was_kept_leaves_the_headline_and_names_what_was_rejected():
    rose = Selection("round-00", {"warm-start": 0.2, "round-00": 0.5, "round-01": 0.25, "round-02": 0.125})
    assert (rose.rejected, rose.has_rejected_all) == (("round-01", "round-02"), False)
    assert "kept: on validation problems 50.0% of its programs pass, 25.0% after round-01 and 12.5%" in rose.sentence()
    assert "beats" in report.finding(replace(example(), selection=rose))
    last = Selection("round-01", {"warm-start": 0.2, "round-01": 0.5})
    assert (last.rejected, last.sentence()) == ((), "")


def test_one_difficulty_is_one_column():
    summary = summarise([ProblemCounts("a", "unknown", 2, 1), ProblemCounts("b", "unknown", 2, 0)], [1])
    page = report.render(replace(example(), rows=(HeadlineRow("m", "greedy", summary),)))
    assert "unknown" not in page
    assert "By difficulty" not in page
    assert "By difficulty" in report.render(example())


def test_values_stand_at_the_end_of_lines_and_a_last_line_end_makes_no_line():
    lines = report.lines_of(["x", " = 1\n", "y", "\n"], [0.1, 0.2, 0.3, 0.4])
    assert lines == [[("x", 0.1), (" = 1↵", 0.2)], [("y", 0.3), ("↵", 0.4)]]
    page = report.render(example())
    assert 'data-v="0.50"' in page
    assert 'class="line error" data-n="1"' in page


def test_the_terminal_gets_a_row_a_model_and_the_warnings():
    table = report.closing_table(replace(example("m"), warnings=("Nothing [bold]passed.",)))
    assert table.row_count == 1
    assert list(table.columns[2].cells) == ["50.0 (9.5 to 90.5)"]  # Wilson of 1 of 2
    assert "beats m: pass@1 of 50.0% against 25.0%." in table.caption
    assert "Nothing \\[bold]passed." in table.caption


def test_a_reliability_chart_has_a_dot_for_each_bin_with_programs():
    from coderl.evaluation.figures import reliability_chart

    chart = reliability_chart("critic", [(0.5, 1.0, 3), (0.0, 0.0, 0)])
    assert chart.count("<circle") == 1
    assert "cx='144.0' cy='24.0'" in chart  # 44 + 200 / 2 across, at the very top
