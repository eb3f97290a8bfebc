"""What torch.compile gains on this machine, beside what the project does: the frozen forward, one step of training.

    make bench-compile
    make bench-compile ARGS="--datasets mnist --repeats 5"

Needs a C++ compiler. A step is forward and backward of one micro-batch, pooled early, in the precision of training.
Medians over repeats, the ways side by side in each; compile time is the first call's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from setting import Setting, seconds
from torch import Tensor, nn

from iic.classifiers.inference import best_dtype
from iic.classifiers.training import pool_early
from iic.explainers.perturbation import suitable_batch
from iic.progress import bar


def step(model: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    """Forward and backward of one micro-batch."""
    with torch.autocast("cpu", dtype=best_dtype(), enabled=best_dtype() != torch.float32):
        logits = model(pixels)
    F.cross_entropy(logits.float(), labels).backward()


def compare(ways: dict[str, Callable[[], object]], name: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of the first call, and the median of the others, by way."""
    first = {way: seconds(run) for way, run in ways.items()}
    again = [[seconds(run) for run in ways.values()] for _ in bar(name, "repeat")(range(repeats))]
    return {way: (first[way], float(m)) for way, m in zip(ways, np.median(again, axis=0), strict=True)}


def bench(dataset: str, repeats: int) -> list[str]:
    """A row of the table for each way."""
    setting = Setting.load(dataset)
    plain, fast = setting.context.plain, setting.context.forward
    batch = suitable_batch(fast.model, fast.device, setting.test.images.shape[1:])
    pixels = torch.from_numpy(setting.test.images[:batch]).float().contiguous(memory_format=torch.channels_last)
    forwards = {"float32": plain, "float32, compiled": torch.compile(plain), f"own ({fast.precision})": fast.model}

    @torch.no_grad()
    def ask(model: nn.Module) -> Tensor:
        return model(pixels)

    rows = compare({way: partial(ask, model) for way, model in forwards.items()}, f"{dataset}: forward", repeats)
    table = _rows(dataset, f"forward of {batch}", rows)
    micro = 125
    labels = torch.from_numpy(setting.train.labels[:micro])
    images = torch.from_numpy(setting.train.images[:micro]).float().contiguous(memory_format=torch.channels_last)
    networks = [pool_early(copy.deepcopy(setting.model)).train() for _ in range(2)]
    steps = {"eager": networks[0], "compiled": torch.compile(networks[1])}
    rows = compare({w: partial(step, m, images, labels) for w, m in steps.items()}, f"{dataset}: step", repeats)
    return table + _rows(dataset, f"training step of {micro}", rows)


def _rows(dataset: str, what: str, found: dict[str, tuple[float, float]]) -> list[str]:
    base = next(iter(found.values()))[1]
    return [
        f"| `{dataset}` | {what} | {way} | {first:.1f} | {1000 * later:.1f} | {base / later:.2f} |"
        for way, (first, later) in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    rows = [row for dataset in arguments.datasets for row in bench(dataset, arguments.repeats)]
    print("| dataset | what | way | first call, s | then, ms | times the first row's speed |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
