import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn

from iic.classifiers.inference import freeze, probabilities
from iic.classifiers.networks import build_network
from iic.classifiers.precision import Forward
from iic.errors import UserError
from iic.explainers.coalitions import in_pairs
from iic.explainers.fills import FILLS, fill_image
from iic.explainers.perturbation import (
    Perturbed,
    Shown,
    SuperpixelMasks,
    _batches,
    compose,
    masked_values,
    suitable_batch,
)
from iic.explainers.segmentation import grid_superpixels, load_label_map, superpixels
from iic.explainers.windows import SmoothMasks, Windows, occlusion_map, rise_map


@pytest.fixture(scope="module")
def forward():
    torch.manual_seed(0)
    model = build_network([120.0, 110.0, 100.0], [60.0, 60.0, 60.0], widths=(4, 8, 8))
    nn.init.normal_(model[-1].weight)
    return Forward(freeze(model), "float32", "cpu", 1.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


def jobs(images):
    rng = np.random.default_rng(1)
    found = []
    for number, image in enumerate(images):
        segments = grid_superpixels((32, 32), 9)
        masks = rng.random((5 + 3 * number, int(segments.max()) + 1)) < 0.5
        fill = fill_image("mean", image, segments, np.array([50.0, 60.0, 70.5]))
        found.append(Perturbed(image, fill, SuperpixelMasks(segments, masks), number, f"test image {number}"))
    return found


def test_values_are_those_of_the_images_made_by_hand(forward, images):
    found = masked_values(forward, jobs(images), batch_size=4)
    for job, values in zip(jobs(images), found, strict=True):
        for z, value in zip(job.masks.z, values, strict=True):
            shown = job.image.astype(np.float32).copy()
            for superpixel in np.flatnonzero(~z):
                shown[:, job.masks.segments == superpixel] = np.array([50.0, 60.0, 70.5])[:, None]
            expected = probabilities(forward.model, torch.from_numpy(shown)[None])[0, job.target].item()
            assert value == pytest.approx(expected, abs=1e-6)


def test_values_do_not_depend_on_batches_or_other_images(forward, images):
    together = masked_values(forward, jobs(images), batch_size=250)
    for size in (1, 7, 0):
        for a, b in zip(masked_values(forward, jobs(images), batch_size=size), together, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    for job, values in zip(jobs(images), together, strict=True):
        np.testing.assert_allclose(masked_values(forward, [job])[0], values, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "blur"])
@pytest.mark.parametrize("count", [9, 400])
def test_composed_pixels_are_the_images_or_the_fills(images, kind, count):
    """By a matrix product for few superpixels, one by one for many."""
    segments = grid_superpixels((32, 32), count)
    z = np.random.default_rng(2).random((6, int(segments.max()) + 1)) < 0.5
    image, fill = images[0], fill_image(kind, images[0], segments, np.array([50.0, 60.0, 70.3]))
    out = torch.empty(6, 32, 32, 3)
    keep = SuperpixelMasks(segments, z).keep(slice(None), "cpu")
    assert isinstance(keep, Shown) == (count == 9)
    compose(*(torch.from_numpy(p.transpose(1, 2, 0).astype(np.float32)) for p in (image, fill)), keep, out)
    expected = np.where(z[:, segments][:, None], image, fill).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)  # of 255: a rounding of float32


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_pairs_are_composed_as_their_masks_say_wherever_batches_are_cut(images, pairs):
    segments = grid_superpixels((32, 32), 9)
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.random((pairs, 9)) < 0.5, in_pairs(rng.random((4, 9)) < 0.5)])
    fill = fill_image("blur", images[0], segments, None)
    masks, shown = SuperpixelMasks(segments, z, pairs), [p.transpose(1, 2, 0) for p in (images[0], fill)]
    pixels = [torch.from_numpy(p.astype(np.float32)) for p in shown]
    whole = torch.empty(len(z), 32, 32, 3)
    compose(*pixels, masks.keep(slice(0, len(z)), "cpu"), whole)
    expected = np.where(z[:, segments][..., None], *shown)
    np.testing.assert_allclose(whole.numpy(), expected, atol=4e-5)  # of 255: two roundings of float32
    for start in range(len(z)):
        for stop in range(start + 1, len(z) + 1):
            part = torch.empty(stop - start, 32, 32, 3)
            compose(*pixels, masks.keep(slice(start, stop), "cpu"), part)
            assert torch.equal(part, whole[start:stop])


def test_the_batch_fits_the_cache_and_stays_within_bounds(forward):
    small = suitable_batch(forward.model, "cpu", (3, 32, 32))
    assert small % 16 == 0 and 16 <= small <= 256
    wide = build_network([120.0], [60.0], widths=(1024, 8, 8))
    assert suitable_batch(freeze(wide), "cpu", (1, 32, 32)) == 16
    assert suitable_batch(wide, "cuda", (1, 32, 32)) == 4096


def test_batches_are_full_and_hold_every_row_once():
    batches = _batches([5, 8, 0, 11], 10)
    assert [sum(rows.stop - rows.start for _, rows in batch) for batch in batches] == [10, 10, 4]
    seen = [(job, row) for batch in batches for job, rows in batch for row in range(rows.start, rows.stop)]
    assert seen == [(job, row) for job, length in enumerate([5, 8, 0, 11]) for row in range(length)]


def test_logits_are_the_networks(forward, images):
    job = Perturbed(
        images[0], np.zeros_like(images[0], np.float32), Windows((32, 32), 32, 32), 2, "test image 0"
    )  # the one window hides all
    values = masked_values(forward, [job], output="logit")[0]
    expected = forward.model(torch.from_numpy(np.stack([images[0], np.zeros_like(images[0])])).float())[:, 2]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_names_the_image(images, bad):
    class Broken(nn.Module):
        def forward(self, x):
            out = torch.zeros(len(x), 10)
            out[x[:, 0, 0, 0] == float(images[1, 0, 0, 0]), 1] = bad
            return out

    broken = Forward(Broken(), "float32", "cpu", 1.0)
    with pytest.raises(UserError, match="test image 1 is not finite"):
        masked_values(broken, jobs(images), output="logit")


def test_occlusion_is_captums(forward, images):
    windows = Windows((32, 32), 8, 4)
    fill = fill_image("constant", images[0], None, None, 50.0)
    values = masked_values(forward, [Perturbed(images[0], fill, windows, 3, "it")], output="logit")[0]
    theirs = Occlusion(forward.model).attribute(
        torch.from_numpy(images[:1]).float(),
        sliding_window_shapes=(3, 8, 8),
        strides=(3, 4, 4),
        baselines=50.0,
        target=3,
    )
    expected = theirs[0, 0].numpy()
    np.testing.assert_allclose(occlusion_map(values, windows), expected, atol=1e-4 * np.abs(expected).max())


def test_windows_reach_every_pixel():
    assert Windows((28, 28), 6, 4).covered().any(0).all()
    assert Windows((5, 7), 5, 3).covered().any(0).all()


def test_rise_finds_the_pixels_that_count():
    """A network that sees the mean of one corner: RISE's map is largest there, and linear in its output."""
    rng = np.random.default_rng(0)
    masks = SmoothMasks.draw((32, 32), 2000, 8, rng)
    keep = masks.keep(slice(None), "cpu").double().numpy()
    assert keep.shape == (2000, 32, 32) and keep.min() >= 0 and keep.max() <= 1
    assert abs(keep.mean() - 0.5) < 0.01
    values = keep[:, 4:12, 4:12].mean((1, 2))
    found = rise_map(values, masks)
    expected = (values[:, None, None] * keep).mean(0) / 0.5  # the authors' sum
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 4 <= row < 12 and 4 <= column < 12


def test_fills():
    image = np.zeros((3, 4, 4), np.uint8)
    image[:, :2] = 100
    segments = np.repeat([0, 0, 1, 1], 4).reshape(4, 4)
    mean = np.array([1.5, 2.0, 3.0])
    found = {kind: fill_image(kind, image, segments, mean, 7.0) for kind in FILLS}
    assert all(fill.shape == (3, 4, 4) and fill.dtype == np.float32 for fill in found.values())
    assert (found["mean"] == mean[:, None, None]).all() and (found["constant"] == 7).all()
    np.testing.assert_array_equal(found["superpixel_mean"], image)
    assert np.ptp(found["blur"]) < 30 and found["blur"].mean() == pytest.approx(50, abs=1)


@pytest.mark.parametrize("kind", ["slic", "grid", "pixels"])
def test_superpixels_are_numbered_without_gaps(images, kind):
    smooth = images[0].reshape(3, 8, 4, 8, 4).mean((2, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    segments = superpixels(kind, smooth, 50, 10.0)
    assert segments.shape == (32, 32) and segments.dtype == np.int64
    assert (np.unique(segments) == np.arange(segments.max() + 1)).all() and segments.max() >= 20
    sizes = np.bincount(superpixels("grid", images[0], 16, 1.0).ravel())
    assert (sizes == 64).all()


def test_a_users_own_superpixels_are_checked(tmp_path):
    path = tmp_path / "own.npy"
    np.save(path, np.zeros((5, 4, 4), np.int32))
    assert load_label_map(path, 5, (4, 4)).shape == (5, 4, 4)
    for count, shape in ((6, (4, 4)), (5, (4, 5))):
        with pytest.raises(UserError, match="are needed"):
            load_label_map(path, count, shape)
    np.save(path, np.zeros((4, 4)))
    with pytest.raises(UserError, match="float64"):
        load_label_map(path, 5, (4, 4))
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        load_label_map(path, 5, (4, 4))
