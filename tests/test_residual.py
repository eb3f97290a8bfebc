"""Networks with residual sums: built, trained, folded, cast, rebuilt and explained as the others are."""

import pytest
import torch
import torch.nn.functional as F
from small_lrp import assert_account_closes, error, stir
from test_lrp_zennit import by_zennit
from torch import nn

from iic.classifiers.inference import can_cast, freeze, logits
from iic.classifiers.networks import Residual, build_network, network_from_state
from iic.classifiers.recipe import Recipe
from iic.classifiers.side_by_side import SideBySide
from iic.classifiers.training import pool_early, train
from iic.data.sources import load_digits
from iic.explainers.composites import COMPOSITES
from iic.explainers.gradients import AfterNormalize, grad_cam
from iic.explainers.lrp import Propagator
from iic.params import AttributionParams, TrainingParams
from iic.pipelines.training.nodes import like_the_explained
from iic.shipped import FOLDER, ship


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = stir(
        build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(8, 12, 16), depth=3, residual=True).double()
    )
    nn.init.normal_(model[-1].weight)
    return model, torch.randint(0, 256, (4, 3, 32, 32)).double()


def by_hand(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """The forward from the weights' names."""
    w = model.state_dict()

    def convolution(x, at, norm):
        y = F.conv2d(x, w[f"{at}.weight"], padding=1)
        return F.batch_norm(y, *(w[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu(F.conv2d((x - w["0.mean"]) / w["0.std"], w["1.weight"], w["1.bias"]))
    for block in (3, 9, 15):
        x = F.max_pool2d(F.relu(convolution(x, block, block + 1)), 2)
        inner = F.relu(convolution(x, f"{block + 4}.path.0", f"{block + 4}.path.1"))
        x = F.relu(x + convolution(inner, f"{block + 4}.path.3", f"{block + 4}.path.4"))
    return F.max_pool2d(x, 3).flatten(1) @ w["23.weight"].T


def test_the_sum_bridges_all_convolutions_of_a_block_but_the_first(network):
    model, x = network
    block = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Residual", "ReLU"]
    kinds = [type(module).__name__ for module in model]
    assert kinds == ["Normalize", "Conv2d", "ReLU", *block, *block, *block, "MaxPool2d", "Flatten", "Linear"]
    with torch.no_grad():
        torch.testing.assert_close(model(x), by_hand(model, x))


def test_without_other_convolutions_there_is_no_sum():
    model = build_network([1.0], [1.0], (4, 4, 4), depth=1, residual=True)
    assert not any(isinstance(module, Residual) for module in model)


@pytest.mark.parametrize("depth", [2, 3])
def test_it_is_rebuilt_from_its_weights(depth):
    model = build_network([1.0] * 3, [2.0] * 3, (4, 6, 8), classes=7, depth=depth, residual=True).eval()
    pixels = torch.rand(2, 3, 32, 32)
    rebuilt = network_from_state(model.state_dict())
    assert sum(isinstance(module, Residual) for module in rebuilt) == 3
    with torch.no_grad():
        assert torch.equal(rebuilt(pixels), model(pixels))


def test_it_is_trained_folded_and_cast():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 32), depth=3, residual=True)
    trained = pool_early(model)
    convolutions = [m for m in trained.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 10 and sum(isinstance(m, SideBySide) for m in trained.modules()) == 9
    learnt = [m.weight for m in convolutions] + [m.bias for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [weight.clone() for weight in learnt]
    train(model, data, Recipe(epochs=3, batch_size=100, flip=False), seed=0)
    assert len(learnt) == 19 and not any(torch.equal(*pair) for pair in zip(learnt, before, strict=True))
    inner = pool_early(model)[7].path  # its first BatchNorm has the statistics of all images, as train leaves them
    seen = inner[0](pool_early(model)[:7](torch.from_numpy(data.images).float()))
    torch.testing.assert_close(inner[1].running_mean, seen.mean((0, 2, 3)), rtol=0.02, atol=0.02)
    torch.testing.assert_close(inner[1].running_var, seen.var((0, 2, 3)), rtol=0.05, atol=0.02)
    images = torch.from_numpy(test.images)
    expected = logits(model, images)
    assert (expected.argmax(1).numpy() == test.labels).mean() > 0.95
    torch.testing.assert_close(logits(pool_early(model), images), expected, atol=1e-4, rtol=1e-4)
    plain = freeze(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules()) and can_cast(plain)
    torch.testing.assert_close(logits(plain, images), expected, atol=1e-4, rtol=1e-4)
    fast = freeze(model, torch.bfloat16)
    first, *others = [m.weight.dtype for m in fast.modules() if isinstance(m, nn.Conv2d)]
    assert first == torch.float32 and set(others) == {torch.bfloat16}
    assert (logits(fast, images).argmax(1) == expected.argmax(1)).float().mean() >= 0.995


def test_a_sum_around_an_unknown_layer_is_not_cast(network):
    model = freeze(network[0]).float()
    assert can_cast(model)
    next(m for m in model if isinstance(m, Residual)).path[1] = nn.Softmax(1)
    assert not can_cast(model)


@pytest.mark.parametrize("name", COMPOSITES)
def test_its_relevance_is_zennits_and_the_account_closes(network, name):
    from zennit.layer import Sum

    class Summed(nn.Module):
        """A residual sum as zennit has it."""

        def __init__(self, path):
            super().__init__()
            self.path, self.sum = path, Sum()

        def forward(self, x):
            return self.sum(torch.stack([x, self.path(x)], dim=-1))

    model, images = freeze(network[0]), network[1]
    targets = torch.tensor([0, 3, 5, 7])
    theirs = nn.Sequential(*[Summed(m.path) if isinstance(m, Residual) else m for m in list(model)[1:]])
    ours = Propagator(model, COMPOSITES[name])(images, targets)
    assert error(ours.values, by_zennit(name, model[0], theirs, images, targets)) < 1e-4
    assert_account_closes(ours)


def test_grad_cam_looks_at_the_last_sums_relu(network):
    """Against its definition, on the activations before the last pooling."""
    model, images = freeze(network[0]).float(), network[1].float()
    targets = torch.tensor([0, 3, 5, 7])
    last = model[:-3](images).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(model[-3:](last)[torch.arange(4), targets].sum(), last)
    coarse = (last * slopes.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    expected = F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)[:, 0].detach()
    after = AfterNormalize(model, torch.tensor([120.0, 110.0, 100.0]))
    found = grad_cam(after, after.normalize(images), targets, AttributionParams())
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-4)


def test_a_sum_without_anything_to_bridge_is_refused():
    with pytest.raises(ValueError, match="residual needs a depth of 2 or more"):
        TrainingParams(residual=True, depth=1)


@pytest.mark.parametrize(("weights", "file"), [("shipped", "digits.pt"), ("shipped_small", "digits_small_7.pt")])
def test_other_networks_take_the_form_of_a_shipped_one_from_its_card(tmp_path, weights, file):
    model = build_network([1.0], [1.0], (4, 5, 6), depth=3, residual=True)
    recipe = {"widths": [4, 5, 6], "depth": 3, "residual": True, "epochs": 99}
    ship(model.state_dict(), tmp_path / FOLDER / file, {"recipe": recipe})
    asked = TrainingParams(weights=weights, epochs=2, seed=7)
    found = like_the_explained(asked, "digits", tmp_path)
    assert found == TrainingParams(epochs=2, seed=7, widths=(4, 5, 6), depth=3, residual=True)
    trained = TrainingParams(epochs=2)
    assert like_the_explained(trained, "digits", tmp_path) == trained
