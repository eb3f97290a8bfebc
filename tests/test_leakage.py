import numpy as np
import pytest
import torch

from iic.errors import UserError
from iic.evaluation.judges import random_masks
from iic.evaluation.leakage import leakage

SIZE = (12, 12)


def outlines(count, seed):
    """Masks anywhere in the image whose form is the class: a lying bar, a standing bar, a square, a frame."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    forms = [np.ones((2, 8), bool), np.ones((8, 2), bool), np.ones((4, 4), bool), np.pad(np.zeros((3, 3)), 1) == 0]
    forms[3][1:4, 1:4] = False
    masks = np.zeros((count, *SIZE), bool)
    for mask, label in zip(masks, labels, strict=True):
        height, width = forms[label].shape
        top, left = rng.integers(0, SIZE[0] - height + 1), rng.integers(0, SIZE[1] - width + 1)
        mask[top : top + height, left : left + width] = forms[label]
    return masks, labels


def unrelated(count, seed, chances=(0.25, 0.25, 0.25, 0.25)):
    rng = np.random.default_rng(seed)
    return random_masks(count, SIZE, rng), rng.choice(len(chances), count, p=chances)


def test_a_form_that_is_the_class_is_read():
    result = leakage(*outlines(600, 0), *outlines(300, 1), classes=4, seed=0)
    assert result["accuracy"] > 0.9 and result["leaks"]
    assert result["interval"][0] < result["accuracy"] <= result["interval"][1]
    assert (result["chance"], result["n_train"], result["n_test"]) == (0.25, 600, 300)


def test_masks_that_know_nothing_leak_nothing():
    """Each 95 % interval may miss chance once in twenty times; two of three hold it in 99.3 % of such studies."""
    found = [leakage(*unrelated(400, s), *unrelated(400, s + 9), classes=4, seed=s, epochs=4) for s in range(3)]
    assert sum(r["interval"][0] <= 0.25 <= r["interval"][1] for r in found) >= 2
    assert not any(r["leaks"] for r in found)


def test_a_guess_of_the_commonest_class_is_no_leak():
    test_masks, test_labels = unrelated(300, 1, (0.1, 0.7, 0.2))
    result = leakage(*unrelated(400, 0, (0.2, 0.7, 0.1)), test_masks, test_labels, classes=3, seed=0, epochs=4)
    assert result["majority"] == (test_labels == 1).mean() > 0.6
    assert result["interval"][0] > result["chance"] and not result["leaks"]


@pytest.mark.parametrize(("flip", "low", "high"), [(False, 0.99, 1.0), (True, 0.0, 0.8)])
def test_mirrored_masks_hide_which_side_is_kept(flip, low, high):
    labels = np.arange(300) % 2
    masks = random_masks(300, SIZE, np.random.default_rng(0))
    masks &= (np.arange(12) < 6) == labels[:, None, None]
    result = leakage(masks[:200], labels[:200], masks[200:], labels[200:], classes=2, seed=0, flip=flip)
    assert low <= result["accuracy"] <= high


def test_the_seed_decides_and_torchs_own_draws_go_on():
    state = torch.get_rng_state()
    data = (*outlines(200, 0), *unrelated(300, 1))
    results = [leakage(*data, classes=4, seed=seed, epochs=2) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_masks_without_a_label_each_are_refused():
    masks, labels = outlines(20, 0)
    with pytest.raises(UserError, match="test masks must be bool"):
        leakage(masks, labels, masks, labels[:3], classes=4, seed=0)
    with pytest.raises(UserError, match="training masks must be bool"):
        leakage(masks.astype(float), labels, masks, labels, classes=4, seed=0)
