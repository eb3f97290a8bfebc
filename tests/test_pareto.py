"""The plot of score against cost: its line joins the best methods, and no control, whose score is another thing."""

import pytest
from matplotlib import pyplot

from iic.report.pareto import score_against_cost

SECONDS = {"sobel": 1e-4, "centre": 1e-5, "lrp": 1e-3, "lrp_mean_map": 2e-3, "lime": 2e-2, "kernel_shap": 1e-2}
FORWARDS = {"sobel": 0, "centre": 0, "lrp": 1, "lrp_mean_map": 1, "lime": 1000, "kernel_shap": 2000}
SCORES = {"sobel": 0.3, "centre": 0.2, "lrp": 0.05, "lrp_mean_map": 0.4, "lime": 0.1, "kernel_shap": -0.02}


def report(scores):
    cells = {
        m: {"minus_best_control": None if value is None else {"value": value, "interval": [value - 0.1, value + 0.1]}}
        for m, value in scores.items()
    }
    tables = [
        {"direction": direction, "judge": "adapted", "fill": "mean_colour", "methods": cells}
        for direction in ("keep", "remove")
    ]
    methods = {m: {"seconds_per_image": SECONDS[m], "forwards_per_image": FORWARDS[m]} for m in scores}
    return {"headline": tables, "methods": methods, "kept_share": 0.2, "dataset": {"dataset": "digits"}}


def lines(axis):
    return [line.get_xydata().tolist() for line in axis.lines if line.get_drawstyle() == "steps-post"]


def test_the_line_joins_the_best_methods_by_cost():
    figure = score_against_cost(report(SCORES))
    seconds, forwards = figure.axes
    assert lines(seconds) == [[[1e-3, 0.05], [2e-2, 0.1]]] and lines(forwards) == [[[1, 0.05], [1000, 0.1]]]
    assert all(len(axis.containers) == len(SCORES) for axis in figure.axes)
    assert [axis.get_xscale() for axis in figure.axes] == ["log", "symlog"]
    assert forwards.get_xlim()[0] < 0 < seconds.get_xlim()[0]  # no forward at all has its place too
    pyplot.close(figure)


@pytest.mark.parametrize("spoken", [{}, {"sobel": 0.3}])
def test_without_methods_there_is_no_line(spoken):
    figure = score_against_cost(report(dict.fromkeys(SCORES) | spoken))
    for axis in figure.axes:
        words = [text.get_text() for text in axis.texts]
        assert lines(axis) == [] and words == ([] if spoken else ["the judge abstains,\nor there is no control"])
    pyplot.close(figure)
