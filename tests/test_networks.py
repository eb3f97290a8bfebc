import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iic.classifiers.networks import build_network


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_every_batchnorm_folds_into_the_convolution_before_it(channels, side):
    torch.manual_seed(0)
    model = build_network([100.0] * channels, [50.0] * channels, widths=(8, 12, 16))
    images = torch.randint(0, 256, (16, channels, side, side), dtype=torch.uint8)
    model(images)  # moves the running statistics away from their start
    model.eval()
    folded = []
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], module)
        else:
            folded.append(module)
    with torch.no_grad():
        torch.testing.assert_close(nn.Sequential(*folded)(images), model(images), atol=1e-4, rtol=1e-4)


def test_normalisation_is_in_pixel_units_and_takes_uint8():
    model = build_network([10.0], [4.0], widths=(4, 4, 4))
    pixels = torch.full((1, 1, 28, 28), 30, dtype=torch.uint8)
    torch.testing.assert_close(model[0](pixels), torch.full((1, 1, 28, 28), 5.0))
