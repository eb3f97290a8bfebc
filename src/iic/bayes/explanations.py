"""Relevance maps of a posterior: each sample of the weights is a network with an explanation of its own (Bykov et al.
2021, arXiv 2108.10346), so an image has a distribution of maps.

The weights of a few samples at a time are stacked and multiplied as a batch. Samples are walked through, never held:
memory does not grow with their number. Maps are of a logit, signed, channels summed, with respect to the normalised
pixels, so the mean colour is the zero of input x gradient and the baseline of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iic.bayes import network
from iic.errors import UserError
from iic.explainers.lrp import EPSILON
from iic.explainers.lrp_rules import stabilised

TOGETHER = 16  # samples of the weights in one batched product

Weights = Mapping[str, Tensor]
# weight (B, outputs, inputs), or filters (B, O, C, k, k), and bias (B, outputs or O) of each layer, B samples
Layers = list[tuple[Tensor, Tensor]]


class Rules(NamedTuple):
    """LRP rules, as `iic.explainers.composites` names them, of the first layer and of those between it and the last.

    The last layer has epsilon, as all dense layers of the project's composites have.
    """

    first: str
    hidden: str


RULES = {
    "epsilon": Rules("epsilon", "epsilon"),  # the project's composite of that name
    # epsilon_plus_flat and epsilon_gamma_box, for dense layers. "flat" would give every pixel the same relevance, and
    # behind a single hidden layer no layer is left for "plus": epsilon_plus is epsilon there.
    "epsilon_plus": Rules("epsilon", "plus"),
    "epsilon_plus_box": Rules("box", "plus"),
}


class Samples:
    """Posterior samples that are drawn anew for each walk: `Samples(lambda: sample_weights(posterior, 100, seed=0))`.

    A list of them does as well, is quicker, and holds them all in memory.
    """

    def __init__(self, draw: Callable[[], Iterable[Weights]]) -> None:
        self.draw = draw

    def __iter__(self) -> Iterator[Weights]:
        return iter(self.draw())


def lrp_maps(
    samples: Iterable[Weights],
    pixel_mean: float,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    rules: str = "epsilon_plus",
    together: int = TOGETHER,
) -> Iterator[np.ndarray]:
    """Layer-wise relevance propagation (Bach et al. 2015) through every sample, stabilised as `iic.explainers.lrp` is.

    Args:
        samples: named and shaped as `network.weight_shapes` says.
        pixel_mean: subtracted from pixels / 255.
        images: uint8 (N, C, H, W).
        targets: int64 (N,), the explained classes; None explains `predicted_classes`.
        rules: a name of RULES.
        together: samples a batch; no map depends on it but by rounding.

    Yields:
        float32 (B, N, H, W), the maps of the next B samples.

    Raises:
        UserError: unknown rules, images that do not fit the network, or samples that can be walked through only once
            and no targets.
    """
    if rules not in RULES:
        raise UserError(f"Unknown LRP rules '{rules}' of a posterior: choose from {', '.join(RULES)}.")
    inputs, classes = checked_inputs(images, pixel_mean), _targets(samples, pixel_mean, images, targets)
    box = (-pixel_mean, 1 - pixel_mean)  # the darkest and the brightest normalised pixel
    found = (_lrp(layers, inputs, classes, RULES[rules], box) for layers in stacks(samples, inputs, together))
    return (per_pixel(values, images) for values in found)


def integrated_gradients_maps(
    samples: Iterable[Weights],
    pixel_mean: float,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    steps: int = 32,
    baseline: np.ndarray | None = None,
    together: int = TOGETHER,
) -> Iterator[np.ndarray]:
    """Integrated gradients (Sundararajan et al. 2017, eq. 1) of every sample, by the midpoint rule.

    On the straight way from the baseline the first layer's sums are a straight line, and the gradient is linear in
    what its outputs receive: the products with the largest weights are needed once, not once a step.

    Args:
        steps: of the way, in the middle of each of which the gradient is taken.
        baseline: pixel units 0..255, (C, H, W) or (N, C, H, W); None is the mean image, normalised input 0.
        samples, pixel_mean, images, targets, together: as in `lrp_maps`.

    Yields:
        float32 (B, N, H, W), whose sum nears the logit less the baseline's.

    Raises:
        UserError: as `lrp_maps`.
    """
    inputs, classes = checked_inputs(images, pixel_mean), _targets(samples, pixel_mean, images, targets)
    start = baseline_inputs(baseline, pixel_mean, images)
    found = (_integrated(layers, inputs, start, classes, steps) for layers in stacks(samples, inputs, together))
    return (per_pixel(values, images) for values in found)


@torch.no_grad()
def predicted_classes(samples: Iterable[Weights], pixel_mean: float, images: np.ndarray) -> np.ndarray:
    """The class of the largest mean probability over the samples: int64 (N,); arguments as `lrp_maps`."""
    inputs = checked_inputs(images, pixel_mean)
    total = sum(forward(layers, inputs)[1].double().softmax(-1).sum(0) for layers in stacks(samples, inputs))
    return total.argmax(-1).numpy()


def checked_inputs(images: np.ndarray, pixel_mean: float) -> Tensor:
    """Normalised pixels float32 (N, C * H * W), or a UserError unless images are uint8 (N, C, H, W)."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"A posterior explains uint8 images (N, C, H, W), not {images.dtype} {images.shape}.")
    return network.normalise(torch.from_numpy(images), pixel_mean)


def baseline_inputs(baseline: np.ndarray | None, pixel_mean: float, images: np.ndarray) -> Tensor:
    """A baseline in pixel units, (C, H, W) or (N, C, H, W), normalised: float32 (1 or N, C * H * W); None is 0."""
    if baseline is None:
        return torch.zeros(1, images[0].size)
    pixels = torch.as_tensor(baseline, dtype=torch.float32)
    return network.normalise(pixels.reshape(-1, *images.shape[1:]), pixel_mean)


def stacks(samples: Iterable[Weights], inputs: Tensor, together: int = TOGETHER) -> Iterator[Layers]:
    """The layers of the next `together` samples, stacked; or a UserError if inputs (N, length) do not fit them."""
    rest = iter(samples)
    while drawn := list(islice(rest, together)):
        names = [f"layer{i}" for i in range(len(drawn[0]) // 2)]
        layers = [tuple(torch.stack([w[f"{n}.{kind}"] for w in drawn]) for kind in ("weight", "bias")) for n in names]
        if wanted := network.wanted_inputs({n: w.shape for n, w in drawn[0].items()}, inputs.shape[1]):
            raise UserError(f"This posterior needs images of {wanted} each: give it such ones, not {inputs.shape[1]}.")
        yield layers


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One layer of B samples: x (N, inputs), the same for all, or (B, N, inputs) -> (B, N, outputs)."""
    if weight.ndim == 3:
        return torch.baddbmm(bias[:, None], x.expand(len(weight), *x.shape[-2:]), weight.mT)
    if x.ndim == 2:  # one convolution with the filters of all samples
        return network.affine(x, weight.flatten(0, 1), bias.flatten()).unflatten(1, (len(weight), -1)).transpose(0, 1)
    return torch.vmap(network.affine)(x, weight, bias)


def transposed(flow: Tensor, weight: Tensor, length: int) -> Tensor:
    """The gradient of `linear` with respect to its x: flow (B, N, outputs) -> (B, N, length)."""
    return torch.vmap(lambda f, w: network.transposed(f, w, length))(flow, weight)


def forward(layers: Layers, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What each layer gets, and the last one's outputs (B, N, classes); without layers, x itself."""
    received = []
    for number, (weight, bias) in enumerate(layers):
        received.append(x if number == 0 else x.relu())
        x = linear(received[-1], weight, bias)
    return received, x


def backward(layers: Layers, received: list[Tensor], flow: Tensor) -> Tensor:
    """Gradient of flow (B, N, classes) x outputs with respect to what the first layer gets: (B, N, inputs)."""
    for number in reversed(range(len(layers))):
        flow = transposed(flow, layers[number][0], received[number].shape[-1])
        if number > 0:
            flow = flow * (received[number] > 0)
    return flow


def per_pixel(values: Tensor, images: np.ndarray) -> np.ndarray:
    """Channels summed: (..., C * H * W) -> float32 (..., H, W), for images (N, C, H, W)."""
    return values.unflatten(-1, images.shape[1:]).sum(-3).float().numpy()


def _targets(samples: Iterable[Weights], pixel_mean: float, images: np.ndarray, targets: np.ndarray | None) -> Tensor:
    if targets is None:
        check_repeatable(samples)
        targets = predicted_classes(samples, pixel_mean, images)
    return torch.as_tensor(targets)


def check_repeatable(samples: Iterable[Weights]) -> None:
    """Raise UserError if the samples are gone after one walk through them."""
    if iter(samples) is samples:
        raise UserError(
            "These posterior samples can be walked through only once, and twice is needed: give a list of them, or "
            "Samples(...), which draws them again."
        )


def _one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """(N,) -> (B, N, classes), 1 at each image's target."""
    return torch.zeros_like(like).scatter_(2, targets.expand(len(like), -1)[..., None], 1)


@torch.no_grad()
def _lrp(layers: Layers, x: Tensor, targets: Tensor, rules: Rules, box: tuple[float, float]) -> Tensor:
    """Relevance (B, N, inputs)."""
    received, logits = forward(layers, x)
    relevance, last = logits * _one_hot(targets, logits), len(layers) - 1
    for number in reversed(range(len(layers))):
        rule = rules.first if number == 0 else "epsilon" if number == last else rules.hidden
        relevance = _step(rule, received[number], *layers[number], relevance, box)
    return relevance


def _step(rule: str, x: Tensor, weight: Tensor, bias: Tensor, relevance: Tensor, box: tuple[float, float]) -> Tensor:
    """What arrives at a layer's inputs, by the rules of `iic.explainers.lrp_rules`: (B, N, inputs)."""
    length = x.shape[-1]
    if rule == "epsilon":
        return x * transposed(relevance / stabilised(linear(x, weight, bias), EPSILON), weight, length)
    up, low, high = weight.clamp(min=0), *box
    if rule == "plus":  # behind a ReLU, so that no x is below 0
        return x * transposed(relevance / (linear(x, up, bias.clamp(min=0)) + EPSILON), up, length)
    down = weight - up
    # the box is the same for all pixels, and no filter reaches over an edge; the bias cancels itself
    ends = low * up.flatten(2).sum(2) + high * down.flatten(2).sum(2)
    s = relevance / stabilised(linear(x, weight, -ends), EPSILON)
    return x * transposed(s, weight, length) - low * transposed(s, up, length) - high * transposed(s, down, length)


@torch.no_grad()
def _integrated(layers: Layers, x: Tensor, start: Tensor, targets: Tensor, steps: int) -> Tensor:
    """(x - start) times the mean gradient: (B, N, inputs)."""
    (weight, bias), behind = layers[0], layers[1:]
    begin, end = linear(start, weight, bias), linear(x, weight, bias)  # the first layer's sums
    flow = torch.zeros_like(end)
    for step in range(steps):
        sums = torch.lerp(begin.expand_as(end), end, (step + 0.5) / steps)
        received, logits = forward(behind, sums.relu() if behind else sums)
        arrived = backward(behind, received, _one_hot(targets, logits))
        flow += arrived * (sums > 0) if behind else arrived
    return (x - start) * transposed(flow / steps, weight, x.shape[-1])
