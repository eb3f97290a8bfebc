"""What would make a map quietly another than it says it is, or end a run half-way, is refused or put right."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from iic.checks import check_explaining, check_parameters
from iic.classifiers.inference import freeze
from iic.classifiers.networks import Normalize, Residual, build_network
from iic.classifiers.precision import Forward
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.explainers.attributions import Attributions
from iic.explainers.coalitions import draw_coalitions, smallest_budget
from iic.explainers.context import Context
from iic.explainers.gradients import last_spatial
from iic.explainers.kernel_shap import all_masks, paired_values, shapley_values
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams
from iic.pipelines.attribution.nodes import derive_maps, explaining

MEAN = [120.0, 110.0, 100.0]
PARAMS = AttributionParams(segmentation="grid", superpixels=9, budget=100, gradient_steps=8)
WHICH = (np.array([4, 9]), np.array([1, 2]))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)


def context(model, **changes):
    frozen, params = freeze(model), PARAMS.model_copy(update=changes)
    return Context(frozen, Forward(frozen, "float32", "cpu", 1.0), np.array(MEAN), params, Segmenter(params))


def layers(*last):
    torch.manual_seed(0)
    linear = nn.Linear(4 * 14 * 14, 5)
    return nn.Sequential(Normalize(MEAN, [60.0] * 3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), linear, *last)


class Wrapped(nn.Module):
    """The same network, whose normalisation cannot be seen."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("method", ["integrated_gradients", "deeplift"])
def test_a_users_network_is_explained_from_the_mean_colour_on(images, method):
    seen, hidden = (explain(method, context(m), images, *WHICH).values for m in (layers(), Wrapped(layers())))
    np.testing.assert_allclose(hidden, seen, atol=1e-4 * np.abs(seen).max())


class Bridged(nn.Module):
    """A block with a sum, whose shortcut is registered last and computed first or last."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.stem, self.stem_relu = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.path, self.behind, self.flat = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten()
        self.last, self.shortcut = nn.Linear(4 * 14 * 14, 5), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem_relu(self.stem(x))
        total = self.shortcut(x) + self.path(x) if self.first else self.path(x) + self.shortcut(x)
        return self.last(self.flat(self.behind(total)))


@pytest.mark.parametrize("first", [True, False])
def test_grad_cam_looks_behind_the_sum(first):
    model = Bridged(first).eval()
    assert last_spatial(model) is model.behind
    chain = build_network([0.0], [1.0], widths=(4, 4, 4), depth=3, residual=True).eval()
    frozen = freeze(chain)
    last = max(number for number, layer in enumerate(frozen) if isinstance(layer, Residual))
    assert isinstance(frozen[last + 1], nn.ReLU) and last_spatial(frozen) is frozen[last + 1]


def test_a_logit_of_zero_has_no_leak_and_a_number_that_is_none_names_its_image(images, monkeypatch):
    silent = layers(nn.ReLU())
    with torch.no_grad():
        silent[4].weight.abs_().neg_(), silent[4].bias.fill_(-1.0)
    maps = explain("lrp", context(silent), images, *WHICH)
    assert (maps.numbers["leak"] == 0).all() and (maps.values == 0).all()
    broken = replace(maps, numbers={**maps.numbers, "leak": np.array([0.0, np.nan])})
    monkeypatch.setattr("iic.explainers.methods._relevance", lambda *_: broken)
    with pytest.raises(UserError, match="The lrp map of test image 9 is not finite"):
        explain("lrp", context(silent), images, *WHICH)


class Broken(nn.Module):
    def forward(self, x):
        logits = x.mean((2, 3))
        return torch.cat([logits, torch.full((len(x), 1), self.bad)], 1)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
@pytest.mark.parametrize("method", ["kernel_shap_logit", "lime", "occlusion_logit"])
def test_an_output_of_another_class_has_to_be_finite_too(images, bad, method):
    model = Broken()
    model.bad = bad
    with pytest.raises(UserError, match="output for a perturbed test image 4 is not finite"):
        explain(method, context(model), images, *WHICH)


def test_superpixels_of_ones_own_are_two_at_least_and_their_content_counts():
    one, two = np.zeros((16, 16), int), np.arange(256).reshape(16, 16) % 2
    with pytest.raises(UserError, match="superpixels of test image 3 are one only"):
        Segmenter(PARAMS, one)(np.zeros((3, 16, 16), np.uint8), 3)
    prints = [Segmenter(PARAMS, labels).fingerprint() for labels in (two, two[:, ::-1], two.copy(), None)]
    assert prints[0] == prints[2] != prints[1] and prints[3] is None
    train = ImageSet(np.zeros((20, 1, 28, 28), np.uint8), np.arange(20) % 10)
    model = build_network([128.0], [64.0], widths=(4, 4, 4)).eval()
    given = (Segmenter(AttributionParams(device="cpu"), two), train.images, np.arange(4), "digits")
    _, _, origin = explaining("random", model, train, {"train": {"mean": [0.0], "sha256": "abc"}}, *given)
    assert origin["segments"] == prints[0] and origin["train"] == "abc"


def test_derived_maps_say_what_made_them_and_are_not_made_of_maps_of_other_parameters(images, tmp_path):
    test = ImageSet(images, np.arange(2))
    made = {"parameters": PARAMS.determining(), "model": "m", "data": "d", "segments": None, "same_class": None}
    made |= {"precision": "float32", "device": "cpu", "code": "c"}
    values = np.random.default_rng(1).normal(size=(2, 16, 16)).astype(np.float32)
    stored = Attributions(values, np.arange(2), np.arange(2), {"forwards": np.ones(2)}, None, made)

    def derive(method, **changes):
        params = PARAMS.model_copy(update=changes)
        return derive_maps(params, test, stored, {"seconds": 1.0}, "digits", method, tmp_path)[0]

    wide = derive("lrp_blurred", blur=4.0)
    assert wide.made["parameters"]["blur"] == 4.0 and wide.made["derived_from"] == "lrp"
    assert not np.array_equal(wide.values[:], derive("lrp_blurred").values[:])
    with pytest.raises(UserError, match=r"maps of digits\.lrp were made with superpixels = 9, and now it is 4"):
        derive("lrp_superpixel", superpixels=4)


@pytest.mark.parametrize("m", [3, 7, 9, 12])
def test_the_smallest_budget_always_determines_the_values(m):
    for seed in range(150):
        drawn = draw_coalitions(m, smallest_budget(m) - 2, np.random.default_rng(seed))
        values = all_masks(drawn).astype(float) @ np.arange(1.0, m + 1)
        ((found,), _) = shapley_values([paired_values(drawn, values)])
        np.testing.assert_allclose(found, np.arange(1.0, m + 1), atol=1e-8)


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "occlusion"])
def test_the_librarys_forwards_are_those_that_it_made(images, method):
    seen = []
    ours = context(layers(), backend="library", occlusion_window=6, occlusion_stride=5)
    ours.forward.model.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    maps = explain(method, ours, images, *WHICH)
    assert maps.numbers["forwards"].sum() == sum(seen) > 0


def check(methods, **changes):
    parameters = {"digits": {"data": {"source": "digits", "class_names": list("0123456789"), "channels": 1}}}
    parameters["digits"]["attribution"] = changes
    check_explaining(check_parameters(parameters, ["digits"]), methods, ROOT)


def test_what_a_method_cannot_do_is_said_before_any_work():
    check(["lime", "occlusion_blurred"])
    with pytest.raises(UserError, match="occlusion_window is 28, and its images have 28 pixels a side"):
        check(["occlusion_blurred"], occlusion_window=28)
    with pytest.raises(UserError, match="occlusion_stride of 7 leaves gaps between windows of 6"):
        check(["lime"], occlusion_stride=7)
    with pytest.raises(UserError, match="backend 'library' has no 'lrp'"):
        check(["lime", "lrp_superpixel"], backend="library")
    with pytest.raises(UserError, match="fills with one colour, not with 'blur'"):
        check(["lime"], backend="library", fill="blur")
    with pytest.raises(UserError, match="kernel_shap_fast takes a budget of 10000 masks at most, not 10001"):
        check(["kernel_shap_fast"], budget=10001)
    with pytest.raises(UserError, match=r"lime_fast takes .* 10000 masks at most, not 10001: with so many, use lime\."):
        check(["lime_fast_logit"], budget=10001)
    check(["kernel_shap"], budget=240)  # 60 superpixels may be found where 50 are asked for
    check(["lime"], budget=200)
    with pytest.raises(UserError, match=r"digits\.attribution\.budget is 200, but .* needs 240 forwards for 60 superp"):
        check(["kernel_shap_logit_blurred"], budget=200)
    check(["kernel_shap_fast"], segmentation="pixels", budget=4 * 28 * 28)
    with pytest.raises(UserError, match=r"budget is 3135, but Kernel SHAP needs 3136 forwards for 784 single pixels"):
        check(["kernel_shap_fast"], segmentation="pixels", budget=4 * 28 * 28 - 1)
    with pytest.raises(UserError, match=r"There is no file .*nowhere\.npy"):
        check(["lime"], segments="nowhere.npy")
