"""What it costs to ask a posterior: seconds for many samples of many images, in float32 and in bfloat16.

    make bench-posterior
    make bench-posterior ARGS="--networks 1200,1200 --samples 25"

A mean-field posterior of a network 28 x 28 -> hidden layers -> 10, with random weights, is asked about random images;
32,64/128 has convolutions of 32 and 64 filters before a dense layer of 128 units. Seconds are of everything: draws of
the weights, products, softmax (asked for: at most 10 for 100 samples of 10,000 images through two layers of 1,200 on
two cores); those of the draws alone stand beside them. Classes are those of the mean over the samples, agreement that
with float32.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from functools import partial

import torch
from setting import seconds

from iic.bayes import network
from iic.bayes.inference import Posterior, sample_probabilities
from iic.bayes.sizes import Size, layer_sizes, units
from iic.bayes.uncertainty import uniform_noise
from iic.classifiers.inference import best_dtype
from iic.progress import bar

SHAPE, CLASSES, SCALE = (1, 28, 28), 10, 0.02  # of an image; of the weights


def sizes_of(name: str) -> tuple[Size, ...]:
    """Layers of a network as they are named on the command line."""
    filters, _, hidden = name.rpartition("/")
    filters, hidden = ([int(count) for count in part.split(",") if count] for part in (filters, hidden))
    return layer_sizes(SHAPE, filters, hidden, CLASSES)


def random_posterior(sizes: tuple[Size, ...]) -> Posterior:
    """Means as training starts with them, and as uncertain as training might leave them."""
    torch.manual_seed(0)
    loc = network.initial_means(sizes)
    scale = {name: torch.full_like(mean, SCALE) for name, mean in loc.items()}
    return Posterior(loc, scale, 0.5, torch.zeros(1))


def operations(sizes: tuple[Size, ...]) -> int:
    """Floating-point operations for one image and sample."""
    shapes = network.weight_shapes(sizes)
    weights = [math.prod(shape[1:]) for name, shape in shapes.items() if name.endswith("weight")]
    return 2 * sum(units(size) * inputs for size, inputs in zip(sizes[1:], weights, strict=True))


def bench(name: str, dtypes: list[torch.dtype], samples: int, images) -> list[str]:
    """A row of the table for each precision."""
    sizes = sizes_of(name)
    posterior = random_posterior(sizes)
    drawing = seconds(partial(deque, posterior.draw(samples, seed=0), maxlen=0))
    rows, classes = [], {}

    def ask(dtype: torch.dtype) -> None:
        show = bar(f"{name}, {dtype}", "sample")
        found = sample_probabilities(posterior, images, samples, seed=0, dtype=dtype, progress=show)
        classes[dtype] = found.mean(0).argmax(1)

    for dtype in dtypes:
        sample_probabilities(posterior, images, 1, seed=0, dtype=dtype)  # warms up
        whole = seconds(partial(ask, dtype))
        rate = operations(sizes) * samples * len(images) / whole / 1e12
        same = (classes[dtype] == classes[torch.float32]).float().mean().item() if torch.float32 in classes else None
        agreement = "" if same is None else f"{same:.2%}"
        precision = str(dtype).removeprefix("torch.") + (" (chosen)" if dtype == best_dtype() else "")
        rows.append(f"| {name} | {precision} | {samples} | {whole:.1f} | {drawing:.1f} | {rate:.2f} | {agreement} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["1200,1200", "512", "32,64/128"], help="filters/units")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    images = uniform_noise(arguments.images, SHAPE, seed=0)
    dtypes = [getattr(torch, name) for name in arguments.precisions]
    rows = []
    for name in arguments.networks:
        rows += bench(name, dtypes, arguments.samples, images)
    print("| network | precision | samples | s | of these, draws | TFLOP/s | same class as float32 |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
