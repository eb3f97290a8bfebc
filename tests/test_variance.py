import json
from itertools import combinations
from math import asin, pi

import numpy as np
import pytest
import scipy.stats

from iic.bayes.strategies import disagreement
from iic.bayes.variance import overlap_of_neighbours, variance_share, variance_table, within_variance
from iic.errors import UserError

SEGMENTATION, NOISE = 0.5, 0.25  # variances beside the picture's own, which is 1
SHAPE = (50, 20, 20)


@pytest.fixture(scope="module")
def sources():
    """Maps that are one picture plus independent Normal noise of known variance."""
    rng = np.random.default_rng(0)
    picture = rng.normal(size=SHAPE)

    def repeats(count, variance):
        return picture + rng.normal(scale=variance**0.5, size=(count, *SHAPE))

    return {
        "sampling": repeats(5, NOISE),
        "segmentation": repeats(4, NOISE + SEGMENTATION),
        "posterior": 7 * rng.normal(size=(6, *SHAPE)),  # nothing in common, and in another unit
        "nothing": np.stack([picture, 3 * picture]),
    }


@pytest.fixture(scope="module")
def table(sources):
    noise = {"segmentation": "sampling", "nothing": "sampling"}
    varied = {"posterior": "Bayesian", "sampling": "explained"}
    return variance_table(sources, seed=0, replicates=500, noise=noise, varied=varied)


@pytest.mark.parametrize(("source", "variance"), [("sampling", NOISE), ("segmentation", NOISE + SEGMENTATION)])
def test_known_components_are_found(table, source, variance):
    row = table["sources"][source]
    rho = 1 / (1 + variance)  # correlation of two repeats
    edge = scipy.stats.norm.ppf(0.8)
    both = scipy.stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([-edge, -edge])
    expected = {"variance": 1 - rho, "share": 1 - rho, "spearman": 6 / pi * asin(rho / 2), "top_overlap": both / 0.2}
    for name, value in expected.items():
        low, high = row[name]["interval"]
        assert row[name]["mean"] == pytest.approx(value, abs=0.015)
        assert low < row[name]["mean"] < high and high - low < 0.05


def test_what_a_source_adds_to_the_sampling_noise(table):
    rows = table["sources"]
    added = (NOISE + SEGMENTATION) / (1 + NOISE + SEGMENTATION) - NOISE / (1 + NOISE)
    assert rows["segmentation"]["beyond_noise"]["mean"] == pytest.approx(added, abs=0.015)
    assert rows["segmentation"]["beyond_noise"]["interval"][0] > 0.15
    assert rows["segmentation"]["noise"] == "sampling"
    assert rows["sampling"]["beyond_noise"] is rows["sampling"]["noise"] is rows["posterior"]["beyond_noise"] is None
    assert rows["nothing"]["beyond_noise"]["interval"][1] < 0


def test_the_ends_of_the_scale(table):
    unrelated, same = table["sources"]["posterior"], table["sources"]["nothing"]
    assert unrelated["share"]["mean"] == pytest.approx(1, abs=0.01)
    assert unrelated["spearman"]["mean"] == pytest.approx(0, abs=0.01)
    assert unrelated["top_overlap"]["mean"] == pytest.approx(0.2, abs=0.01)
    assert same["share"]["mean"] == pytest.approx(0, abs=1e-12)  # a map's unit does not matter
    assert same["spearman"]["mean"] == pytest.approx(1) and same["top_overlap"]["mean"] == 1
    picture = np.random.default_rng(1).normal(size=(1, 20, 20))
    assert variance_share(np.stack([picture, -picture])) == pytest.approx(2, rel=0.02)


def test_the_table_is_json_and_says_what_it_is_of(table, sources):
    assert json.loads(json.dumps(table)) == table
    assert table["images"] == 50
    networks = {source: row["network"] for source, row in table["sources"].items()}
    assert networks == {"sampling": "explained", "segmentation": None, "posterior": "Bayesian", "nothing": None}
    assert {source: row["repeats"] for source, row in table["sources"].items()} == {
        source: len(maps) for source, maps in sources.items()
    }
    alone = variance_table({"sampling": sources["sampling"]}, seed=0, replicates=500)
    assert alone["sources"]["sampling"]["beyond_noise"] is None
    assert alone["sources"]["sampling"]["share"] == table["sources"]["sampling"]["share"]


def test_within_variance_is_unbiased_over_pairs(sources):
    maps = sources["segmentation"][:, :3]
    flat = maps.reshape(4, 3, -1) / np.linalg.norm(maps.reshape(4, 3, -1), axis=-1, keepdims=True)
    halves = [((a - b) ** 2).sum(-1) / 2 for a, b in combinations(flat, 2)]  # each unbiased by itself
    np.testing.assert_allclose(within_variance(maps), np.mean(halves, 0))
    np.testing.assert_allclose(within_variance(maps), disagreement([maps]))
    # two repeats hold as much on average as four, which without ddof = 1 they would not
    two = [within_variance(maps[list(pair)]) for pair in combinations(range(4), 2)]
    np.testing.assert_allclose(np.mean(two, 0), within_variance(maps))


def test_overlap_is_that_of_each_repeat_and_the_next():
    a, b, c = (np.array(order, float).reshape(1, 1, 5) for order in ([9, 1, 2, 3, 4], [8, 1, 2, 4, 3], [1, 9, 4, 3, 2]))
    assert overlap_of_neighbours(np.stack([a, b, c])) == pytest.approx(1 / 3)
    assert overlap_of_neighbours(np.stack([a, b, c]), 0.4) == pytest.approx(1 / 6)  # one of two pixels, in one pair


def test_wrong_inputs_are_named(sources):
    maps = sources["sampling"]
    with pytest.raises(UserError, match="give all the same images"):
        variance_table({"a": maps, "b": maps[:, :7]}, seed=0)
    for noise in ({"a": "masks"}, {"masks": "a"}):
        with pytest.raises(UserError, match="'masks' of the sampling noise is no source: choose one of a"):
            variance_table({"a": maps}, seed=0, noise=noise)
    with pytest.raises(UserError, match="within 'a' takes at least two repeats"):
        variance_table({"a": maps[:1]}, seed=0)
    with pytest.raises(UserError, match="'a' have NaN"):
        variance_table({"a": maps * np.nan}, seed=0)
    flat = maps.copy()
    flat[:, 4] = 0
    with pytest.raises(UserError, match="'a' of image 4 have one value only"):
        variance_table({"a": flat}, seed=0)
