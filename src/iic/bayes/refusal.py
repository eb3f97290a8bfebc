"""Why a Bayesian network refuses an image: its doubt, not a class, attributed to pixels.

The doubt is the mutual information of class and weights, or the entropy of the mean prediction, in nats (Depeweg et
al. 2018; Houlsby et al. 2011). With p_s sample s's probabilities and p their mean, the gradient with respect to p_s is
(log p_s - log p) / S, or -log p / S, up to a constant that a softmax forgets: one walk through the samples for p, one
for the gradients, and none of them is held. A map's pixel is high where it makes the network doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import Tensor

from iic.bayes import explanations, network
from iic.bayes.explanations import Layers, Weights, backward, checked_inputs, forward, per_pixel
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.comparison import TAILS, against_best_control, resampled_means
from iic.evaluation.degradation import pixel_ranks
from iic.evaluation.fills import Fills
from iic.explainers.controls import RANDOM_DRAWS, centred_gaussian, random_pixels, sobel_edges

DOUBTS = ("mutual_information", "entropy")
CONTROLS = ("random", "sobel", "centre")
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
POINTS = 1000  # images, or places on the ways to them, in one product


@dataclass(frozen=True)
class Doubt:
    """What a posterior does not know of an image, in nats.

    Attributes:
        samples: of the weights, as `network.weight_shapes` names them; walked through again for every question.
        pixel_mean: subtracted from pixels / 255.
        kind: "mutual_information" (epistemic: the samples contradict one another) or "entropy" (of their mean).

    Raises:
        UserError: an unknown kind, or samples that can be walked through only once.
    """

    samples: Iterable[Weights]
    pixel_mean: float
    kind: str = "mutual_information"

    def __post_init__(self) -> None:
        if self.kind not in DOUBTS:
            raise UserError(f"Unknown kind of doubt '{self.kind}': choose from {', '.join(DOUBTS)}.")
        explanations.check_repeatable(self.samples)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The doubt about images of uint8 or float pixels 0..255, (N, C, H, W): float64 (N,), 0..log classes."""
        return self.of_inputs(network.normalise(torch.as_tensor(pixels), self.pixel_mean)).numpy()

    @torch.no_grad()
    def of_inputs(self, inputs: Tensor) -> Tensor:
        """The doubt about normalised pixels (N, C * H * W): float64 (N,)."""
        mean, entropy = self._averages(inputs)
        total = torch.special.entr(mean).sum(-1)
        # below 0 by rounding only (Jensen)
        return total if self.kind == "entropy" else (total - entropy).clamp(min=0)

    def inputs(self, images: np.ndarray) -> Tensor:
        """Normalised pixels: uint8 (N, C, H, W) -> float32 (N, C * H * W)."""
        return checked_inputs(images, self.pixel_mean)

    def baseline(self, pixels: np.ndarray | None, images: np.ndarray) -> Tensor:
        """A baseline in pixel units, (C, H, W) or (N, C, H, W), as inputs: float32 (1 or N, C * H * W); None is 0."""
        return explanations.baseline_inputs(pixels, self.pixel_mean, images)

    @torch.no_grad()
    def gradient(self, inputs: Tensor) -> Tensor:
        """With respect to each normalised pixel, (N, C * H * W), of the inputs' type."""
        mean, _ = self._averages(inputs)
        log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        gradient, count = torch.zeros_like(inputs), 0
        for layers, rows in self._parts(inputs):
            received, logits = forward(layers, inputs[rows])
            log_p = logits.double().log_softmax(-1)  # (B, n, K)
            slope = -log_mean[rows] + (log_p if self.kind == "mutual_information" else 0)
            p = log_p.exp()
            flow = p * (slope - (p * slope).sum(-1, keepdim=True))  # back through the softmax
            gradient[rows] += backward(layers, received, flow.to(logits.dtype)).sum(0)
            count += len(logits) if rows.start == 0 else 0
        return gradient / count

    def _averages(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Over the samples: mean probabilities (N, K) and mean entropy (N,), float64."""
        mean, entropy, count = 0, torch.zeros(len(inputs), dtype=torch.float64), 0
        for layers, rows in self._parts(inputs):
            p = forward(layers, inputs[rows])[1].double().softmax(-1)  # (B, n, K)
            if count == 0:
                mean = torch.zeros(len(inputs), p.shape[-1], dtype=torch.float64)
            mean[rows] += p.sum(0)
            entropy[rows] += torch.special.entr(p).sum((0, -1))
            count += len(p) if rows.start == 0 else 0
        return mean / count, entropy / count

    def _parts(self, inputs: Tensor) -> Iterator[tuple[Layers, slice]]:
        """Some samples and some rows of the inputs, until all have met; the first rows of new samples start at 0."""
        for layers in explanations.stacks(self.samples, inputs):
            yield from ((layers, slice(start, start + POINTS)) for start in range(0, len(inputs), POINTS))


def gradient_x_input(doubt: Doubt, images: np.ndarray) -> np.ndarray:
    """Normalised input times the doubt's gradient, channels summed: uint8 (N, C, H, W) -> float32 (N, H, W)."""
    inputs = doubt.inputs(images)
    return per_pixel(inputs * doubt.gradient(inputs), images)


def integrated_gradients(
    doubt: Doubt, images: np.ndarray, *, steps: int = 16, baseline: np.ndarray | None = None
) -> np.ndarray:
    """Integrated gradients of the doubt (Sundararajan et al. 2017) by the midpoint rule.

    The sum nears the doubt about the image less that about the baseline, which need not be small: a network may well
    doubt the mean image.

    Args:
        images: uint8 (N, C, H, W).
        steps: of the way from the baseline.
        baseline: pixel units 0..255, (C, H, W) or (N, C, H, W); None is the mean image, normalised input 0.

    Returns:
        float32 (N, H, W), nats.
    """
    inputs, start = doubt.inputs(images), doubt.baseline(baseline, images)
    middles = (torch.arange(steps) + 0.5) / steps
    places = start + middles[:, None, None] * (inputs - start)  # (steps, N, C * H * W)
    gradients = doubt.gradient(places.flatten(0, 1)).view_as(places)
    return per_pixel((inputs - start) * gradients.mean(0), images)


def removal_curve(
    doubt: Doubt,
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    fills: Fills,
    *,
    indices: np.ndarray,
    seed: int,
    names: tuple[str, ...] = ("mean_colour", "blur"),
    shares: tuple[float, ...] = SHARES,
    replicates: int = 2000,
) -> dict:
    """The doubt as the pixels that a map ranks highest are removed, beside the controls: lower is better for the map.

    Args:
        doubt: of other samples than made the maps, else the maps know their judge.
        images: uint8 (N, C, H, W), those that were refused say.
        maps: method -> float (N, H, W), high where a pixel makes the network doubt.
        fills: what takes the place of removed pixels.
        indices: int64 (N,), positions in the test set, which with `seed` key ties and the random control.
        names: of fills.
        shares: of the pixels, removed, ascending.
        replicates: of the bootstrap over images, one for all methods, so that differences are paired.

    Returns:
        JSON-ready: for each fill and method "curve", the mean doubt in nats at each share with its 95 % interval;
        "area" under it as a mean height; and "below_controls", the area of the lowest control less the method's.

    Raises:
        UserError: a method has a control's name.
    """
    if clash := [name for name in maps if name in CONTROLS]:
        raise UserError(f"A map is called {clash[0]}, as a control is: give it another name.")
    draws = {name: [values] for name, values in maps.items()} | _control_maps(images, indices, seed)
    ranks = {name: [pixel_ranks(values, indices, seed) for values in ranked] for name, ranked in draws.items()}
    report = {"doubt": doubt.kind, "unit": "nats", "images": len(images), "shares": list(shares), "fills": {}}
    for name in names:
        fill = partial(fills, name, images, indices=indices, noise_seed=seed)
        # (methods, shares, N), the mean over the random control's draws
        curves = np.stack([np.mean([_curve(doubt, r, fill, shares) for r in ranked], 0) for ranked in ranks.values()])
        report["fills"][name] = _rows(list(ranks), curves, shares, replicates, seed)
    return report


def _control_maps(images: np.ndarray, indices: np.ndarray, seed: int) -> dict[str, list[np.ndarray]]:
    """Control -> its draws, float64 (N, H, W) each; of CONTROLS only the random one has several."""
    shape = images.shape[2:]
    redrawn = [
        np.stack([random_pixels(shape, generator("redrawn", seed, index, draw)) for index in indices])
        for draw in range(RANDOM_DRAWS)
    ]
    edges = np.stack([sobel_edges(image) for image in images])
    centre = np.broadcast_to(centred_gaussian(shape), edges.shape)
    return dict(zip(CONTROLS, (redrawn, [edges], [centre]), strict=True))


def _curve(doubt: Doubt, ranks: np.ndarray, fill: Callable, shares: tuple[float, ...]) -> np.ndarray:
    """The doubt about the images without their top share of pixels: ranks (N, H, W) -> float64 (shares, N)."""
    shown = [fill(keep=ranks >= round(share * ranks[0].size)) for share in shares]
    return doubt(np.concatenate(shown)).reshape(len(shares), -1)


def _rows(names: list[str], curves: np.ndarray, shares: tuple[float, ...], replicates: int, seed: int) -> dict:
    """Curves (M, shares, N) as means with intervals of one paired bootstrap over images."""
    areas = trapezoid(curves, shares, axis=1) / (shares[-1] - shares[0])  # (M, N)
    everything = np.concatenate([curves.reshape(-1, curves.shape[2]), areas])
    means = resampled_means(everything, replicates, seed)
    ends = np.quantile(means, TAILS, axis=0).T.tolist()  # low and high of each row
    cells = [{"mean": float(row.mean()), "interval": end} for row, end in zip(everything, ends, strict=True)]
    controls = np.array([name in CONTROLS for name in names])
    gains = against_best_control(names, -areas, -means[:, -len(names) :], controls)
    rows = {}
    for number, name in enumerate(names):
        gain, control = gains[name].difference, gains[name].control
        rows[name] = {
            "is_control": name in CONTROLS,
            "curve": cells[number * len(shares) : (number + 1) * len(shares)],
            "area": cells[len(cells) - len(names) + number],
            "below_controls": {"mean": gain.point, "interval": [gain.low, gain.high], "control": control},
        }
    return rows
