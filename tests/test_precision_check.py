"""A faster forward has to rank superpixels as float32 does, one that tilts or turns the ranking is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.explainers.context import precision_of
from iic.explainers.precision_check import RankingCheck, ranked_alike
from iic.params import AttributionParams


class Weighs(nn.Module):
    """Two classes; the first one's logit is the mean of the pixels, each weighed, over 255."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float32))
        self.offset = 0.0

    def forward(self, pixels):
        first = (pixels * self.weights).mean((1, 2, 3)) / 255 + self.offset
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.fixture(scope="module")
def sample():
    return torch.from_numpy(np.random.default_rng(0).integers(100, 256, (20, 1, 26, 25), dtype=np.uint8))


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(1).uniform(0.2, 2, (4, 4)).repeat(7, 0).repeat(7, 1)[:26, :25]


def test_the_same_forward_ranks_alike_and_its_opposite_nothing(sample, weights):
    check, model = RankingCheck(sample, np.array([10.0])), Weighs(weights)
    assert check(model, model, "cpu") == 1
    assert check(Weighs(2 * weights), model, "cpu") > 0.99  # twice as sure
    assert check(Weighs(-weights), model, "cpu") < 0.01
    flat = Weighs(np.zeros((26, 25)))
    assert check(model, flat, "cpu") is None  # nothing is clear


def test_logits_are_ranked_too(sample, weights):
    """A class that is certain whatever is shown: its probability is 1, its logit another for every mask."""
    sure, check = Weighs(weights), RankingCheck(sample, np.array([10.0]))
    turned = Weighs(-weights)
    sure.offset = turned.offset = 80.0
    assert check(sure, sure, "cpu") == 1 and check(turned, sure, "cpu") < 0.01


def test_pairs_are_counted_as_written_down(sample, weights):
    tilted = weights + np.linspace(0, 1.0, 25)  # to the right
    share = RankingCheck(sample, np.array([10.0]))(Weighs(tilted), Weighs(weights), "cpu")
    assert 0.6 < share < 0.95
    exact, fast, errors = np.array([0.0, 1, 2, 2.05]), np.array([0.0, 3, 2, 1.5]), np.array([0.1, 0.1, 0.2, 0.1])
    assert ranked_alike(exact, fast, errors) == (5, 3)  # 2 and 2.05 are no clear pair; 1 lies above both in `fast`


def test_a_forward_that_names_the_same_classes_and_ranks_otherwise_is_not_taken(sample, weights, monkeypatch):
    model = build_network([128.0], [64.0], widths=(4, 4, 4)).eval()
    check, asked = RankingCheck(sample, np.array([10.0])), []

    def ranking(fast, plain, device):
        asked.append(device)
        return check(Weighs(weights + np.linspace(0, 1.0, 25)), Weighs(weights), device)

    monkeypatch.setattr("iic.classifiers.precision._faster", lambda model, device: ["bfloat16"])
    assert fast_forward(model, sample, "auto", "cpu").precision == "bfloat16"
    refused = fast_forward(model, sample, "auto", "cpu", ranking)
    assert (refused.precision, refused.same_ranking, asked) == ("float32", None, ["cpu"])
    assert fast_forward(model, sample, "bfloat16", "cpu", ranking).same_ranking is None and len(asked) == 1
    taken = fast_forward(model, sample, "auto", "cpu", lambda *_: 0.996)
    assert (taken.precision, taken.same_ranking) == ("bfloat16", 0.996)


@pytest.mark.parametrize(
    ("method", "precision"),
    [("lime_logit", "auto"), ("kernel_shap_random_weights", "auto"), ("rise", "float32"), ("occlusion", "float32")],
)
def test_what_ranks_single_pixels_gets_float32_unless_told_otherwise(method, precision):
    assert precision_of(method, AttributionParams()) == precision
    assert precision_of(method, AttributionParams(precision="bfloat16")) == "bfloat16"
    assert precision_of("lrp", AttributionParams(precision="bfloat16")) == "float32"
