"""What of a Bayesian network's parameters is refused before any node runs."""

import pytest
from conftest import ROOT

from iic.checks import check_bayesian, check_parameters
from iic.errors import UserError
from iic.params import BayesianParams


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"own_scales": True, "narrow_scale": 0.1}, "own_scales or has a narrow_scale"),
        ({"narrow_scale": 0.5}, "between 0 and its prior_scale"),
        ({"own_scales": True, "posterior": "laplace"}, "for the posterior mean_field, not laplace"),
    ],
)
def test_a_prior_that_cannot_be_is_refused_before_any_node_runs(changes, message):
    with pytest.raises(ValueError, match=message):
        BayesianParams(**changes)


@pytest.mark.parametrize(
    ("dataset", "changes", "message"),
    [
        ("digits", {"posterior": "ensemble", "temperature": 0.5}, "have a temperature: set it to 1, not 0.5"),
        ("digits", {"posterior": "dropout", "narrow_scale": 0.1}, "MC dropout needs a prior of one Normal"),
        ("digits", {"posterior": "dropout", "hidden": []}, "a single layer has none"),
        ("digits", {"posterior": "laplace", "hidden": [4000]}, "let its inputs be at most 1599"),
        ("digits", {"filters": [2, 2, 2, 2, 2]}, "28 x 28 pixels are too small"),
        ("shapes", {"posterior": "dropout"}, "a single layer has none"),
        ("shapes", {"shift": 1}, "a last layer sees no pixels"),
        ("digits", {"prior_scale": float("inf")}, "prior_scale"),
        ("digits", {"seed": 2**70}, "seed"),
    ],
)
def test_a_posterior_that_cannot_be_is_refused_before_any_node_runs(dataset, changes, message):
    data = {"source": dataset, "channels": {"digits": 1, "shapes": 3}[dataset], "class_names": list("abcdefghij")}
    with pytest.raises(UserError, match=message):
        check_bayesian(check_parameters({dataset: {"data": data, "bayesian": changes}}, [dataset]), ["shapes"], ROOT)


def test_what_can_be_learnt_passes():
    data = {"source": "shapes", "channels": 3, "class_names": list("abcdefghij")}
    bayesian = {"posterior": "laplace", "hidden": [4000], "filters": [2, 2, 2, 2, 2]}  # a last layer has none of these
    check_bayesian(check_parameters({"shapes": {"data": data, "bayesian": bayesian}}, ["shapes"]), ["shapes"], ROOT)


@pytest.mark.parametrize(
    ("download", "changes", "message"),
    [
        ("CIFAR10", {"posterior": "dropout"}, "a single layer has none"),
        ("CIFAR10", {"weights": "shipped"}, "mine_bayesian"),
        ("MNIST", {"filters": [2, 2, 2, 2, 2]}, "28 x 28 pixels are too small"),
    ],
)
def test_what_is_still_to_be_downloaded_is_checked_too(download, changes, message, monkeypatch, tmp_path):
    monkeypatch.setenv("IIC_RAW", str(tmp_path))
    channels = {"CIFAR10": 3, "MNIST": 1}[download]
    data = {"source": "parquet", "channels": channels, "class_names": list("abcdefghij"), "download": download}
    blocks = check_parameters({"mine": {"data": data, "bayesian": changes}}, ["mine"])
    with pytest.raises(UserError, match=message):
        check_bayesian(blocks, ["mine"] if channels == 3 else [], ROOT)


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.2, 1.0), (0.2, 0.2), ()])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="doubt_shares"):
        BayesianParams(doubt_shares=shares)
