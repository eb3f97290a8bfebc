import numpy as np
import pytest
import scipy.stats

from iic.errors import UserError
from iic.evaluation.agreement import agreement_matrix, spearman, ssim, top_overlap
from iic.evaluation.degradation import top_pixels


def maps(seed, levels=None, count=4, side=9):
    rng = np.random.default_rng(seed)
    shape = (count, side, side)
    return rng.normal(size=shape) if levels is None else rng.integers(0, levels, shape) - 1.0


@pytest.mark.parametrize("levels", [None, 3])
def test_spearman_is_scipys(levels):
    a, b = maps(0, levels), maps(1) + maps(0, levels)
    expected = [scipy.stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)
    assert min(expected) > 0.3


def test_spearman_of_order_alone():
    a = maps(0)
    np.testing.assert_allclose(spearman(a, np.exp(a)), 1)
    np.testing.assert_allclose(spearman(a, -(a**3)), -1)
    assert (spearman(a, np.ones_like(a)) == 0).all() and (spearman(np.zeros_like(a), np.zeros_like(a)) == 0).all()


def test_overlap_without_ties_is_that_of_sets():
    a, b = maps(0), maps(1)
    for share in (0.1, 0.5, 1.0):
        k = round(share * 81)
        sets = [[set(np.argsort(-one.ravel())[:k]) for one in many] for many in (a, b)]
        expected = [len(x & y) / k for x, y in zip(*sets, strict=True)]
        np.testing.assert_allclose(top_overlap(a, b, share), expected)
    np.testing.assert_allclose(top_overlap(a, a, 0.2), 1)


def test_overlap_with_ties_is_the_mean_over_ways_to_break_them():
    a, b = maps(0, 4, count=1), maps(1, 3, count=1)
    k, draws = round(0.2 * 81), np.arange(3000)
    chosen = [top_pixels(np.repeat(m, 3000, axis=0), 0.2, draws, seed) for seed, m in enumerate((a, b))]
    overlaps = (chosen[0] & chosen[1]).sum((1, 2)) / k
    assert overlaps.std() > 0.03
    assert top_overlap(a, b, 0.2)[0] == pytest.approx(overlaps.mean(), abs=5 * overlaps.std() / np.sqrt(3000))
    flat = np.zeros((1, 9, 9))
    assert top_overlap(flat, a, 0.2) == pytest.approx(k / 81) == top_overlap(flat, flat, 0.2)


@pytest.mark.parametrize("share", [0.001, 1.2])
def test_a_share_of_no_pixel_is_refused(share):
    with pytest.raises(UserError, match="at least one pixel"):
        top_overlap(maps(0), maps(1), share)


def test_ssim_is_the_papers_formula():
    """On 7 x 7 pixels there is one window: means, variances and covariance of the whole map."""
    a, b = maps(0, side=7), maps(1, side=7) + maps(0, side=7)
    for found, x, y in zip(ssim(3 * a, b), a, b, strict=True):
        x, y = (m.ravel() / np.abs(m).max() for m in (x, y))
        (varx, cov), (_, vary) = np.cov(x, y)
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        mx, my = x.mean(), y.mean()
        expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (varx + vary + c2))
        assert found == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(ssim(a, 5 * a), 1)
    np.testing.assert_allclose(ssim(np.zeros_like(a), np.zeros_like(a)), 1)


def test_the_matrix_holds_means_and_is_symmetric():
    methods = [maps(0), maps(1), -maps(0)]
    seen = []
    found = agreement_matrix(methods, spearman, progress=lambda pairs: seen.extend(pairs) or pairs)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1)
    assert found[0, 1] == pytest.approx(spearman(maps(0), maps(1)).mean()) and found[0, 2] == pytest.approx(-1)
    assert len(seen) == 6
