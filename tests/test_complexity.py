import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iic.evaluation.complexity import entropy, gini_index


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_gini_is_half_the_relative_mean_difference_and_entropy_is_scipys(seed, height, width):
    maps = np.random.default_rng(seed).normal(size=(3, height, width)).round(1)
    maps[:, 0, 0] = 1
    for gini, nats, one in zip(gini_index(maps), entropy(maps), np.abs(maps).reshape(3, -1), strict=True):
        assert gini == pytest.approx(np.abs(one[:, None] - one[None]).mean() / (2 * one.mean()), abs=1e-12)
        assert nats == pytest.approx(stats.entropy(one), abs=1e-12)


def test_closed_forms():
    d = 24
    one, even, ramp = np.zeros((4, 6)), np.full((4, 6), -3.0), np.arange(1.0, d + 1).reshape(4, 6)
    maps = np.stack([one, even, ramp, np.zeros((4, 6))]).astype(np.float32)
    maps[0, 2, 3] = -7
    gini, nats = gini_index(maps), entropy(maps)
    np.testing.assert_allclose(gini, [1 - 1 / d, 0, (d - 1) / (3 * d), 0], atol=1e-12)
    shares = np.arange(1, d + 1) / (d * (d + 1) / 2)
    np.testing.assert_allclose(nats, [0, np.log(d), -(shares * np.log(shares)).sum(), np.log(d)], atol=1e-7)
    assert gini.dtype == nats.dtype == np.float64
