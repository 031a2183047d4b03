"""The page: one file, nothing fetched, and nothing a program says is taken for markup."""

from pathlib import Path

from coderl.evaluation import report
from coderl.evaluation.pass_at_k import Interval, ProblemCounts, summarise
from coderl.evaluation.report import (
    Contrast,
    HeadlineRow,
    OutcomeDistribution,
    ReportData,
    SampleProgram,
)
from coderl.types import Outcome

HOSTILE = "<script>alert(1)</script>"


def example(text: str = "print(1)") -> ReportData:
    """One model that solves one of two problems with each of two samples."""
    summary = summarise([ProblemCounts("a", "introductory", 2, 2), ProblemCounts("b", "interview", 2, 0)], [1])
    sample = SampleProgram(
        text, "interview", text, "round 1", "sample", Outcome.FAILED_TEST, ((text, 0.25), ("\n", None)), message=text
    )
    return ReportData(
        title=text,
        abstract=text,
        rows=(HeadlineRow(text, text, summary),),
        contrasts=(Contrast(text, text, "pass@1", 0.25, Interval(0.25, 0.1, 0.4)),),
        outcomes=(OutcomeDistribution(text, {Outcome.PASSED_TEST: 2, Outcome.FAILED_TEST: 2}),),
        samples=(sample,),
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


def test_the_headline_says_whether_the_interval_leaves_zero_out():
    assert "No clear difference" not in report.finding(example())
    data = example()
    unclear = Contrast("a", "b", "pass@1", 0.25, Interval(0.05, -0.1, 0.2))
    assert "No clear difference" in report.finding(
        ReportData(title="", abstract="", rows=data.rows, contrasts=(unclear,))
    )


def test_the_terminal_gets_a_row_a_model():
    assert report.closing_table(example()).row_count == 1


def test_a_reliability_chart_has_a_dot_for_each_bin_with_programs():
    from coderl.evaluation.figures import reliability_chart

    chart = reliability_chart("critic", [(0.5, 1.0, 3), (0.0, 0.0, 0)])
    assert chart.count("<circle") == 1
    assert "cx='144.0' cy='24.0'" in chart  # 44 + 200 / 2 across, at the very top
