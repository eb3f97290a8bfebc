from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch
from captum.attr import IntegratedGradients
from torch import nn
from zennit.composites import NameMapComposite
from zennit.rules import Epsilon, ZBox, ZPlus

from iic.bayes import network
from iic.bayes.explanations import Samples, integrated_gradients_maps, lrp_maps, predicted_classes
from iic.bayes.strategies import disagreement, intersection, percentile_strategy, summarise, union
from iic.classifiers.networks import Normalize
from iic.errors import UserError
from iic.explainers.composites import composite
from iic.explainers.lrp import EPSILON, Propagator

MEAN = 0.3
SIZES = (32, 9, 7, 4)


def posterior(sizes=SIZES, count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = network.weight_shapes(sizes)
    return [{n: torch.randn(s, generator=generator) / s[-1] ** 0.5 for n, s in shapes.items()} for _ in range(count)]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 2, 4, 4), dtype=np.uint8)


TARGETS = np.array([0, 3, 1, 2, 2, 0])


def joined(maps):
    return np.concatenate(list(maps))


def sequential(weights) -> nn.Sequential:
    """The same network in torch's own layers, from pixels 0..255 on."""
    layers = [Normalize([255 * MEAN], [255.0]), nn.Flatten()]
    for number in range(len(weights) // 2):
        weight, bias = weights[f"layer{number}.weight"], weights[f"layer{number}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def assert_same_maps(ours, theirs, tolerance=1e-5):
    gap = np.linalg.norm((ours - theirs).reshape(len(ours), -1), axis=1)
    assert (gap <= tolerance * np.linalg.norm(theirs.reshape(len(theirs), -1), axis=1)).all()


@pytest.mark.parametrize(("rules", "own"), [("epsilon", {}), ("epsilon_plus", {"4": "plus"})])
def test_lrp_is_that_of_the_projects_propagator(images, rules, own):
    samples = posterior()
    ours = joined(lrp_maps(samples, MEAN, images, TARGETS, rules=rules))
    assert ours.dtype == np.float32 and ours.shape == (5, 6, 4, 4)
    for weights, maps in zip(samples, ours, strict=True):
        propagate = Propagator(sequential(weights), composite("epsilon", own))
        theirs = propagate(torch.from_numpy(images), torch.from_numpy(TARGETS)).values.sum(1)
        assert_same_maps(maps, theirs.numpy())


def zennits(model, inputs, rules):
    with NameMapComposite(rules).context(model) as modified:
        logits = modified(inputs)
        chosen = torch.eye(logits.shape[1])[TARGETS] * logits.detach()
        return torch.autograd.grad(logits, inputs, chosen)[0].sum(1).numpy()


def test_lrp_with_the_box_of_possible_pixels_is_zennits(images):
    (weights,) = posterior(count=1)
    normalize, *network_ = sequential(weights)
    inputs = normalize(torch.from_numpy(images)).requires_grad_()
    box = ZBox(torch.full((1, 32), -MEAN), torch.full((1, 32), 1 - MEAN), stabilizer=EPSILON)
    rules = [(["1"], box), (["3"], ZPlus(stabilizer=EPSILON)), (["5"], Epsilon(EPSILON))]
    (ours,) = joined(lrp_maps([weights], MEAN, images, TARGETS, rules="epsilon_plus_box"))
    assert_same_maps(ours, zennits(nn.Sequential(*network_), inputs, rules))


def test_a_network_of_one_layer_hands_down_its_terms(images):
    (weights,) = posterior((32, 4), count=1)
    terms = (images / 255 - MEAN) * weights["layer0.weight"].numpy()[TARGETS].reshape(6, 2, 4, 4)
    for maps in (
        lrp_maps([weights], MEAN, images, TARGETS),
        integrated_gradients_maps([weights], MEAN, images, TARGETS),
    ):
        assert_same_maps(joined(maps)[0], terms.sum(1), 1e-4)  # LRP's stabiliser keeps a millionth of 1 / logit


@pytest.mark.parametrize("baseline", [None, np.full((2, 4, 4), 200.0)])
def test_integrated_gradients_are_captums(images, baseline):
    samples = posterior()
    ours = joined(integrated_gradients_maps(samples, MEAN, images, TARGETS, steps=7, baseline=baseline))
    start = torch.zeros(1, 2, 4, 4) if baseline is None else torch.from_numpy(baseline[None] / 255 - MEAN).float()
    for weights, maps in zip(samples, ours, strict=True):
        normalize, *layers = sequential(weights)
        theirs = IntegratedGradients(nn.Sequential(*layers)).attribute(
            normalize(torch.from_numpy(images)), start, torch.from_numpy(TARGETS), n_steps=7, method="riemann_middle"
        )
        assert_same_maps(maps, theirs.detach().sum(1).numpy())


def test_integrated_gradients_are_complete(images):
    samples = posterior()
    black = np.zeros((2, 4, 4))
    maps = joined(integrated_gradients_maps(samples, MEAN, images, TARGETS, steps=1000, baseline=black))
    for weights, of_sample in zip(samples, maps, strict=True):
        model = sequential(weights)
        logits = model(torch.from_numpy(images)) - model(torch.zeros(1, 2, 4, 4))
        gain = logits.detach().numpy()[np.arange(6), TARGETS]
        np.testing.assert_allclose(of_sample.sum((1, 2)), gain, atol=2e-3)


@pytest.mark.parametrize("explain", [lrp_maps, integrated_gradients_maps])
def test_samples_together_are_samples_one_by_one(images, explain):
    samples = posterior()
    chunks = list(explain(samples, MEAN, images, TARGETS, together=2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    for weights, maps in zip(samples, joined(chunks), strict=True):
        (alone,) = joined(explain([weights], MEAN, images[2:4], TARGETS[2:4]))
        assert_same_maps(maps[2:4], alone)


def test_what_is_explained_is_the_class_of_the_mean_probability(images):
    samples = posterior((32, 4), count=3)
    inputs = network.normalise(torch.from_numpy(images), MEAN)
    mean = torch.stack([network.logits(weights, inputs).softmax(-1) for weights in samples]).mean(0)
    classes = predicted_classes(samples, MEAN, images)
    assert len(set(classes)) > 1
    assert classes.tolist() == mean.argmax(1).tolist()
    again = Samples(lambda: iter(samples))
    np.testing.assert_array_equal(
        joined(lrp_maps(again, MEAN, images)), joined(lrp_maps(samples, MEAN, images, classes))
    )


def test_wrong_inputs_are_named(images):
    with pytest.raises(UserError, match="walked through only once"):
        lrp_maps(iter(posterior()), MEAN, images)
    with pytest.raises(
        UserError, match="Unknown LRP rules 'flat' of a posterior: choose from epsilon, epsilon_plus, epsilon_plus_box"
    ):
        lrp_maps(posterior(), MEAN, images, rules="flat")
    with pytest.raises(UserError, match="uint8 images"):
        lrp_maps(posterior(), MEAN, images / 255.0, TARGETS)
    with pytest.raises(UserError, match=r"needs images of 32 values each: give it such ones, not 16\."):
        next(iter(lrp_maps(posterior(), MEAN, images[:, :1], TARGETS)))


def random_maps(samples=11, images=3):
    return np.random.default_rng(1).normal(0.4, 1, (samples, images, 4, 5)).astype(np.float32)


def test_summaries_are_numpys_however_the_samples_arrive():
    maps = random_maps()
    summary = summarise(np.array_split(maps, 4))
    mean, sd = maps.mean(0, dtype=np.float64), maps.std(0, ddof=1, dtype=np.float64)
    for ours, numpys in ((summary.mean, mean), (summary.sd, sd), (summary.snr, mean / sd)):
        np.testing.assert_allclose(ours, numpys, rtol=1e-5)
    assert list(summary.percentiles) == [5, 50, 95] and summary.samples == 11
    np.testing.assert_allclose(summary.percentiles[50], np.median(maps, 0), rtol=1e-6)
    np.testing.assert_allclose(summary.percentiles[5], np.sort(maps, 0)[:2].mean(0), rtol=1e-5)  # place .05 * 10
    assert summarise([maps], percentiles=()).percentiles == {}


def test_signal_to_noise_where_samples_agree_wholly():
    maps = np.array([[[[0.0, 2.0, 1.0]]], [[[0.0, 2.0, 3.0]]]])
    assert summarise([maps]).snr.ravel().tolist() == pytest.approx([0, np.inf, 2 / 2**0.5])


def test_too_few_samples_and_nan_are_refused():
    for measure in (summarise, disagreement):
        with pytest.raises(UserError, match="at least two posterior samples, not 1"):
            measure([random_maps(1)])
        with pytest.raises(UserError, match="NaN or infinite"):
            measure([random_maps(2), np.full((1, 3, 4, 5), np.nan)])
    with pytest.raises(UserError, match="Unknown measure 'kendall' of disagreement: choose from cosine, spearman"):
        disagreement([random_maps()], "kendall")


def test_intersection_and_union_by_hand():
    maps = np.array([[3.0, 4.0], [40.0, -30.0], [0.0, 0.2]]).reshape(3, 1, 1, 2)
    # of length 1 and positive: (.6, .8), (.8, 0), (0, 1); pixel by pixel sorted: 0 .6 .8 and 0 .8 1
    assert percentile_strategy(maps, 50).ravel().tolist() == pytest.approx([0.6, 0.8])
    assert intersection(maps).ravel().tolist() == pytest.approx([0.06, 0.08])  # place .05 * 2
    assert union(maps).ravel().tolist() == pytest.approx([0.78, 0.98])  # place .95 * 2


@pytest.mark.parametrize("measure", ["cosine", "spearman"])
def test_disagreement_is_that_of_all_pairs(measure):
    maps = random_maps().round(1)  # with ties
    flat = maps.reshape(11, 3, 20).astype(np.float64)

    def likeness(a, b):
        if measure == "spearman":
            return scipy.stats.spearmanr(a, b).statistic
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    pairs = [[likeness(a, b) for a, b in combinations(flat[:, image], 2)] for image in range(3)]
    found = disagreement(np.array_split(maps, 3), measure)
    np.testing.assert_allclose(found, 1 - np.mean(pairs, 1), atol=1e-12)
    assert disagreement([maps[:1] * np.arange(1, 4).reshape(3, 1, 1, 1)], measure) == pytest.approx(0)


def test_a_map_that_says_nothing_agrees_with_none():
    maps = np.stack([np.zeros((1, 2, 2)), np.eye(2)[None], np.eye(2)[None]])
    assert disagreement([maps]) == pytest.approx(1 - 1 / 3)  # one pair of three agrees
