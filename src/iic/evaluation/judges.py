"""The second judge: a copy of the explained network that has seen images of which only a part is left.

The explained network never met such images; on salt and pepper it is near chance whatever is kept, and then the fill
is what is measured. A copy of it is fine-tuned on randomly masked training images, one copy per fill (Hooker et al.
2019, ROAR, arXiv 1806.10758, train anew for each method instead). Maps always come from the explained network. The
judge measures the information that the kept pixels still hold, not how faithful a map is to the explained network.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from iic.classifiers.batchnorm import settle
from iic.classifiers.networks import WHITENED, Normalize, is_chain
from iic.classifiers.training import pool_early
from iic.classifiers.training_dtype import AGREE, trains_faster_in_bfloat16
from iic.data.images import ImageSet
from iic.draws import generator
from iic.errors import UserError

# images uint8 (n, C, H, W), keep bool (n, H, W), positions int64 (n,), noise seed -> pixels float32 (n, C, H, W)
Fill = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]

BATCH = 125  # images a step: enough for BatchNorm's statistics, few enough for the caches
SETTLED = 2000  # images that BatchNorm's final statistics are taken from
LEAST = 0.05  # the smallest share of the pixels that a mask keeps, and that the matrix asks for
BLOB = 0.1  # standard deviation of the blur that makes blobs, in parts of the shorter side


def random_masks(count: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Masks that keep a share of the pixels drawn from 5 to 100 %; each is random pixels or smooth blobs, by a coin.

    Both keep the largest values of a field of noise, exactly round(share H W) of them; for blobs the field is blurred
    first. It is blurred around the edges, so that every pixel is kept equally often.

    Args:
        count: number of masks, N.
        size: (H, W).
        rng: all draws come from it.

    Returns:
        bool (N, H, W), True on the pixels that are kept.
    """
    fields = rng.standard_normal((count, *size))  # (N, H, W)
    kept = np.rint(rng.uniform(LEAST, 1, count) * fields[0].size).astype(int)  # (N,)
    smooth = rng.random(count) < 0.5
    sigma = BLOB * min(size)
    fields[smooth] = gaussian_filter(fields[smooth], (0, sigma, sigma), mode="wrap")
    ordered = np.sort(fields.reshape(count, -1), axis=1)
    threshold = ordered[np.arange(count), -kept]
    return fields >= threshold[:, None, None]


def fine_tune(
    model: nn.Module,
    train: ImageSet,
    fill: Fill,
    *,
    seed: int,
    epochs: int = 2,
    flip: bool = False,
    learning_rate: float = 1e-3,
    dtype: str = "auto",
    device: str = "cpu",
    progress: Callable[[Iterable], Iterable] = iter,
) -> nn.Module:
    """A copy of the network that knows masked images with this fill; the network itself is left as it is.

    Adam (Kingma and Ba 2015, arXiv 1412.6980), because its steps suit networks of any scale; its rate falls linearly to
    zero. What has no gradient stays as it is, and so does the whitening of `build_network`'s networks. The fill is made
    batch by batch, anew in every epoch.

    Args:
        model: as it was trained, not frozen; any module that turns pixels 0..255 into logits.
        train: the training images.
        fill: makes the images from what a mask keeps; see `Fill`. Its noise seeds lie far from those of a report.
        seed: keys the order, masks, flips, the fill's noise, and the network's own draws such as dropout.
        epochs: passes over the training images.
        flip: whether half of the images are mirrored, as the network's own recipe says.
        learning_rate: of the first step.
        dtype: of the convolutions behind the whitening one: float32, bfloat16, or "auto", bfloat16 where it is clearly
            faster and its gradients are right. Other networks than `build_network`'s stay float32.
        device: "cpu" or "cuda", where it is fine-tuned; the draws are the same on both.
        progress: wraps the steps, such as tqdm.

    Returns:
        The judge, in evaluation mode, on the CPU; `freeze` makes it fast. A buffer `temperature` is still the network's
        own.

    Raises:
        UserError: no weight can be trained, or the loss is no longer finite.
    """
    judge = copy.deepcopy(model).to(device, memory_format=torch.channels_last)
    judge.zero_grad()  # the copy has the network's gradients too, if it still holds some
    weights = [p for p in _parts(judge)[1].parameters() if p.requires_grad]
    if not weights:
        raise UserError("The second judge's network has no weight to train: give it as it was trained, not frozen.")
    rng = generator("judge", seed)
    optimizer = torch.optim.Adam(weights, lr=learning_rate, fused=True)
    total = epochs * math.ceil(len(train) / BATCH)
    passes = (_masked_batches(train, fill, flip, rng, device) for _ in range(epochs))
    with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.cuda.current_device()]):
        torch.manual_seed(int(rng.integers(2**31)))
        first = _masked_batches(train, fill, flip, generator("judge", seed), device)
        computed = _choose_dtype(dtype, judge, first, device)
        trained = _as_trained(judge)
        _set_training(trained, True)
        batches = zip(progress(range(total)), itertools.chain.from_iterable(passes), strict=True)
        _descend(trained, optimizer, batches, total, computed)
        _set_training(trained, False)
        norms = [m for m in trained.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        settle(trained, norms, (pixels for pixels, _ in _masked_batches(train, fill, flip, rng, device, SETTLED)))
    judge.zero_grad()
    return judge.cpu()


def _descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[int, tuple[Tensor, Tensor]]],
    total: int,
    dtype: torch.dtype,
) -> None:
    """Steps down the cross-entropy, with a rate that falls linearly to zero over `total` steps."""
    first = optimizer.param_groups[0]["lr"]
    for step, (pixels, labels) in batches:
        optimizer.param_groups[0]["lr"] = first * (1 - step / total)
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(model, pixels, dtype), labels)
        if not loss.isfinite():
            raise UserError(f"The second judge's loss is no longer finite in step {step + 1}: lower learning_rate.")
        loss.backward()
        optimizer.step()


def abstains(predicted: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a judge gives one class to more than half of the images, and so says nothing.

    Where a class is that common anyway, as of two classes, it takes half as many again as there are, or, where that
    would be nearly all or more, half of those that there are not.

    Args:
        predicted: int (N,), the classes that it names.
        labels: int (N,), the true classes.
    """
    commonest = np.bincount(labels).max() / len(labels)
    limit = max(0.5, min(1.5 * commonest, (1 + commonest) / 2))
    return bool(np.bincount(predicted).max() / len(predicted) > limit)


def contradicts(claim: tuple[float, float], judge: tuple[float, float]) -> bool:
    """Whether the judge's interval of a difference lies wholly on the other side of zero than the claim's.

    Args:
        claim: 95 % interval (low, high) of the difference under the explained network; one that holds zero claims
            nothing, and nothing contradicts it.
        judge: the same difference's interval under the second judge.
    """
    return _side(claim) * _side(judge) < 0


def _side(interval: tuple[float, float]) -> int:
    """1 above zero, -1 below, 0 with zero inside."""
    low, high = interval
    return int(low > 0) - int(high < 0)


def _masked_batches(
    data: ImageSet, fill: Fill, flip: bool, rng: np.random.Generator, device: str, most: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over all images, or over `most` of them, in random order: filled pixels (n, C, H, W), labels (n,)."""
    order = rng.permutation(len(data))[:most]
    noise_seed = int(rng.integers(2**31))
    for chosen in np.array_split(order, math.ceil(len(order) / BATCH)):
        images = data.images[chosen]
        if flip:
            mirrored = rng.random((len(chosen), 1, 1, 1)) < 0.5
            images = np.where(mirrored, images[..., ::-1], images)
        keep = random_masks(len(chosen), images.shape[2:], rng)
        pixels = torch.as_tensor(fill(images, keep, chosen, noise_seed)).contiguous(memory_format=torch.channels_last)
        yield pixels.to(device), torch.from_numpy(data.labels[chosen]).to(device)


def _parts(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(what stays as it is, what is fine-tuned): `build_network`'s whitening stays, of other networks nothing."""
    if is_chain(model) and isinstance(model[0], Normalize):
        return model[:WHITENED], model[WHITENED:]
    return nn.Identity(), model


def _as_trained(model: nn.Module) -> nn.Module:
    """The same weights in the order that `train` computes in, whose BatchNorms see what is left after pooling."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    # only where no weight of a BatchNorm can turn the order of its inputs around is it the same function
    same = all(m.affine and not m.weight.requires_grad and (m.weight > 0).all() for m in norms)
    return pool_early(model) if _parts(model)[1] is not model and norms and same else model


def _logits(model: nn.Module, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    fixed, tuned = _parts(model)
    with torch.no_grad():
        x = fixed(pixels)
    with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
        return tuned(x).float()


def _choose_dtype(wanted: str, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], device: str) -> torch.dtype:
    """The type called `wanted`, for "auto" what is faster and right; float32 for networks of unknown layers."""
    if _parts(model)[1] is model or wanted == "float32":
        return torch.float32
    if wanted == "bfloat16" or (trains_faster_in_bfloat16(device) and _bfloat16_agrees(model, *next(batches))):
        return torch.bfloat16
    return torch.float32


def _bfloat16_agrees(model: nn.Module, pixels: Tensor, labels: Tensor) -> bool:
    """Whether one batch's gradients in bfloat16 are float32's, for every weight, as in `training_dtype`."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        trial = copy.deepcopy(model)
        _set_training(trial, True)
        F.cross_entropy(_logits(trial, pixels, dtype), labels).backward()
        found.append([p.grad for p in trial.parameters() if p.grad is not None])
    return all((rounded - exact).norm() <= AGREE * exact.norm() for exact, rounded in zip(*found, strict=True))


def _set_training(model: nn.Module, on: bool) -> None:
    for module in model.modules():  # GraphModules of torch.export refuse train() and eval()
        module.training = on
