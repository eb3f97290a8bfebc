from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from iic.errors import UserError
from iic.evaluation.faithfulness import (
    Explanations,
    completeness_error,
    infidelity,
    max_sensitivity,
    sensitivity_n,
)

FILL = np.array([40.0, 90.0])
WEIGHTS = np.random.default_rng(0).normal(size=(3, 2, 4, 5)) / 100
MATRIX = torch.from_numpy(WEIGHTS).float().flatten(1)


def linear(pixels):
    assert not torch.is_grad_enabled()
    return pixels.flatten(1) @ MATRIX.T + torch.tensor([1.0, -2.0, 0.5])


def crooked(pixels):
    """A small network with ReLUs."""
    return (linear(pixels) * torch.tensor([4.0, -3.0, 2.0])).relu() @ torch.ones(3, 3) + linear(pixels).square()


def of(answer, maps=None, count=4):
    """Explanations of random images; maps None: input x gradient of the linear network, from the fill."""
    rng = np.random.default_rng(1)
    images, targets = rng.integers(0, 256, (count, 2, 4, 5), dtype=np.uint8), np.arange(count) % 3
    exact = (WEIGHTS[targets] * (images - FILL[:, None, None])).sum(1)
    return Explanations(answer, images, 10 + np.arange(count), targets, exact if maps is None else maps, FILL)


def noise(count=4):
    return np.random.default_rng(2).normal(size=(count, 4, 5))


def test_exact_maps_of_a_linear_network_are_faithful_in_every_way():
    given = of(linear)
    worst = infidelity(replace(given, maps=np.zeros((4, 4, 5))), seed=0, samples=20, rescale=False)
    assert (worst > 1e-3).all()
    assert (infidelity(given, seed=0, samples=20, rescale=False) < 1e-9 * worst).all()
    assert (infidelity(replace(given, maps=given.maps * 7), seed=0, samples=20) < 1e-9 * worst).all()
    np.testing.assert_allclose(sensitivity_n(given, 6, seed=0, samples=20), 1, atol=1e-5)
    assert (completeness_error(given) < 1e-4).all()
    turned = replace(given, maps=-given.maps)
    np.testing.assert_allclose(infidelity(turned, seed=0, samples=20, rescale=False), 4 * worst, rtol=1e-4)
    assert (infidelity(turned, seed=0, samples=20) < 1e-9 * worst).all()  # the price of the best scale
    np.testing.assert_allclose(sensitivity_n(turned, 6, seed=0, samples=20), -1, atol=1e-5)
    np.testing.assert_allclose(completeness_error(turned), 2, rtol=1e-4)


def test_infidelity_of_other_maps_has_a_closed_form():
    """Linear network, noise of variance s^2: s^2 |m - phi|^2, and at the best scale s^2 (|phi|^2 - (m phi)^2/|m|^2)."""
    given = of(linear, count=2)
    other = given.maps + 0.5 * noise(2)
    found = {
        rescale: infidelity(replace(given, maps=other), seed=0, samples=6000, spread=0.3, rescale=rescale)
        for rescale in (False, True)
    }
    for row, (m, phi) in enumerate(zip(other.reshape(2, -1), given.maps.reshape(2, -1), strict=True)):
        tolerance = 5 * np.sqrt(2 / 6000)  # of a mean of squared normal numbers
        assert found[False][row] == pytest.approx(0.09 * ((m - phi) ** 2).sum(), rel=tolerance)
        assert found[True][row] == pytest.approx(0.09 * (phi @ phi - (m @ phi) ** 2 / (m @ m)), rel=tolerance)


@pytest.mark.parametrize(
    "measure",
    [
        lambda given: infidelity(given, seed=3, samples=5),
        lambda given: sensitivity_n(given, 4, seed=3, samples=9),
        completeness_error,
    ],
)
def test_an_images_number_depends_on_that_image_only(measure):
    given = of(crooked, noise())
    parts = ("images", "indices", "targets", "maps")
    one = replace(given, **{part: getattr(given, part)[2:3] for part in parts})
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(measure(one), measure(given)[2:3])
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.ptp(measure(given)) > 0.01


def test_the_same_noise_whatever_the_batch(monkeypatch):
    given = of(crooked, noise(2), count=2)
    expected = infidelity(given, seed=0, samples=23)
    monkeypatch.setattr("iic.evaluation.faithfulness.BATCH", 7)
    np.testing.assert_allclose(infidelity(given, seed=0, samples=23), expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 5, 16])
def test_sensitivity_n_on_a_linear_network_is_the_correlation_of_the_pixels(n):
    """For sums over sets drawn without replacement this holds for every n."""
    given = of(linear)
    mixed = given.maps + noise()
    found = sensitivity_n(replace(given, maps=mixed), n, seed=0, samples=4000)
    expected = [np.corrcoef(m.ravel(), phi.ravel())[0, 1] for m, phi in zip(mixed, given.maps, strict=True)]
    np.testing.assert_allclose(found, expected, atol=5 / np.sqrt(4000))
    assert np.ptp(expected) > 0.1


def test_sensitivity_n_is_the_enumerated_correlation():
    given = of(crooked, of(linear).maps + 0.3 * noise())
    found = sensitivity_n(given, 2, seed=1, samples=4000)
    for row in range(4):
        image = given.images[row].astype(np.float32)
        shown, sums = [image], []
        for pair in combinations(range(20), 2):
            y, x = np.unravel_index(pair, (4, 5))
            shown.append(image.copy())
            shown[-1][:, y, x] = FILL[:, None]
            sums.append(given.maps[row][y, x].sum())
        with torch.no_grad():
            outputs = crooked(torch.from_numpy(np.stack(shown)))[:, given.targets[row]].double().numpy()
        expected = np.corrcoef(sums, outputs[0] - outputs[1:])[0, 1]
        assert found[row] == pytest.approx(expected, abs=5 / np.sqrt(4000))


def test_what_does_not_vary_explains_nothing():
    given = of(crooked, np.full((4, 4, 5), 0.1))
    assert (sensitivity_n(given, 7, seed=0) == 0).all()
    blind = replace(given, answer=lambda pixels: pixels[:, :1, 0, 0] * 0 + torch.ones(1, 3), maps=noise())
    assert (sensitivity_n(blind, 7, seed=0) == 0).all()
    assert (completeness_error(blind) == np.inf).all()
    assert (completeness_error(replace(blind, maps=np.zeros((4, 4, 5)))) == 0).all()


@pytest.mark.parametrize("n", [0, 20])
def test_sets_of_no_or_all_pixels_are_refused(n):
    with pytest.raises(UserError, match=f"n = {n} .* from 1 to 19"):
        sensitivity_n(of(linear), n, seed=0)


def test_completeness_error_is_the_missing_part():
    given = of(linear)
    gap = given.maps.sum((1, 2))
    off = np.array([0.1, -0.2, 3.0, 0.0])
    maps = given.maps * (1 + off)[:, None, None]
    assert np.abs(gap).min() > 0.1
    np.testing.assert_allclose(completeness_error(replace(given, maps=maps)), np.abs(off), atol=1e-4)


def test_max_sensitivity_of_known_explanations():
    images = np.full((2, 1, 1, 1), 100, np.uint8)
    keys = {"indices": np.array([5, 6]), "seed": 0}

    def square(pixels, row):
        return pixels[:, 0] ** 2

    found = max_sensitivity(square, images, samples=300, **keys)
    largest = (105**2 - 100**2) / 100**2
    assert (found <= largest + 1e-6).all() and (found > 0.97 * largest).all() and found[0] != found[1]
    assert (max_sensitivity(lambda pixels, row: np.ones((len(pixels), 1, 1)), images, **keys) == 0).all()


def test_max_sensitivity_is_the_papers_maximum_over_its_noisy_copies():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 6), dtype=np.uint8)
    images[0, 0], seen = 255, {0: [], 1: []}

    def gradient(pixels, row):
        """d sum x^2 / d x, channels summed."""
        seen[row].append(pixels.clone())
        leaf = pixels.clone().requires_grad_()
        return torch.autograd.grad(leaf.square().sum(), leaf)[0].sum(1)

    before = torch.random.get_rng_state()
    found = max_sensitivity(gradient, images, indices=np.array([5, 6]), seed=0, radius=3.0, samples=8)
    assert torch.equal(before, torch.random.get_rng_state())
    for row in (0, 1):
        image, copies = seen[row][0].double().numpy(), torch.cat(seen[row][1:]).double().numpy()
        np.testing.assert_array_equal(image[0], images[row])
        assert copies.shape == (8, 3, 6, 6) and copies.min() >= 0 and copies.max() <= 255
        assert 2.5 < np.abs(copies - image).max() <= 3.001
        maps = 2 * image.sum(1)
        changes = np.linalg.norm((2 * copies.sum(1) - maps).reshape(8, -1), axis=1) / np.linalg.norm(maps)
        assert found[row] == pytest.approx(changes.max(), rel=1e-4)
    alone = max_sensitivity(lambda p, row: p.sum(1), images[1:], indices=np.array([6]), seed=0, radius=3.0, samples=8)
    assert alone[0] == pytest.approx(found[1], rel=1e-5)
