import numpy as np
import pytest
import torch
from torch import nn

from iic.classifiers.inference import fingerprint, freeze
from iic.classifiers.networks import build_network
from iic.errors import UserError
from iic.evaluation.randomisation import cascade, random_weights, similarity


@pytest.fixture(scope="module")
def sample():
    return torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained(sample):
    """As if trained: statistics and shifts of its own in every BatchNorm."""
    torch.manual_seed(0)
    model = build_network([120.0], [70.0], widths=(4, 6, 8))
    for norm in (m for m in model if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval()


def weighted(model):
    return [m for m in model if isinstance(m, nn.Conv2d | nn.Linear)]


def test_each_step_randomises_one_layer_more_and_leaves_the_others(trained, sample):
    before, draws = fingerprint(trained), torch.random.get_rng_state()
    steps = list(cascade(trained, sample, seed=0))
    assert fingerprint(trained) == before and torch.equal(draws, torch.random.get_rng_state())
    names = [name for name, m in trained.named_children() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [name for name, _ in steps] == names[::-1] and len(names) == 8
    for done, (name, model) in enumerate(steps, start=1):
        same = [torch.equal(a.weight, b.weight) for a, b in zip(weighted(trained), weighted(model), strict=True)]
        assert same == [True] * (8 - done) + [False] * done
        kept = [f"{int(number)}." for number in names if int(number) < int(name)]  # the BatchNorm follows its layer
        norms = [m for m in range(len(model)) if isinstance(model[m], nn.BatchNorm2d) and m < int(name)]
        for key, tensor in trained.state_dict().items():
            if key.startswith((*kept, *(f"{number}." for number in norms))):
                assert torch.equal(tensor, model.state_dict()[key]), key
        assert not model.training
    assert fingerprint(steps[-1][1]) == fingerprint(random_weights(trained, sample, seed=0))
    assert fingerprint(steps[-1][1]) != fingerprint(random_weights(trained, sample, seed=1))


def test_random_weights_are_pytorchs_own_start(trained, sample):
    """Uniform within +- 1 / sqrt(fan-in), BatchNorm without a shift."""
    model = random_weights(trained, sample, seed=2)
    for layer in weighted(model):
        bound = layer.weight[0].numel() ** -0.5
        assert 0.6 * bound < layer.weight.abs().max() <= bound
    assert all((m.bias == 0).all() and (m.weight == 1).all() for m in model if isinstance(m, nn.BatchNorm2d))


def test_random_layers_see_numbers_of_mean_zero_and_variance_one(trained, sample):
    seen = []
    for name, model in cascade(trained, sample, seed=0):
        norms = [m for number, m in enumerate(model) if isinstance(m, nn.BatchNorm2d) and number > int(name)]
        hooks = [norm.register_forward_hook(lambda m, i, out: seen.append(out)) for norm in norms]
        with torch.no_grad():
            logits = model(sample.float())
        for hook in hooks:
            hook.remove()
    assert len(seen) == 0 + 1 + 2 + 3 + 4 + 5 + 6 + 6
    for out in seen:
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(out.shape[1]), atol=5e-3, rtol=0)
        torch.testing.assert_close(out.var((0, 2, 3)), torch.ones(out.shape[1]), atol=0.02, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(freeze(model)(sample.float()), logits, atol=1e-4, rtol=1e-4)  # BatchNorm folds


def test_a_map_of_the_weights_changes_and_a_map_of_the_image_does_not(sample):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    images = sample[:10].float()

    def input_x_gradient(model):
        return (model[1].weight.view(10, 28, 28) * images[:, 0]).detach().numpy()

    ((name, model),) = cascade(linear, images, seed=0)
    assert name == "1"
    found = similarity(input_x_gradient(linear), input_x_gradient(model))
    assert set(found) == {"spearman", "spearman_absolute", "ssim"} and all(v.shape == (10,) for v in found.values())
    assert np.abs(found["spearman"]).max() < 5 / np.sqrt(783)
    assert np.abs(found["ssim"]).max() < 0.2
    assert found["spearman_absolute"].mean() > 0.2  # |x| is in both: the maps look alike without meaning the same
    edges = images[:, 0].diff(dim=1, prepend=images[:, 0, :1]).numpy()
    assert all(np.allclose(v, 1) for v in similarity(edges, edges).values())
    turned = similarity(edges, -edges)
    np.testing.assert_allclose(turned["spearman"], -1)
    np.testing.assert_allclose(turned["spearman_absolute"], 1)


def test_weights_that_no_layer_can_draw_are_named(sample):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.scale

    with pytest.raises(UserError, match=r"'1\.scale' are in no layer"):
        random_weights(nn.Sequential(nn.Conv2d(1, 2, 3), Own()), sample, seed=0)
