"""Forms that are their classes, methods' leakage on small sets, and what goes on inside, for the tests of its nodes."""

import numpy as np
import torch
from test_leakage import outlines
from torch import nn
from watermarked import ATTRIBUTION, EVALUATION, NAMES, TRAINING

from iic.data.card import describe
from iic.data.images import ImageSet
from iic.evaluation import leaks
from iic.explainers import work
from iic.explainers.methods import explain
from iic.explainers.names import source_of
from iic.pipelines.attribution.nodes import derive_maps, explain_images
from iic.pipelines.evaluation.leak_nodes import leak_methods


class Told(nn.Module):
    """Reads the class off the upper left pixel, which is 100 + class."""

    def forward(self, x):
        return -((x[:, 0, :1, 0] - 100 - torch.arange(4.0)) ** 2)


def drawn(count, seed):
    """A white form of 16 pixels, which is the class, on grey; sorted by class, as `digits` is."""
    masks, labels = outlines(count, seed)
    order = np.argsort(labels, kind="stable")
    images = np.where(masks[order], 255, 100).astype(np.uint8)[:, None]
    images[:, 0, 0, 0] = 100 + labels[order]
    return ImageSet(images, labels[order])


def draw_forms():
    """Training and test images, and their card."""
    train, test = drawn(320, 0), drawn(240, 1)
    return train, test, describe(train, test, name="forms", source="made", class_names=NAMES)


def maps_of(method, data, model, project, params=ATTRIBUTION):
    train, test, card = data
    source = source_of(method)
    names = {"dataset": "d", "project": project}
    found = explain_images(params, train, test, card, model, method=source or method, **names)
    return (found if source is None else derive_maps(params, test, *found, method=method, **names))[0]


def leak_group(methods, data, model, project, params=ATTRIBUTION, wanted=EVALUATION):
    maps = {method: maps_of(method, data, model, project, params) for method in methods}
    names = {"dataset": "d", "methods": methods, "project": project}
    found = leak_methods(wanted, params, TRAINING, model, *data, **names, **maps)
    return dict(zip(methods, found, strict=True))


def leak(method, *rest):
    return leak_group((method,), *rest)[method]


def left_behind(project):
    return list(project.glob("data/07_attributions/d/*/training"))


def count_explained(monkeypatch):
    """For each call that explains training images of `forms` or `waves`: method, whether with its twin, how many."""
    calls = []

    def counted(method, context, images, indices, *rest, twin=False):
        if indices.min() >= 240:
            calls.append((method, twin, len(images)))
        return explain(method, context, images, indices, *rest, twin=twin)

    monkeypatch.setattr(work, "explain", counted)
    return calls


def catch_masks(monkeypatch):
    """What the mask network is given, in place of what it would say."""
    calls = []

    def catch(*arrays, **options):
        calls.append((*arrays, options))
        return {"accuracy": 0.5}

    monkeypatch.setattr(leaks, "leakage", catch)
    return calls
