"""What it costs to ask a posterior: seconds for many samples of many images, in float32 and in bfloat16.

    make bench-posterior
    make bench-posterior ARGS="--networks 1200,1200 --samples 25"
    make bench-posterior ARGS="--shipped digits"

A mean-field posterior of a network 28 x 28 -> hidden layers -> 10, with random weights, is asked about random images;
32,64/128 has convolutions of 32 and 64 filters before a dense layer of 128 units. Seconds are of everything: draws of
the weights, products, softmax (asked for: at most 10 for 100 samples of 10,000 images through two layers of 1,200 on
two cores); those of the draws alone stand beside them. Classes are those of the mean over the samples, agreement that
with float32. The shipped posterior of a dataset is asked about that dataset's test images, where the classes can be
right: the same run gives its seconds and its accuracy when it may not refuse.
"""

from __future__ import annotations

import argparse
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from setting import seconds

from iic.bayes import network
from iic.bayes.inference import Posterior, sample_probabilities
from iic.bayes.record import Learnt
from iic.bayes.sizes import Size, layer_sizes, side_after
from iic.bayes.uncertainty import uniform_noise
from iic.checks import check_parameters
from iic.classifiers.inference import best_dtype
from iic.pipelines.bayesian.nodes import train_bayesian
from iic.pipelines.data_prep.nodes import prepare_data
from iic.progress import bar
from iic.selection import configured_parameters, project_folder

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


def shipped(dataset: str) -> tuple[Learnt, np.ndarray, np.ndarray]:
    """The posterior of a dataset as the project ships it, the dataset's test images and their classes."""
    blocks = check_parameters(configured_parameters(), [dataset])[dataset]
    train, test, card = prepare_data(blocks["data"], dataset)
    params = blocks["bayesian"].model_copy(update={"weights": "shipped"})
    posterior = train_bayesian(params, blocks["training"], train, card, dataset, project_folder())
    return posterior, test.images, test.labels


def operations(shapes: Mapping[str, Sequence[int]], length: int) -> int:
    """Floating-point operations for one image and sample of a network of these `weight_shapes` that sees `length`."""
    total = 0
    for shape in (shape for name, shape in shapes.items() if name.endswith("weight")):
        places = side_after(math.isqrt(length // shape[1])) ** 2 if len(shape) == 4 else 1
        total += 2 * places * math.prod(shape)
        length = places * shape[0]
    return total


def bench(name: str, posterior: Learnt, images: np.ndarray, labels: np.ndarray | None, arguments) -> list[str]:
    """A row of the table for each precision."""
    samples = arguments.samples
    drawing = seconds(partial(deque, posterior.draw(samples, seed=0), maxlen=0))
    work = operations(posterior.shapes, math.prod(images.shape[1:])) * samples * len(images)
    rows, classes = [], {}

    def ask(dtype: torch.dtype) -> None:
        show = bar(f"{name}, {dtype}", "sample")
        found = sample_probabilities(posterior, images, samples, seed=0, dtype=dtype, progress=show)
        classes[dtype] = found.mean(0).argmax(1).numpy()

    for dtype in (getattr(torch, precision) for precision in arguments.precisions):
        sample_probabilities(posterior, images, 1, seed=0, dtype=dtype)  # warms up
        whole = seconds(partial(ask, dtype))
        found, exact = classes[dtype], classes.get(torch.float32)
        agreement = "" if exact is None else f"{(found == exact).mean():.2%}"
        right = "" if labels is None else f"{(found == labels).mean():.2%}"
        precision = str(dtype).removeprefix("torch.") + (" (chosen)" if dtype == best_dtype() else "")
        cells = [name, precision, samples, len(images), f"{whole:.1f}", f"{drawing:.1f}", f"{work / whole / 1e12:.2f}"]
        rows.append("| " + " | ".join(map(str, [*cells, agreement, right])) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["1200,1200", "512", "32,64/128"], help="filters/units")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--shipped", nargs="*", default=["mnist"], help="datasets")
    arguments = parser.parse_args()
    images = uniform_noise(arguments.images, SHAPE, seed=0)
    asked = {f"{dataset}, shipped": shipped(dataset) for dataset in arguments.shipped}  # what is missing is missed now
    rows = []
    for name in arguments.networks:
        rows += bench(name, random_posterior(sizes_of(name)), images, None, arguments)
    for name, posterior_and_test in asked.items():
        rows += bench(name, *posterior_and_test, arguments)
    print("| network | precision | samples | images | s | of these, draws | TFLOP/s | same class as float32 | right |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
