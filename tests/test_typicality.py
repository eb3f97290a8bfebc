"""Density of images and its limit: against a Normal written out, a simulation of the promise, and counts by hand."""

import numpy as np
import pytest
from scipy.stats import binom, multivariate_normal

from iic.bayes.shifts import inverted
from iic.bayes.typicality import both_rules, conformal_limit, fit, typicality_report
from iic.bayes.uncertainty import uniform_noise
from iic.bayes.uncertainty_table import read
from iic.data.images import ImageSet, hold_out
from iic.data.sources import load_digits
from iic.errors import UserError


@pytest.fixture(scope="module")
def found():
    rest, held = hold_out(load_digits()[0], 400, 0)
    return fit(rest, held.images, seed=0), held.images


def test_strangeness_is_minus_the_log_of_a_normal_density_of_few_directions():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 48)) * 20 + rng.normal(size=(400, 48)) * 5 + 128
    train = ImageSet(few.clip(0, 255).astype(np.uint8).reshape(400, 3, 4, 4), np.zeros(400, np.int64))
    density = fit(train, train.images[:150], seed=3)
    kept, pixels = density.density.n_components_, train.images.reshape(400, 48) + 0.5
    values, directions = np.linalg.eigh(np.cov(pixels.T) + np.eye(48) / 12)  # an interval of width 1 has variance 1/12
    values, directions = values[::-1], directions[:, ::-1]
    assert values[:kept].sum() > 0.95 * values.sum() > values[: kept - 1].sum() and kept == 5
    rest = values[kept:].mean()
    covariance = directions[:, :kept] @ np.diag(values[:kept] - rest) @ directions[:, :kept].T + rest * np.eye(48)
    exact = -multivariate_normal(pixels.mean(0), covariance).logpdf(pixels)
    assert density.strangeness(train.images) == pytest.approx(exact, rel=0.01)
    assert density.limit == np.sort(density.strangeness(train.images[:150]))[-1]  # floor(.01 * 151)


def test_images_without_variance_have_a_density():
    flat = ImageSet(np.full((60, 1, 5, 5), 7, np.uint8), np.zeros(60, np.int64))
    density = fit(flat, flat.images[:50], seed=0)
    assert density.limit is None and density.looks_typical(density.strangeness(flat.images)).all()
    assert np.isfinite(density.strangeness(255 - flat.images)).all()
    with pytest.raises(UserError, match="of images of 25 values, not of 16"):
        density.strangeness(flat.images[:, :, :4, :4])


def test_the_limit_refuses_no_more_than_it_promises():
    rng = np.random.default_rng(0)
    assert conformal_limit(np.arange(98.0), 0.01) is None
    assert conformal_limit(np.arange(99.0), 0.01) == 98 and conformal_limit(np.arange(199.0), 0.01) == 197
    drawn = rng.standard_cauchy((20_000, 200))  # of each row 199 are held out, one is new
    limits = np.array([conformal_limit(row[:199], 0.05) for row in drawn[:4000]])
    refused = int((drawn[:4000, 199] > limits).sum())
    assert binom(4000, 0.05).ppf(0.001) <= refused <= binom(4000, 0.05).ppf(0.999)  # 10 of 200: exactly .05


def test_noise_is_strange_and_digits_are_not(found):
    density, held = found
    test = load_digits()[1].images
    sets = {"noise": uniform_noise(300, test.shape[1:], 1), "inverted": inverted(test), "dark": test // 2}
    strange = {name: density.strangeness(images) for name, images in sets.items()}
    report = typicality_report(density, density.strangeness(test), strange, seed=0, replicates=50)
    assert report["limit"] == np.sort(density.strangeness(held))[-4] and report["n_validation"] == 400
    assert report["outside"]["noise"]["refused"]["value"] == report["outside"]["noise"]["auroc"]["value"] == 1
    assert report["refused"]["value"] < 0.03 and report["outside"]["dark"]["refused"]["value"] < 0.03
    assert report["outside"]["noise"]["n_images"] == 300
    assert fit(hold_out(load_digits()[0], 400, 0)[0], held, seed=0).limit == density.limit


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
