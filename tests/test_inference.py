import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.classifiers.inference import freeze, predict_logits
from iic.classifiers.networks import build_network
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.sources import load_digits
from iic.errors import UserError


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


def test_a_batchnorm_without_a_convolution_is_named():
    with pytest.raises(UserError, match="Layer 1 is a BatchNorm without a convolution"):
        freeze(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
