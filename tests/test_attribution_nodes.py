"""What the attribution nodes hand to the explainers: the sample of training images, and the classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iic.classifiers import inference
from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.data.images import ImageSet
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams
from iic.pipelines.attribution.nodes import AT_ONCE, _classes, explaining, sample_of


def sorted_set(count: int) -> ImageSet:
    """Ten classes one after the other; the first two pixels hold an image's position."""
    images = np.zeros((count, 1, 28, 28), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    return ImageSet(images, np.arange(count) * 10 // count)


@pytest.mark.parametrize("count", [797, 1000, 5000])
def test_the_first_images_of_a_sample_are_of_all_classes_where_a_set_is_sorted_by_class(count):
    train = sorted_set(count)
    first, second = sample_of(train)[:, 0, 0, :2].numpy().astype(int).T
    positions = 256 * first + second
    evenly = np.linspace(0, count - 1, min(count, 1000), dtype=int)
    np.testing.assert_array_equal(np.sort(positions), evenly)
    for some in (30, 100, 256):
        held = np.bincount(train.labels[positions[:some]], minlength=10)
        assert np.abs(held - some / 10).max() <= 2


def test_classes_are_asked_for_in_parts_and_are_the_same(monkeypatch):
    torch.manual_seed(0)
    model = inference.freeze(build_network([128.0], [64.0], widths=(4, 4, 4)))
    images = np.random.default_rng(0).integers(0, 256, (700, 1, 28, 28), dtype=np.uint8)
    indices = np.random.default_rng(1).permutation(700)[:600]
    expected = inference.predicted_class(model, torch.from_numpy(images[indices])).numpy()
    ask, sizes = inference.predicted_class, []
    monkeypatch.setattr(inference, "predicted_class", lambda m, x, **kw: sizes.append(len(x)) or ask(m, x, **kw))
    context = SimpleNamespace(plain=model, forward=SimpleNamespace(device="cpu"))
    np.testing.assert_array_equal(_classes(context, images, indices, "digits"), expected)
    assert sizes == [AT_ONCE, AT_ONCE, 600 - 2 * AT_ONCE]


def test_a_network_with_random_weights_is_asked_in_the_trained_networks_precision(monkeypatch):
    asked = []

    def choose(model, sample, precision, device, ranking):
        asked.append((model, precision))
        return fast_forward(model, sample, "bfloat16" if precision == "auto" else precision, device)

    monkeypatch.setattr("iic.explainers.context.fast_forward", choose)
    model, train = build_network([128.0], [64.0], widths=(4, 4, 4)).eval(), sorted_set(50)
    segmenter = Segmenter(AttributionParams(device="cpu"))
    given = (train, {"train": {"mean": [0.0]}}, segmenter, train.images, np.arange(10), "digits")
    context, targets, origin = explaining("lime_random_weights", model, *given)
    assert [precision for _, precision in asked] == ["auto", "bfloat16"] == ["auto", origin["precision"]]
    assert asked[0][0] is model and asked[1][0] is not model
    trained = inference.freeze(model)
    np.testing.assert_array_equal(targets, inference.predicted_class(trained, torch.from_numpy(train.images[:10])))
    assert not torch.equal(context.plain[1].weight, trained[1].weight)
