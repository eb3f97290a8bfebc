import numpy as np
import pytest
import torch
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import Normalize, build_network
from iic.classifiers.precision import Forward
from iic.errors import UserError
from iic.explainers.context import Context
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams

PARAMS = AttributionParams(segmentation="grid", superpixels=9, budget=600, occlusion_window=8, occlusion_stride=4)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(4, 8, 8)).eval()
    nn.init.normal_(model[-1].weight)
    return freeze(model)


def context(frozen: nn.Module | None = None, **changes) -> Context:
    frozen, params = frozen or network(), PARAMS.model_copy(update=changes)
    return Context(frozen, Forward(frozen, "float32", "cpu", 1.0), np.full(3, 110.0), params, Segmenter(params))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "kernel_shap_logit", "occlusion"])
def test_the_library_finds_what_ours_does(images, method):
    """With nine superpixels Kernel SHAP is exact, LIME nearly converged; occlusion is the same sum."""
    options = (images, np.array([4, 9]), np.array([1, 2]))
    ours = explain(method, context(), *options)
    theirs = explain(method, context(backend="library"), *options)
    scale = np.abs(ours.values).max()
    np.testing.assert_allclose(theirs.values, ours.values, atol=(0.1 if method == "lime" else 1e-4) * scale)
    assert np.corrcoef(theirs.values.ravel(), ours.values.ravel())[0, 1] > 0.98


def test_windows_that_do_not_fit_are_cut_off_as_captums_are(images):
    """Window 5, stride 3 on 12 pixels a side: starts 0, 3, 6 and 9, the last window being three pixels wide."""
    torch.manual_seed(0)
    model = nn.Sequential(Normalize([110.0] * 3, [60.0] * 3), nn.Flatten(), nn.Linear(3 * 144, 4))
    model.append(nn.Softmax(1)).append(nn.Linear(4, 4))
    sizes = {"occlusion_window": 5, "occlusion_stride": 3}
    options = (np.ascontiguousarray(images[:, :, 10:22, 3:15]), np.array([4, 9]), np.array([1, 2]))
    ours = explain("occlusion", context(freeze(model), **sizes), *options)
    theirs = explain("occlusion", context(freeze(model), backend="library", **sizes), *options)
    np.testing.assert_allclose(theirs.values, ours.values, atol=1e-6 * np.abs(ours.values).max())
    assert ours.numbers["forwards"].tolist() == theirs.numbers["forwards"].tolist() == [17, 17]


def test_the_library_names_an_image_whose_answers_are_not_finite(images):
    class Nan(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * float("nan")

    for method in ("lime", "kernel_shap", "occlusion_logit"):
        with pytest.raises(UserError, match="output for a perturbed test image 4 is not finite"):
            explain(method, context(Nan(), backend="library"), images, np.array([4, 9]), np.array([1, 2]))


def test_the_library_gives_the_same_again_and_leaves_global_draws_alone(images):
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    options = ("lime", context(backend="library"), images, np.array([4, 9]), np.array([1, 2]))
    together = explain(*options).values
    state = torch.get_rng_state()
    assert explain(*options).values.tobytes() == together.tobytes()
    alone = explain("lime", options[1], images[1:], np.array([9]), np.array([2])).values
    np.testing.assert_allclose(alone[0], together[1], atol=1e-6)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), state)


def test_what_the_library_cannot_do_is_refused_by_name(images):
    options = (images, np.array([4, 9]), np.array([1, 2]))
    with pytest.raises(UserError, match="has no 'rise'"):
        explain("rise", context(backend="library"), *options)
    with pytest.raises(UserError, match="not with 'blur'"):
        explain("lime", context(backend="library", fill="blur"), *options)
