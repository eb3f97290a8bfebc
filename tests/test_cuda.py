"""On a CUDA device every method finds what it finds on the CPU; skipped, saying so, where there is none."""

import numpy as np
import pytest
import torch
from conftest import needs_cuda

from iic.classifiers.inference import logits
from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.explainers.context import make_context
from iic.explainers.methods import explain
from iic.explainers.names import DIRECT, RANDOM_WEIGHTS
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams

IMAGES = 5
PARAMS = {"segmentation": "grid", "budget": 100, "superpixels": 20, "gradient_steps": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def coloured():
    """A network with sums and random weights, and images without two pixels alike: no maximum is a tie."""
    torch.manual_seed(0)
    model = build_network([128.0] * 3, [64.0] * 3, widths=(8, 16, 16), depth=3, residual=True).eval()
    torch.nn.init.normal_(model[-1].weight)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    return model, images


@needs_cuda
@pytest.mark.parametrize("method", [m for m in DIRECT if not m.endswith(RANDOM_WEIGHTS)])
def test_cuda_explains_as_the_cpu_does(coloured, method):
    model, images = coloured
    indices, targets = np.arange(IMAGES), np.arange(IMAGES)
    found = []
    for device in ("cpu", "cuda"):
        segmenter = Segmenter(AttributionParams(device=device, **PARAMS))
        context = make_context(model, torch.from_numpy(images), np.array([128.0] * 3), segmenter, "float32")
        assert next(context.plain.parameters()).device.type == device
        found.append(explain(method, context, images, indices, targets).values)
    for exact, other in zip(*found, strict=True):
        assert np.linalg.norm(other - exact) <= 2e-3 * np.linalg.norm(exact)


@needs_cuda
def test_float32_is_float32_on_cuda(coloured):
    """Not TF32, whose ten bits would be off by a thousandth."""
    model, images = coloured
    pixels = torch.from_numpy(images)
    cpu, cuda = (fast_forward(model, pixels, "float32", device).model for device in ("cpu", "cuda"))
    exact = logits(cpu, pixels)
    assert (logits(cuda, pixels.cuda()).cpu() - exact).abs().max() < 1e-4 * exact.abs().max()
