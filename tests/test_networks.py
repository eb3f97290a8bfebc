import torch

from iic.classifiers.networks import build_network


def test_normalisation_is_in_pixel_units_and_takes_uint8():
    model = build_network([10.0], [4.0], widths=(4, 4, 4))
    pixels = torch.full((1, 1, 28, 28), 30, dtype=torch.uint8)
    torch.testing.assert_close(model[0](pixels), torch.full((1, 1, 28, 28), 5.0))
