import pytest
import torch
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network
from iic.errors import UserError


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_batchnorm_folds_into_the_convolution_before_it(channels, side):
    torch.manual_seed(0)
    model = build_network([100.0] * channels, [50.0] * channels, widths=(8, 12, 16))
    images = torch.randint(0, 256, (16, channels, side, side), dtype=torch.uint8)
    model(images)  # moves the running statistics away from their start
    model.eval()
    frozen = freeze(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen)
    with torch.no_grad():
        torch.testing.assert_close(frozen(images), model(images), atol=1e-4, rtol=1e-4)


def test_a_batchnorm_that_would_turn_the_pooling_around_is_not_folded():
    convolution, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
    norm.weight.data[1] = -1.0
    assert len(freeze(nn.Sequential(convolution, norm))) == 1
    with pytest.raises(UserError, match="Layer 2 is a BatchNorm without"):
        freeze(nn.Sequential(convolution, nn.MaxPool2d(2), norm))


def test_normalisation_is_in_pixel_units_and_takes_uint8():
    model = build_network([10.0], [4.0], widths=(4, 4, 4))
    pixels = torch.full((1, 1, 28, 28), 30, dtype=torch.uint8)
    torch.testing.assert_close(model[0](pixels), torch.full((1, 1, 28, 28), 5.0))
