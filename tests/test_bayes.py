import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from iic.bayes import inference, network, uncertainty
from iic.bayes.inference import Posterior, Settings, fit, sample_logits, sample_probabilities
from iic.bayes.report import clean_figures, refused_figures
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval

# A high rate, because in only 500 steps the scales have to grow from 0.01 towards the prior.
QUICK = Settings(hidden=(40,), prior_scale=0.5, epochs=5, batch_size=40, learning_rate=0.02)


def small_fit(seed=0, **changes):
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, size=(30, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(30) % 3
    return fit(images, labels, Settings(**{"hidden": (6,), "epochs": 3, "batch_size": 8, **changes}), seed=seed)


@pytest.fixture(scope="module")
def digits():
    train, test = load_digits()
    return fit(train.images, train.labels, QUICK, seed=0), test


def test_biases_reach_the_optimum_that_quadrature_finds_and_uninformed_weights_the_prior():
    # Every image is the mean image, so the normalised input is 0: the weights keep their prior and the two biases
    # explain 30 labels against 10. Their ELBO is one-dimensional, in the difference of the biases.
    prior, counts = 0.7, np.array([30, 10])
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    node_weights = node_weights / node_weights.sum()

    def negative_elbo(x):
        loc, scale = x[:2], np.exp(x[2:])
        difference = loc[1] - loc[0] + np.hypot(*scale) * nodes
        log_likelihood = -node_weights @ (
            counts[0] * np.logaddexp(0, difference) + counts[1] * np.logaddexp(0, -difference)
        )
        kl = (np.log(prior / scale) + (scale**2 + loc**2) / (2 * prior**2) - 0.5).sum()
        return kl - log_likelihood

    best = minimize(negative_elbo, np.zeros(4))
    labels = np.repeat([0, 1], counts)
    settings = Settings(hidden=(), prior_scale=prior, epochs=400, batch_size=10, learning_rate=0.03)
    posterior = fit(np.full((40, 1, 2, 2), 51, dtype=np.uint8), labels, settings, seed=0)

    assert posterior.pixel_mean == pytest.approx(0.2)
    torch.testing.assert_close(posterior.loc["layer0.weight"], torch.zeros(2, 4), atol=0.01, rtol=0)
    torch.testing.assert_close(posterior.scale["layer0.weight"], torch.full((2, 4), prior), atol=0.01, rtol=0)
    np.testing.assert_allclose(posterior.loc["layer0.bias"], best.x[:2], atol=0.06)
    np.testing.assert_allclose(posterior.scale["layer0.bias"], np.exp(best.x[2:]), atol=0.06)
    assert posterior.curve[-50:].mean().item() == pytest.approx(best.fun, rel=0.03)


def test_means_start_like_a_plain_network():
    torch.manual_seed(0)
    means = network.initial_means((784, 300, 10))
    plain = torch.nn.Linear(784, 300)
    assert means["layer0.weight"].shape == plain.weight.shape
    assert means["layer0.weight"].std().item() == pytest.approx(plain.weight.std().item(), rel=0.02)
    assert means["layer1.weight"].abs().max() <= 1 / math.sqrt(300)


def test_the_network_is_linear_layers_with_relu_between():
    means = network.initial_means((12, 7, 5, 3))
    layers = []
    for i in range(3):
        linear = torch.nn.Linear(*reversed(means[f"layer{i}.weight"].shape))
        linear.load_state_dict({"weight": means[f"layer{i}.weight"], "bias": means[f"layer{i}.bias"]})
        layers += [linear, torch.nn.ReLU()]
    x = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.logits(means, x), torch.nn.Sequential(*layers[:-1])(x))


def test_sampled_logits_of_one_layer_have_the_closed_forms_mean_and_variance():
    generator = torch.Generator().manual_seed(0)
    loc = {"layer0.weight": torch.randn(3, 4, generator=generator), "layer0.bias": torch.tensor([1.0, 0.0, -2.0])}
    scale = {"layer0.weight": torch.rand(3, 4, generator=generator), "layer0.bias": torch.tensor([0.1, 0.5, 1.0])}
    posterior = Posterior(loc, scale, 0.4, torch.zeros(1, dtype=torch.float64))
    images = np.array([[0, 100, 200, 255], [255, 0, 3, 90]], dtype=np.uint8).reshape(2, 1, 2, 2)
    x = images.reshape(2, 4) / 255 - 0.4
    mean = x @ loc["layer0.weight"].numpy().T + loc["layer0.bias"].numpy()
    variance = x**2 @ scale["layer0.weight"].numpy().T ** 2 + scale["layer0.bias"].numpy() ** 2
    samples = sample_logits(posterior, images, 20000, seed=1).double().numpy()  # (S, 2, 3)
    np.testing.assert_allclose(samples.mean(0), mean, atol=5 * np.sqrt(variance.max() / 20000))
    np.testing.assert_allclose(samples.var(0), variance, rtol=5 * math.sqrt(2 / 20000))
    # one draw of the weights serves all images: their logits are correlated through the shared weights
    shared = (x[0] * x[1]) @ scale["layer0.weight"].numpy()[1] ** 2 + 0.25
    assert np.cov(samples[:, 0, 1], samples[:, 1, 1])[0, 1] == pytest.approx(shared, abs=0.05)


def test_probabilities_are_the_softmax_and_do_not_depend_on_batch_size_or_number_of_samples():
    posterior = small_fit()
    images = uncertainty.uniform_noise(23, (1, 4, 4), seed=3)
    whole = sample_probabilities(posterior, images, 5, seed=2)
    assert whole.shape == (5, 23, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(whole.sum(-1), torch.ones(5, 23))
    torch.testing.assert_close(sample_probabilities(posterior, images, 5, seed=2, batch_size=4), whole)
    torch.testing.assert_close(sample_probabilities(posterior, images[4:9], 5, seed=2), whole[:, 4:9])
    assert torch.equal(sample_probabilities(posterior, images, 3, seed=2), whole[:3])
    assert not torch.equal(sample_probabilities(posterior, images, 5, seed=9), whole)


def test_the_seed_fixes_the_posterior_and_the_caller_notices_nothing():
    import pyro

    pyro.get_param_store().clear()
    mine = pyro.param("mine", torch.ones(1))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    validating = torch.distributions.Distribution._validate_args
    first, second, other = small_fit(0), small_fit(0), small_fit(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.distributions.Distribution._validate_args == validating
    assert list(pyro.get_param_store().keys()) == ["mine"] and torch.equal(pyro.param("mine"), mine)
    pyro.get_param_store().clear()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert not torch.equal(first.loc["layer0.weight"], other.loc["layer0.weight"])


def test_a_posterior_survives_saving(tmp_path):
    posterior = small_fit()
    torch.save(posterior.state_dict(), tmp_path / "posterior.pt")
    again = Posterior.from_state_dict(torch.load(tmp_path / "posterior.pt", weights_only=True))
    assert list(again.loc) == list(again.scale) == list(posterior.loc)
    assert again.pixel_mean == posterior.pixel_mean and torch.equal(again.curve, posterior.curve)
    images = uncertainty.uniform_noise(5, (1, 4, 4), seed=0)
    assert torch.equal(
        sample_probabilities(again, images, 3, seed=0), sample_probabilities(posterior, images, 3, seed=0)
    )
    state = posterior.state_dict()
    del state["layer1.bias.scale"]
    with pytest.raises(UserError, match=r"lacks layer1\.bias\.scale"):
        Posterior.from_state_dict(state)


def test_a_loss_that_is_not_finite_names_the_epoch():
    with pytest.raises(UserError, match=r"no longer finite in epoch \d of 3: lower its learning_rate"):
        small_fit(learning_rate=1e30)


def test_wrong_inputs_are_named():
    with pytest.raises(UserError, match="prior_scale is 0"):
        Settings(prior_scale=0)
    with pytest.raises(UserError, match="at least one unit"):
        Settings(hidden=(5, 0))
    with pytest.raises(UserError, match="one label each"):
        fit(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(2, np.int64), Settings(), seed=0)
    with pytest.raises(UserError, match="16 values each"):
        sample_probabilities(small_fit(), np.zeros((3, 1, 5, 5), np.uint8), 2, seed=0)


def hand_made():
    """Three samples, three images, four classes; largest medians by hand: .6, .2 (exactly the threshold), 0."""
    image0 = [[0.6, 0.2, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.0, 1.0, 0.0, 0.0]]  # mean: .43 .43 .07 .07
    image1 = [[0.2, 0.1, 0.2, 0.5], [0.2, 0.5, 0.1, 0.2], [0.2, 0.1, 0.6, 0.1]]
    image2 = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.9, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0]]
    return np.array([image0, image1, image2]).transpose(1, 0, 2)  # (S, N, K)


def test_refusal_by_hand():
    probabilities = hand_made()
    predicted, answered = uncertainty.median_rule(probabilities, 0.2)
    assert predicted[0] == 0 and answered.tolist() == [True, False, False]
    assert uncertainty.median_rule(probabilities, 0.19)[1].tolist() == [True, True, False]
    forced, confidence = uncertainty.forced_prediction(probabilities)
    assert forced.tolist() == [1, 2, 0]
    np.testing.assert_allclose(confidence, [1.3 / 3, 0.9 / 3, 1 / 3])
    assert uncertainty.confidence_rule(probabilities, 0.3333)[1].tolist() == [True, False, True]


def test_an_even_number_of_samples_takes_the_middle_of_the_two_middle_ones():
    probabilities = np.array([[[0.1, 0.9]], [[0.2, 0.8]], [[0.4, 0.6]], [[0.9, 0.1]]])
    assert uncertainty.median_rule(probabilities, 0.69)[1].tolist() == [True]  # (.8 + .6) / 2
    assert uncertainty.median_rule(probabilities, 0.71)[1].tolist() == [False]


def test_the_figures_by_hand():
    labels, rules, draws = np.array([0, 2, 1]), {"median": 0.2, "confidence": 0.9}, {"replicates": 50, "seed": 0}
    row = clean_figures(hand_made(), labels, rules, draws)
    assert row["forced_accuracy"] == pytest.approx(1 / 3)
    assert row["test"]["median"]["coverage"] == pytest.approx(1 / 3)
    assert row["test"]["median"]["answered_accuracy"] == 1.0
    assert row["clean_confidence"] == pytest.approx((1.3 / 3 + 0.9 / 3 + 1 / 3) / 3)
    assert row["forced_interval"] == pytest.approx(wilson_interval(1, 3))
    assert row["test"]["median"]["coverage_interval"] == pytest.approx(wilson_interval(1, 3))
    assert row["test"]["median"]["answered_interval"] == pytest.approx(wilson_interval(1, 1))
    nothing = row["test"]["confidence"]
    assert nothing["coverage"] == 0 and nothing["answered_accuracy"] is nothing["answered_interval"] is None
    unlabelled = refused_figures(hand_made(), rules)
    assert unlabelled["median"]["refused"] == pytest.approx(2 / 3) and unlabelled["confidence"]["refused"] == 1
    with pytest.raises(UserError, match="label"):
        clean_figures(hand_made(), labels[:2], rules, draws)
    broken = hand_made()
    broken[1, 2, 0] = np.nan
    for ask in (lambda: clean_figures(broken, labels, rules, draws), lambda: refused_figures(broken, rules)):
        with pytest.raises(UserError, match="image 2"):
            ask()


def test_noise_is_uniform_and_keyed_by_the_seed():
    noise = uncertainty.uniform_noise(100, (3, 8, 8), seed=0)
    assert noise.shape == (100, 3, 8, 8) and noise.dtype == np.uint8
    assert noise.min() == 0 and noise.max() == 255
    assert noise.mean() == pytest.approx(127.5, abs=3)
    assert np.array_equal(noise, uncertainty.uniform_noise(100, (3, 8, 8), seed=0))
    assert not np.array_equal(noise, uncertainty.uniform_noise(100, (3, 8, 8), seed=1))


def test_digits_are_learnt_and_noise_is_doubted(digits):
    posterior, test = digits
    assert posterior.curve.shape == (QUICK.epochs,)
    assert posterior.curve[-1] < posterior.curve[0]
    real = sample_probabilities(posterior, test.images, 50, seed=0)
    noise = sample_probabilities(posterior, uncertainty.uniform_noise(200, (1, 28, 28), seed=0), 50, seed=0)
    rules, draws = {"confidence": 0.9}, {"replicates": 50, "seed": 0}
    row = clean_figures(real.numpy(), test.labels, rules, draws)
    known = row["test"]["confidence"]
    refused = refused_figures(noise.numpy(), rules)["confidence"]["refused"]
    assert row["forced_accuracy"] > 0.90
    assert known["answered_accuracy"] > row["forced_accuracy"]
    assert 1 - refused < 0.1 < known["coverage"]
    assert uncertainty.forced_prediction(noise)[1].mean() < row["clean_confidence"] - 0.2


def test_the_curve_is_reported_through_progress():
    seen = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    images = np.zeros((10, 1, 2, 2), np.uint8)
    settings = Settings(hidden=(), epochs=2, batch_size=4)
    posterior = inference.fit(images, np.arange(10) % 2, settings, seed=0, progress=progress)
    assert seen == list(range(6)) and posterior.curve.shape == (2,)
