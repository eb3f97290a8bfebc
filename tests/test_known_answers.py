"""Where the right explanation is known, the whole way from maps to verdict has to find it."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT

from iic.classifiers.inference import freeze, predicted_class
from iic.classifiers.networks import network_from_state
from iic.classifiers.precision import fast_forward
from iic.data.shapes import draw_shapes
from iic.evaluation.fills import Fills, mean_colour
from iic.evaluation.judges import fine_tune
from iic.evaluation.localisation import auroc, mass_accuracy, pointing_game, rank_accuracy
from iic.evaluation.outcomes import ADAPTED, cells, judge_draws
from iic.evaluation.randomisation import random_weights
from iic.evaluation.summary import headline
from iic.explainers import controls
from iic.explainers.attributions import Attributions
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.names import BLURRED, CONTROLS, controls_of
from iic.explainers.segmentation import Segmenter, slic_superpixels
from iic.explainers.twins import blurred, mean_map
from iic.params import AttributionParams
from iic.shipped import load_shipped

FILL = "salt_and_pepper"
COUNT = 300


@pytest.fixture(scope="module")
def shapes():
    """The shipped network's test images, and maps of them: the object's mask, random ones, all controls of a study."""
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
        "lrp_mean_map": np.stack([mean_map(test.masks)] * COUNT),
        "lrp_random_weights": _random_weights(model, train, test, mean, indices, targets),
    }
    for name in (*CONTROLS, "lrp_random_weights"):
        maps[name + BLURRED] = np.stack([blurred(one, 1.5) for one in maps[name]])
    found = {name: Attributions(v.astype(np.float32), indices, targets, {}) for name, v in maps.items()}
    return model, train, test, Fills(mean, train.images), found


def _random_weights(model, train, test, mean, indices, targets):
    """LRP of a network of the same layers whose weights are drawn anew: float32 (N, H, W)."""
    params, sample = AttributionParams(), torch.from_numpy(train.images[:500])
    other = random_weights(model, sample, 0)
    context = Context(freeze(other), fast_forward(other, sample, "float32", "cpu"), mean, params, Segmenter(params))
    return explain("lrp", context, test.images, indices, targets).values


@pytest.fixture(scope="module")
def table(shapes):
    model, train, test, fills, maps = shapes
    judge = freeze(fine_tune(model, train, partial(fills, FILL), seed=0, epochs=3, flip=True))
    wanted = [c for c in cells([FILL], [0.2], range(3), [ADAPTED]) if c.direction == "keep"]
    outcomes = {
        name: judge_draws(controls.draws_of(name, m, 0), {(ADAPTED, FILL): judge}, test, fills, wanted, seed=0)
        for name, m in maps.items()
    }
    return headline(outcomes, 0.2, replicates=500, seed=0)[0]


def test_the_true_mask_beats_every_control_under_the_second_judge(table):
    lead = table["methods"]["lrp"]["minus_best_control"]
    assert set(controls_of("lrp")) < set(table["methods"])  # all that it has to beat in a strict study
    assert lead["interval"][0] > 0.1 and table["methods"]["lrp"]["beats_controls"]
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
