import json
from itertools import permutations
from math import log

import numpy as np
import pytest
import scipy.stats
import torch

from iic.bayes import network, refusal
from iic.bayes.doubt_shap import doubt_of_masks, kernel_shap
from iic.bayes.refusal import (
    CONTROLS,
    DOUBTS,
    Doubt,
    gradient_x_input,
    integrated_gradients,
    removal_curve,
)
from iic.errors import UserError
from iic.evaluation.fills import Fills

PATCH = (slice(0, 2), slice(5, 7))  # 4 of 64 pixels, in a corner
STRENGTH = 1.5


def posterior(sizes, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = network.weight_shapes(sizes)
    return [
        {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def contradicting():
    """Two samples of a network of two classes that see the patch alone, and say the opposite of it."""
    weight = torch.zeros(2, 8, 8)
    weight[0][PATCH] = STRENGTH
    return [{"layer0.weight": sign * weight.flatten(1), "layer0.bias": torch.zeros(2)} for sign in (1, -1)]


@pytest.fixture(scope="module")
def images():
    """The patch white, everything else noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    pixels[:, :, *PATCH] = 255
    return pixels


MUTUAL_INFORMATION = log(2) - scipy.stats.entropy([p := 1 / (1 + np.exp(-STRENGTH * 4 * 0.5)), 1 - p])


@pytest.mark.parametrize("kind", DOUBTS)
def test_doubt_is_made_of_entropies_in_parts_of_any_size(kind, monkeypatch):
    samples = posterior((8, 5, 3), 21)  # more than one stack
    pixels = np.random.default_rng(1).uniform(0, 255, (7, 2, 2, 2)).astype(np.float32)
    before = pixels.copy()
    inputs = torch.from_numpy(pixels / 255 - 0.4).flatten(1)
    p = torch.stack([network.logits(weights, inputs).softmax(-1) for weights in samples]).double().numpy()
    total = scipy.stats.entropy(p.mean(0), axis=-1)
    expected = total if kind == "entropy" else total - scipy.stats.entropy(p, axis=-1).mean(0)
    doubt = Doubt(samples, 0.4, kind)
    np.testing.assert_allclose(doubt(pixels), expected, atol=1e-6)
    gradient = doubt.gradient(inputs)
    monkeypatch.setattr(refusal, "POINTS", 3)
    np.testing.assert_allclose(doubt(pixels), expected, atol=1e-6)
    torch.testing.assert_close(doubt.gradient(inputs), gradient)
    np.testing.assert_array_equal(pixels, before)  # float pixels are not written over


def test_samples_that_agree_leave_no_mutual_information(images):
    doubt = Doubt(contradicting()[:1] * 3, 0.5)
    np.testing.assert_allclose(doubt(images), 0, atol=1e-12)
    np.testing.assert_allclose(gradient_x_input(doubt, images), 0, atol=1e-8)


def test_doubt_of_two_contradicting_samples_has_a_closed_form(images):
    np.testing.assert_allclose(Doubt(contradicting(), 0.5)(images), MUTUAL_INFORMATION, rtol=1e-6)
    np.testing.assert_allclose(Doubt(contradicting(), 0.5, "entropy")(images), log(2), rtol=1e-6)


@pytest.mark.parametrize("kind", DOUBTS)
def test_gradients_are_finite_differences(kind):
    doubt = Doubt(posterior((6, 5, 4, 3), 20, torch.float64), 0.0, kind)
    inputs = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    differences = torch.zeros_like(inputs)
    for pixel in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[pixel] = 1e-5
        differences[:, pixel] = (doubt.of_inputs(inputs + step) - doubt.of_inputs(inputs - step)) / 2e-5
    torch.testing.assert_close(doubt.gradient(inputs), differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", DOUBTS)
def test_gradient_times_input_is_autograds_with_channels_summed(kind):
    samples = posterior((18, 5, 3), 4)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 2, 3, 3), dtype=np.uint8)
    x = network.normalise(torch.from_numpy(pixels), 0.4).requires_grad_()
    p = torch.stack([network.logits(weights, x).softmax(-1) for weights in samples])
    total = torch.special.entr(p.mean(0)).sum()
    value = total if kind == "entropy" else total - torch.special.entr(p).sum((1, 2)).mean()
    (gradient,) = torch.autograd.grad(value, x)
    theirs = (x * gradient).detach().view(3, 2, 3, 3).sum(1)
    np.testing.assert_allclose(gradient_x_input(Doubt(samples, 0.4, kind), pixels), theirs, atol=1e-6)


@pytest.mark.parametrize("kind", DOUBTS)
def test_integrated_gradients_of_doubt_are_complete(kind):
    doubt = Doubt(posterior((18, 5, 3), 4), 0.4, kind)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 2, 3, 3), dtype=np.uint8)
    start = np.full((2, 3, 3), 20.0, np.float32)
    maps = integrated_gradients(doubt, pixels, steps=2000, baseline=start)
    assert maps.shape == (3, 3, 3) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum((1, 2)), doubt(pixels) - doubt(start[None]), atol=2e-4)


def test_shapley_values_of_doubt_are_those_of_all_orders():
    doubt = Doubt(posterior((16, 5, 3), 4), 0.4)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
    areas = np.stack([np.arange(4).repeat(4).reshape(4, 4), np.arange(16).reshape(4, 4) % 4])
    maps = kernel_shap(doubt, pixels, areas, np.array([50.0]), indices=np.arange(2), budget=14, seed=0)

    def value(image, segments, shown):
        return doubt(np.where(np.isin(segments, shown), image, np.float32(50)).reshape(1, 1, 4, 4))[0]

    for image, segments, found in zip(pixels, areas, maps, strict=True):
        expected = np.zeros(4)
        for order in permutations(range(4)):
            for place, superpixel in enumerate(order):
                expected[superpixel] += value(image, segments, order[: place + 1])
                expected[superpixel] -= value(image, segments, order[:place])
        np.testing.assert_allclose(found, expected[segments] / 24, atol=1e-6)


@pytest.mark.parametrize("sizes", [(2 * 64, 5, 3), ((2, 8, 8), (4, 2, 2), 3)])  # dense, and a convolution first
def test_the_doubt_of_masks_is_that_of_the_pixels_they_leave(sizes):
    doubt, rng = Doubt(posterior(sizes, 4), 0.4, "entropy"), np.random.default_rng(4)
    image, fill = rng.integers(0, 256, (2, 8, 8), dtype=np.uint8), np.array([50.0, 200.0])
    areas, masks = rng.permutation(64).reshape(8, 8) % 6, rng.random((9, 6)) < 0.5
    shown = masks[:, areas][:, None]
    pixels = np.where(shown, image, fill[:, None, None]).astype(np.float32)
    np.testing.assert_allclose(doubt_of_masks(doubt, image, areas, fill, masks), doubt(pixels), atol=1e-6)


MEAN_COLOUR = Fills(np.array([127.5]), np.zeros((0, 1, 8, 8), np.uint8))


def explained(images):
    doubt = Doubt(contradicting(), 0.5)
    areas = np.broadcast_to(np.arange(8).repeat(8).reshape(8, 8) // 2 * 4 + np.arange(8) // 2, (40, 8, 8))
    return doubt, {
        "gradient": gradient_x_input(doubt, images),
        "integrated": integrated_gradients(doubt, images),
        "shap": kernel_shap(doubt, images, areas, np.array([127.5]), indices=np.arange(40), budget=200, seed=0),
    }


def test_the_pixels_that_samples_contradict_each_other_about_are_found(images):
    _, maps = explained(images)
    patch = np.zeros((8, 8), bool)
    patch[PATCH] = True
    for method in ("gradient", "integrated"):
        assert (maps[method][:, patch] > 0.01).all() and (np.abs(maps[method][:, ~patch]) < 1e-6).all()
    # superpixels of 2 x 2 pixels: two of them hold two of the patch's pixels each, and share what it adds
    beside = np.zeros((8, 8), bool)
    beside[0:2, 4:8] = True
    np.testing.assert_allclose(maps["shap"][:, beside], MUTUAL_INFORMATION / 2, rtol=0.02)
    assert (np.abs(maps["shap"][:, ~beside]) < 0.01).all()


def test_removing_them_ends_the_doubt_and_removing_others_does_not(images):
    doubt, maps = explained(images)
    del maps["shap"]
    maps["opposite"] = -maps["gradient"]
    shares = (0.0, 0.0625, 0.25)  # none, 4 pixels, 16
    report = removal_curve(
        doubt, images, maps, MEAN_COLOUR, indices=np.arange(40), seed=0, shares=shares, replicates=300
    )
    assert json.loads(json.dumps(report)) == report
    assert list(report["fills"]) == ["mean_colour", "blur"] and report["images"] == 40
    rows = report["fills"]["mean_colour"]
    assert [name for name, row in rows.items() if row["is_control"]] == list(CONTROLS)
    assert all(row["curve"][0]["mean"] == pytest.approx(MUTUAL_INFORMATION) for row in rows.values())
    for name in ("gradient", "integrated"):
        assert [cell["mean"] for cell in rows[name]["curve"][1:]] == pytest.approx([0, 0], abs=1e-9)
        assert rows[name]["area"]["mean"] == pytest.approx(MUTUAL_INFORMATION * 0.0625 / 2 / 0.25)
        gain = rows[name]["below_controls"]
        assert gain["control"] in CONTROLS and gain["interval"][0] > 0.1
        control = rows[gain["control"]]["area"]["mean"]
        assert gain["mean"] == pytest.approx(control - rows[name]["area"]["mean"])
    for name in CONTROLS:
        cell = rows[name]["curve"][1]
        assert cell["interval"][0] > 0.6 * MUTUAL_INFORMATION  # Sobel is drawn to the white corner, too
        assert cell["interval"][0] <= cell["mean"] <= cell["interval"][1]
    assert rows["opposite"]["curve"][2]["mean"] == pytest.approx(MUTUAL_INFORMATION)
    assert rows["opposite"]["below_controls"]["interval"][1] < 0
    # blurred, the patch is nearly as grey as all the rest
    assert report["fills"]["blur"]["gradient"]["curve"][1]["mean"] < 0.25 * MUTUAL_INFORMATION


def test_wrong_inputs_are_named(images):
    with pytest.raises(UserError, match="Unknown kind of doubt 'variance': choose from mutual_information, entropy"):
        Doubt(contradicting(), 0.5, "variance")
    with pytest.raises(UserError, match="walked through only once"):
        Doubt(iter(contradicting()), 0.5)
    with pytest.raises(UserError, match="A map is called sobel"):
        removal_curve(
            Doubt(contradicting(), 0.5), images, {"sobel": images[:, 0]}, MEAN_COLOUR, indices=np.arange(40), seed=0
        )
