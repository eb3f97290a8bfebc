"""What a posterior's explanations agree on, and what is left of its doubt as pixels are removed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from iic.bayes.strategies import Summary
from iic.report.style import DIVERGING, FILLS, method_styles, new_figure

ONE_SIGN = "Reds"  # white is zero, as in the middle of DIVERGING, and red speaks for the class
SPREAD = "Greys"
QUANTILE = 0.995  # of the values, where a colour scale ends
DOUBTS = {"mutual_information": "mutual information", "entropy": "entropy"}


class Column(NamedTuple):
    """Maps (N, H, W), what they are called, their colours, and the group that shares one colour scale."""

    maps: np.ndarray
    title: str
    colours: str
    scale: str


def posterior_grid(
    images: np.ndarray,
    summary: Summary,
    intersection: np.ndarray,
    union: np.ndarray,
    *,
    names: list[str],
    method: str,
) -> Any:
    """One row per image, one column per way to sum up its maps over the posterior.

    The mean and the percentiles share one scale centred at zero, intersection and union another that starts there.

    Args:
        images: uint8 (N, C, H, W), a few.
        summary: of their maps, with the percentiles.
        intersection, union: float (N, H, W), from `iic.bayes.strategies`.
        names: what stands beside each image, such as its class and how sure the network is.
        method: what explained the samples, for the title.
    """
    columns = _columns(summary, intersection, union)
    figure, axes = new_figure(1.35 * (len(columns) + 1) + 0.9, 1.3 * len(images) + 1.6, len(images), len(columns) + 1)
    for axis, pixels, name in zip(axes[:, 0], images, names, strict=True):
        axis.imshow(pixels.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255)
        axis.set_ylabel(f"{name}\n\nrow (pixel)", fontsize=7)
    axes[0, 0].set_title("image", fontsize=9)
    for place, column in enumerate(columns, start=1):
        limit = _limit(np.concatenate([c.maps for c in columns if c.scale == column.scale]))
        _draw(figure, axes[:, place], column, limit)
    for axis in axes.flat:
        height, width = images.shape[2:]
        axis.set(xticks=[0, width - 1], yticks=[0, height - 1])
        axis.tick_params(labelsize=6, labelleft=axis in axes[:, 0], labelbottom=axis in axes[-1])
    for axis in axes[-1]:
        axis.set_xlabel("column (pixel)", fontsize=7)
    figure.suptitle(
        f"{method}, {summary.samples} posterior samples; red speaks for the explained class, blue against it\n"
        "logits, but for signal to noise (mean / sd, no unit) and intersection and union (of maps of length 1)",
        fontsize=9,
    )
    return figure


def _columns(summary: Summary, intersection: np.ndarray, union: np.ndarray) -> list[Column]:
    quantiles = [Column(maps, f"{percent} %", DIVERGING, "relevance") for percent, maps in summary.percentiles.items()]
    return [
        Column(summary.mean, "mean", DIVERGING, "relevance"),
        Column(summary.sd, "standard\ndeviation", SPREAD, "sd"),
        *quantiles,
        Column(summary.snr, "signal\nto noise", DIVERGING, "snr"),
        Column(intersection, "intersection", ONE_SIGN, "strategies"),
        Column(union, "union", ONE_SIGN, "strategies"),
    ]


def _limit(maps: np.ndarray) -> float:
    """Where the colour scale ends: the quantile of the finite absolute values, or 1 if all are 0."""
    return float(np.quantile(np.abs(maps[np.isfinite(maps)]), QUANTILE)) or 1.0


def _draw(figure: Any, axes: Any, column: Column, limit: float) -> None:
    """A column's maps on one colour scale, which is centred at zero where they have both signs, else starts there."""
    low = -limit if column.colours == DIVERGING else 0.0
    for axis, values in zip(axes, column.maps, strict=True):
        picture = axis.imshow(values, cmap=column.colours, vmin=low, vmax=limit)
    axes[0].set_title(column.title, fontsize=9)
    bar = figure.colorbar(picture, ax=list(axes), location="bottom", fraction=0.03, pad=0.01, aspect=8)
    ticks = [low, 0.0, limit] if low else [0.0, limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=7)


def removal_plot(report: dict, dataset: str) -> Any:
    """A panel for each fill: the doubt over the share of pixels removed, a line per method with its 95 % band.

    Args:
        report: from `iic.bayes.refusal.removal_curve`.
        dataset: its name.
    """
    fills = report["fills"]
    figure, axes = new_figure(4.0 * len(fills) + 2.6, 3.6, 1, len(fills), sharey=True)
    styles = method_styles(list(next(iter(fills.values()))))
    shares = [100 * share for share in report["shares"]]
    for axis, (fill, methods) in zip(axes[0], fills.items(), strict=True):
        for method, row in methods.items():
            low, high = zip(*(cell["interval"] for cell in row["curve"]), strict=True)
            axis.plot(shares, [cell["mean"] for cell in row["curve"]], ms=4, lw=1.4, **styles[method])
            axis.fill_between(shares, low, high, color=styles[method]["color"], alpha=0.12, lw=0)
        axis.set(xlabel="most important pixels removed (%)", ylim=(0, None))
        axis.set_title(f"replaced by: {FILLS[fill][0]}", fontsize=9)
    axes[0, 0].set_ylabel(f"{DOUBTS[report['doubt']]} ({report['unit']})")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    figure.suptitle(f"{dataset}: {report['images']} images, means with 95 % bands; lower is better", fontsize=10)
    return figure
