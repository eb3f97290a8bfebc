"""Density of images and its limit: against a Normal written out, a simulation of the promise, and counts by hand."""

import numpy as np
import pytest
from scipy.stats import binom, multivariate_normal

from iic.bayes.shifts import inverted
from iic.bayes.typicality import conformal_limit, fit, fit_density, flat, typicality_report
from iic.bayes.uncertainty import uniform_noise
from iic.bayes.uncertainty_table import both_rules, read
from iic.data.images import ImageSet, hold_out
from iic.data.sources import load_digits
from iic.errors import UserError


@pytest.fixture(scope="module")
def found():
    rest, held = hold_out(load_digits()[0], 400, 0)
    return fit(rest, held.images, seed=0), held.images


@pytest.mark.parametrize("count", [400, 30])  # more images than pixels, and fewer
def test_strangeness_is_minus_the_log_of_a_normal_density_of_few_directions(count):
    rng = np.random.default_rng(0)
    few = rng.normal(size=(count, 5)) @ rng.normal(size=(5, 48)) * 20 + rng.normal(size=(count, 48)) * 5 + 128
    train = ImageSet(few.clip(0, 255).astype(np.uint8).reshape(count, 3, 4, 4), np.zeros(count, np.int64))
    found = fit_density(train, seed=3)
    kept, pixels = len(found.components), train.images.reshape(count, 48) + 0.5
    values, directions = np.linalg.eigh(np.cov(pixels.T) + np.eye(48) / 12)  # an interval of width 1 has variance 1/12
    values, directions = values[::-1], directions[:, ::-1]
    assert kept == 5 and values[:5].sum() > 0.95 * values.sum() > values[:4].sum()
    rest = values[5:].mean()
    covariance = directions[:, :5] @ np.diag(values[:5] - rest) @ directions[:, :5].T + rest * np.eye(48)
    exact = -multivariate_normal(pixels.mean(0), covariance).logpdf(pixels)
    assert found.strangeness(train.images) == pytest.approx(exact, rel=0.015)
    # and to the digit, of its own numbers
    own = found.components.T @ np.diag(found.variances - found.rest) @ found.components + found.rest * np.eye(48)
    assert found.strangeness(train.images) == pytest.approx(-multivariate_normal(found.mean, own).logpdf(pixels))


@pytest.mark.parametrize("count", [2, 3, 60])
def test_images_without_variance_have_a_density(count):
    same = ImageSet(np.full((count, 1, 5, 5), 7, np.uint8), np.zeros(count, np.int64))
    found = fit(same, same.images, seed=0)
    strange = found.density.strangeness(same.images)
    assert found.limit is None and found.looks_typical(strange).all() and np.isfinite(strange).all()
    assert (found.density.strangeness(255 - same.images) > strange + 1000).all() and found.density.rest >= 1 / 12
    with pytest.raises(UserError, match="not of \\(1, 4, 5\\)"):
        found.density.strangeness(same.images[:, :, :4])
    with pytest.raises(UserError, match="two training images"):
        fit(same[np.arange(1)], same.images, seed=0)


def test_large_images_are_averaged_down():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    large = small.repeat(3, 2).repeat(4, 3)
    assert np.array_equal(flat(large), flat(small)) and flat(small[..., :20]).shape == (40, 3 * 32 * 20)
    found = fit_density(ImageSet(large, np.zeros(40, np.int64)), seed=0)
    assert found.components.shape[1] == 3072 and np.isfinite(found.strangeness(large)).all()


def test_the_limit_refuses_no_more_than_it_promises():
    rng = np.random.default_rng(0)
    assert conformal_limit(np.arange(98.0), 0.01) is None
    assert conformal_limit(np.arange(99.0), 0.01) == 98 and conformal_limit(np.arange(199.0), 0.01) == 197
    drawn = rng.standard_cauchy((20_000, 200))  # of each row 199 are held out, one is new
    limits = np.array([conformal_limit(row[:199], 0.05) for row in drawn[:4000]])
    refused = int((drawn[:4000, 199] > limits).sum())
    assert binom(4000, 0.05).ppf(0.001) <= refused <= binom(4000, 0.05).ppf(0.999)  # 10 of 200: exactly .05


def test_noise_is_strange_and_digits_are_not(found):
    usual, held = found
    density, test = usual.density, load_digits()[1].images
    sets = {"noise": uniform_noise(300, test.shape[1:], 1), "inverted": inverted(test), "dark": test // 2}
    strange = {name: density.strangeness(images) for name, images in sets.items()}
    report = typicality_report(usual, density.strangeness(test), strange, seed=0, replicates=50)
    assert report["limit"] == np.sort(density.strangeness(held))[-4] and report["n_validation"] == 400
    assert report["outside"]["noise"]["refused"]["value"] == report["outside"]["noise"]["auroc"]["value"] == 1
    assert report["refused"]["value"] < 0.03 and report["outside"]["dark"]["refused"]["value"] < 0.03
    assert report["outside"]["noise"]["n_images"] == 300
    assert fit(hold_out(load_digits()[0], 400, 0)[0], held, seed=0).limit == usual.limit


def test_both_rules_answer_what_neither_refuses():
    sure, unsure = [0.95, 0.05], [0.6, 0.4]
    test, noise = read(np.array([[sure, sure, unsure, sure]])), read(np.array([[sure, unsure, sure]]))
    thresholds = {"confidence": {"1%": 0.1, "0.1%": None}, "entropy": {"1%": 9.0}, "mutual_information": None}
    typical = {"test": np.array([True, False, True, True]), "noise": np.array([False, True, True])}
    rows = both_rules(test, np.array([0, 0, 0, 1]), {"noise": noise}, thresholds, typical)
    row = rows["confidence"]["1%"]
    assert (row["coverage"]["value"], row["accuracy"]["value"]) == (0.5, 0.5)  # the first and the last, which is wrong
    assert row["refused"]["noise"]["value"] == pytest.approx(2 / 3)
    none = rows["confidence"]["0.1%"]
    assert none["coverage"]["value"] == 0 and none["accuracy"]["value"] is None
    assert rows["entropy"]["1%"]["coverage"]["value"] == 0.75 and "mutual_information" not in rows
