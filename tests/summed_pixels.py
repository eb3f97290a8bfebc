"""A network whose logits are sums over pixels, whose right explanation is known; its maps and their properties."""

import json
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from iic.classifiers.inference import fingerprint, freeze
from iic.classifiers.networks import Normalize
from iic.data.card import describe as describe_data
from iic.data.images import ImageSet
from iic.evaluation.properties import describe
from iic.evaluation.sanity import Explainer
from iic.explainers.attributions import Attributions
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams, EvaluationParams
from iic.provenance import EXPLAINING, code_hash

SIDE, CLASSES, MEAN, STD = 12, 4, [120.0, 100.0, 140.0], [60.0, 70.0, 50.0]
PARAMS = AttributionParams(segmentation="grid", superpixels=4, budget=64, precision="float32", device="cpu")
EVALUATION = EvaluationParams(properties_images=8, sanity_images=3, bootstrap=100, precision="float32", seed=5)
ORDER = np.array([7, 2, 9, 0, 4, 11, 5, 1, 3, 8])  # of the explained images
TARGETS = np.arange(len(ORDER)) % CLASSES


def images(count, seed):
    """Random pictures, each with a brighter rectangle of 4 x 5 pixels, which is its mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 200, (count, 3, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask, y, x in zip(masks, rng.integers(0, SIDE - 4, count), rng.integers(0, SIDE - 5, count), strict=True):
        mask[y : y + 4, x : x + 5] = True
    pixels += (55 * masks[:, None]).astype(np.uint8)
    return ImageSet(pixels, np.arange(count) % CLASSES, masks)


TRAIN, TEST = images(40, 0), images(12, 1)
CARD = describe_data(TRAIN, TEST, name="made-up", source="here", class_names=tuple("abcd"))
CARD["train"]["mean"] = MEAN  # what the network normalises by


def linear_network():
    """Logits that are sums over pixels: what each pixel contributes is known."""
    torch.manual_seed(0)
    return nn.Sequential(Normalize(MEAN, STD), nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)).eval()


def explainer(method, model, params=PARAMS, labels=None):
    return Explainer(method, model, torch.from_numpy(TRAIN.images), np.array(MEAN), Segmenter(params, labels))


def contributions(model, pixels, targets):
    """Weight times normalised pixel, channels summed: float64 (N, H, W)."""
    weights = model[2].weight.detach().double().numpy().reshape(CLASSES, 3, SIDE, SIDE)[targets]
    return (weights * (pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))).sum(1)


def attributions(values, model, params=PARAMS, labels=None):
    made = {
        "model": fingerprint(freeze(model)),
        "data": CARD["test"]["sha256"],
        "parameters": params.determining(),
        "segments": Segmenter(params, labels).fingerprint(),
        "code": code_hash(EXPLAINING),
    }
    return Attributions(np.asarray(values, np.float32), ORDER, TARGETS, {}, made=made)


def named(method, maps):
    return replace(maps, made=maps.made | {"method": method})


def explained(method, model, params=PARAMS):
    context = explainer(method, model, params).context(model)
    return attributions(explain(method, context, TEST.images[ORDER], ORDER, TARGETS).values, model, params)


def described(method, model, maps=None, test=TEST, params=PARAMS, **options):
    maps = explained(method, model, params) if maps is None else maps
    maps = named(method, maps)
    found = describe(explainer(method, model, params), maps, test, EVALUATION, data=CARD["test"]["sha256"], **options)
    json.dumps(found, allow_nan=False)
    return found


def noise(seed):
    return np.random.default_rng(seed).normal(size=(len(ORDER), SIDE, SIDE))
