"""Methods whose maps come from the same forwards are asked for leakage together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_leaks import Told, catch_masks, count_explained, draw_forms, leak, leak_group, left_behind
from torch import nn
from watermarked import ATTRIBUTION, EVALUATION

from iic.classifiers.networks import build_network
from iic.evaluation import leaks
from iic.explainers.names import DIRECT, METHODS
from iic.pipelines.attribution.pipeline import create_pipeline as attribution
from iic.pipelines.evaluation.leak_nodes import explained_together
from iic.pipelines.evaluation.pipeline import create_pipeline as evaluation


@pytest.fixture(scope="module")
def forms():
    return draw_forms()


@pytest.fixture
def explained(monkeypatch):
    return count_explained(monkeypatch)


@pytest.fixture
def seen(monkeypatch):
    return catch_masks(monkeypatch)


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
