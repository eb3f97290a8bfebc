import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from small_lrp import assert_account_closes, frozen_network
from torch import nn

from iic.classifiers.inference import freeze, logits
from iic.classifiers.networks import Normalize
from iic.classifiers.precision import Forward
from iic.errors import UserError
from iic.explainers.composites import COMPOSITES, composite
from iic.explainers.context import Context
from iic.explainers.lrp import EPSILON, Propagator
from iic.explainers.lrp_rules import Place, epsilon_rule, plus_rule, transposed
from iic.explainers.methods import explain
from iic.explainers.segmentation import Segmenter
from iic.params import AttributionParams

KINDS = ("inputs", "bias", "stabiliser")


@pytest.fixture(scope="module")
def frozen():
    return frozen_network()


@pytest.mark.parametrize("name", COMPOSITES)
def test_the_account_closes_in_every_layer(frozen, name):
    model, images = frozen
    found = Propagator(model, COMPOSITES[name])(images, torch.tensor([0, 1, 2, 3, 4, 5]))
    assert_account_closes(found)
    arriving = found.explained.double()
    for row in reversed(found.layers.values()):
        torch.testing.assert_close(row["inputs"] + row["bias"] + row["stabiliser"], arriving, rtol=1e-4, atol=1e-4)
        arriving = row["inputs"]
    assert list(found.layers) == [str(i) for i, m in enumerate(model) if isinstance(m, (nn.Conv2d, nn.Linear))]


class Residual(nn.Module):
    """A sum of two branches, averaged or not, with many values that are exactly zero."""

    def __init__(self, average: bool):
        super().__init__()
        self.normalize = Normalize([128.0], [64.0])
        self.left, self.right = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.rectify, self.cut = nn.ReLU(), nn.ReLU()
        self.pool = nn.AvgPool2d(2) if average else nn.Identity()
        self.flatten, self.dense = nn.Flatten(), nn.Linear(64 if average else 256, 3)
        for branch in (self.left, self.right):
            nn.init.constant_(branch.bias, -0.8)

    def hidden(self, x):
        x = self.normalize(x)
        return self.pool(self.rectify(self.left(x)) + self.cut(self.right(x)))

    def forward(self, x):
        return self.dense(self.flatten(self.hidden(x)))


@pytest.mark.parametrize("average", [False, True])
def test_what_sums_and_averages_keep_is_accounted_for(average):
    """A flat rule above hands equal shares to all their values; where one is zero, nobody below gets its share."""
    torch.manual_seed(0)
    model = Residual(average).eval().requires_grad_(False)
    images, targets = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8), np.array([0, 1, 2])
    found = Propagator(model, composite("epsilon", {"dense": "flat"}))(images, torch.from_numpy(targets))
    assert_account_closes(found)
    zeros = (model.hidden(images.float()) == 0).flatten(1).double().mean(1)
    assert (zeros > 0.1).all() and (zeros < 0.9).all()
    kept = found.layers["pool" if average else "add"]["stabiliser"]
    torch.testing.assert_close(kept, zeros * found.explained, rtol=1e-3, atol=1e-4)

    params = AttributionParams(lrp_rules={"dense": "flat"})
    context = Context(model, Forward(model, "float32", "cpu", 1.0), np.array([128.0]), params, Segmenter(params))
    numbers = explain("lrp_epsilon", context, images.numpy(), np.arange(3), targets).numbers
    expected = model(images.float()).numpy()[np.arange(3), targets]
    np.testing.assert_allclose(numbers["input"] + numbers["bias"] + numbers["epsilon"], expected, rtol=0, atol=1e-4)


def test_a_layer_that_is_used_twice_has_both_in_its_row():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense, self.rectify = nn.Flatten(), nn.Linear(4, 4), nn.ReLU()

        def forward(self, x):
            return self.dense(self.rectify(self.dense(self.flatten(x))))

    torch.manual_seed(0)
    found = Propagator(Again(), COMPOSITES["epsilon"])(torch.rand(2, 1, 2, 2), torch.tensor([1, 3]))
    assert list(found.layers) == ["dense"] and found.layers["dense"]["bias"].abs().min() > 1e-3
    assert_account_closes(found)


def test_rules_are_captums():
    torch.manual_seed(1)
    inputs = torch.rand(4, 3, 8, 8)
    lower, upper = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.Conv2d(5, 4, 8, bias=False)
    network = nn.Sequential(
        lower, nn.ReLU(), upper
    )  # captum knows no Flatten: a convolution stands for the dense layer
    lower.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True)
    upper.rule = EpsilonRule(epsilon=EPSILON)
    theirs = LRP(network).attribute(inputs.clone().requires_grad_(), target=(2, 0, 0))
    with torch.no_grad():
        below = lower(inputs)
        hidden = below.relu()
        above = upper(hidden)
        flow = torch.zeros(4, 4, 1, 1)
        flow[:, 2] = above[:, 2]
        flow = epsilon_rule()(upper, Place(nonnegative=True))(hidden, above, flow).inputs
        ours = plus_rule()(lower, Place(nonnegative=True))(inputs, below, flow).inputs
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-4, rtol=1e-3)


def test_without_biases_all_relevance_arrives(frozen):
    model, images = frozen
    bare = freeze(model)
    for module in bare:
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    found = Propagator(bare)(images, torch.zeros(6, dtype=torch.int64))
    assert found.leak().abs().max() < 1e-3
    torch.testing.assert_close(found.explained, logits(bare, images)[:, 0], rtol=1e-3, atol=1e-4)


def test_a_layer_can_have_a_rule_of_its_own(frozen):
    model, images = frozen
    targets = torch.zeros(6, dtype=torch.int64)
    own = {str(i): "plus" for i, m in enumerate(model) if isinstance(m, nn.Conv2d)}
    own[next(iter(own))] = "flat"
    mapped = Propagator(model, composite("epsilon", own))(images, targets)
    torch.testing.assert_close(mapped.values, Propagator(model)(images, targets).values)
    with pytest.raises(UserError, match="no layer '99'"):
        Propagator(model, composite("epsilon", {"99": "plus"}))
    with pytest.raises(UserError, match="'box' is for the layer on the normalised pixels"):
        Propagator(model, composite("epsilon", {list(own)[2]: "box"}))
    with pytest.raises(UserError, match="Unknown LRP rule 'z'"):
        composite("epsilon", {"1": "z"})


def test_a_layer_without_a_rule_is_named():
    with pytest.raises(UserError, match=r"layer 1 \(GELU\)"):
        Propagator(nn.Sequential(nn.Flatten(), nn.GELU()))


@pytest.mark.parametrize("options", [{"padding": 1, "padding_mode": "reflect"}, {"padding": "same"}])
def test_a_convolution_that_no_rule_covers_is_named(options):
    with pytest.raises(UserError, match=r"layer 0 \(Conv2d with padding"):
        Propagator(nn.Sequential(nn.Conv2d(1, 2, 3, **options)))


def test_a_weighted_sum_of_layers_is_refused():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = nn.Flatten(), nn.Linear(4, 4)

        def forward(self, x):
            x = self.flatten(x)
            return torch.add(x, self.dense(x), alpha=0.5)

    with pytest.raises(UserError, match=r"layer add \(add\)"):
        Propagator(Weighted())


def test_a_sum_counts_an_input_that_is_added_to_itself():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = nn.Flatten(), nn.Linear(4, 3, bias=False)

        def forward(self, x):
            x = self.flatten(x)
            x = x + x
            return self.dense(x)

    torch.manual_seed(0)
    model, images = Twice(), torch.rand(2, 1, 2, 2)
    found = Propagator(model, COMPOSITES["epsilon"])(images, torch.tensor([0, 2]))
    expected = 2 * images * model.dense.weight[[0, 2]].view(2, 1, 2, 2)  # of a linear network: input times gradient
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=1e-5)


def test_maps_do_not_depend_on_the_other_images(frozen):
    model, images = frozen
    targets = logits(model, images).argmax(1)
    propagate = Propagator(model)
    together = propagate(images, targets).values
    alone = torch.cat([propagate(images[i : i + 1], targets[i : i + 1]).values for i in range(6)])
    assert np.allclose(together, alone, atol=1e-4 * float(together.abs().max()))


def test_many_images_go_in_parts(frozen, monkeypatch):
    model, images = frozen
    targets = logits(model, images).argmax(1)
    whole = Propagator(model)(images, targets)
    monkeypatch.setattr("iic.explainers.lrp.PASS_BYTES", 1)  # one image each
    propagate = Propagator(model)
    parts = propagate(images, targets)
    assert propagate._together(images.shape[1:]) == 1
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-3, atol=1e-4 * float(whole.values.abs().max()))
    torch.testing.assert_close(parts.explained, whole.explained)
    assert list(parts.layers) == list(whole.layers)
    assert all(torch.allclose(parts.layers[a][b], whole.layers[a][b], atol=1e-4) for a in whole.layers for b in KINDS)


@pytest.mark.parametrize("name", COMPOSITES)
def test_explaining_changes_neither_the_network_nor_the_images(frozen, name):
    """Sums and relevance are written over; weights, the caller's pixels and targets are not."""
    model, images = frozen
    pixels = images.float().contiguous(memory_format=torch.channels_last)
    propagate, targets = Propagator(model, COMPOSITES[name]), torch.zeros(6, dtype=torch.int64)
    first, second = propagate(pixels, targets), propagate(pixels, targets)
    assert torch.equal(first.values, second.values)
    assert torch.equal(pixels, images.float())
    assert all(torch.equal(first.layers[a][b], second.layers[a][b]) for a in first.layers for b in KINDS)


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_network_in_bfloat16_can_be_explained(frozen, name):
    """Its numbers have three digits: the account closes to those."""
    model, images = frozen
    targets = logits(model, images).argmax(1)
    truth = Propagator(model, COMPOSITES[name])(images, targets)
    found = Propagator(freeze(model, torch.bfloat16), COMPOSITES[name])(images, targets)
    assert found.values.dtype == torch.float32
    kept = sum(row["bias"] + row["stabiliser"] for row in found.layers.values())
    total = found.values.flatten(1).sum(1).double() + kept
    torch.testing.assert_close(total, found.explained.double(), rtol=0.1, atol=0.1)
    close = torch.cosine_similarity(found.values.flatten(1), truth.values.flatten(1)).min()
    assert close > 0.9


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_what_the_last_stride_leaves_over_gets_no_relevance(stride):
    """The transposed convolution has the inputs' size, and is the gradient's."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride, padding=1, groups=2)
    x = torch.rand(2, 4, 12, 13, requires_grad=True)
    z = layer(x)
    flow = torch.randn_like(z)
    (expected,) = torch.autograd.grad(z, x, flow)
    torch.testing.assert_close(transposed(layer, flow, layer.weight, x.shape), expected, rtol=1e-4, atol=1e-5)
