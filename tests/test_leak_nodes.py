"""Leakage as nodes, on sets whose answers are known."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.container import BarContainer
from scipy.ndimage import gaussian_filter
from test_leakage import outlines
from torch import nn
from watermarked import ATTRIBUTION, EVALUATION, NAMES, TRAINING

from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.data.card import describe
from iic.data.images import ImageSet
from iic.draws import generator
from iic.errors import UserError
from iic.evaluation import leaks
from iic.evaluation.degradation import top_pixels
from iic.evaluation.randomisation import random_weights
from iic.explainers import work
from iic.explainers.attributions import select_images
from iic.explainers.context import Context
from iic.explainers.methods import RANDOM, explain
from iic.explainers.names import DIRECT, METHODS, source_of
from iic.explainers.segmentation import Segmenter
from iic.explainers.twins import blurred
from iic.pipelines.attribution.nodes import derive_maps, explain_images, sample_of
from iic.pipelines.attribution.pipeline import create_pipeline as attribution
from iic.pipelines.evaluation.leak_nodes import draw_leakage, explained_together, leak_methods
from iic.pipelines.evaluation.pipeline import create_pipeline as evaluation


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


@pytest.fixture(scope="module")
def forms():
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


@pytest.fixture
def explained(monkeypatch):
    """For each call that explains training images of `forms` or `waves`: method, whether with its twin, how many."""
    calls = []

    def counted(method, context, images, indices, *rest, twin=False):
        if indices.min() >= 240:
            calls.append((method, twin, len(images)))
        return explain(method, context, images, indices, *rest, twin=twin)

    monkeypatch.setattr(work, "explain", counted)
    return calls


@pytest.fixture
def seen(monkeypatch):
    """What the mask network is given, in place of what it would say."""
    calls = []

    def catch(*arrays, **options):
        calls.append((*arrays, options))
        return {"accuracy": 0.5}

    monkeypatch.setattr(leaks, "leakage", catch)
    return calls


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


def test_methods_are_grouped_by_what_explains():
    wanted = (
        *("lime_blurred", "lrp", "lime_logit", "random", "lrp_superpixel", "kernel_shap_logit", "centre_blurred"),
        *("lime_random_weights_blurred", "lime_random_weights", "lrp_mean_map"),
    )
    assert explained_together(wanted) == {
        ("lime", "lime_logit"): ("lime_blurred", "lime_logit"),
        ("lrp",): ("lrp", "lrp_superpixel", "lrp_mean_map"),
        ("random",): ("random",),
        ("kernel_shap_logit",): ("kernel_shap_logit",),
        ("centre",): ("centre_blurred",),
        ("lime_random_weights",): ("lime_random_weights_blurred", "lime_random_weights"),
    }
    groups = explained_together(METHODS)
    assert sorted(method for group in groups.values() for method in group) == sorted(METHODS)
    assert {source for sources in groups for source in sources} == set(DIRECT)
    assert explained_together(()) == {}


def test_each_group_is_a_node_and_breaks_no_namespace():
    """Kedro warns of a namespace that is left and entered again; warnings are errors here."""
    methods = ("lime", "lrp_superpixel", "lime_blurred", "random", "lime_logit")
    pipeline = attribution(("d",), methods, Path()) + evaluation(("d",), methods, Path())
    found = {node.name: node.outputs for node in pipeline.nodes if node.namespace == "d.leakage"}
    assert found == {
        "d.leakage.leak_lime": ["d.lime.leakage", "d.lime_blurred.leakage", "d.lime_logit.leakage"],
        "d.leakage.leak_lrp": ["d.lrp_superpixel.leakage"],
        "d.leakage.leak_random": ["d.random.leakage"],
    }


GROUPS = {
    ("occlusion_blurred", "occlusion", "occlusion_superpixel", "occlusion_logit"): ("occlusion", True),
    ("lrp_superpixel", "lrp_blurred"): ("lrp", False),
    ("lrp_random_weights_blurred", "lrp_random_weights"): ("lrp_random_weights", False),
}


@pytest.mark.parametrize("methods", GROUPS, ids=lambda methods: GROUPS[methods][0])
def test_a_group_explains_once_what_each_method_alone_would_find(methods, waves, explained, seen, tmp_path):
    torch.manual_seed(0)
    network = build_network([100.0], [50.0], widths=(4, 8, 8)).eval()
    nn.init.normal_(network[-1].weight)
    setting = (ATTRIBUTION.model_copy(update={"n_images": 10}), EVALUATION.model_copy(update={"leakage_images": 40}))
    together = leak_group(methods, waves, network, tmp_path / "group", *setting)
    assert {call[:2] for call in explained} == {GROUPS[methods]} and sum(n for _, _, n in explained) == 40
    alone = {method: leak(method, waves, network, tmp_path / "alone", *setting) for method in methods}
    assert together == alone and not left_behind(tmp_path / "group") and not left_behind(tmp_path / "alone")
    for in_group, by_itself in zip(seen[: len(methods)], seen[len(methods) :], strict=True):
        for ours, theirs in zip(in_group[:4], by_itself[:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    masks = [call[0] for call in seen[: len(methods)]]
    assert all((masks[0] != other).any() for other in masks[1:])


def test_what_the_masks_give_away_is_the_same_in_a_group(forms, monkeypatch, tmp_path):
    monkeypatch.setattr(leaks, "STEPS", 20)
    few = EVALUATION.model_copy(update={"leakage_images": 60})
    together = leak_group(("contrast", "contrast_blurred"), forms, Told(), tmp_path, ATTRIBUTION, few)
    assert together["contrast_blurred"] == leak("contrast_blurred", forms, Told(), tmp_path, ATTRIBUTION, few)
    assert together["contrast"]["accuracy"] != together["contrast_blurred"]["accuracy"]


def test_no_image_is_explained_for_a_mean_map_alone(forms, explained, seen, tmp_path):
    few = EVALUATION.model_copy(update={"leakage_images": 20})
    alone = leak("occlusion_mean_map", forms, Told(), tmp_path, ATTRIBUTION, few)
    assert alone["n"] == 0 and "same for all images" in alone["reason"] and not explained
    beside = leak_group(("occlusion_mean_map", "occlusion_blurred"), forms, Told(), tmp_path, ATTRIBUTION, few)
    assert [found["n"] for found in beside.values()] == [20, 20] and sum(n for _, _, n in explained) == 20


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
