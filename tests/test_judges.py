import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from conftest import needs_cuda
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iic.classifiers.inference import fingerprint, freeze, predicted_class
from iic.classifiers.networks import WHITENED, Normalize, build_network
from iic.data.images import ImageSet
from iic.errors import UserError
from iic.evaluation.fills import salt_and_pepper
from iic.evaluation.judges import (
    BATCH,
    _bfloat16_agrees,
    abstains,
    contradicts,
    fine_tune,
    random_masks,
)


def stripes(count, seed, side=12, noise=15):
    """Grey images of four classes: lying, standing and two kinds of slanted waves, each with a phase of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    y, x = np.mgrid[:side, :side]
    along = np.stack([y, x, y + x, y - x])[labels]  # (N, H, W)
    waves = np.sin(2 * np.pi * (along / 4 + rng.random((count, 1, 1))))
    images = 128 + 50 * waves + noise * rng.standard_normal(waves.shape)
    return ImageSet(images.round().clip(0, 255).astype(np.uint8)[:, None], labels)


class Small(nn.Module):
    """A user's own network: no nn.Sequential, and with dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 24, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(12), nn.BatchNorm2d(24)])
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(24, 4)

    def forward(self, pixels):
        x = F.relu(self.norms[0](self.first((pixels - 128) / 64)))
        x = F.relu(self.norms[1](self.second(x))).mean((2, 3))
        return self.head(self.drop(x))


def fit(data, epochs, build=Small):
    """A network trained on the images as they are."""
    torch.manual_seed(0)
    model, generator = build(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images, labels = torch.from_numpy(data.images).float(), torch.from_numpy(data.labels)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def peppered(images, keep, indices, seed):
    return np.where(keep[:, None], images, salt_and_pepper(indices, images.shape[2:], seed)).astype(np.float32)


def blackened(images, keep, indices, seed):
    return np.where(keep[:, None], images, 0).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return fit(stripes(600, 0), epochs=8)


def accuracy(model, pixels, labels):
    return (predicted_class(model, torch.from_numpy(pixels)).numpy() == labels).mean()


def boundary(masks):
    """How often two neighbours differ, over how often independent pixels of the same share would: (N,)."""
    differing = (masks[:, 1:] != masks[:, :-1]).mean((1, 2)) + (masks[:, :, 1:] != masks[:, :, :-1]).mean((1, 2))
    share = masks.mean((1, 2))
    return differing / 2 / (2 * share * (1 - share))


@given(st.integers(1, 6), st.integers(4, 15), st.integers(4, 15), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_masks_keep_between_a_twentieth_and_everything(count, height, width, seed):
    masks = random_masks(count, (height, width), np.random.default_rng(seed))
    assert masks.shape == (count, height, width) and masks.dtype == np.bool_
    assert (masks.sum((1, 2)) >= round(0.05 * height * width)).all()


def test_masks_keep_a_uniform_share_of_pixels_anywhere_half_of_them_in_blobs():
    masks = random_masks(4000, (16, 16), np.random.default_rng(0))
    share = masks.mean((1, 2))
    assert scipy.stats.kstest(share, scipy.stats.uniform(0.05, 0.95).cdf).pvalue > 1e-3
    assert np.abs(masks.mean(0) - 0.525).max() < 5 * np.sqrt(0.525 * 0.475 / 4000)
    ratio = boundary(masks[share < 0.9])
    in_blobs = ratio < 0.7
    assert abs(in_blobs.mean() - 0.5) < 0.05
    assert ratio[in_blobs].mean() < 0.5 and abs(ratio[~in_blobs].mean() - 1) < 0.02


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("fill", [peppered, blackened])
def test_a_judge_reads_masked_images_that_the_network_cannot(network, fill, device):
    judge = fine_tune(network, stripes(600, 0), fill, seed=0, epochs=25, learning_rate=0.01, device=device)
    assert {tensor.device.type for tensor in judge.state_dict().values()} == {"cpu"}
    test = stripes(400, 1)
    keep = np.random.default_rng(2).random((400, 12, 12)) < np.linspace(0.2, 0.8, 400)[:, None, None]
    masked = fill(test.images, keep, np.arange(400), 3)
    assert accuracy(judge, masked, test.labels) > accuracy(network, masked, test.labels) + 0.15
    assert accuracy(network, test.images, test.labels) > 0.98
    assert accuracy(judge, test.images, test.labels) > 0.95


def test_the_seed_decides_every_weight_and_nothing_else_changes(network):
    before, state = fingerprint(network), torch.get_rng_state()
    judges = [fine_tune(network, stripes(200, 0), peppered, seed=seed, epochs=1) for seed in (0, 0, 1)]
    assert fingerprint(network) == before and torch.equal(torch.get_rng_state(), state)
    assert not network.training and all(p.grad is None for p in network.parameters())
    same, again, other = map(fingerprint, judges)
    assert same == again and len({before, same, other}) == 3
    assert all(p.grad is None and p.requires_grad for p in judges[0].parameters()) and not judges[0].head.training


@pytest.mark.parametrize("flip", [False, True])
def test_the_fill_is_made_batch_by_batch_anew_in_every_epoch(network, flip):
    data, calls = stripes(300, 0), []

    def recorded(images, keep, indices, seed):
        assert images.dtype == np.uint8 and keep.dtype == np.bool_ and len(images) == len(keep) == len(indices) <= BATCH
        mirrored = (images != data.images[indices]).any((1, 2, 3))
        np.testing.assert_array_equal(images[mirrored], data.images[indices][mirrored][..., ::-1])
        calls.append((seed, indices, mirrored.mean()))
        return blackened(images, keep, indices, seed)

    fine_tune(network, data, recorded, seed=0, flip=flip)
    assert len({seed for seed, *_ in calls}) == 3  # two epochs, and BatchNorm's statistics
    for start in (0, 3, 6):
        seen = np.concatenate([indices for _, indices, _ in calls[start : start + 3]])
        np.testing.assert_array_equal(np.sort(seen), np.arange(300))
    assert np.mean([share for *_, share in calls]) == pytest.approx(0.5 * flip, abs=0.1)


def test_a_fill_that_fails_fails_the_judge(network):
    def broken(images, keep, indices, seed):
        raise RuntimeError("no donor")

    with pytest.raises(RuntimeError, match="no donor"):
        fine_tune(network, stripes(200, 0), broken, seed=0)


def test_what_cannot_be_trained_is_refused(network):
    with pytest.raises(UserError, match="not frozen"):
        fine_tune(freeze(network), stripes(200, 0), blackened, seed=0)
    with pytest.raises(UserError, match="no longer finite in step 1"):
        fine_tune(network, stripes(200, 0), lambda images, *_: images * np.float32(np.nan), seed=0)


def test_the_projects_network_keeps_its_whitening_and_learns_in_both_types():
    data, test = stripes(500, 0, side=25), stripes(200, 1, side=25)
    torch.manual_seed(0)
    model = build_network([128.0], [38.0], widths=(8, 16, 16), classes=4)
    masked = blackened(test.images, random_masks(200, (25, 25), np.random.default_rng(0)), np.arange(200), 0)
    judges = [
        fine_tune(model, data, blackened, seed=0, epochs=6, learning_rate=0.01, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    ]
    for judge in judges:
        assert fingerprint(judge[:WHITENED]) == fingerprint(model[:WHITENED])
        assert accuracy(judge, masked, test.labels) > 0.6 > 0.2 + accuracy(model, masked, test.labels)
        assert accuracy(freeze(judge), masked, test.labels) == accuracy(judge, masked, test.labels)
    assert fingerprint(judges[0]) != fingerprint(judges[1])


@pytest.mark.parametrize(("offset", "agrees"), [(0.0, True), (1e4, False)])
def test_bfloat16_is_refused_where_it_rounds_the_gradients_away(offset, agrees):
    """Behind an offset of 10,000, which BatchNorm takes off again, bfloat16 tells no two numbers below 64 apart."""
    torch.manual_seed(0)
    start = list(build_network([128.0], [38.0], widths=(8, 16, 16), classes=4))[:WHITENED]
    convolution = nn.Conv2d(8, 16, 3)
    convolution.bias = nn.Parameter(torch.full((16,), offset), requires_grad=False)
    end = [nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(144, 4, bias=False)]
    model = nn.Sequential(*start, convolution, *end)
    data = stripes(100, 0)
    pixels, labels = torch.from_numpy(data.images).float(), torch.from_numpy(data.labels)
    assert _bfloat16_agrees(model, pixels, labels) == agrees


def test_an_exported_network_can_be_a_judge():
    torch.manual_seed(0)
    layers = [Normalize([128.0], [64.0]), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers.append(nn.Linear(16, 4))
    batch = torch.export.Dim("batch", min=1, max=4096)
    example = (torch.zeros(2, 1, 12, 12),)
    model = torch.export.export(nn.Sequential(*layers).eval(), example, dynamic_shapes=({0: batch},)).module()
    before, test = fingerprint(model), stripes(300, 1)
    judge = fine_tune(model, stripes(600, 0), blackened, seed=0, epochs=20, learning_rate=0.03)
    assert fingerprint(model) == before
    assert accuracy(judge, test.images, test.labels) > accuracy(model, test.images, test.labels) + 0.3


def test_a_judge_that_names_one_class_too_often_abstains():
    of_four = np.arange(20) % 4
    assert abstains(np.array([3] * 11 + [0] * 9), of_four) and not abstains(np.array([3] * 10 + [0] * 10), of_four)
    assert not abstains(np.arange(10).repeat(20), np.arange(10).repeat(20))
    of_two = np.array([0] * 99 + [1] * 101)  # a judge that is always right has a class for more than half of them
    assert not abstains(of_two, of_two) and abstains(np.zeros(200, int), of_two)
    mostly_one = np.array([0] * 70 + [1] * 30)
    assert not abstains(mostly_one, mostly_one) and abstains(np.zeros(100, int), mostly_one)


@pytest.mark.parametrize(
    ("claim", "judge", "expected"),
    [
        ((0.02, 0.08), (-0.05, -0.01), True),
        ((-0.08, -0.02), (0.01, 0.05), True),
        ((0.02, 0.08), (-0.05, 0.01), False),  # cannot tell
        ((0.02, 0.08), (0.01, 0.05), False),  # agrees
        ((-0.01, 0.08), (-0.05, -0.01), False),  # nothing was claimed
        ((0.02, 0.08), (-0.05, 0.0), False),
    ],
)
def test_a_judge_contradicts_when_its_interval_lies_beyond_zero(claim, judge, expected):
    assert contradicts(claim, judge) == expected
