"""Figures as SVG: what is drawn and that names stay readable."""

import re

import pytest

from coderl.evaluation import figures
from coderl.evaluation.figures import Curve, DotRow
from coderl.evaluation.pass_at_k import estimate


def test_a_chart_of_two_curves_names_them_and_draws_them_on_common_axes():
    ours, theirs = Curve("ours", ((0.0, 10.0), (50.0, 40.0))), Curve("theirs", ((0.0, 10.0), (50.0, 40.0)))
    chart = str(figures.line_chart("solved, %", (ours, theirs), "tokens"))
    assert chart.count("class='curve'") == chart.count("class='control-curve'") == 1
    assert all(f">{name}</text>" in chart for name in ("solved, %", "ours", "theirs", "tokens"))
    heights = [float(re.search(rf"y='([\d.]+)'[^>]*>{name}<", chart)[1]) for name in ("ours", "theirs")]
    assert abs(heights[0] - heights[1]) >= 12  # names of curves with one end do not overlap
    assert "no finite value" in str(figures.line_chart("t", (), "x"))


def test_a_chart_of_one_curve_needs_no_name_and_more_than_forty_points_get_a_running_mean():
    few, many = (
        Curve("loss", ((1.0, 2.0), (2.0, 1.0))),
        Curve("loss", tuple((float(i), float(i % 2)) for i in range(41))),
    )
    assert str(figures.line_chart("loss", [few], "step")).count("<path") == 1
    assert "class='raw'" in str(figures.line_chart("loss", [many], "step"))
    assert str(figures.line_chart("loss", [Curve("loss", ((1.0, 2.0),))], "step")).count("<circle") == 1


def test_the_bar_of_a_dot_spans_its_interval():
    """0 of 6: from 0 to 39.0% of a panel of 740 units for 0..40."""
    row = DotRow("model", "greedy", False, {"all": estimate([0.0] * 6)})
    chart = str(figures.dot_chart([row], ["all"], "%"))
    (whisker,) = re.findall(r"<line x1='([\d.]+)' y1='[\d.]+' x2='([\d.]+)' y2='[\d.]+' class='whisker'/>", chart)
    assert float(whisker[1]) - float(whisker[0]) == pytest.approx(39.03 / 40 * 740, abs=1)
