"""Whether a map depends on what the network has learned (Adebayo et al. 2018, arXiv 1810.03292).

Layer by layer, from the last to the first, weights are replaced by random ones; a map that stays the same shows the
image, not the network. Random weights are PyTorch's own initial ones, not those that `build_network` starts from: half
of its filters pass their input on, and what such a network lets through would be taken for the method's fault.

BatchNorm's statistics are taken anew, from some images, in every layer that is randomised. The old ones belong to
activations that are gone: with them most ReLUs would be always shut or always open, and maps would change for that
reason instead. Layers that keep their weights lie before the random ones, see the same as ever, and keep theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from iic.classifiers.batchnorm import settle
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.agreement import spearman, ssim

BATCH = 250  # images a forward
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def cascade(model: nn.Sequential, sample: Tensor, seed: int) -> Iterator[tuple[str, nn.Sequential]]:
    """Copies of a network in which ever more layers are random, the last layer first.

    Args:
        model: trained, BatchNorm not yet folded; left as it is.
        sample: uint8 or float (S, C, H, W), pixels 0..255, some hundred images for BatchNorm's statistics.
        seed: of the weights; each layer has draws of its own.

    Yields:
        the name of the layer down to which all are random, and the network, in evaluation mode.

    Raises:
        UserError: weights that no layer knows how to draw.
    """
    model = copy.deepcopy(model).eval()
    layers = _layers(model)
    norms: list[nn.Module] = []
    for number in reversed(range(len(layers))):
        name, modules = layers[number]
        _redraw(modules, seed, number)
        norms += [m for m in modules if isinstance(m, NORMS)]
        settle(model, norms, (part.float() for part in sample.split(BATCH)))
        yield name, copy.deepcopy(model)


def random_weights(model: nn.Sequential, sample: Tensor, seed: int) -> nn.Sequential:
    """The network with all weights random: the end of `cascade` with the same arguments, a control for any method."""
    model = copy.deepcopy(model).eval()
    layers = _layers(model)
    for number, (_, modules) in enumerate(layers):
        _redraw(modules, seed, number)
    norms = [m for _, modules in layers for m in modules if isinstance(m, NORMS)]
    settle(model, norms, (part.float() for part in sample.split(BATCH)))
    return model


def similarity(original: np.ndarray, randomised: np.ndarray) -> dict[str, np.ndarray]:
    """How alike the maps of the trained and of a randomised network are, image by image.

    Args:
        original, randomised: float (N, H, W).

    Returns:
        float64 (N,) each: "spearman" of the values, "spearman_absolute" of their absolute values, since a map that only
        changes its signs still looks the same, and "ssim"; 1 = alike, about 0 = the map depends on the weights.
    """
    return {
        "spearman": spearman(original, randomised),
        "spearman_absolute": spearman(np.abs(original), np.abs(randomised)),
        "ssim": ssim(original, randomised),
    }


def check_redrawable(model: nn.Module) -> None:
    """Raise UserError, naming them, for weights that no layer knows how to draw."""
    _layers(model)


def _layers(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """Names of the convolutions and dense layers in the order they were put in, each with the norms behind it."""
    layers: list[tuple[str, list[nn.Module]]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or (hasattr(module, "reset_parameters") and not layers):
            layers.append((name, [module]))
        elif hasattr(module, "reset_parameters"):
            layers[-1][1].append(module)
    known = {id(weight) for _, modules in layers for module in modules for weight in module.parameters()}
    for name, weight in model.named_parameters():
        if id(weight) not in known:
            raise UserError(
                f"The weights '{name}' are in no layer that can draw them anew: "
                "parameter randomisation needs a network of PyTorch's own layers."
            )
    return layers


def _redraw(modules: list[nn.Module], seed: int, number: int) -> None:
    """Draw the weights of a layer anew, without a trace in the caller's draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator("randomisation", seed, number).integers(2**63)))
        for module in modules:
            module.reset_parameters()
