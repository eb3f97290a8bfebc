"""What the masks' shape gives away, as bars."""

from __future__ import annotations

import textwrap
from typing import Any

from iic.errors import UserError
from iic.explainers.names import is_control
from iic.provenance import made_otherwise
from iic.report.style import BLUE, GREEN, GREY, chart_size, name_methods, new_figure, write_above

WIDTH = 0.7  # of a bar


def leakage_bars(dataset: str, leaks: dict[str, dict]) -> Any:
    """Accuracy of the network that sees only masks, a bar for each method with its 95 % interval.

    Args:
        dataset: its name.
        leaks: method -> what `leakage` returns, with `n`, the training images; or, where they could not be explained,
            `n` = 0 and a `reason`.

    Raises:
        UserError: they are of different networks, parameters, code, images, shares or seeds.
    """
    measured = {method: leak for method, leak in leaks.items() if leak["n"]}
    for method, leak in measured.items():
        _check_alike(dataset, method, leak, next(iter(measured.values())))
    figure, axes = new_figure(*chart_size(list(leaks), 4.4))
    axis = axes[0, 0]
    axis.bar([0], [0], color=BLUE, label="explainers")
    axis.bar([0], [0], color=GREY, label="controls")
    placed = {place: (method, leak) for place, (method, leak) in enumerate(leaks.items()) if leak["n"]}
    for place, (method, leak) in placed.items():
        _bar(axis, place, leak, GREY if is_control(method) else BLUE)
    for place, leak in enumerate(leaks.values()):
        if not leak["n"]:
            words = textwrap.fill(f"not measured: {leak['reason']}", 18)
            axis.text(place, 0.2, words, ha="center", fontsize=7)
    if measured:
        first = next(iter(measured.values()))
        chance = first["chance"]
        axis.axhline(chance, color=GREY, ls=":", label=f"chance: {chance:.2f}")
        ends = [(p - 0.5, p + 0.5) for p in placed]
        heights = [leak["majority"] for leak in measured.values()]
        axis.hlines(heights, *zip(*ends, strict=True), color=GREEN, ls="--", label="always the commonest class")
        axis.set_title(
            f"{dataset}: the class that a small network reads off the mask's shape, learnt from masks of "
            f"{first['n']} training images;\n{first['n_test']} test images, 95 % intervals; the network may be too "
            "small to find all that leaks",
            fontsize=9,
        )
    axis.set(ylim=(0, 1.12), ylabel="agreement with the explained class")
    name_methods(axis, list(leaks))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _check_alike(dataset: str, method: str, leak: dict, first: dict) -> None:
    otherwise = made_otherwise(leak.get("made", {}), first.get("made", {}))
    if otherwise or any(leak.get(key) != first.get(key) for key in ("n", "n_test", "kept_share", "judged")):
        what = f"made with {otherwise}" if otherwise else "of another share, number of images, seed or judging code"
        raise UserError(
            f"The leakage of {dataset}.{method} is {what} than {first['method']}'s: "
            "run `kedro run --pipelines evaluation` again, without --only-missing-outputs."
        )


def _bar(axis: Any, place: int, leak: dict, colour: str) -> None:
    height, (low, high) = leak["accuracy"], leak["interval"]
    axis.bar(place, height, WIDTH, yerr=[[max(0.0, height - low)], [max(0.0, high - height)]], capsize=3, color=colour)
    write_above(axis, place, max(height, high), f"{height:.2f}")
