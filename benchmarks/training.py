"""Training on CIFAR-10, side by side: this project's, a plain PyTorch loop of the same network, VGG-16-BN.

    make bench-training                        # all of it; hours without a GPU
    .venv/bin/python benchmarks/training.py --plain-epochs 2

Rows: accuracy on test, seconds, floating-point operations, and their rate as a share of the rate of the machine's best
convolution. The plain loop (float32, Adam, DataLoader, batch 128) runs until 93 % test or `--plain-epochs`; where it
stops earlier, its time and the ratio are lower bounds and are marked so. VGG-16-BN (SGD, batch 128, 250 epochs, the
original study's recipe) is timed for `--vgg-batches` batches and multiplied.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from iic.checks import check_parameters
from iic.classifiers.inference import best_dtype, freeze, predict_logits
from iic.classifiers.networks import build_network
from iic.classifiers.training import Recipe, train
from iic.data.card import channel_statistics
from iic.data.images import ImageSet
from iic.data.loading import load
from iic.pipelines.training.nodes import RECIPE
from iic.progress import bar
from iic.selection import configured_parameters

GOAL_PLAIN, GOAL = 0.93, 0.94
VGG_EPOCHS, VGG_BATCH = 250, 128


def convolution_peak(dtype: torch.dtype) -> float:
    """Floating-point operations per second of the fastest of some large convolutions, forward."""
    best = 0.0
    for channels, side, batch in ((64, 32, 64), (256, 16, 32), (256, 16, 128), (512, 8, 128)):
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(dtype, memory_format=torch.channels_last)
        x = torch.randn(batch, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            layer(x)
            start = time.perf_counter()
            for _ in range(5):
                layer(x)
        seconds = (time.perf_counter() - start) / 5
        best = max(best, 2 * batch * side**2 * channels**2 * 9 / seconds)
    return best


def flops_per_image(model: nn.Module, side: int) -> float:
    """Floating-point operations of forward and backward for one image."""
    x = torch.zeros(2, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        model.train()(x).sum().backward()
    model.zero_grad()
    return counter.get_total_flops() / 2


def test_accuracy(model: nn.Module, test: ImageSet) -> float:
    """Share of test images whose class is named, one crop."""
    return (predict_logits(freeze(model), torch.from_numpy(test.images)).argmax(1).numpy() == test.labels).mean()


def ours(params, data: ImageSet, test: ImageSet, seed: int, dtype: torch.dtype) -> dict:
    """One training with the project's recipe."""
    torch.manual_seed(seed)
    model = build_network(*channel_statistics(data.images), params.widths)
    recipe = Recipe(**{name: getattr(params, name) for name in RECIPE})
    start = time.perf_counter()
    train(model, data, recipe, seed=seed, dtype=dtype, progress=bar(f"ours, seed {seed}", "step"))
    seconds = time.perf_counter() - start
    crop_epochs = min(recipe.crop_epochs, recipe.epochs)
    work = crop_epochs * flops_per_image(model, recipe.crop) + (recipe.epochs - crop_epochs) * flops_per_image(
        model, 32
    )
    return {
        "test": test_accuracy(model, test),
        "train": test_accuracy(model, data),
        "seconds": seconds,
        "flops": work * len(data),
    }


class Augmented(TensorDataset):
    """Flip and shift image by image, as tutorials do it."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        if np.random.rand() < 0.5:
            image = image.flip(-1)
        dy, dx = np.random.randint(0, 5, 2)
        padded = F.pad(image[None].float(), (2, 2, 2, 2), mode="reflect")[0]
        return padded[:, dy : dy + 32, dx : dx + 32], label


def plain_loop(params, data: ImageSet, test: ImageSet, seed: int, epochs: int) -> dict:
    """The same network by the book: float32, Adam, DataLoader, until 93 % test or `epochs`."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = build_network(*channel_statistics(data.images), params.widths)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    loader = DataLoader(
        Augmented(torch.from_numpy(data.images), torch.from_numpy(data.labels)), batch_size=128, shuffle=True
    )
    seconds, done, accuracy = 0.0, 0, 0.0
    while done < epochs and accuracy < GOAL_PLAIN:
        start = time.perf_counter()
        model.train()
        for pixels, labels in bar(f"plain loop, epoch {done + 1}", "batch")(loader):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), labels).backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        done += 1
        accuracy = test_accuracy(model.eval(), test)
        print(f"plain loop: epoch {done}, {seconds:.0f} s, test {accuracy:.4f}", flush=True)
    return {
        "test": accuracy,
        "seconds": seconds,
        "epochs": done,
        "flops": done * len(data) * flops_per_image(model, 32),
        "reached": accuracy >= GOAL_PLAIN,
    }


def vgg_epoch_seconds(data: ImageSet, batches: int) -> float:
    """Seconds per epoch of VGG-16-BN for 32x32 images, from some batches."""
    from torchvision.models import vgg16_bn

    model = vgg16_bn(num_classes=10)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    pixels, labels = torch.from_numpy(data.images[:VGG_BATCH]).float() / 255, torch.from_numpy(data.labels[:VGG_BATCH])
    times = []
    for _ in bar("VGG-16-BN", "batch")(range(batches + 1)):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * len(data) / VGG_BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plain-epochs", type=int, default=100)
    parser.add_argument("--vgg-batches", type=int, default=10)
    arguments = parser.parse_args()
    blocks = check_parameters(configured_parameters(), ["cifar10"])["cifar10"]
    data, test, _ = load("cifar10", blocks["data"], bar("cifar10", "image"))
    dtype = best_dtype()
    peak = convolution_peak(dtype)
    vgg = vgg_epoch_seconds(data, arguments.vgg_batches) * VGG_EPOCHS
    runs = []
    for seed in arguments.seeds:
        runs.append(ours(blocks["training"], data, test, seed, dtype))
        print(f"ours: seed {seed}, {runs[-1]}", flush=True)
    plain = plain_loop(blocks["training"], data, test, arguments.seeds[0], arguments.plain_epochs)
    report(runs, plain, vgg, peak, dtype)


def report(runs: list[dict], plain: dict, vgg: float, peak: float, dtype: torch.dtype) -> None:
    """Print the table and the summary line."""
    accuracies = np.array([run["test"] for run in runs])
    seconds = float(np.median([run["seconds"] for run in runs]))
    share = runs[0]["flops"] / seconds / peak
    bound = "" if plain["reached"] else ">"
    print(f"\nmeasured convolution peak ({str(dtype).removeprefix('torch.')}): {peak / 1e9:.0f} GFLOP/s")
    print("| training | test accuracy | seconds | FLOP | share of peak | ratio |")
    print("|---|---|---|---|---|---|")
    spread = f" ± {accuracies.std(ddof=1):.4f}" if len(runs) > 1 else ""
    print(f"| this project, {len(runs)} seeds | {accuracies.mean():.4f}{spread} | {seconds:.0f} | "
          f"{runs[0]['flops']:.2e} | {share:.0%} | 1 |")  # fmt: skip
    print(f"| plain loop, {plain['epochs']} epochs | {plain['test']:.4f} | {bound}{plain['seconds']:.0f} | "
          f"{plain['flops']:.2e} | {plain['flops'] / plain['seconds'] / peak:.0%} | {bound}{plain['seconds'] / seconds:.1f} |")  # fmt: skip # noqa: E501
    print(f"| VGG-16-BN, {VGG_EPOCHS} epochs (extrapolated) | not run | {vgg:.0f} | | | {vgg / seconds:.0f} |")
    minutes = (
        f"{seconds / 60:.1f}"
        if accuracies.mean() >= GOAL
        else f"not reached ({accuracies.mean():.4f} after {seconds / 60:.1f})"
    )
    print(f"cifar10: {minutes} min, {bound}{plain['seconds'] / seconds:.1f} x")


if __name__ == "__main__":
    main()
