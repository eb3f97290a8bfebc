import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.bayes.sources import as_network
from iic.classifiers.inference import can_cast, freeze, predict_logits
from iic.classifiers.networks import Normalize, build_network
from iic.classifiers.precision import fast_forward, forward_in
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.sources import load_digits
from iic.errors import UserError
from iic.explainers.lrp import Propagator
from iic.explainers.methods import check_network


@pytest.fixture(scope="module")
def trained():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 16))
    train(model, data, Recipe(epochs=1, batch_size=100, flip=False), seed=0)
    return model, torch.from_numpy(test.images)


def test_the_network_is_built_to_be_explained():
    model = build_network([1.0], [1.0])
    kinds = [type(module).__name__ for module in model]
    block = ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == ["Normalize", "Conv2d", "ReLU", *block, *block, *block, "MaxPool2d", "Flatten", "Linear"]
    assert len({id(module) for module in model}) == len(kinds)


def test_frozen_logits_are_those_of_torchs_own_folding_and_of_the_model(trained):
    model, images = trained
    frozen = freeze(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(predict_logits(frozen, images), expected, atol=1e-4, rtol=1e-4)
    folded = []
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], module)
        else:
            folded.append(module)
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*folded)(images), expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_keeps_the_predicted_class_and_a_float32_last_layer(trained):
    model, images = trained
    frozen = freeze(model, torch.bfloat16)
    assert frozen[-1].weight.dtype == torch.float32
    first, *others = [m.weight.dtype for m in frozen if isinstance(m, nn.Conv2d)]
    assert first == torch.float32 and set(others) == {torch.bfloat16}
    exact, rounded = predict_logits(freeze(model), images), predict_logits(frozen, images)
    assert rounded.dtype == torch.float32
    assert (exact.argmax(1) == rounded.argmax(1)).float().mean() >= 0.995
    assert not torch.equal(exact, rounded)


def test_freezing_leaves_the_model_alone(trained):
    model, _ = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze(model, torch.bfloat16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


class Block(nn.Module):
    """Layers that cannot be seen from outside."""

    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return self.inner(x).float()


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def convolutions(*others):
    """Three convolutions, after the second of which something else comes."""
    first, second = [nn.Conv2d(1, 4, 3), nn.ReLU()], [nn.Conv2d(4, 4, 3), nn.ReLU()]
    return [*first, *second, *others, nn.Conv2d(4, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def one_layer_posterior():
    return as_network({"layer0.weight": torch.randn(10, 784), "layer0.bias": torch.randn(10)}, 0.1, 1)


shared = nn.Linear(10, 10)
UNSPLIT = {
    "all weights in a block": lambda: [Normalize([33.0], [78.0]), Block(nn.Flatten(), nn.Linear(784, 10))],
    "one layer": lambda: [nn.Flatten(), nn.Linear(784, 10)],
    "a block and a layer": lambda: [Block(nn.Flatten(), nn.Linear(784, 20)), nn.Linear(20, 10)],
    "two layers": lambda: [nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)],
    "a block in between": lambda: convolutions(Block(nn.Conv2d(4, 4, 3))),
    "a BatchNorm in between": lambda: convolutions(nn.BatchNorm2d(4)),
    "a layer used twice": lambda: [nn.Flatten(), nn.Linear(784, 10), shared, nn.ReLU(), shared],
    "a posterior's sample": one_layer_posterior,
}


@pytest.mark.parametrize("case", UNSPLIT)
def test_what_cannot_be_split_stays_in_float32(case, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(*UNSPLIT[case]()).eval()
    pixels = torch.rand(6, 1, 28, 28) * 255
    frozen = freeze(model, torch.bfloat16)
    assert not can_cast(freeze(model))
    assert {p.dtype for p in frozen.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(predict_logits(frozen, pixels), model(pixels), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("iic.classifiers.precision.best_dtype", lambda: torch.bfloat16)  # it would be the fastest
    chosen = fast_forward(model, pixels, device="cpu")
    assert chosen.precision == "float32" and chosen.same_class == 1
    with pytest.raises(UserError, match="'bfloat16' is for"):
        forward_in("bfloat16", model, pixels, "cpu")


def test_the_last_layer_with_weights_is_float32_wherever_it_stands():
    torch.manual_seed(0)
    model = nn.Sequential(*convolutions()).eval()
    frozen = freeze(model, torch.bfloat16)
    types = [m.weight.dtype for m in frozen if isinstance(m, nn.Conv2d)]
    assert can_cast(freeze(model)) and types == [torch.float32, torch.bfloat16, torch.float32]
    pixels = torch.rand(6, 1, 28, 28)
    with torch.no_grad():
        seen = model[:2](pixels)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model[2:4](seen)
        expected = model[4:](seen.float())
    torch.testing.assert_close(predict_logits(frozen, pixels), expected, atol=1e-3, rtol=1e-3)


def test_a_forward_of_its_own_is_kept():
    torch.manual_seed(0)
    model = Doubled(*convolutions(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))).eval()
    pixels = torch.rand(6, 1, 28, 28)
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            torch.testing.assert_close(predict_logits(freeze(model, dtype), pixels), model(pixels))


UNFOLDED = {
    "first": lambda: [nn.BatchNorm2d(1), *convolutions()],
    "behind ReLU": lambda: convolutions(nn.BatchNorm2d(4)),
    "behind a folded one": lambda: convolutions(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("case", UNFOLDED)
def test_a_batchnorm_that_cannot_be_folded_stays_and_lrp_refuses_it_by_name(case):
    torch.manual_seed(0)
    model = nn.Sequential(*UNFOLDED[case]())
    pixels = torch.rand(8, 1, 28, 28)
    model(3 * pixels + 1)  # statistics unlike those that BatchNorm starts with
    model.eval()
    frozen = freeze(model)
    with torch.no_grad():
        torch.testing.assert_close(predict_logits(frozen, pixels), model(pixels), atol=1e-4, rtol=1e-4)
    if case == "behind a folded one":  # one convolution takes in both
        assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen)
        return
    check_network(frozen, ["lime", "kernel_shap", "rise", "occlusion", "integrated_gradients"])
    with pytest.raises(UserError, match="is a BatchNorm without a convolution of its own"):
        check_network(frozen, ["lrp"])
    with pytest.raises(UserError, match="is a BatchNorm without a convolution of its own"):
        Propagator(frozen)
