"""Error of Kernel SHAP by number of forwards: ours, its coalition sizes, the process on top of it, and libraries.

    make bench-shapley ARGS="--dataset cifar10 --images 12 --budgets 128 512 1024"

Relative L2 and top-fifth overlap, both against a converged float32 reference (`--reference` forwards, paired).
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from peers import SHAPLEY
from setting import Setting, overlap, relative_error

from iic.progress import bar

POWERS = (0.0, 1.0)  # sizes by leverage, and by the kernel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--reference", type=int, default=32000)
    parser.add_argument("--peers", nargs="*", default=list(SHAPLEY))
    arguments = parser.parse_args()
    setting = Setting.load(arguments.dataset)
    indices = setting.chosen(arguments.images)
    targets = setting.targets(indices)
    segments = [setting.context.segments(setting.test.images[i], int(i)) for i in indices]
    print(f"{setting.dataset}: {setting.context.forward.precision}, {arguments.images} images, "
          f"{np.mean([s.max() + 1 for s in segments]):.1f} superpixels", flush=True)  # fmt: skip
    truth = setting.float32().values("kernel_shap", indices, targets, budget=arguments.reference, seed=12345)
    rows = {}
    for budget in arguments.budgets:
        for power in POWERS:
            for method in ("kernel_shap", "kernel_shap_fast"):
                if budget < 2 * max(s.max() + 1 for s in segments) + 2:
                    continue
                found = setting.values(method, indices, targets, budget=budget, kernel_power=power)
                rows[f"{method}, power {power}", budget] = found
        for name in bar(f"{budget} forwards", "peer")(arguments.peers):
            found = []
            for i, t in zip(indices, targets, strict=True):
                try:
                    found.append(SHAPLEY[name](setting.as_peers_see(i, t, fast=True), budget, 0))
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


if __name__ == "__main__":
    main()
