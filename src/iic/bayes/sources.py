"""Where an explanation's uncertainty comes from: the same images explained again with one thing changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from iic.bayes.explanations import Weights, lrp_maps
from iic.bayes.inference import sample_weights
from iic.bayes.record import Learnt
from iic.bayes.sizes import KERNEL, STRIDE
from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import Normalize
from iic.classifiers.precision import Forward
from iic.explainers.context import Context, make_context, precision_of
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter

SAMPLED = ("lime", "kernel_shap")  # these have sampling noise and superpixels
COARSER = 0.8  # each segmentation asks for so many times the superpixels of the one before
# Other superpixels need other masks; another network is asked about the same ones.
MASK_NOISE = {f"{method}: segmentation": f"{method}: sampling" for method in SAMPLED}


@dataclass(frozen=True)
class Explained:
    """Some test images, and how a network is explained on them.

    Attributes:
        model: the explained network; its classes are explained throughout.
        images: uint8 (N, C, H, W).
        indices: int64 (N,), their positions in the test set.
        segmenter: their superpixels, and how they are explained.
        mean: float (C,), the training images' mean colour, pixel units.
        sample: pixels that a faster forward is fitted to, see `make_context`.
    """

    model: nn.Module
    images: np.ndarray
    indices: np.ndarray
    segmenter: Segmenter
    mean: np.ndarray
    sample: Tensor

    @cached_property
    def targets(self) -> np.ndarray:
        """The explained classes, int64 (N,)."""
        return predicted_class(freeze(self.model), torch.from_numpy(self.images)).numpy()

    def context(self, network: nn.Module, method: str, precision: str | None = None) -> Context:
        """What the method needs to explain this network; None: in the precision that suits it."""
        wanted = precision or precision_of(method, self.segmenter.params)
        return make_context(network, self.sample, self.mean, self.segmenter, wanted)

    def maps(self, method: str, contexts: Iterable[Context]) -> np.ndarray:
        """The images' maps in each context: float32 (R, N, H, W)."""
        found = [explain(method, context, self.images, self.indices, self.targets).values for context in contexts]
        return np.stack(found)


def repeated_maps(
    explained: Explained,
    retrained: Sequence[nn.Module],
    posterior: Learnt,
    *,
    repeats: int,
    seed: int,
    progress: Callable = iter,
) -> dict[str, np.ndarray]:
    """Maps of some test images by LIME, Kernel SHAP and LRP, with one source of uncertainty changed at a time.

    Args:
        explained: the images and the network.
        retrained: the same network from other training seeds; none leaves that source out.
        posterior: of a whole network, each of whose samples is a network of its own; or of the explained one's last
            layer, whose samples take its place.
        repeats: R, at least 2, of sampling noise, segmentation and posterior.
        seed: of the posterior's samples.
        progress: wraps the methods.

    Returns:
        "<method>: <source>" -> float32 (R, N, H, W).
    """
    weights = list(sample_weights(posterior, repeats, seed=seed))
    found: dict[str, np.ndarray] = {}
    for method in progress([*SAMPLED, "lrp"]):
        base = explained.context(explained.model, method)
        contexts = _sampled(base, repeats) if method in SAMPLED else {}
        if retrained:
            contexts["training seed"] = _retrained(explained, method, base, retrained)
        sources = {source: explained.maps(method, some) for source, some in contexts.items()}
        sources["posterior"] = _of_posterior(explained, method, base, weights, posterior)
        found |= {f"{method}: {source}": maps for source, maps in sources.items()}
    return found


def varied_network(source: str, posterior: Learnt) -> str:
    """Whose maps a source of `repeated_maps` varies: the explained network's, or the Bayesian one's."""
    return "Bayesian" if source.endswith(": posterior") and not posterior.of_features else "explained"


def with_last_layer(model: nn.Sequential, weights: Mapping[str, Tensor], mean: float, unit: float) -> nn.Sequential:
    """A frozen network's layers, with one posterior sample of the last one, which sees features / unit - mean."""
    weight = weights["layer0.weight"]
    last = nn.Linear(weight.shape[1], weight.shape[0])
    last.load_state_dict({"weight": weight / unit, "bias": weights["layer0.bias"] - mean * weight.sum(1)})
    return nn.Sequential(*model[:-1], last).eval().requires_grad_(False)


def as_network(weights: Mapping[str, Tensor], pixel_mean: float, channels: int) -> nn.Sequential:
    """One posterior sample as a network that every explainer takes: logits (N, classes) of pixels 0..255."""
    layers: list[nn.Module] = [Normalize([255 * pixel_mean] * channels, [255.0] * channels)]
    names, flat = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")], False
    for name in names:
        weight = weights[f"{name}.weight"]
        outputs, inputs = weight.shape[:2]
        if weight.ndim == 2 and not flat:
            layers.append(nn.Flatten())
            flat = True
        layer = nn.Linear(inputs, outputs) if flat else nn.Conv2d(inputs, outputs, KERNEL, STRIDE)
        layer.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


def _sampled(base: Context, repeats: int) -> dict[str, Iterator[Context]]:
    """Other masks, and other superpixels: of the user's own, or of single pixels, there are no others."""
    params = base.params
    contexts = {"sampling": (_with(base, seed=params.seed + r) for r in range(repeats))}
    if base.segments.labels is None and params.segmentation != "pixels":
        counts = [max(2, round(params.superpixels * COARSER**r)) for r in range(repeats)]
        contexts["segmentation"] = (_with(base, superpixels=count) for count in counts)
    return contexts


def _retrained(explained: Explained, method: str, base: Context, retrained: Sequence[nn.Module]) -> Iterator[Context]:
    """The explained network, then those from other training seeds, in its precision: that is no source of variance."""
    yield base
    yield from (explained.context(network, method, base.forward.precision) for network in retrained)


def _of_posterior(
    explained: Explained, method: str, base: Context, weights: Sequence[Weights], posterior: Learnt
) -> np.ndarray:
    """Maps of each of the posterior's samples: float32 (R, N, H, W)."""
    images, mean = explained.images, posterior.pixel_mean
    if posterior.of_features:
        frozen = freeze(explained.model)
        networks = (with_last_layer(frozen, one, mean, posterior.record.unit) for one in weights)
    elif method == "lrp":
        parts = lrp_maps(weights, mean, images, explained.targets, rules="epsilon_plus_box")
        return np.concatenate(list(parts))
    else:
        networks = (as_network(one, mean, images.shape[1]) for one in weights)
    return explained.maps(method, (_of(base, network) for network in networks))


def _with(context: Context, **changed: object) -> Context:
    """The same network, explained with other parameters."""
    params = context.params.model_copy(update=changed)
    return replace(context, params=params, segments=Segmenter(params, context.segments.labels))


def _of(context: Context, network: nn.Module) -> Context:
    """Another network, in float32 on the CPU, explained as this one."""
    return replace(context, plain=network, forward=Forward(network, "float32", "cpu", 1.0))
