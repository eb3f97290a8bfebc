"""Properties of maps and their agreement, on networks whose right answers are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from summed_pixels import (
    CARD,
    CLASSES,
    EVALUATION,
    MEAN,
    ORDER,
    PARAMS,
    SIDE,
    STD,
    TARGETS,
    TEST,
    TRAIN,
    attributions,
    contributions,
    described,
    explained,
    explainer,
    linear_network,
    named,
    noise,
)
from torch import nn

from iic.classifiers.networks import Normalize, build_network
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.complexity import gini_index
from iic.evaluation.faithfulness import Explanations, max_sensitivity
from iic.evaluation.properties import agree, check_alike, describe
from iic.evaluation.randomisation import random_weights
from iic.evaluation.sanity import Explainer, can_randomise, noisy_copies, randomised
from iic.explainers.methods import explain
from iic.explainers.names import EXPLAINERS
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams
from iic.report.grid import comparison_grid


@pytest.fixture(scope="module")
def linear():
    return linear_network()


def test_exact_maps_of_a_linear_network_are_complete_and_faithful(linear):
    found = described("input_x_gradient", linear)
    assert (found["output"], found["claims_completeness"]) == ("logit", False)
    numbers = found["properties"]
    assert numbers["completeness_error"]["value"] < 1e-4 and numbers["completeness_error"]["statistic"] == "median"
    for percent in (10, 30, 50):
        assert numbers[f"sensitivity_n_{percent}"]["value"] == pytest.approx(1, abs=1e-4)
    other = described("random", linear, attributions(noise(0), linear))["properties"]
    assert numbers["infidelity"]["value"] < 1e-6 * other["infidelity"]["value"]
    assert abs(other["sensitivity_n_30"]["value"]) < 0.3
    gini = gini_index(contributions(linear, TEST.images[ORDER[:8]], TARGETS[:8]))
    assert numbers["gini"]["value"] == pytest.approx(gini.mean(), rel=1e-4)
    assert numbers["gini"]["n_images"] == 8 and numbers["max_sensitivity"]["n_images"] == 3
    assert all(n["interval"][0] <= n["value"] <= n["interval"][1] for n in numbers.values())


def test_noisy_copies_and_random_weights_are_explained_as_one_would_by_hand(linear):
    """A linear network's maps are known for any weights, so both need no explainer."""
    found, few = described("input_x_gradient", linear), ORDER[:3]
    shown, targets = TEST.images[few], TARGETS[:3]
    steady = max_sensitivity(
        lambda pixels, row: contributions(linear, pixels.numpy(), np.repeat(targets[row], len(pixels))),
        shown,
        indices=few,
        seed=EVALUATION.seed,
    )
    assert found["properties"]["max_sensitivity"]["value"] == pytest.approx(steady.mean(), rel=1e-3)
    (layer,) = found["randomisation"]
    assert (layer["layer"], layer["kind"]) == ("2", "Linear")
    other = random_weights(linear, torch.from_numpy(TRAIN.images), EVALUATION.seed)
    pairs = zip(contributions(linear, shown, targets), contributions(other, shown, targets), strict=True)
    pairs = [(a.ravel(), b.ravel()) for a, b in pairs]
    plain = np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in pairs])
    absolute = np.mean([scipy.stats.spearmanr(np.abs(a), np.abs(b)).statistic for a, b in pairs])
    assert layer["spearman"]["value"] == pytest.approx(plain, abs=1e-4) and abs(plain) < 0.3
    assert layer["spearman_absolute"]["value"] == pytest.approx(absolute, abs=1e-4)
    assert layer["ssim"]["value"] < 0.5


@pytest.mark.parametrize(("method", "output"), [("kernel_shap", "probability"), ("kernel_shap_logit", "logit")])
def test_a_method_is_held_against_the_output_that_it_explains(linear, method, output):
    """With four superpixels Shapley values are exact, and add up: to a probability or to a logit, not to the other."""
    maps = explained(method, linear)
    found = described(method, linear, maps)
    assert found["output"] == output and found["claims_completeness"]
    assert found["properties"]["completeness_error"]["value"] < 1e-3
    other = {"kernel_shap": "kernel_shap_logit", "kernel_shap_logit": "kernel_shap"}[method]
    assert described(other, linear, maps)["properties"]["completeness_error"]["value"] > 0.1


def test_a_superpixels_value_counts_once_when_it_is_blurred_too(linear):
    """Equal superpixels: a mean map, or a blurred one, keeps the sum over superpixels that its method's maps have."""
    maps = explained("kernel_shap_logit", linear)
    exact = described("kernel_shap_logit", linear, maps)["properties"]["completeness_error"]["value"]
    spread = attributions(np.asarray(maps.values).mean((1, 2), keepdims=True).repeat(SIDE, 1).repeat(SIDE, 2), linear)
    for method in ("kernel_shap_logit_blurred", "kernel_shap_blurred"):  # blurred until nothing but the mean is left
        found = described(method, linear, spread)
        assert not found["claims_completeness"]
    found = described("kernel_shap_logit_blurred", linear, spread)["properties"]["completeness_error"]["value"]
    assert found == pytest.approx(exact, abs=1e-5) and exact < 1e-3


def test_the_true_mask_wins_localisation(linear):
    names = ("mass_accuracy", "rank_accuracy", "pointing_game", "auroc")
    right = described("centre", linear, attributions(TEST.masks[ORDER], linear))["properties"]
    wrong = described("random", linear, explained("random", linear))["properties"]
    assert all(right[n]["value"] == 1 and right[n]["interval"][0] > wrong[n]["interval"][1] for n in names)
    assert right["auroc"]["interval"] == [1, 1] and right["pointing_game"]["interval"][0] < 0.9
    assert wrong["auroc"]["value"] == pytest.approx(0.5, abs=0.15)
    without = described("centre", linear, explained("centre", linear), ImageSet(TEST.images, TEST.labels))
    assert not set(names) & set(without["properties"])


def test_what_cannot_differ_has_intervals_without_width_and_infinity_is_a_number(linear):
    blind = nn.Sequential(Normalize(MEAN, STD), nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)).eval()
    nn.init.zeros_(blind[2].weight)
    numbers = described("centre", blind)["properties"]
    assert numbers["entropy"]["interval"] == [numbers["entropy"]["value"]] * 2 and numbers["entropy"]["value"] > 4
    assert numbers["completeness_error"]["value"] == 1e6
    assert numbers["sensitivity_n_50"]["interval"] == [0, 0]


@pytest.mark.parametrize("method", ["sobel", "input_x_gradient_blurred", "input_x_gradient_random_weights"])
def test_controls_and_derived_maps_are_not_explained_again(linear, method):
    found = described(method, linear, attributions(noise(1), linear))
    assert found["randomisation"] == [] and "max_sensitivity" not in found["properties"]


def test_a_map_of_the_image_alone_survives_random_weights(linear):
    context = explainer("sobel", linear).context(linear)
    values = explain("sobel", context, TEST.images[ORDER], ORDER, TARGETS).values
    given = Explanations(context.plain, TEST.images[ORDER], ORDER, TARGETS, values, np.array(MEAN))
    ((_, _, alike),) = randomised(explainer("sobel", linear), given, seed=0)
    assert all(np.allclose(of, 1) for of in alike.values())


def test_copies_keep_the_clean_images_superpixels_and_draws(linear):
    params = PARAMS.model_copy(update={"segmentation": "slic", "superpixels": 9, "compactness": 100.0})
    lime = explainer("lime", linear, params)
    context, maps = lime.context(linear), explained("lime", linear, params)
    given = Explanations(context.plain, TEST.images[ORDER], ORDER, TARGETS, maps.values, np.array(MEAN))
    image = torch.from_numpy(given.images[1]).float()
    copies = (image + 20 * torch.from_numpy(np.random.default_rng(0).normal(size=(4, *image.shape))).float()).clamp(0)
    found = noisy_copies(lime, context, given)(torch.cat([image[None], copies]), 1)
    np.testing.assert_allclose(found[0], given.maps[1], atol=1e-6)
    clean = lime.segmenter(given.images[1], 0)
    for copy, values in zip(copies, found[1:], strict=True):
        assert all(np.unique(values[clean == label]).size == 1 for label in range(clean.max() + 1))
        assert (lime.segmenter(copy.numpy().astype(np.uint8), 0) != clean).any()
        assert np.abs(values - found[0]).max() > 1e-4


@pytest.fixture(scope="module")
def network():
    """The project's own network, its head large enough for outputs that differ."""
    torch.manual_seed(0)
    model = build_network([100.0], [60.0], widths=(4, 6, 8)).eval()
    nn.init.normal_(model[-1].weight)
    return model, torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)


@pytest.mark.parametrize("method", [*EXPLAINERS, "lime_logit", "kernel_shap_logit"])
def test_every_explainer_takes_copies_and_random_networks(network, method):
    model, pixels = network
    params = AttributionParams(
        segmentation="grid", superpixels=4, budget=32, gradient_steps=2, precision="float32", device="cpu"
    )
    asked = Explainer(method, model, pixels, np.array([100.0]), Segmenter(params))
    assert asked.explains_again
    context, indices, targets = asked.context(model), np.array([4, 9]), np.array([1, 2])
    shown = pixels[indices].numpy()
    maps = explain(method, context, shown, indices, targets).values
    given = Explanations(context.plain, shown, indices, targets, maps, asked.mean)
    copies = noisy_copies(asked, context, given)(pixels[[9, 9]].float(), 1)
    np.testing.assert_allclose(copies, maps[[1, 1]], atol=1e-4 * np.abs(maps).max())
    layers = randomised(asked, given, seed=0)
    assert [name for name, _, _ in layers] == [
        name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ][::-1]
    assert [kind for _, kind, _ in layers] == ["Linear", *["Conv2d"] * 7]
    assert all(-1 <= v <= 1 for _, _, alike in layers for values in alike.values() for v in values)
    assert min(values.min() for values in layers[-1][2].values()) < 0.9  # the random network's maps are others


class Own(nn.Module):
    """A user's network with a weight that no layer can draw."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(1) / 255), nn.Linear(3 * SIDE * SIDE, CLASSES)

    def forward(self, x):
        return self.layer((x * self.scale).flatten(1))


def test_a_network_that_cannot_be_drawn_anew_has_no_cascade(linear):
    assert can_randomise(linear) and not can_randomise(Own())
    found = described("input_x_gradient", Own().eval())
    assert found["randomisation"] == [] and found["properties"]["max_sensitivity"]["n_images"] == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "x", "another network"),
        ("data", "x", "other images"),
        ("parameters", {}, "other parameters"),
        ("segments", "x", "other superpixels"),
        ("code", "x", "another version of the code"),
    ],
)
def test_maps_of_something_else_are_refused(linear, key, value, message):
    maps = explained("centre", linear)
    other = replace(maps, made=maps.made | {key: value})
    with pytest.raises(UserError, match=f"maps of centre were made with {message} .* run `kedro run"):
        described("centre", linear, other)
    with pytest.raises(UserError, match=f"maps of sobel were made with {message} than the rest"):
        agree({"centre": maps, "sobel": other}, EVALUATION)
    with pytest.raises(UserError, match=f"maps of sobel were made with {message} than the rest"):
        comparison_grid(TEST, tuple("abcd"), {"centre": maps, "sobel": other})
    found = described("centre", linear, maps)
    with pytest.raises(UserError, match="properties of sobel are of another network"):
        check_alike({"centre": found, "sobel": found | {"made": found["made"] | {key: value}}})


def test_maps_of_another_method_are_refused(linear):
    maps = named("sobel", explained("sobel", linear))
    with pytest.raises(UserError, match=r"maps of centre were made with another method .* run `kedro run"):
        describe(explainer("centre", linear), maps, TEST, EVALUATION, data=CARD["test"]["sha256"])


def test_agreement_is_the_mean_over_the_first_images(linear):
    values = [noise(0), noise(0) + noise(1), -noise(0)]
    maps = dict(zip(("lrp", "lime", "random"), (attributions(v, linear) for v in values), strict=True))
    found = agree(maps, EVALUATION)
    json.dumps(found, allow_nan=False)
    assert (found["methods"], found["n_images"], found["share"]) == (["lrp", "lime", "random"], 8, 0.2)
    rows = [v[:8].reshape(8, -1).astype(np.float32) for v in values]
    k = round(0.2 * SIDE * SIDE)
    tops = [[set(np.argsort(-one)[:k]) for one in row] for row in rows]
    for i in range(3):
        for j in range(3):
            correlations = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(rows[i], rows[j], strict=True)]
            assert found["spearman"][i][j] == pytest.approx(np.mean(correlations))
            overlaps = [len(a & b) / k for a, b in zip(tops[i], tops[j], strict=True)]
            assert found["top_overlap"][i][j] == pytest.approx(np.mean(overlaps))
    shuffled = replace(maps["lime"], indices=ORDER[::-1])
    with pytest.raises(UserError, match="maps of lime are of other images"):
        agree({"lrp": maps["lrp"], "lime": shuffled}, EVALUATION)
