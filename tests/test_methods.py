from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy import ndimage

from iic.checks import check_parameters, check_weights
from iic.classifiers.inference import freeze, logits, predicted_class, probabilities
from iic.classifiers.networks import build_network
from iic.classifiers.precision import Forward, fast_forward
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.evaluation.fills import Fills
from iic.evaluation.outcomes import Cell, judge_maps
from iic.explainers.attributions import Attributions, select_images
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.names import CONTROLS, DIRECT, METHODS, fair_twins, is_control_of
from iic.explainers.ranking import is_stable, top_superpixels
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams


def context_of(model, data, params) -> Context:
    sample = torch.from_numpy(data.images[:200])
    return Context(
        freeze(model), fast_forward(model, sample, params.precision), np.array([33.0]), params, Segmenter(params)
    )


@pytest.fixture(scope="module")
def digits():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(4, 8, 8)).eval()
    torch.nn.init.normal_(model[-1].weight)
    return context_of(model, data, PARAMS), test


PARAMS = AttributionParams(
    n_images=6, budget=120, superpixels=20, compactness=0.1, gradient_steps=4, precision="float32"
)


def test_selection_is_balanced_nested_and_refuses_too_many(digits):
    labels = digits[1].labels
    chosen = select_images(labels, 57, seed=1)
    assert len(set(chosen.tolist())) == 57
    assert np.bincount(labels[chosen[:30]]).tolist() == [3] * 10
    np.testing.assert_array_equal(chosen[:20], select_images(labels, 20, seed=1))
    assert sorted(select_images(labels, 1000, seed=1)) == list(range(1000))
    with pytest.raises(UserError, match="n_images = 1001 is more than the 1000"):
        select_images(labels, 1001, seed=1)


@pytest.mark.parametrize("method", DIRECT)
def test_a_map_depends_on_its_image_only(digits, method):
    context, test = digits
    indices, targets = np.array([5, 17, 3]), np.array([1, 2, 3])
    together = explain(method, context, test.images[indices], indices, targets)
    assert together.values.shape == (3, 28, 28) and together.values.dtype == np.float32
    small = replace(context, params=PARAMS.model_copy(update={"batch_size": 7}))
    alone = explain(method, small, test.images[[17]], np.array([17]), np.array([2]))
    scale = np.abs(together.values[1]).max()
    np.testing.assert_allclose(alone.values[0], together.values[1], atol=1e-4 * scale)
    again = explain(method, context, test.images[indices], indices, targets)
    assert again.values.tobytes() == together.values.tobytes()
    assert set(together.numbers) >= {"forwards"} and len(together.numbers["forwards"]) == 3


@pytest.mark.parametrize("method", ["kernel_shap", "kernel_shap_logit"])
def test_kernel_shap_maps_are_efficient(digits, method):
    context, test = digits
    targets = np.array([4, 5, 6])
    maps = explain(method, context, test.images[:3], np.arange(3), targets)
    output = logits if method.endswith("logit") else probabilities
    for i in range(3):
        image = torch.from_numpy(test.images[i : i + 1]).float()
        gap = output(context.plain, image) - output(context.plain, torch.full_like(image, 33.0))
        segments = context.segments(test.images[i], i)
        values = [maps.values[i][segments == label][0] for label in range(segments.max() + 1)]
        assert sum(values) == pytest.approx(gap[0, targets[i]].item(), abs=1e-3)


def test_kernel_shap_of_a_linear_network_is_weight_times_difference(digits):
    """f(x) = w x: each superpixel's value is the sum of w (x - fill) over its pixels."""
    _, test = digits
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    params = PARAMS.model_copy(update={"segmentation": "grid"})
    forward = Forward(network.eval(), "float32", "cpu", 1.0)
    context = Context(network, forward, np.array([33.0]), params, Segmenter(params))
    maps = explain("kernel_shap_logit", context, test.images[:2], np.arange(2), np.array([3, 7]))
    for i, target in enumerate([3, 7]):
        share = network[1].weight[target].detach().numpy().reshape(28, 28) * (test.images[i, 0] - 33.0)
        segments = context.segments(test.images[i], i)
        expected = np.bincount(segments.ravel(), share.ravel())[segments]
        np.testing.assert_allclose(maps.values[i], expected, atol=1e-3)


@pytest.fixture(scope="module")
def trained_digits():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 32))
    train(model, data, Recipe(epochs=4, batch_size=100, flip=False), seed=0)
    params = AttributionParams(budget=200, superpixels=40, compactness=0.1, gradient_steps=8)
    return context_of(model, data, params), test


TELLING = ["lime", "kernel_shap", "occlusion", "rise", "lrp", "lrp_gamma_box", "integrated_gradients", "deeplift"]


@pytest.mark.parametrize("method", TELLING)
def test_on_a_trained_network_what_a_method_keeps_tells_more_than_random_pixels(trained_digits, method):
    """Through the whole way from image to score: a turned map, a wrong class or a wrong index would lose this."""
    context, test = trained_digits
    indices = select_images(test.labels, 80, seed=0)
    targets = predicted_class(context.plain, torch.from_numpy(test.images[indices])).numpy()
    cell = Cell("explained", "keep", "mean_colour", 0.2, 0)
    judges = {("explained", "mean_colour"): context.plain}
    fills = Fills(np.array([33.0]), test.images[:0])

    def accuracy(values: np.ndarray) -> float:
        maps = Attributions(values, indices, targets, {})
        return judge_maps(maps, judges, test, fills, [cell], seed=0).right(np.array([0])).mean()

    found = {}
    for name in (method, "random"):
        values = explain(name, context, test.images[indices], indices, targets).values
        found[name], found[f"{name} turned"] = accuracy(values), accuracy(-values)
    assert found[method] > found["random"] + 0.15
    assert found[method] > found[f"{method} turned"] + 0.3


def test_sobel_is_the_gradient_length(digits):
    context, test = digits
    maps = explain("sobel", context, test.images[:1], np.array([0]), np.array([0]))
    grey = test.images[0, 0].astype(float)
    expected = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    np.testing.assert_allclose(maps.values[0], expected, rtol=1e-6)


def test_controls_know_only_the_image_its_superpixels_or_nothing(digits):
    context, test = digits
    shown, places = test.images[:3], np.arange(3)
    maps = {name: explain(name, context, shown, places, np.zeros(3, int)).values for name in CONTROLS}
    np.testing.assert_array_equal(maps["centre"][0], maps["centre"][2])
    assert maps["centre"][0].argmax() in (13 * 28 + 13, 13 * 28 + 14, 14 * 28 + 13, 14 * 28 + 14)
    np.testing.assert_allclose(maps["contrast"], np.abs(shown[:, 0] - context.mean), rtol=1e-5)
    for row in places:
        segments = context.segments(shown[row], row)
        values = maps["random_superpixels"][row]
        assert len(np.unique(values)) == segments.max() + 1  # one value each, all different
        assert all(np.unique(values[segments == s]).size == 1 for s in range(segments.max() + 1))
    assert np.abs(np.corrcoef(maps["random"].reshape(3, -1))[0, 1:]).max() < 0.15


def test_what_is_a_control_of_what():
    assert is_control_of("sobel_blurred", "lrp") and is_control_of("random", "lime")
    assert is_control_of("lrp_mean_map", "lrp_superpixel") and not is_control_of("lrp_mean_map", "lime")
    assert not is_control_of("lrp_blurred", "lrp") and not is_control_of("lrp_mean_map", "lrp_mean_map")
    assert all(
        name in METHODS for pair in fair_twins("lrp", "lime") + fair_twins("kernel_shap", "rise") for name in pair
    )
    assert fair_twins("lrp", "lime") == [
        ("lrp_superpixel", "lime"),
        ("lrp", "lime_logit"),
        ("lrp_superpixel", "lime_logit"),
    ]
    assert fair_twins("lime", "kernel_shap_fast") == [] and fair_twins("rise", "lrp") == [("rise_logit", "lrp")]
    assert fair_twins("lime", "kernel_shap") == []


def test_unknown_and_derived_methods_are_named(digits):
    context, test = digits
    with pytest.raises(UserError, match=r"Unknown method 'shapely'.*kernel_shap"):
        explain("shapely", context, test.images[:1], np.array([0]), np.array([0]))
    with pytest.raises(UserError, match="'lrp_blurred' is derived"):
        explain("lrp_blurred", context, test.images[:1], np.array([0]), np.array([0]))


def own_network():
    """Without a normalisation of ours."""
    layers = torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(2 * 26 * 26, 10)
    return torch.nn.Sequential(*layers)


def check_rules(rules, *methods, **training):
    data = {"source": "digits", "channels": 1, "class_names": list("0123456789")}
    parameters = {"digits": {"data": data, "training": training, "attribution": {"lrp_rules": rules}}}
    check_weights(check_parameters(parameters, ["digits"]), methods, ROOT)


@pytest.mark.parametrize("weights", ["trained", "shipped"])
def test_lrp_rules_are_checked_before_any_work(weights):
    check_rules({"1": "epsilon", "3": "gamma"}, "lrp", "lrp_gamma_box_mean_map", weights=weights)
    check_rules({"99": "plus"}, "lime", "random", weights=weights)  # nobody asks for it
    with pytest.raises(UserError, match=r"no layer '99' .*: choose from 1, 3, "):
        check_rules({"99": "plus"}, "lime", "lrp_blurred", weights=weights)
    with pytest.raises(UserError, match="Unknown LRP rule 'z' for layer '1'"):
        check_rules({"1": "z"}, "lrp_superpixel", weights=weights)
    with pytest.raises(UserError, match="'box' is for the layer on the normalised pixels, not for layer 3"):
        check_rules({"3": "box"}, "lrp", weights=weights)


def test_own_rules_can_make_up_for_a_network_without_our_normalisation(tmp_path):
    torch.save(own_network().state_dict(), tmp_path / "own.pt")
    own = {"weights": str(tmp_path / "own.pt"), "factory": "test_methods:own_network"}
    with pytest.raises(UserError, match="'box' is for the layer on the normalised pixels, not for layer 0"):
        check_rules({}, "lrp_gamma_box", **own)
    check_rules({"0": "epsilon"}, "lrp_gamma_box", **own)


def test_the_process_refuses_what_it_cannot_solve(digits):
    context, test = digits
    context = replace(context, params=context.params.model_copy(update={"budget": 20_000}))
    with pytest.raises(UserError, match="10000 masks at most, not 20000"):
        explain("kernel_shap_fast", context, test.images[:1], np.array([0]), np.array([0]))


def test_the_top_fifth_is_an_area():
    segments = np.repeat(np.arange(10), 10).reshape(10, 10)
    values = np.arange(10.0)
    assert np.flatnonzero(top_superpixels(values, segments)).tolist() == [8, 9]
    assert is_stable(values, np.full(10, 0.1), segments)
    assert not is_stable(values, np.full(10, 0.5), segments)
