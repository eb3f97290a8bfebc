import pytest
import torch
from torch import nn

from iic.classifiers.networks import build_network, network_from_state


def test_normalisation_is_in_pixel_units_and_takes_uint8():
    model = build_network([10.0], [4.0], widths=(4, 4, 4))
    pixels = torch.full((1, 1, 28, 28), 30, dtype=torch.uint8)
    torch.testing.assert_close(model[0](pixels), torch.full((1, 1, 28, 28), 5.0))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_network_is_rebuilt_from_its_weights_whatever_its_depth(depth):
    model = build_network([1.0] * 3, [2.0] * 3, widths=(4, 6, 8), classes=7, depth=depth).eval()
    pixels = torch.rand(2, 3, 32, 32)
    rebuilt = network_from_state(model.state_dict())
    assert sum(isinstance(module, nn.Conv2d) for module in rebuilt) == 1 + 3 * depth
    with torch.no_grad():
        assert torch.equal(rebuilt(pixels), model(pixels))
