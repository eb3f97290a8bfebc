"""What judging costs: the matrix over its forwards, ROAD, and the same curve by Quantus' PixelFlipping.

    make bench-evaluation ARGS="--datasets mnist --images 200"

First the estimate: forwards of headline and matrix for one method on this machine, and for all that a strict study
judges, its random controls in all their draws, times the seconds of a forward in each precision (asked for: at most 60
minutes a dataset). Which one a judge gets is chosen when it is trained, by the classes that it names on masked images,
and may be float32: the estimate has a line for each. Forwards alone are in it: not the making of the pictures, of which
ROAD's systems take longest, nor judges' training, properties, leakage and the maps themselves. Then it is measured,
with the explained network as both judges (another network of its kind and precision costs the same):

- the matrix without ROAD over the pure frozen forward of as many images, side by side (asked for: at most 1.15);
- ROAD's cells, whose systems have to be solved, on a row of their own;
- grey images: Quantus' PixelFlipping on the same maps, steps and fill (black), in the float32 model as its users run it
  and with our forward: its seconds over ours (asked for: 5), and how far the two curves are apart.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from setting import Setting, forwards_alone, seconds
from torch import nn

from iic.classifiers.inference import can_cast, freeze
from iic.evaluation.fills import FILLS, Fills
from iic.evaluation.outcomes import EXPLAINED, JUDGES, Cell, cells_by_draw, headline_cells, judge_maps, matrix_cells
from iic.explainers.attributions import Attributions
from iic.explainers.controls import draws_of
from iic.explainers.methods import explain
from iic.explainers.names import STUDY
from iic.explainers.perturbation import suitable_batch
from iic.params import EvaluationParams
from iic.progress import bar

STEP = 8  # pixels that PixelFlipping flips at once


def quantus_curve(model: nn.Module, images: np.ndarray, targets: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """PixelFlipping's probabilities of the explained class, step by step: (N, steps)."""
    import quantus

    metric = quantus.PixelFlipping(features_in_step=STEP, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    found = metric(model, images.astype(np.float32), targets, maps[:, None], softmax=True, device="cpu", batch_size=64)
    return np.array(found)


def our_curve(model: nn.Module, setting: Setting, maps: Attributions) -> np.ndarray:
    """The same by the project's matrix: (N, steps)."""
    size = maps.values[0].size
    steps = range(STEP, size + 1, STEP)
    black = Fills(np.zeros(setting.test.images.shape[1]), setting.train.images)
    wanted = [Cell(EXPLAINED, "remove", "mean_colour", step / size, 0) for step in steps]
    found = judge_maps(maps, {(EXPLAINED, "mean_colour"): model}, setting.test, black, wanted, seed=0)
    return found.probability.T


def bench(dataset: str, arguments: argparse.Namespace) -> None:
    setting, params = Setting.load(dataset), EvaluationParams()
    fast = setting.context.forward
    indices = setting.chosen(arguments.images)
    targets = setting.targets(indices)
    values = explain("lrp", setting.context, setting.test.images[indices], indices, targets).values
    maps = Attributions(values, indices, targets, {})
    fills = Fills(setting.context.mean, setting.train.images)
    judges = {(judge, fill): fast.model for judge in JUDGES for fill in FILLS}
    batch = suitable_batch(fast.model, fast.device, setting.test.images.shape[1:])
    pixels = torch.from_numpy(setting.test.images[np.resize(indices, batch)]).float()
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    forwards_alone(fast.model, pixels, 10 * batch)
    cells = matrix_cells(params)
    one = Attributions(values[:1], indices[:1], targets[:1], {})
    draws = {method: len(draws_of(method, one, 0)) for method in STUDY}
    _estimate(dataset, setting, pixels, {method: study_forwards(params, n, setting) for method, n in draws.items()})
    for name, some in (("matrix without ROAD", [c for c in cells if c.fill != "road"]),
                       ("ROAD's cells", [c for c in cells if c.fill == "road"])):  # fmt: skip
        count = len(some) * len(indices)
        pairs = [
            (
                seconds(lambda c=some: judge_maps(maps, judges, setting.test, fills, c, seed=0)),
                seconds(lambda n=count: forwards_alone(fast.model, pixels, n)),
            )
            for _ in bar(f"{dataset}: {name}", "repeat")(range(arguments.repeats))
        ]
        whole, alone = np.median(pairs, axis=0)
        print(f"{dataset}: {name}: {whole:.2f} s, {count:,} forwards alone {alone:.2f} s, ratio {whole / alone:.3f}")
    _beside_quantus(dataset, setting, maps, arguments)


def study_forwards(params: EvaluationParams, draws: int, setting: Setting) -> dict[str, int]:
    """What judging a method asks of the judges: forwards of the headline, whole test set, and of the matrix."""
    headline, matrix = (
        sum(map(len, cells_by_draw(draws, wanted))) for wanted in (headline_cells(params), matrix_cells(params))
    )
    return {"headline": headline * len(setting.test), "matrix": matrix * params.matrix_images}


def _estimate(dataset: str, setting: Setting, pixels: torch.Tensor, counts: dict[str, dict[str, int]]) -> None:
    """What judging one method, and a strict study, takes if all judges have this precision or that one.

    Args:
        dataset: its name.
        setting: the network.
        pixels: a batch.
        counts: by method `study_forwards`; the first is the one method.
    """
    device = setting.context.forward.device
    models = {"float32": setting.context.plain, setting.context.forward.precision: setting.context.forward.model}
    if can_cast(setting.context.plain):
        models["bfloat16"] = freeze(setting.model, torch.bfloat16).to(device)
    whole = sum(sum(parts.values()) for parts in counts.values())
    first = next(iter(counts.values()))
    for precision, model in models.items():
        one = seconds(lambda m=model: forwards_alone(m, pixels, 4 * len(pixels))) / (4 * len(pixels))
        by_part = ", ".join(f"{name} {n:,} forwards, {n * one / 60:.1f} min" for name, n in first.items())
        print(
            f"{dataset}, judges in {precision}: a forward takes {one * 1e6:.0f} µs; for one method {by_part}; for the "
            f"{len(counts)} methods of a strict study {whole:,} forwards, {whole * one / 60:.0f} min",
            flush=True,
        )


def _beside_quantus(dataset: str, setting: Setting, maps: Attributions, arguments: argparse.Namespace) -> None:
    if setting.test.images.shape[1] > 1:
        print(
            f"{dataset}: Quantus flips single channels, in steps that divide H W: no curve of whole pixels to compare"
        )
        return
    few = slice(0, arguments.quantus_images)
    some = Attributions(maps.values[few], maps.indices[few], maps.targets[few], {})
    images = setting.test.images[some.indices]
    plain, fast = setting.context.plain, setting.context.forward.model
    # Same curve: both with the frozen float32 network. Quantus flips equal values in an order of its own.
    theirs, ours = quantus_curve(plain, images, some.targets, some.values), our_curve(plain, setting, some)
    steps = min(theirs.shape[1], ours.shape[1])
    apart = np.abs(theirs[:, :steps] - ours[:, :steps])
    for name, model in (("as its users run it", setting.model.eval()), ("with our forward", fast)):
        pairs = [
            (seconds(lambda m=model: quantus_curve(m, images, some.targets, some.values)),
             seconds(lambda: our_curve(fast, setting, some)))
            for _ in bar(f"{dataset}: Quantus {name}", "repeat")(range(arguments.repeats))
        ]  # fmt: skip
        took, mine = np.median(pairs, axis=0)
        print(f"{dataset}: Quantus' PixelFlipping {name}: {took:.2f} s, ours {mine:.2f} s, ratio {took / mine:.1f}")
    print(f"{dataset}: the curves' {steps} steps differ by {apart.mean():.1e} on average, {apart.max():.1e} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--quantus-images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        bench(dataset, arguments)


if __name__ == "__main__":
    main()
