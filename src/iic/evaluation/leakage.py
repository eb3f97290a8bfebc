"""What a mask's shape alone gives away of the class, without a single pixel of the image.

A superpixel mask can be cut out in the form of the object; who judges the kept pixels then reads the class off the
outline (Rong et al. 2022, ROAD, arXiv 2202.00449, section 3). A small network is trained on the binary masks alone; its
accuracy on the masks of unseen images is a lower bound of what leaks, since a better reader might find more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.draws import generator
from iic.errors import UserError
from iic.evaluation.statistics import wilson_interval

BATCH = 125
RATE = 3e-3  # Adam's at the start


def leakage(
    train_masks: np.ndarray,
    train_labels: np.ndarray,
    test_masks: np.ndarray,
    test_labels: np.ndarray,
    *,
    classes: int,
    seed: int,
    epochs: int = 15,
    flip: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """How often a small network names the class from the mask alone.

    Args:
        train_masks: bool (N, H, W), True on the pixels that a method kept of training images.
        train_labels: int64 (N,), the true or the predicted class: what might leak.
        test_masks: bool (M, H, W), of test images by the same method.
        test_labels: int64 (M,), of the same kind as `train_labels`.
        classes: how many there are.
        seed: of the first weights, the order and the flips.
        epochs: passes over the training masks.
        flip: whether half of the training masks are mirrored; right where mirroring an image leaves its class.
        progress: wraps the steps, such as tqdm.

    Returns:
        JSON-ready: accuracy on the test masks with its 95 % interval (Wilson); `chance`, 1 / classes; `majority`, the
        accuracy of always naming the commonest class of the training masks; `leaks`, whether the interval lies above
        both; n_train and n_test.

    Raises:
        UserError: masks that are not bool (N, H, W), or not one label for each.
    """
    for masks, labels, which in ((train_masks, train_labels, "training"), (test_masks, test_labels, "test")):
        if masks.dtype != np.bool_ or masks.ndim != 3 or labels.shape != masks.shape[:1]:
            raise UserError(
                f"The {which} masks must be bool (N, H, W) with one label each, not {masks.dtype} {masks.shape} with "
                f"labels {labels.shape}: pass what `top_pixels` keeps."
            )
    inputs, targets = _as_input(train_masks), torch.from_numpy(train_labels)
    network = _train(inputs, targets, classes, seed, epochs, flip, progress)
    hits = _predict(network, _as_input(test_masks)) == torch.from_numpy(test_labels)
    interval = wilson_interval(int(hits.sum()), len(hits))
    commonest = np.bincount(train_labels).argmax()
    chance, majority = 1 / classes, float((test_labels == commonest).mean())
    return {
        "accuracy": hits.double().mean().item(),
        "interval": list(interval),
        "chance": chance,
        "majority": majority,
        "leaks": interval[0] > max(chance, majority),
        "n_train": len(train_labels),
        "n_test": len(test_labels),
    }


def _as_input(masks: np.ndarray) -> Tensor:
    """bool (N, H, W) -> float32 (N, 1, H, W), -1 where nothing was kept and 1 where the pixel was."""
    return torch.from_numpy(masks)[:, None].float() * 2 - 1


def _small_network(classes: int) -> nn.Sequential:
    """Three convolutions, 50,000 weights; 3 x 3 places are left at the end, since where a mask lies can leak too."""
    first = nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False)  # the stride halves the seconds
    second, third = (nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in ((16, 40), (40, 96)))
    return nn.Sequential(
        *(first, nn.BatchNorm2d(16), nn.ReLU()),
        *(second, nn.BatchNorm2d(40), nn.ReLU(), nn.MaxPool2d(2)),
        *(third, nn.BatchNorm2d(96), nn.ReLU(), nn.AdaptiveAvgPool2d(3)),
        *(nn.Flatten(), nn.Linear(96 * 3 * 3, classes)),
    )


def _train(
    inputs: Tensor,
    labels: Tensor,
    classes: int,
    seed: int,
    epochs: int,
    flip: bool,
    progress: Callable[[Iterable], Iterable],
) -> nn.Module:
    """The small network, trained with Adam at a rate that falls linearly to zero, in evaluation mode."""
    rng = generator("leakage", seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**31)))
        network = _small_network(classes).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    per_epoch = math.ceil(len(labels) / BATCH)
    for step in progress(range(epochs * per_epoch)):
        if step % per_epoch == 0:
            batches = np.array_split(rng.permutation(len(labels)), per_epoch)
        chosen = torch.from_numpy(batches[step % per_epoch])
        x = inputs[chosen]  # (n, 1, H, W)
        if flip:
            mirrored = torch.from_numpy(rng.random((len(x), 1, 1, 1)) < 0.5)
            x = torch.where(mirrored, x.flip(-1), x)
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / (epochs * per_epoch))
        optimizer.zero_grad()
        F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), labels[chosen]).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def _predict(network: nn.Module, inputs: Tensor) -> Tensor:
    """int64 (M,), in batches."""
    return torch.cat([network(part).argmax(1) for part in inputs.split(1000)])
