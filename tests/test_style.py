import pytest

from iic.explainers.names import METHODS
from iic.report.style import title, unit


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lime", "probability"),
        ("lime_random_weights_blurred", "probability"),
        ("kernel_shap_logit", "logit"),
        ("kernel_shap_logit_blurred", "logit"),
        ("lrp_superpixel", "logit"),
        ("integrated_gradients", "logit"),
        ("contrast", "pixel values"),
        ("random_superpixels", "no unit"),
        ("grad_cam", "no unit"),
    ],
)
def test_a_maps_unit_is_that_of_what_it_explains(method, expected):
    assert unit(method) == expected


def test_no_two_methods_have_the_same_title():
    assert len({title(method) for method in METHODS}) == len(METHODS)
