"""Figures of uncertainty, drawn from tables of small simulated networks: every mark is where its number says."""

from copy import deepcopy
from io import BytesIO
from itertools import chain

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from scipy.stats import binomtest

from iic.bayes.shifts import detection
from iic.bayes.uncertainty_table import choose_thresholds, degradation_row, read, uncertainty_table
from iic.bayes.variance import variance_table
from iic.report.doubt import doubt_plot
from iic.report.style import BLUE, COLOURS
from iic.report.uncertainty import outside_plot, reliability_plot, selection_plot, worded
from iic.report.variance import variance_plot

CLASSES, IMAGES = 10, 300
DRAWS = {"seed": 0, "replicates": 20}
SAMPLES = {"plain": 1, "mean_field": 8}
SHARES, SHOWN = (0.1, 0.2, 0.5), 0.2
METHODS, FILLS, DIRECTIONS = ("lrp", "lrp_mean_map", "random"), ("mean_colour", "salt_and_pepper"), ("keep", "remove")


def probabilities(network, labels, evidence, seed):
    """Posterior samples (S, N, 10) that know the label better the more evidence they have, and differ for S > 1."""
    rng = np.random.default_rng(seed)
    clear = rng.gamma(2.0, size=(len(labels), 1))
    logits = rng.normal(size=(len(labels), CLASSES)) + evidence * clear * np.eye(CLASSES)[labels]
    samples = SAMPLES[network]
    powers = np.exp(logits + (samples > 1) * rng.normal(size=(samples, *logits.shape)))
    return powers / powers.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def labels():
    return np.arange(IMAGES) % CLASSES


@pytest.fixture(scope="module")
def tables(labels):
    def table(network):
        outside = {name: probabilities(network, labels, e, 2) for name, e in (("noise", 0.0), ("rotated_90", 2.0))}
        test, validation = (probabilities(network, labels, 4.0, seed) for seed in (0, 1))
        return uncertainty_table(test, labels, validation, labels, outside, **DRAWS)

    return {network: table(network) for network in SAMPLES}


@pytest.fixture(scope="module")
def report(labels):
    def rows(network):
        thresholds = choose_thresholds(probabilities(network, labels, 4.0, 1), labels)
        rows = {"keep": [], "remove": []}
        for share in SHARES:
            for direction, evidence in (("keep", 10 * share), ("remove", 2.5 * (1 - share) ** 3)):
                samples = probabilities(network, labels, evidence, 3)
                row = degradation_row(read(samples), labels, thresholds, **DRAWS)
                rows[direction].append({"share": share, **row})
        return {method: {d: dict.fromkeys(FILLS, found) for d, found in rows.items()} for method in METHODS}

    return {"shares": list(SHARES), "shown": SHOWN, "networks": {network: rows(network) for network in SAMPLES}}


@pytest.fixture(scope="module")
def sources():
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(20, 8, 8))
    repeats = {"sampling_noise": (3, 0.2), "segmentation": (4, 0.6), "posterior": (5, 3.0)}
    return {name: picture + rng.normal(scale=sd, size=(r, *picture.shape)) for name, (r, sd) in repeats.items()}


def errorbars(axis):
    return [drawn for drawn in axis.containers if isinstance(drawn, ErrorbarContainer)]


def marks(axis):
    """Every point of every error bar: x, y, and the ends of its whiskers as (direction, low, high)."""
    found = []
    for drawn in errorbars(axis):
        point, _, bars = drawn.lines
        ends = {}
        for bar in bars:
            for segment, _ in zip(bar.get_segments(), point.get_xdata(), strict=True):
                direction = int(np.ptp(segment[:, 1]) > np.ptp(segment[:, 0]))
                ends.setdefault(direction, []).append(tuple(segment[:, direction]))
        for place, (x, y) in enumerate(zip(point.get_xdata(), point.get_ydata(), strict=True)):
            found.append((x, y, {direction: spans[place] for direction, spans in ends.items()}))
    return found


def drawn(figure):
    """The figure, once it has been drawn to the end."""
    figure.savefig(BytesIO(), dpi=40)
    return figure


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_reliability_has_a_point_with_wilsons_interval_for_each_bin_that_holds_images(tables):
    figure = drawn(reliability_plot("digits", tables))
    assert len(figure.axes) == 2 * len(tables) and "digits" in figure.get_suptitle()
    for number, table in enumerate(tables.values()):
        bins = table["reliability"]["ece"]
        upper, lower = figure.axes[number], figure.axes[len(tables) + number]
        held = [b for b in bins if b["count"]]
        assert 1 < len(held) < len(bins) and len(errorbars(upper)) == 1
        for found, b in zip(marks(upper), held, strict=True):
            right = round(b["accuracy"] * b["count"])
            wilson = binomtest(right, b["count"]).proportion_ci(method="wilson")
            assert found[:2] == pytest.approx((100 * b["confidence"], 100 * b["accuracy"]))
            assert found[2][1] == pytest.approx((100 * wilson.low, 100 * wilson.high))
        assert [bar.get_height() for bar in lower.patches] == [b["count"] for b in bins]
        assert lower.get_ylim()[1] > table["n_images"] and upper.get_xlim() == upper.get_ylim() == (0, 100)
        low, high = table["scores"]["ece"]["interval"]
        assert f"({100 * low:.2f} to {100 * high:.2f})" in upper.get_title()


def test_networks_fill_rows_of_three(tables):
    figure = reliability_plot("digits", {f"network {i}": tables["plain"] for i in range(4)})
    assert len(figure.axes) == 8  # the last row's empty places are gone
    titles = [title for axis in figure.axes if (title := axis.get_title())]
    assert [title.split("\n")[0] for title in titles] == [f"network {i}" for i in range(4)]


def test_selection_has_a_line_per_selector_that_a_network_has(tables):
    figure = drawn(selection_plot("digits", tables))
    (axis,) = figure.axes
    lines = [line for line in axis.lines if ":\n" in str(line.get_label())]
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert looks == [(COLOURS[0], "-"), (COLOURS[1], "-"), (COLOURS[1], "--")]
    curve = tables["mean_field"]["selectors"]["mutual_information"]["curve"]
    assert lines[-1].get_xdata() == pytest.approx(100 * np.array(curve["coverage"]))
    assert lines[-1].get_ydata() == pytest.approx(100 * np.array(curve["risk"]))
    assert 1 in [line.get_ydata()[0] for line in axis.lines if len(line.get_ydata()) == 2]
    for (x, y, ends), table in zip(marks(axis), tables.values(), strict=True):
        at = table["selectors"]["confidence"]["at_threshold"]["1%"]
        assert (x, 100 - y) == pytest.approx((100 * at["coverage"]["value"], 100 * at["accuracy"]["value"]))
        assert ends[0] == pytest.approx(100 * np.array(at["coverage"]["interval"]))
        assert ends[1] == pytest.approx(100 - 100 * np.array(at["accuracy"]["interval"])[::-1])
    assert worded(tables["plain"]["selectors"]["confidence"]["augrc"], 3) in legend(figure)[0]


def test_selection_shows_all_errors_and_no_coverage_without_any(tables):
    (axis,) = selection_plot("digits", tables).axes
    curves = [row["curve"] for table in tables.values() for row in table["selectors"].values() if row]
    coverage, risk = (100 * np.concatenate([curve[key] for curve in curves]) for key in ("coverage", "risk"))
    left = axis.get_xlim()[0]
    assert (risk[coverage <= left] == 0).all() and axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > risk.max()


def test_selection_shows_a_threshold_below_all_errors(tables):
    careful = deepcopy(tables)
    at = {"coverage": {"value": 0.05, "interval": [0.03, 0.08]}, "accuracy": {"value": 1.0, "interval": [0.8, 1.0]}}
    careful["plain"]["selectors"]["confidence"]["at_threshold"]["1%"] = at
    before, (axis,) = selection_plot("digits", tables).axes[0], selection_plot("digits", careful).axes
    assert axis.get_xlim()[0] == 0 < before.get_xlim()[0]
    assert marks(axis)[0][:2] == (5, 0)


def test_what_answers_nothing_or_never_errs_is_drawn_without_its_interval(tables, labels):
    sure = np.full((1, IMAGES, CLASSES), 0.01) + 0.9 * np.eye(CLASSES)[labels]
    right = uncertainty_table(sure, labels, sure, labels, {}, **DRAWS)
    assert right["selectors"]["confidence"]["augrc"]["interval"] is None
    wrong = uncertainty_table(sure, labels, sure, (labels + 1) % CLASSES, {}, **DRAWS)
    assert wrong["thresholds"]["confidence"]["1%"] is None
    figure = drawn(selection_plot("digits", {"right": right, "refuses all": wrong}))
    assert legend(figure)[0] == "right, confidence:\nAUGRC 0.000 %" and len(marks(figure.axes[0])) == 1
    drawn(reliability_plot("digits", {"right": right}))


def test_outside_shows_both_figures_of_the_best_detector_of_each_network(tables):
    rows = {
        name: detection(np.arange(60), np.arange(40) + by, **DRAWS) for name, by in (("noise", 60), ("rotated_90", 9))
    }
    density = {"outside": {name: {"n_images": 300, **row} for name, row in rows.items()}}
    figure = drawn(outside_plot("digits", tables, density))
    detectors = {"plain": "entropy", "mean_field": "mutual_information"}
    for axis, measure, scale in zip(figure.axes, ("auroc", "fpr95"), (1, 100), strict=True):
        cells = [
            table["outside"][name]["selectors"][detectors[network]][measure]
            for network, table in tables.items()
            for name in ("noise", "rotated_90")
        ] + [row[measure] for row in rows.values()]
        found = marks(axis)
        assert len(found) == 6 and [round(y) for _, y, _ in found] == [0, 1] * 3
        for (x, _, ends), cell in zip(found, cells, strict=True):
            assert x == pytest.approx(scale * cell["value"])
            assert ends[0] == pytest.approx(scale * np.array(cell["interval"]))
        assert axis.get_xlim()[0] < 0.5 * scale and axis.get_xlim()[1] > scale
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["noise\n(300 images)", "rotated 90\n(300 images)"]
    shown = {"plain network\n(entropy)", "mean-field Normal\n(mutual information)"}
    assert shown | {"no network: a density of the images\n(strangeness)"} < set(legend(figure))


def test_outside_leaves_out_what_was_not_measured(tables):
    fewer = deepcopy(tables)
    del fewer["plain"]["outside"]["noise"]
    selectors = fewer["mean_field"]["outside"]["rotated_90"]["selectors"]
    selectors.update(dict.fromkeys(selectors))
    fewer["mean_field"]["outside"]["noise"]["selectors"]["mutual_information"]["auroc"]["interval"] = None
    left, right = drawn(outside_plot("digits", fewer, {"outside": {}})).axes
    assert [label.get_text().split("\n")[0] for label in left.get_yticklabels()] == ["rotated 90", "noise"]
    assert [round(y) for _, y, _ in marks(left)] == [0, 1]
    assert [bool(ends) for *_, ends in marks(left)] == [True, False]
    assert all(ends for *_, ends in marks(right))


def test_doubt_shows_every_network_method_direction_and_fill(report):
    figure = drawn(doubt_plot("digits", report))
    axes = np.reshape(figure.axes[: 4 * len(FILLS)], (4, len(FILLS)))
    rule = {network: rows["lrp"]["keep"]["mean_colour"][1] for network, rows in report["networks"].items()}
    for axis in axes[:3].flat:
        assert len(errorbars(axis)) == len(SAMPLES) * len(METHODS) * len(DIRECTIONS)
    for axis in axes[3]:  # a plain network has no mutual information
        assert len(errorbars(axis)) == len(METHODS) * len(DIRECTIONS)
        assert {to_hex(e.lines[0].get_color()).upper() for e in errorbars(axis)} == {COLOURS[1]}
    for axis, measure in zip(axes[1:3, 0], ("refused", "confidently_wrong"), strict=True):
        x, y, ends = marks(axis)[0]
        cell = rule["plain"]["selectors"]["confidence"]["1%"][measure]
        assert round(x) == 0 and y == pytest.approx(100 * cell["value"])
        assert ends[1] == pytest.approx(100 * np.array(cell["interval"]))
    assert {axis.get_ylim() for axis in axes[:2].flat} == {(-3, 103)}
    faces = {str(e.get_label()): e.lines[0].get_markerfacecolor() for e in errorbars(axes[0, 0])}
    assert faces["plain network,\ntop 20% kept"] == BLUE and faces["plain network,\ntop 20% removed"] == "white"
    assert sorted(faces) == sorted(legend(figure)) and "refused by confidence" in figure.get_suptitle()


def test_doubt_below_shows_how_it_moves_with_the_share(report):
    changed = deepcopy(report)
    by_fill = changed["networks"]["plain"]["random"]["keep"]
    by_fill["mean_colour"] = [{**row, "selectors": {"confidence": None}} for row in by_fill["mean_colour"]]
    figure = doubt_plot("digits", changed)
    lower = np.reshape(figure.axes[4 * len(FILLS) :], (4, len(METHODS)))
    wanted = [(measure, d) for measure in ("refused", "confidently_wrong") for d in DIRECTIONS]
    for (measure, direction), axes in zip(wanted, lower, strict=True):
        first, second, *_ = axes[0].lines
        assert (first.get_color(), first.get_linestyle(), second.get_linestyle()) == (COLOURS[0], "-", "--")
        for line, network in zip(axes[0].lines, np.repeat([*SAMPLES], len(FILLS)), strict=True):
            rows = report["networks"][network]["lrp"][direction]["mean_colour"]
            expected = [100 * row["selectors"]["confidence"]["1%"][measure]["value"] for row in rows]
            assert list(line.get_xdata()) == pytest.approx([10, 20, 50]) and expected[0] != expected[2]
            assert list(line.get_ydata()) == pytest.approx(expected)
    assert [len(axis.lines) for axis in lower[:, 2]] == [3, 4, 3, 4]  # what has no threshold has no line

    alone = {**report, "shares": [SHOWN]}
    assert len(doubt_plot("digits", alone).axes) == 4 * len(FILLS)


def test_doubt_shades_controls(report):
    figure = doubt_plot("digits", report)
    axis = figure.axes[0]
    names = [label.get_text() for label in figure.axes[4 * len(FILLS) - 1].get_xticklabels()]
    assert names == ["LRP", "LRP mean map (control)", "random pixels"]
    assert [patch.get_x() for patch in axis.patches] == [0.5, 1.5]


def test_doubt_without_a_selector_falls_back_or_leaves_its_panels_empty(report):
    changed = deepcopy(report)
    for by_method in changed["networks"].values():
        for method in METHODS:
            for direction in DIRECTIONS:
                for row in chain.from_iterable(by_method[method][direction].values()):
                    row["selectors"]["confidence"] = None
                    row["forced_accuracy"]["interval"] = None
    changed["shares"] = [SHOWN]
    figure = doubt_plot("digits", changed)
    forced, _, refused, *_ = figure.axes
    assert not any(ends for *_, ends in marks(forced))
    row = report["networks"]["mean_field"]["lrp"]["keep"]["mean_colour"][1]
    expected = row["selectors"]["mutual_information"]["1%"]["refused"]["value"]
    assert len(marks(refused)) == len(METHODS) * len(DIRECTIONS)
    assert marks(refused)[0][1] == pytest.approx(100 * expected)
    assert "refused by mutual information" in figure.get_suptitle()

    plain = doubt_plot("digits", {**changed, "networks": {"plain": changed["networks"]["plain"]}})
    assert len(plain.axes) == 3 * len(FILLS) and "no thresholds" in plain.get_suptitle()
    assert legend(plain)[0] == "plain network,\ntop 20% kept"


def test_variance_shows_all_sources_with_their_intervals(sources):
    noise = {source: "sampling_noise" for source in ("segmentation", "posterior")}
    table = variance_table(sources, seed=0, replicates=50, noise=noise, varied={"posterior": "Bayesian"})
    figure = drawn(variance_plot("digits", table))
    share, spearman, overlap = figure.axes
    rows = list(table["sources"].values())
    assert [bar.get_width() for bar in share.patches] == pytest.approx([100 * row["share"]["mean"] for row in rows])
    whole = [mark for mark, e in zip(marks(share), errorbars(share), strict=True) if "beyond" not in str(e.get_label())]
    assert len(marks(share)) == 5 and len(whole) == 3  # what is sampling noise has nothing beyond it
    for (*_, ends), row in zip(whole, rows, strict=True):
        assert ends[0] == pytest.approx(100 * np.array(row["share"]["interval"]))
    for axis, measure in ((spearman, "spearman"), (overlap, "top_overlap")):
        for (x, y, ends), row, place in zip(marks(axis), rows, range(3), strict=True):
            assert (x, y) == pytest.approx((row[measure]["mean"], place))
            assert ends[0] == pytest.approx(row[measure]["interval"])
        assert axis.get_xlim() == (-0.05, 1.03)
    assert "digits" in figure.get_suptitle() and "beyond its sampling noise" in legend(figure)
    names = [label.get_text() for label in share.get_yticklabels()]
    assert names[1:] == ["segmentation\n(4 repeats)", "posterior\n(5 repeats, Bayesian network)"]
    named = {"sources": {f"kernel_shap: {source}": row for source, row in table["sources"].items()}}
    labels = drawn(variance_plot("digits", {**table, **named})).axes[0].get_yticklabels()
    assert labels[1].get_text() == "Kernel SHAP: segmentation\n(4 repeats)"


def test_variance_without_noise_or_interval(sources):
    table = variance_table(sources, seed=0, replicates=20)
    table["sources"]["posterior"]["share"]["interval"] = None
    figure = drawn(variance_plot("digits", table))
    assert [bool(ends) for *_, ends in marks(figure.axes[0])] == [True, True, False]
    assert legend(figure) == ["nothing in common", "whole variance"]
