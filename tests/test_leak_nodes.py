"""Leakage as nodes, on sets whose answers are known."""

import io
import json

import numpy as np
import pytest
import torch
from matplotlib.container import BarContainer
from scipy.ndimage import gaussian_filter
from small_leaks import Told, catch_masks, count_explained, draw_forms, leak, leak_group, left_behind, maps_of
from watermarked import ATTRIBUTION, EVALUATION, TRAINING

from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.precision import fast_forward
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation import leaks
from iic.evaluation.degradation import top_pixels
from iic.evaluation.randomisation import random_weights
from iic.explainers import work
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.methods import RANDOM, explain
from iic.explainers.segmentation import Segmenter
from iic.explainers.twins import blurred
from iic.pipelines.attribution.nodes import sample_of
from iic.pipelines.evaluation.leak_nodes import draw_leakage, leak_methods


@pytest.fixture(scope="module")
def forms():
    return draw_forms()


@pytest.fixture
def explained(monkeypatch):
    return count_explained(monkeypatch)


@pytest.fixture
def seen(monkeypatch):
    return catch_masks(monkeypatch)


def test_masks_that_show_the_form_leak_and_random_ones_do_not(forms, tmp_path):
    found = leak_group(("contrast", "contrast_blurred"), forms, Told(), tmp_path)
    found["random"] = leak("random", forms, Told(), tmp_path)
    assert found["contrast"]["leaks"] and found["contrast"]["accuracy"] > 0.9
    assert found["contrast_blurred"]["leaks"] and found["contrast_blurred"]["accuracy"] > 0.6
    assert not found["random"]["leaks"] and found["random"]["interval"][0] < 0.25 < found["random"]["interval"][1]
    for method, result in found.items():
        assert (result["method"], result["n"], result["n_train"], result["n_test"]) == (method, 300, 300, 200)
        assert result["made"]["images"] == "training" and result["made"]["method"] == method
    assert not left_behind(tmp_path)
    not_measured = {"method": "random_superpixels", "n": 0, "reason": "no superpixels"}
    leaves = json.loads(json.dumps({**found, "random_superpixels": not_measured}, allow_nan=False))
    figure = draw_leakage("forms", **leaves)
    figure.savefig(io.BytesIO())
    bars = [c for c in figure.axes[0].containers if isinstance(c, BarContainer)]
    heights = [bar.get_height() for container in bars for bar in container][2:]  # after two for the legend
    assert heights == [r["accuracy"] for r in found.values()]
    assert "not measured" in figure.axes[0].texts[-1].get_text()
    draw_leakage("forms", random_superpixels=not_measured).savefig(io.BytesIO())
    made = leaves["random"]["made"]
    refused = {"made with another network": {"made": {**made, "model": "another"}}}
    refused |= {"made with other parameters": {"made": {**made, "parameters": {**made["parameters"], "budget": 7}}}}
    for what, other in [*refused.items(), *(("another share", {k: 7}) for k in ("n", "kept_share", "judged"))]:
        with pytest.raises(UserError, match=rf"leakage of forms\.random is (of )?{what}"):
            draw_leakage("forms", contrast=leaves["contrast"], random={**leaves["random"], **other})


def test_training_and_test_images_share_no_draws(forms, seen, tmp_path):
    """Each mask against the draws of its own position, training images behind the test set."""
    train, test, _ = forms
    leak("random", forms, Told(), tmp_path)
    ((train_masks, train_labels, test_masks, test_labels, options),) = seen
    for data, first, masks, labels in ((train, 240, train_masks, train_labels), (test, 0, test_masks, test_labels)):
        chosen = select_images(data.labels, len(masks), 0)
        np.testing.assert_array_equal(labels, data.labels[chosen])
        for position, mask in zip(chosen, masks, strict=True):
            values = generator("method", 0, first + position, RANDOM).random((12, 12))
            np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(np.argsort(values, axis=None)[-16:]))
    assert options["classes"] == 4


def test_what_was_made_before_an_interruption_is_not_made_again(forms, explained, monkeypatch, tmp_path):
    blurs, read = [], []
    few = EVALUATION.model_copy(update={"leakage_images": 120})
    methods = ("sobel", "sobel_blurred")
    maps = {method: maps_of(method, forms, Told(), tmp_path) for method in methods}
    monkeypatch.setattr(work, "blurred", lambda *a: blurs.append(1) or blurred(*a))

    def interrupted(*arrays, **options):
        read.append(1)
        if len(read) == 2:
            raise KeyboardInterrupt
        return {}

    def leaks_of():
        names = {"dataset": "d", "methods": methods, "project": tmp_path}
        return leak_methods(few, ATTRIBUTION, TRAINING, Told(), *forms, **names, **maps)

    monkeypatch.setattr(leaks, "leakage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leaks_of()
    assert sum(n for _, _, n in explained) == len(blurs) == 120 and len(left_behind(tmp_path)) == 2
    assert [found["n"] for found in leaks_of()] == [120, 120]
    assert sum(n for _, _, n in explained) == len(blurs) == 120 and not left_behind(tmp_path)


def test_superpixels_of_the_test_images_alone_are_said_to_be_too_few(forms, tmp_path):
    one = np.arange(144).reshape(12, 12) // 9
    np.save(tmp_path / "each.npy", np.stack([one] * 240))
    np.save(tmp_path / "one.npy", one)
    each, same = (ATTRIBUTION.model_copy(update={"segments": f"{name}.npy"}) for name in ("each", "one"))
    refused = leak("random_superpixels", forms, Told(), tmp_path, each)
    assert refused["n"] == 0 and "test images only" in refused["reason"] and "accuracy" not in refused
    few = EVALUATION.model_copy(update={"leakage_images": 60})
    assert leak("sobel_superpixel", forms, Told(), tmp_path, each, few)["n"] == 0
    group = leak_group(("sobel_superpixel", "sobel"), forms, Told(), tmp_path, each, few)
    assert [found["n"] for found in group.values()] == [0, 60]
    assert leak("random_superpixels", forms, Told(), tmp_path, same, few)["n"] == 60


def test_maps_of_other_parameters_are_refused(forms, tmp_path):
    other = ATTRIBUTION.model_copy(update={"superpixels": 9})
    maps = {"sobel": maps_of("sobel", forms, Told(), tmp_path, other)}
    maps["sobel_blurred"] = maps_of("sobel_blurred", forms, Told(), tmp_path)
    names = {"dataset": "d", "methods": tuple(maps), "project": tmp_path}
    with pytest.raises(UserError, match=r"maps of d\.sobel_blurred were made with another"):
        leak_methods(EVALUATION, other, TRAINING, Told(), *forms, **names, **maps)
    assert not left_behind(tmp_path)


def test_networks_maps_reach_the_mask_network_as_they_are_made_alone(waves, shortcut, seen, tmp_path):
    train, test, _ = waves
    network = shortcut[0]
    params = ATTRIBUTION.model_copy(update={"n_images": 10})
    few = EVALUATION.model_copy(update={"leakage_images": 40})
    for method in ("lrp_superpixel", "lrp_random_weights_blurred"):
        leak(method, waves, network, tmp_path, params, few)
    (masks, labels, *_), (random, same_labels, *_) = seen
    chosen = select_images(train.labels, 40, 0)
    images = train.images[chosen]
    targets = predicted_class(freeze(network), torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(labels, targets)
    np.testing.assert_array_equal(same_labels, targets)

    def relevance(explained):
        forward = fast_forward(explained, torch.from_numpy(train.images), "float32", "cpu")
        context = Context(freeze(explained), forward, train.images.mean((0, 2, 3)), params, Segmenter(params))
        return explain("lrp", context, images, chosen, targets).values

    blocks = relevance(network).reshape(40, 4, 7, 4, 7).mean((2, 4)).repeat(7, 1).repeat(7, 2)  # the grid's superpixels
    smooth = gaussian_filter(relevance(random_weights(network, sample_of(train), params.seed)), (0, 1.5, 1.5))
    for found, maps in ((masks, blocks), (random, smooth)):
        expected = top_pixels(maps, few.keep, chosen + len(test), 0)
        assert (found == expected).all((1, 2)).mean() > 0.9  # float sums in another order may turn a near tie
