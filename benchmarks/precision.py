"""Whether the faster forward explains as float32 does: same draws, both precisions.

    make bench-precision ARGS="--datasets mnist --images 1000 --budget 250"

Prints, by dataset: top-1 agreement on the whole test set (asked for: 99.5 %); for LIME and Kernel SHAP the mean overlap
of the top fifth (98 %), and of the pairs of superpixels whose values differ by more than a standard error the share
that both precisions rank alike (all). Fewer forwards average less of what 8 bits round off: the overlap is lower.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from setting import Setting, by_superpixel, overlap

from iic.classifiers.inference import predicted_class
from iic.explainers.methods import explain
from iic.explainers.precision_check import ranked_alike
from iic.explainers.work import TOGETHER
from iic.progress import counter


def compare(setting: Setting, method: str, images: int, budget: int) -> tuple[float, float]:
    """Mean overlap of the top fifth, and share of clear pairs that are ranked alike."""
    params = setting.context.params.model_copy(update={"budget": budget})
    setting = replace(setting, context=replace(setting.context, params=params))
    plain, overlaps, clear, alike = setting.float32(), [], 0, 0
    indices = setting.chosen(images)
    with counter(f"{setting.dataset}: {method}", "image", images) as tick:
        for start in range(0, images, TOGETHER):
            some = indices[start : start + TOGETHER]
            targets = setting.targets(some)
            both = [explain(method, s.context, setting.test.images[some], some, targets) for s in (plain, setting)]
            for row, index in enumerate(some):
                segments = setting.context.segments(setting.test.images[index], int(index))
                exact, fast = (by_superpixel(maps.values[row], segments) for maps in both)
                overlaps.append(overlap(fast, exact, segments))
                pairs = ranked_alike(exact, fast, by_superpixel(both[0].errors[row], segments))
                clear, alike = clear + pairs[0], alike + pairs[1]
            tick(len(some))
    return float(np.mean(overlaps)), alike / clear


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=1000, help="forwards an image")
    parser.add_argument("--methods", nargs="+", default=["lime", "kernel_shap"])
    parser.add_argument("--precision", default="auto", help="float32, bfloat16 or int8")
    arguments = parser.parse_args()
    print(
        "| dataset | precision | same class, test set | method | images | forwards | top-fifth overlap | pairs alike |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for dataset in arguments.datasets:
        setting = Setting.load(dataset, arguments.precision)
        test = torch.from_numpy(setting.test.images).to(setting.context.forward.device)
        fast, plain = (predicted_class(model, test) for model in (setting.context.forward.model, setting.context.plain))
        same = (fast == plain).float().mean().item()
        for method in arguments.methods:
            found = compare(setting, method, arguments.images, arguments.budget)
            shown = f"`{method}` | {arguments.images} | {arguments.budget}"
            row = f"{setting.context.forward.precision} | {same:.2%} | {shown}"
            print(f"| `{dataset}` | {row} | {found[0]:.4f} | {found[1]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
