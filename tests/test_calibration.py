import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from iic.classifiers.calibration import expected_calibration_error, fit_temperature, negative_log_likelihood


def binned_by_hand(probabilities, labels, bins):
    """ECE as its definition reads, bin by bin."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs((predicted[inside] == labels[inside]).mean() - confidence[inside].mean())
    return total


def test_a_case_that_can_be_done_in_the_head():
    # two images at confidence .9, one right: |.5 - .9| * 2/4; two at .6, both right: |1 - .6| * 2/4
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = torch.tensor([0, 1, 1, 1])
    assert expected_calibration_error(probabilities.log(), labels) == pytest.approx(0.4, abs=1e-6)


def test_random_logits_against_the_definition_and_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 10)) * 2, rng.integers(0, 10, 500)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    assert expected_calibration_error(*tensors) == pytest.approx(binned_by_hand(probabilities, labels, 15), abs=1e-9)
    assert negative_log_likelihood(*tensors) == pytest.approx(log_loss(labels, probabilities), abs=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(20_000, 5)) * 3)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_images_that_are_all_right_do_not_ask_for_certainty():
    """Two classes, every image right by the same margin: the probability of the true class is (N + 1) / (N + 2)."""
    logits = torch.tensor([[2.0, 0.0]]).repeat(98, 1)
    temperature = fit_temperature(logits, torch.zeros(98, dtype=torch.int64))
    assert (logits[0] / temperature).softmax(0)[0].item() == pytest.approx(99 / 100, abs=1e-4)
