"""How the networks learnt."""

from __future__ import annotations

from typing import Any

from iic.report.style import BLUE, GREEN, ORANGE, new_figure


def learning_curve(curve: dict, accuracy: dict, dataset: str) -> Any:
    """Loss and accuracy by epoch, and the accuracies of the finished network as lines."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(9, 3.6, 1, 2)
    epochs = [row["epoch"] for row in curve["epochs"]]
    left, right = axes[0]
    left.plot(epochs, [row["loss"] for row in curve["epochs"]], "o-", color=BLUE)
    left.set(xlabel="epoch", ylabel="loss (nats, smoothed labels)", title="training loss")
    right.plot(epochs, [100 * r["accuracy"] for r in curve["epochs"]], "o-", color=BLUE, label="train, while training")
    for split, colour, line in (("train", ORANGE, "-"), ("test", GREEN, "--")):  # both are seen where they coincide
        value = 100 * accuracy[split]["accuracy"]
        right.axhline(value, color=colour, ls=line, label=f"{split}, at the end: {value:.2f} %")
    if not epochs:
        left.text(0.5, 0.5, "not trained here", ha="center", transform=left.transAxes)
    right.set(xlabel="epoch", ylabel="accuracy (%)", title="accuracy")
    right.legend(loc="lower right", fontsize=8)
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{dataset}: {len(epochs)} epochs in {curve['seconds']:.0f} s ({curve['dtype']})")
    return figure
