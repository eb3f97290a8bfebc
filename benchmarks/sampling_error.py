"""Error of Kernel SHAP, or of LIME, by number of forwards: ours, the process on top of it, and libraries.

    make bench-shapley ARGS="--dataset cifar10 --images 12 --budgets 128 512 1024"
    make bench-lime ARGS="--dataset cifar10 --images 12 --budgets 256 1024"

Relative L2 and top-fifth overlap, twice: against a converged float32 reference (`--reference` forwards, paired) on the
superpixels that a run uses; and against exact values, every mask of a grid of 12 superpixels, with the same forward, so
that the error is that of drawing masks alone. There it is also counted how often 95 % intervals hold the exact value.
`--split train` shows training images: what choices are made on. `--same-forward` makes the reference with the fast
forward that all of them are given: then the first table, too, is of drawing masks alone.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
from peers import LIMES, SHAPLEY
from setting import Setting, by_superpixel, overlap, relative_error

from iic.explainers.coalitions import smallest_budget
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.progress import bar

POWERS = (0.0, 1.0)  # of Kernel SHAP: coalition sizes by leverage, and by the kernel: the default of --powers
PEERS = {"kernel_shap": SHAPLEY, "lime": {"lime_image": LIMES["lime_image"]}}  # Captum's LIME weighs masks otherwise
EXACT = 12  # superpixels: 4,096 masks
NORMAL = 1.959964  # 95 %


def on_grid(setting: Setting) -> Setting:
    """The same with a grid of EXACT superpixels, whose masks can all be shown."""
    params = setting.context.params.model_copy(update={"segmentation": "grid", "superpixels": EXACT})
    return replace(setting, context=replace(setting.context, params=params, segments=Segmenter(params)))


def both(explainer: str) -> tuple[str, str]:
    """The explainer, and it with the process on top."""
    return explainer, f"{explainer}_fast"


def print_exact(setting: Setting, explainer: str, images: int, budgets: list[int], seeds: int) -> None:
    """Ours against enumeration: errors, overlap, and the share of exact values that 95 % intervals hold."""
    grid = on_grid(setting)
    indices = grid.chosen(images)
    targets, shown = grid.targets(indices), grid.test.images[indices]
    segments = [grid.context.segments(image, int(i)) for image, i in zip(shown, indices, strict=True)]
    truth = grid.values(explainer, indices, targets, budget=2**EXACT)
    print(f"\n{grid.dataset}: exact values of {EXACT} superpixels, {images} images, {seeds} draws each\n")
    print("| method | forwards | relative L2, median | mean | top-fifth overlap | held by 95 % intervals |")
    print("|---|---|---|---|---|---|")
    for budget in bar("budgets", "budget")([b for b in budgets if smallest_budget(EXACT) <= b < 2**EXACT]):
        for method in both(explainer):
            errors, overlaps, held = [], [], []
            for seed in range(seeds):
                params = grid.context.params.model_copy(update={"budget": budget, "seed": seed})
                maps = explain(method, replace(grid.context, params=params), shown, indices, targets)
                for row, (exact, s) in enumerate(zip(truth, segments, strict=True)):
                    found, error = by_superpixel(maps.values[row], s), by_superpixel(maps.errors[row], s)
                    errors.append(relative_error(found, exact))
                    overlaps.append(overlap(found, exact, s))
                    held.append(np.abs(found - exact) <= NORMAL * error)
            figures = f"{np.median(errors):.3f} | {np.mean(errors):.3f} | {np.mean(overlaps):.3f} | {np.mean(held):.1%}"
            print(f"| {method} | {budget} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--explainer", choices=list(PEERS), default="kernel_shap")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--reference", type=int, default=32000)
    parser.add_argument("--peers", nargs="*", help="libraries; all unless said otherwise")
    parser.add_argument("--powers", type=float, nargs="+", default=POWERS)
    parser.add_argument("--same-forward", action="store_true")
    parser.add_argument("--split", choices=["train", "test"], default="test")
    parser.add_argument("--exact-images", type=int, default=60)
    parser.add_argument("--exact-draws", type=int, default=4)
    arguments = parser.parse_args()
    explainer, libraries = arguments.explainer, PEERS[arguments.explainer]
    powers = arguments.powers if explainer == "kernel_shap" else POWERS[:1]
    setting = Setting.load(arguments.dataset)
    if arguments.split == "train":
        setting = replace(setting, test=setting.train)
    indices = setting.chosen(arguments.images)
    targets = setting.targets(indices)
    segments = [setting.context.segments(setting.test.images[i], int(i)) for i in indices]
    print(f"{setting.dataset}: {setting.context.forward.precision}, {arguments.images} images, "
          f"{np.mean([s.max() + 1 for s in segments]):.1f} superpixels", flush=True)  # fmt: skip
    exact = setting if arguments.same_forward else setting.float32()
    truth = exact.values(explainer, indices, targets, budget=arguments.reference, seed=12345)
    rows = {}
    for budget in arguments.budgets:
        for power in powers:
            for method in both(explainer):
                if budget < smallest_budget(max(int(s.max()) + 1 for s in segments)):
                    continue
                found = setting.values(method, indices, targets, budget=budget, kernel_power=power)
                rows[f"{method}, power {power}" if len(powers) > 1 else method, budget] = found
        for name in bar(f"{budget} forwards", "peer")(libraries if arguments.peers is None else arguments.peers):
            found = []
            for i, t in zip(indices, targets, strict=True):
                try:
                    found.append(libraries[name](setting.as_peers_see(i, t, fast=True), budget, 0))
                except (ValueError, TypeError, KeyError, np.linalg.LinAlgError) as error:
                    print(f"{name} with {budget} forwards: {type(error).__name__}: {error}", file=sys.stderr)
                    break
            if len(found) == len(indices):
                rows[name, budget] = found
    print("\n| method | forwards | relative L2, median | mean | top-fifth overlap |\n|---|---|---|---|---|")
    for (name, budget), found in sorted(rows.items(), key=lambda row: (row[0][1], row[0][0])):
        errors = [relative_error(f, t) for f, t in zip(found, truth, strict=True)]
        overlaps = [overlap(f, t, s) for f, t, s in zip(found, truth, segments, strict=True)]
        print(f"| {name} | {budget} | {np.median(errors):.3f} | {np.mean(errors):.3f} | {np.mean(overlaps):.3f} |")
    if arguments.exact_images:
        print_exact(setting, explainer, arguments.exact_images, arguments.budgets, arguments.exact_draws)


if __name__ == "__main__":
    main()
