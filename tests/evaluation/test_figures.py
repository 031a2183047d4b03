"""Figures as SVG: what is drawn and that names stay readable."""

import re

from coderl.evaluation import figures
from coderl.evaluation.figures import Curve


def test_an_anytime_chart_names_its_curves_and_draws_them_on_common_axes():
    ours, theirs = Curve("ours", ((0.0, 10.0), (50.0, 40.0))), Curve("theirs", ((0.0, 10.0), (50.0, 40.0)))
    chart = str(figures.anytime_chart("solved, %", (ours, theirs), "tokens"))
    assert chart.count("class='curve'") == chart.count("class='control-curve'") == 1
    assert all(f">{name}</text>" in chart for name in ("solved, %", "ours", "theirs", "tokens"))
    heights = [float(re.search(rf"y='([\d.]+)'[^>]*>{name}<", chart)[1]) for name in ("ours", "theirs")]
    assert abs(heights[0] - heights[1]) >= 12  # names of curves with one end do not overlap
    assert "nothing was drawn" in str(figures.anytime_chart("t", (), "x"))
