import copy
import pickle

import pytest
import torch
from conftest import needs_cuda
from torch import nn

from iic.classifiers.batchnorm import settle
from iic.classifiers.inference import freeze, logits
from iic.classifiers.networks import Residual, build_network
from iic.classifiers.precision import choose_device, fast_forward, keep_freed_memory
from iic.classifiers.quantized import can_quantize, quantize
from iic.classifiers.quantized_layers import (
    FirstConvolution,
    QuantizedConvolution,
    QuantizedPool,
    QuantizedResidual,
)
from iic.classifiers.recipe import Recipe
from iic.classifiers.training import train
from iic.data.sources import load_digits
from iic.errors import UserError

needs_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this CPU has no VNNI for 8-bit forwards")


@pytest.fixture(scope="module")
def trained():
    data, test = load_digits()
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 32))
    train(model, data, Recipe(epochs=3, batch_size=100, flip=False), seed=0)
    return model, torch.from_numpy(data.images[::8]), torch.from_numpy(test.images)


@needs_vnni
def test_eight_bits_name_the_same_classes_and_hardly_move_probabilities(trained):
    model, sample, test = trained
    plain = freeze(model)
    fast = quantize(plain, sample)
    expected, found = logits(plain, test), logits(fast, test)
    assert (expected.argmax(1) == found.argmax(1)).float().mean() >= 0.99
    assert (expected.softmax(1) - found.softmax(1)).abs().mean() < 0.005
    assert not torch.equal(expected, found)  # it is another forward


@needs_vnni
def test_a_second_number_is_spent_where_one_is_too_coarse(trained, monkeypatch):
    model, sample, test = trained
    plain = freeze(model)
    exact, errors = logits(plain, test).softmax(1), []
    for coarse, numbers in ((1.0, 1), (0.0, 2)):
        monkeypatch.setattr("iic.classifiers.quantized.COARSE", coarse)
        fast = quantize(plain, sample)
        assert fast[0].layer.out_channels == numbers * plain[1].out_channels
        errors.append(float((logits(fast, test).softmax(1) - exact).norm()))
    assert errors[1] < errors[0]


@needs_vnni
def test_the_first_convolution_of_one_channel_hands_on_what_the_next_need_not_copy(trained):
    """However the pixels lie: of one channel their layout is both layouts."""
    model, sample, _ = trained
    fast = quantize(freeze(model), sample)
    pixels = sample[:4].float()
    for shown in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        assert fast[0](shown).is_contiguous(memory_format=torch.channels_last)


@needs_vnni
@pytest.mark.parametrize("depth", [2, 3])
def test_a_sum_of_a_path_and_its_input_is_within_a_step_of_float32(depth):
    """On the very numbers that it holds; its input is left as it was, and its means over the sample are float32's."""
    torch.manual_seed(0)
    model = build_network([33.0], [78.0], widths=(8, 16, 32), depth=depth, residual=True)
    pixels = 255 * torch.rand(32, 1, 28, 28)
    settle(model.eval(), [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], [pixels])
    plain = freeze(model)
    assert can_quantize(plain)
    fast = quantize(plain, pixels)
    in_float32, x = [], pixels
    for layer in plain:
        x = layer(x)
        in_float32 += [x] if isinstance(layer, Residual) else []
    x = pixels
    for layer in fast:
        before, x = x.clone(), layer(x)
        if isinstance(layer, QuantizedResidual):
            assert len(layer.path) == depth - 2
            inner, last = layer.path(before), layer.last
            weight = last.numbers.float() * last.weight_scale.view(-1, 1, 1, 1)
            path = nn.functional.conv2d(inner.float() * last.scale, weight, last.bias, padding=1)
            total, wanted = path + before.float() * layer.scale, in_float32.pop(0)
            assert (x.float() - (total.relu() / last.output_scale).clamp(max=255)).abs().max() <= 0.51
            assert (total - wanted).mean((0, 2, 3)).abs().max() < 1e-4 * wanted.std()
            assert torch.equal(layer(before), x)
    assert not in_float32
    expected, found = logits(plain, pixels), logits(fast, pixels)
    assert (found - expected).norm() < 0.2 * (expected - expected.mean(0)).norm()


@needs_vnni
def test_means_over_the_sample_are_put_right(trained):
    """Nothing is shifted on average, in any filter or logit; without the correction it is."""
    model, sample, _ = trained
    plain = freeze(model)
    fast = quantize(plain, sample)
    shift = (logits(fast, sample) - logits(plain, sample)).mean(0)
    assert shift.abs().max() < 1e-3
    rounded = copy.deepcopy(fast)
    rounded[-1].bias = None
    assert (logits(rounded, sample) - logits(plain, sample)).mean(0).abs().max() > 10 * shift.abs().max()
    layer = next(m for m in fast if isinstance(m, QuantizedConvolution))
    before, wanted = fast[0](sample.float()), plain[:4](sample.float())
    weight = layer.numbers.float() * layer.weight_scale.view(-1, 1, 1, 1)
    found = nn.functional.conv2d(before.float() * layer.scale, weight, layer.bias, padding=1)
    assert (found - wanted).mean((0, 2, 3)).abs().max() < 1e-3 * wanted.std()


@needs_vnni
def test_each_convolution_is_within_a_step_of_float32(trained):
    """The quantised layer against F.conv2d on the very numbers it holds."""
    model, sample, _ = trained
    fast = quantize(freeze(model), sample)
    first = next(i for i, m in enumerate(fast) if hasattr(m, "numbers"))
    layer, x = fast[first], fast[:first](sample[:50].float())
    weight = layer.numbers.float() * layer.weight_scale.view(-1, 1, 1, 1)
    exact = nn.functional.conv2d(x.float() * layer.scale, weight, layer.bias, padding=1).relu()
    exact = exact.clamp(max=255 * layer.output_scale)
    assert (layer(x).float() * layer.output_scale - exact).abs().max() <= 0.51 * layer.output_scale


@needs_vnni
@pytest.mark.parametrize(("padding", "numbers_each"), [(0, 1), (1, 1), (0, 2), (1, 3)])
def test_the_first_convolution_is_within_a_step_of_float32(trained, padding, numbers_each):
    """With the normalisation folded in, and beside a padded border where it is not."""
    model, sample, _ = trained
    plain = freeze(model)
    plain[1].padding = (padding, padding)
    pixels = sample[:50].float()
    first = FirstConvolution(plain[0], plain[1], 0.01, numbers_each)
    assert isinstance(first.normalize, nn.Identity) == (padding == 0)
    exact = (plain[:3](pixels) / 0.01).clamp(max=255 * numbers_each)
    numbers = first(pixels)  # (N, numbers_each * C, H, W)
    assert (numbers.float().unflatten(1, (numbers_each, -1)).sum(1) - exact).abs().max() <= 0.51


@pytest.mark.parametrize(
    ("layer", "side"), [(nn.MaxPool2d(2), 27), (nn.MaxPool2d(2), 6), (nn.MaxPool2d(3), 7), (nn.MaxPool2d(2, 1), 5)]
)
@pytest.mark.parametrize("channels", [8, 16, 96])
def test_pools_of_uint8_are_those_of_float32(layer, side, channels):
    x = torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    found = QuantizedPool(layer)(x)
    assert torch.equal(found.float(), layer(x.float())) and found.is_contiguous(memory_format=torch.channels_last)


@needs_vnni
def test_weights_are_packed_for_the_batches_that_they_meet(trained):
    """Packed for another shape they give the same, only slower."""
    model, sample, test = trained
    fast = quantize(freeze(model), sample)
    other = copy.deepcopy(fast)
    for layer in other:
        if isinstance(layer, QuantizedConvolution):
            layer.shape = None
            layer._pack()
    assert torch.equal(logits(fast, test[:100]), logits(other, test[:100]))


@needs_vnni
def test_copies_of_it_compute_the_same(trained):
    model, sample, test = trained
    fast = quantize(freeze(model), sample)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(logits(other, test[:50]), logits(fast, test[:50]))


def test_the_fastest_forward_that_agrees_is_taken(trained):
    model, sample, _ = trained
    found = fast_forward(model, sample)
    assert found.precision in ("float32", "bfloat16", "int8") and found.same_class >= 0.995
    plain = fast_forward(model, sample, "float32")
    assert plain.precision == "float32" and plain.same_class == 1
    assert fast_forward(model, sample, "bfloat16", "cpu").precision == "bfloat16"


@needs_vnni
def test_a_forward_that_disagrees_is_not_taken(trained, monkeypatch):
    model, sample, _ = trained
    wrong = quantize(freeze(model), sample)
    wrong[-1] = copy.deepcopy(wrong[-1])
    wrong[-1].weight.neg_()
    monkeypatch.setattr("iic.classifiers.precision.quantize", lambda *_: wrong)
    for next_best in (torch.float32, torch.bfloat16):
        monkeypatch.setattr("iic.classifiers.precision.best_dtype", lambda best=next_best: best)
        found = fast_forward(model, sample, "auto", "cpu")
        assert found.precision == str(next_best).removeprefix("torch.") and found.same_class >= 0.995
    assert fast_forward(model, sample, "int8", "cpu").same_class < 0.5  # asked for by name: used, and recorded


@needs_vnni
def test_eight_bits_come_before_bfloat16(trained, monkeypatch):
    model, sample, _ = trained
    monkeypatch.setattr("iic.classifiers.precision.best_dtype", lambda: torch.bfloat16)
    assert fast_forward(model, sample, "auto", "cpu").precision == "int8"
    monkeypatch.setattr("iic.classifiers.precision.can_quantize", lambda _: False)
    assert fast_forward(model, sample, "auto", "cpu").precision == "bfloat16"


def test_freed_memory_is_kept_once_and_without_harm():
    assert keep_freed_memory() in (True, False)
    assert keep_freed_memory() is keep_freed_memory()


def test_other_networks_stay_in_float32(trained):
    class Other(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10]

    _, sample, _ = trained
    assert not can_quantize(Other())
    assert fast_forward(Other(), sample).precision == "float32"
    with pytest.raises(UserError, match="'int8' needs"):
        fast_forward(Other(), sample, "int8")
    with pytest.raises(UserError, match="'bfloat16' is for"):
        fast_forward(Other(), sample, "bfloat16")


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            choose_device("cuda")


@needs_cuda
def test_cuda_answers_as_the_cpu_does(trained):
    model, sample, test = trained
    cpu, cuda = fast_forward(model, sample, "float32", "cpu"), fast_forward(model, sample, "float32", "cuda")
    torch.testing.assert_close(logits(cuda.model, test.cuda()).cpu(), logits(cpu.model, test), atol=1e-2, rtol=1e-2)
    assert fast_forward(model, sample, "auto", "cuda").precision in ("bfloat16", "float32")
