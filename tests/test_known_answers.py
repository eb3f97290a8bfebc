"""Where the right explanation is known, the whole way from maps to verdict has to find it."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT

from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import network_from_state
from iic.data.shapes import draw_shapes
from iic.evaluation.fills import Fills, mean_colour
from iic.evaluation.judges import fine_tune
from iic.evaluation.localisation import auroc, mass_accuracy, pointing_game, rank_accuracy
from iic.evaluation.outcomes import ADAPTED, cells, judge_maps
from iic.evaluation.summary import headline
from iic.explainers import controls
from iic.explainers.attributions import Attributions
from iic.explainers.segmentation import slic_superpixels
from iic.explainers.twins import blurred
from iic.shipped import load_shipped

FILL = "salt_and_pepper"
COUNT = 300


@pytest.fixture(scope="module")
def shapes():
    """The shipped network's test images, and maps of them: the object's mask, random ones, all controls."""
    test = draw_shapes(COUNT, seed=987)
    train = draw_shapes(3000, seed=986)
    model = network_from_state(load_shipped(ROOT / "weights" / "shapes.pt")).eval()
    mean = mean_colour(train.images)
    indices = np.arange(COUNT)
    targets = predicted_class(freeze(model), torch.from_numpy(test.images)).numpy()
    draws = [np.random.default_rng([5, i]) for i in indices]
    random = np.stack([controls.random_pixels((32, 32), rng) for rng in draws])
    maps = {
        "lrp": test.masks + 0.01 * random,  # under names that the tables know: an explainer that is right
        "lime": np.stack([controls.random_pixels((32, 32), rng) for rng in draws]),  # one that knows nothing
        "rise": np.stack([blurred(controls.random_pixels((32, 32), rng), 1.5) for rng in draws]),  # nor this one
        "random": random,
        "random_superpixels": np.stack(
            [
                controls.random_superpixels(slic_superpixels(image, 50, 10.0), rng)
                for image, rng in zip(test.images, draws, strict=True)
            ]
        ),
        "sobel": np.stack([controls.sobel_edges(image) for image in test.images]),
        "contrast": np.stack([controls.distance_from_mean(image, mean) for image in test.images]),
        "centre": np.stack([controls.centred_gaussian((32, 32))] * COUNT),
    }
    found = {name: Attributions(v.astype(np.float32), indices, targets, {}) for name, v in maps.items()}
    return model, train, test, Fills(mean, train.images), found


@pytest.fixture(scope="module")
def table(shapes):
    model, train, test, fills, maps = shapes
    judge = freeze(fine_tune(model, train, partial(fills, FILL), seed=0, epochs=3, flip=True))
    wanted = [c for c in cells([FILL], [0.2], range(3), [ADAPTED]) if c.direction == "keep"]
    outcomes = {n: judge_maps(m, {(ADAPTED, FILL): judge}, test, fills, wanted, seed=0) for n, m in maps.items()}
    return headline(outcomes, 0.2, replicates=500, seed=0)[0]


def test_the_true_mask_beats_every_control_under_the_second_judge(table):
    lead = table["methods"]["lrp"]["minus_best_control"]
    assert lead["interval"][0] > 0.1 and not table["methods"]["lrp"]["abstains"]
    assert table["groups"][0] == ["lrp"]  # told apart from all others


def test_a_random_explainer_ranks_with_the_controls_and_so_does_a_blurred_one(table):
    for method in ("lime", "rise"):
        assert table["methods"][method]["minus_best_control"]["interval"][0] <= 0
        best = max(table["methods"][c]["accuracy"] for c in ("sobel", "contrast", "centre", "random"))
        assert table["methods"][method]["accuracy"] <= best
    assert any({"lime", "random"} <= set(group) for group in table["groups"])


@pytest.mark.parametrize("measure", [mass_accuracy, pointing_game, auroc, partial(rank_accuracy, seed=0)])
def test_the_true_mask_wins_localisation(shapes, measure):
    _, _, test, _, maps = shapes
    if isinstance(measure, partial):
        measure = partial(measure, indices=np.arange(COUNT))
    scores = {name: measure(np.asarray(m.values), test.masks).mean() for name, m in maps.items()}
    assert max(scores, key=scores.get) == "lrp" and scores["lrp"] > 0.95
    assert all(score < scores["lrp"] - 0.05 for name, score in scores.items() if name != "lrp")
