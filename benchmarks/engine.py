"""What an explanation costs besides its forwards: wall time of LIME and Kernel SHAP over that of the forwards alone.

    make bench-engine
    make bench-engine ARGS="--datasets mnist --images 8 --repeats 5"

An explanation is all of `explain`: superpixels, draws, composing the images, forwards, regression. The forwards alone
are as many images of the same size, composed beforehand, in the same precision and batch size. Each repeat runs both,
one after the other, so that what else the machine does meets both; medians over repeats, and their ratio (asked for:
at most 1.10).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from setting import Setting, forwards_alone, seconds

from iic.explainers.methods import explain
from iic.explainers.perturbation import suitable_batch
from iic.explainers.work import TOGETHER
from iic.progress import bar

METHODS = ("lime", "kernel_shap")


def bench(setting: Setting, images: int, budget: int, repeats: int) -> list[str]:
    """A row of the table for each method."""
    params = setting.context.params.model_copy(update={"budget": budget})
    context = replace(setting.context, params=params)
    indices = setting.chosen(images)
    targets, shown = setting.targets(indices), setting.test.images[indices]
    batch = params.batch_size or suitable_batch(context.forward.model, context.forward.device, shown.shape[1:])
    pixels = torch.from_numpy(np.resize(shown, (batch, *shown.shape[1:]))).to(context.forward.device).float()
    pixels = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # as the engine has them, of one channel too
    rows = []
    for method in METHODS:
        run = partial(explain, method, context, shown, indices, targets)
        count = int(run().numbers["forwards"].sum())  # warms up, too
        forwards_alone(context.forward.model, pixels, count)
        found = [
            (seconds(run), seconds(partial(forwards_alone, context.forward.model, pixels, count)))
            for _ in bar(f"{setting.dataset}: {method}", "repeat")(range(repeats))
        ]
        whole, alone = np.median(found, axis=0)
        rows.append(
            f"| `{setting.dataset}` | `{method}` | {context.forward.precision} | {batch} | {count / images:.0f} "
            f"| {whole / images:.5f} | {alone / images:.5f} | {alone / count * 1e6:.1f} | {whole / alone:.3f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, default=TOGETHER)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="float32, bfloat16 or int8")
    arguments = parser.parse_args()
    rows = []
    for dataset in arguments.datasets:
        setting = Setting.load(dataset, arguments.precision)
        rows += bench(setting, arguments.images, arguments.budget, arguments.repeats)
    print("| dataset | method | precision | batch | forwards | s an image | of these alone | µs a forward | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
