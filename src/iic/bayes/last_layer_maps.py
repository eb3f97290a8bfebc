"""Explanations of a network with a Bayesian last layer: maps over the posterior's samples, and what makes it doubt.

The layers before the last are the same in every sample, and a sample's logits are linear in what they make of an image,
its features: for gradients these are computed once for all samples, and each sample's is one walk back from its own
weights. LRP is the explained network's own, forward and back for every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from iic.bayes import network
from iic.bayes.explanations import Weights
from iic.bayes.record import Learnt
from iic.bayes.refusal import Doubt
from iic.bayes.sources import with_last_layer
from iic.classifiers.inference import freeze
from iic.explainers.context import Context
from iic.explainers.methods import explain

BATCH = 250  # images through the layers before the last at once
PULLED = 64  # with all that is needed on the way back


@dataclass(frozen=True)
class LastLayer:
    """A network whose last layer has a posterior.

    Attributes:
        model: the network; it ends with a linear layer, which the posterior's samples replace.
        posterior: of its features.
        mean: float (C,), the training images' mean colour, pixel units: where relevance and gradients have their zero.
    """

    model: nn.Sequential
    posterior: Learnt
    mean: np.ndarray

    @cached_property
    def frozen(self) -> nn.Sequential:
        """The network, as it is explained."""
        return freeze(self.model)

    def centred(self, images: np.ndarray) -> Tensor:
        """Pixels less the mean colour, pixel units: (N, C, H, W) -> float32 (N, C, H, W)."""
        return torch.as_tensor(images).float() - torch.as_tensor(self.mean, dtype=torch.float32)[:, None, None]

    def features(self, centred: Tensor) -> Tensor:
        """What the posterior's samples see, in its unit: (N, C, H, W) -> float32 (N, F); gradients may flow."""
        pixels = centred + torch.as_tensor(self.mean, dtype=torch.float32)[:, None, None]
        seen = self.frozen[:-1](pixels.contiguous(memory_format=torch.channels_last))
        return network.normalise(seen, self.posterior.pixel_mean, self.posterior.record.unit)

    def pull(self, centred: Tensor, flows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Gradients of flow (N, F) x features with respect to the pixels, for each flow: float32 (N, C, H, W)."""
        with torch.enable_grad():
            leaf = centred.detach().clone().requires_grad_()
            seen = self.features(leaf)
        for flow in flows:
            yield torch.autograd.grad(seen, leaf, flow, retain_graph=True)[0]


def lrp_maps(
    layer: LastLayer,
    context: Context,
    samples: Iterable[Weights],
    images: np.ndarray,
    indices: np.ndarray,
    targets: np.ndarray,
    progress: Callable = iter,
) -> Iterator[np.ndarray]:
    """LRP of the network with each sample as its last layer, by the explained network's own composite.

    Args:
        layer: see there.
        context: how the network is explained.
        samples: of the last layer, as `network.weight_shapes` names them.
        images: uint8 (N, C, H, W).
        indices: int64 (N,), their positions in the test set.
        targets: int64 (N,), the explained classes.
        progress: wraps the samples.

    Yields:
        float32 (1, N, H, W), a sample's maps.
    """
    mean, unit = layer.posterior.pixel_mean, layer.posterior.record.unit
    for weights in progress(samples):
        plain = with_last_layer(layer.frozen, weights, mean, unit)
        yield explain("lrp", replace(context, plain=plain), images, indices, targets).values[None]


def integrated_gradients_maps(
    layer: LastLayer, samples: Iterable[Weights], images: np.ndarray, targets: np.ndarray, *, steps: int = 16
) -> Iterator[np.ndarray]:
    """Integrated gradients of every sample's logit from the mean colour (Sundararajan et al. 2017), midpoint rule.

    Arguments as `lrp_maps`; all samples' maps are held, so that each place on the way is gone through once.

    Yields:
        float32 (S, N, H, W), once.
    """
    weights = torch.stack([one["layer0.weight"] for one in samples])  # (S, K, F)
    flows = weights[:, torch.as_tensor(targets)]  # (S, N, F): the logit's gradient in the features
    end = layer.centred(images)
    total = torch.zeros(len(flows), *end.shape)
    for step in range(steps):
        for row, gradient in enumerate(layer.pull(end * ((step + 0.5) / steps), flows)):
            total[row] += gradient
    yield (total / steps * end).sum(2).numpy()


@dataclass(frozen=True)
class LastLayerDoubt:
    """What a posterior of a last layer does not know of an image, in nats; used as `refusal.Doubt`.

    Attributes:
        layer: see there.
        of_features: the doubt about features.
        shape: (C, H, W) of the images.
    """

    layer: LastLayer
    of_features: Doubt
    shape: tuple[int, int, int]

    @property
    def kind(self) -> str:
        """ "mutual_information" or "entropy"."""
        return self.of_features.kind

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The doubt about images of uint8 or float pixels 0..255, (N, C, H, W): float64 (N,), 0..log classes."""
        parts = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
        seen = torch.cat([self.layer.features(self.layer.centred(part)) for part in parts])
        return self.of_features.of_inputs(seen).numpy()

    def inputs(self, images: np.ndarray) -> Tensor:
        """Pixels less the mean colour: uint8 (N, C, H, W) -> float32 (N, C * H * W)."""
        return self.layer.centred(images).flatten(1)

    def baseline(self, pixels: np.ndarray | None, images: np.ndarray) -> Tensor:
        """A baseline in pixel units, (C, H, W) or (N, C, H, W), as inputs: float32 (1 or N, C * H * W); None is 0."""
        if pixels is None:
            return torch.zeros(1, images[0].size)
        return self.inputs(np.asarray(pixels).reshape(-1, *images.shape[1:]))

    def gradient(self, inputs: Tensor) -> Tensor:
        """With respect to each pixel: (N, C * H * W) -> the same."""
        found = []
        for part in inputs.split(PULLED):
            centred = part.unflatten(1, self.shape)
            with torch.no_grad():
                flow = self.of_features.gradient(self.layer.features(centred))
            found += self.layer.pull(centred, [flow])
        return torch.cat(found).flatten(1)
