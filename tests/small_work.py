"""A small network, some images and how a few of them are explained, for the tests of shards and of clusters."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.explainers.attributions import Attributions
from iic.explainers.context import Context
from iic.explainers.segmentation import Segmenter
from iic.explainers.work import explain_images
from iic.params import AttributionParams

PARAMS = AttributionParams(budget=80, superpixels=16, segmentation="grid", shard_size=4)


def make_context(params=PARAMS) -> tuple[Context, np.ndarray]:
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(4, 8, 8)).eval()
    nn.init.normal_(model[-1].weight)
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), dtype=np.uint8)
    forward = fast_forward(model, torch.from_numpy(images), "float32", "cpu")
    return Context(freeze(model), forward, np.array([33.0]), params, Segmenter(params)), images


INDICES = np.array([3, 19, 0, 7, 11, 2, 5, 13, 17, 1])
TARGETS = np.arange(10) % 10


def run(folder: Path, method="kernel_shap", params=PARAMS, order=slice(None), **options) -> Attributions:
    context, images = make_context(params)
    made = {"method": method, "parameters": params.model_dump(mode="json")}
    return explain_images(method, context, images, INDICES[order], TARGETS[order], folder, made=made, **options)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix != ".seconds"}
