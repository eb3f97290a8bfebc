"""Where the uncertainty of an explanation comes from."""

from __future__ import annotations

from typing import Any

from iic.explainers.ranking import TOP
from iic.report.style import BLUE, COLOURS, GREEN, GREY, new_figure, one_line
from iic.report.uncertainty import named_once, whiskers

PANELS = {  # figure -> words, value of repeats that have nothing in common, scale of the axis
    "share": ("variance over repeats\n(% of a map's variance over its pixels)", 1.0, 100),
    "spearman": ("Spearman's rank correlation\nof two repeats (1: the same)", 0.0, 1),
    "top_overlap": (f"shared part of the top {TOP:.0%}\nof two repeats (1: the same)", TOP, 1),
}


def variance_plot(dataset: str, table: dict) -> Any:
    """The share of a map's variance that each source changes, beside how alike two repeats of a map are.

    Args:
        dataset: its name.
        table: from `iic.bayes.variance.variance_table`.
    """
    sources = table["sources"]
    figure, axes = new_figure(13, 0.5 * len(sources) + 1.8, 1, len(PANELS), sharey=True)
    share, spearman, overlap = axes[0]
    for place, row in enumerate(sources.values()):
        share.barh(place, 100 * row["share"]["mean"], 0.6, color=COLOURS[5], label="whole variance")
        _dot(share, place, row["share"], 100, color="black", marker="none")
        if row["beyond_noise"] is not None:
            label = "beyond its sampling noise"
            _dot(share, place, row["beyond_noise"], 100, color=COLOURS[1], marker="D", label=label)
        _dot(spearman, place, row["spearman"], 1, color=BLUE, marker="o")
        _dot(overlap, place, row["top_overlap"], 1, color=GREEN, marker="s")
    for axis, (words, nothing, scale) in zip(axes[0], PANELS.values(), strict=True):
        axis.axvline(scale * nothing, color=GREY, lw=0.9, ls=":", label="nothing in common")
        axis.set_xlabel(words)
    share.axvline(0, color="black", lw=0.8)
    for axis in (spearman, overlap):
        axis.set_xlim(min(-0.05, axis.get_xlim()[0]), 1.03)
    share.set_yticks(range(len(sources)), [_named(source, row) for source, row in sources.items()])
    share.set_ylim(len(sources) - 0.5, -0.5)
    figure.legend(*named_once(share), loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"{dataset}: what changes in the map of an image if one source alone is drawn again; "
        f"means over {table['images']} images, 95 % intervals",
        fontsize=10,
    )
    return figure


def _named(source: str, row: dict) -> str:
    """A source, its repeats, and the network that it varies: shares of different networks do not compare."""
    network = "" if row["network"] is None else f", {row['network']} network"
    *method, varied = source.split(": ")
    words = ": ".join([*map(one_line, method), varied.replace("_", " ")])
    return f"{words}\n({row['repeats']} repeats{network})"


def _dot(axis: Any, place: float, cell: dict, scale: float, **look: Any) -> None:
    """A mean and its interval, if it has one."""
    reach = whiskers(cell["mean"], cell["interval"], scale)
    axis.errorbar(scale * cell["mean"], place, xerr=reach, ms=6, lw=1.2, capsize=3, ls="none", **look)
