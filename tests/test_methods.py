import numpy as np
import pytest
import torch
from scipy import ndimage

from iic.classifiers.inference import freeze, probabilities
from iic.classifiers.networks import build_network
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.evaluation.scores import score
from iic.explainers.methods import METHODS, Attributions, explain, select_images
from iic.explainers.perturbation import masked_values
from iic.params import AttributionParams, EvaluationParams


@pytest.fixture(scope="module")
def digits():
    _, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(4, 8, 8))
    torch.nn.init.normal_(model[-1].weight)
    return freeze(model), test


PARAMS = AttributionParams(n_images=6, budget=120, superpixels=20, compactness=0.1)


def test_selection_is_balanced_nested_and_refuses_too_many(digits):
    labels = digits[1].labels
    chosen = select_images(labels, 57, seed=1)
    assert len(set(chosen.tolist())) == 57
    assert np.bincount(labels[chosen[:30]]).tolist() == [3] * 10
    np.testing.assert_array_equal(chosen[:20], select_images(labels, 20, seed=1))
    assert sorted(select_images(labels, 1000, seed=1)) == list(range(1000))
    with pytest.raises(UserError, match="n_images = 1001 is more than the 1000"):
        select_images(labels, 1001, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_depends_on_its_image_only(digits, method):
    model, test = digits
    indices = np.array([5, 17, 3])
    fill = np.array([33.0])
    together = explain(method, model, test.images[indices], indices, fill, PARAMS)
    assert together.values.shape == (3, 28, 28) and together.values.dtype == np.float32
    small = PARAMS.model_copy(update={"batch_size": 7})
    alone = explain(method, model, test.images[[17]], np.array([17]), fill, small)
    scale = np.abs(together.values[1]).max()
    np.testing.assert_allclose(alone.values[0], together.values[1], atol=1e-4 * scale)
    again = explain(method, model, test.images[indices], indices, fill, PARAMS)
    assert again.values.tobytes() == together.values.tobytes()


def test_kernel_shap_maps_are_efficient(digits):
    model, test = digits
    fill = np.array([33.0])
    maps = explain("kernel_shap", model, test.images[:3], np.arange(3), fill, PARAMS)
    for i in range(3):
        image = torch.from_numpy(test.images[i : i + 1]).float()
        gap = probabilities(model, image) - probabilities(model, torch.full_like(image, 33.0))
        total = sum(np.unique(maps.values[i]))  # one value per superpixel
        assert total == pytest.approx(gap[0, maps.targets[i]].item(), abs=1e-3)


def test_perturbed_images_are_the_ones_lime_would_show(digits):
    model, test = digits
    image, segments = test.images[0], np.repeat(np.arange(4), 7)[:, None].repeat(28, 1)
    masks = np.array([[True, False, True, False], [False] * 4, [True] * 4])
    values = masked_values(model, image, segments, masks, np.array([50.0]), 3, batch_size=2)
    for mask, value in zip(masks, values, strict=True):
        shown = image[0].astype(np.float32).copy()
        for superpixel in np.flatnonzero(~mask):
            shown[segments == superpixel] = 50
        expected = probabilities(model, torch.from_numpy(shown)[None, None])[0, 3].item()
        assert value == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def trained_digits():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 32))
    train(model, data, Recipe(epochs=4, batch_size=100, flip=False), seed=0)
    return freeze(model), test


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "lrp"])
def test_on_a_trained_network_what_a_method_keeps_tells_more_than_random_pixels(trained_digits, method):
    """Through the whole way from image to score: a turned map, a wrong class or a wrong index would lose this."""
    model, test = trained_digits
    indices = select_images(test.labels, 80, seed=0)
    params = AttributionParams(budget=200, superpixels=40, compactness=0.1)
    fill = np.array([33.0])
    found = {}
    for name in (method, "random"):
        maps = explain(name, model, test.images[indices], indices, fill, params)
        np.testing.assert_array_equal(maps.targets, model(torch.from_numpy(test.images[indices])).argmax(1))
        result = score(maps, model, test, fill, EvaluationParams(noise_seeds=(0,)))
        found[name] = result["keep"]["mean_colour"]["accuracy"]
        turned = Attributions(-maps.values, indices, maps.targets, {})
        found[f"{name} turned"] = score(turned, model, test, fill, EvaluationParams(noise_seeds=(0,)))["keep"][
            "mean_colour"
        ]["accuracy"]
    assert found[method] > found["random"] + 0.15
    assert found[method] > found[f"{method} turned"] + 0.3


def test_sobel_is_the_gradient_length(digits):
    model, test = digits
    maps = explain("sobel", model, test.images[:1], np.array([0]), np.array([33.0]), PARAMS)
    grey = test.images[0, 0].astype(float)
    expected = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    np.testing.assert_allclose(maps.values[0], expected, rtol=1e-6)


def test_unknown_method_is_named(digits):
    with pytest.raises(UserError, match=r"Unknown method 'shapely'.*kernel_shap"):
        explain("shapely", digits[0], digits[1].images[:1], np.array([0]), np.array([33.0]), PARAMS)
