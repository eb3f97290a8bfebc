"""Training, side by side in one run: this project's recipes, a plain PyTorch loop of the same network, VGG-16-BN.

    make bench-training                                                   # all of it; a day without AMX or a GPU
    make bench-training ARGS="--runs digits:0 cifar10:0 --plain-minutes 20"

The first table gives accuracy, seconds, and how often bfloat16 names float32's class, by dataset, over its seeds. The
second is CIFAR-10's: accuracy on test, seconds, floating-point operations, and their rate as a share of the rate of the
machine's best convolution. Two trainings to 93 % test are compared: the same recipe cut to `--short-epochs` and
augmented less, and a plain loop of the same network (float32, Adam, DataLoader, batch 128), which stops after the epoch
in which it gets there, or in which `--plain-minutes` are over; its time and the ratio are lower bounds then, and marked
so. VGG-16-BN (SGD, batch 128, 250 epochs, the original study's recipe) is timed for `--vgg-batches` batches and
multiplied.
"""

from __future__ import annotations

import argparse
import copy
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from iic.checks import check_parameters
from iic.classifiers.inference import best_dtype, freeze, predicted_class
from iic.classifiers.networks import build_network
from iic.classifiers.precision import choose_device
from iic.data.images import ImageSet
from iic.params import TrainingParams
from iic.pipelines.data_prep.nodes import prepare_data
from iic.pipelines.training.nodes import train_model
from iic.progress import bar
from iic.selection import configured_parameters

GOAL_PLAIN, GOAL = 0.93, 0.94
VGG_EPOCHS, VGG_BATCH = 250, 128
SHORT_EPOCHS = 7  # enough for 93 %
SHORT = {"crop_epochs": 2, "cutout": 0, "shift": 3}  # and augmented less: in so few epochs nothing overfits


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def convolution_peak(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of the fastest of some large convolutions, forward."""
    best, times = 0.0, 1 if device == "cpu" else 16  # a GPU wants more images
    for channels, side, batch in ((64, 32, 64), (256, 16, 32), (256, 16, 128), (512, 8, 128)):
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)
        x = torch.randn(times * batch, channels, side, side, dtype=dtype, device=device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            layer(x)
            wait(device)
            start = time.perf_counter()
            for _ in range(5):
                layer(x)
            wait(device)
        seconds = (time.perf_counter() - start) / 5
        best = max(best, 2 * len(x) * side**2 * channels**2 * 9 / seconds)
    return best


def flops_per_image(model: nn.Module, side: int) -> float:
    """Floating-point operations of forward and backward for one image; on a copy: BatchNorm would remember it."""
    model = copy.deepcopy(model)
    x = torch.zeros(2, model[0].mean.numel(), side, side)
    with FlopCounterMode(display=False) as counter:
        model.train()(x).sum().backward()
    return counter.get_total_flops() / 2


def classes(model: nn.Module, data: ImageSet, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """The class that the frozen network names, one crop: (N,)."""
    device = choose_device("auto")
    return predicted_class(freeze(model, dtype).to(device), torch.from_numpy(data.images).to(device)).cpu().numpy()


def ours(params: TrainingParams, data: tuple[ImageSet, ImageSet, dict], dataset: str, seed: int) -> dict:
    """One training with the project's recipe: its accuracies, seconds and floating-point operations."""
    params = params.model_copy(update={"seed": seed})
    train, test, card = data
    model, curve = train_model(params, train, card, dataset)
    side = train.images.shape[-1]
    sides = [min(side, params.crop) if epoch < params.crop_epochs else side for epoch in range(params.epochs)]
    flops = {side: flops_per_image(model, side) for side in set(sides)}
    predicted = classes(model, test)
    return {
        "test": (predicted == test.labels).mean(),
        "train": (classes(model, train) == train.labels).mean(),
        "bfloat16": (classes(model, test, torch.bfloat16) == predicted).mean(),
        "seconds": curve["seconds"],
        "flops": sum(row["images"] * flops[side] for row, side in zip(curve["epochs"], sides, strict=True)),
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


def plain_loop(params: TrainingParams, data: tuple[ImageSet, ImageSet, dict], minutes: float) -> dict:
    """The same network by the book: float32, Adam, DataLoader, until 93 % test or `minutes` are over."""
    torch.manual_seed(0)
    np.random.seed(0)
    (train, test, card), device = data, choose_device("auto")
    model = build_network(
        card["train"]["mean"], card["train"]["std"], params.widths, depth=params.depth, residual=params.residual
    ).to(device)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    images = Augmented(torch.from_numpy(train.images), torch.from_numpy(train.labels))
    loader = DataLoader(images, batch_size=128, shuffle=True)
    seconds, done, reached = 0.0, 0, 0.0
    while not done or (seconds < 60 * minutes and reached < GOAL_PLAIN):
        start = time.perf_counter()
        model.train()
        with torch.backends.cudnn.flags(enabled=True):  # torch's own settings, as users have them
            for pixels, labels in bar(f"plain loop, epoch {done + 1}", "batch")(loader):
                optimizer.zero_grad()
                F.cross_entropy(model(pixels.to(device)), labels.to(device)).backward()
                optimizer.step()
            wait(device)
        seconds += time.perf_counter() - start
        done += 1
        reached = (classes(model.eval(), test) == test.labels).mean()
        print(f"plain loop: epoch {done}, {seconds:.0f} s, test {reached:.4f}", flush=True)
    flops = done * len(train) * flops_per_image(model, 32)
    return {"test": reached, "seconds": seconds, "epochs": done, "flops": flops}


def vgg_epoch_seconds(data: ImageSet, batches: int, device: str) -> float:
    """Seconds per epoch of VGG-16-BN for 32x32 images, from some batches."""
    from torchvision.models import vgg16_bn

    model = vgg16_bn(num_classes=10)
    model.avgpool, model.classifier = nn.Identity(), nn.Linear(512, 10)
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    pixels = torch.from_numpy(data.images[:VGG_BATCH]).float().to(device) / 255
    labels = torch.from_numpy(data.labels[:VGG_BATCH]).to(device)
    times = []
    for _ in bar("VGG-16-BN", "batch")(range(batches + 1)):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
        wait(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:])) * len(data) / VGG_BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [f"{dataset}:{seed}" for dataset in ("digits", "shapes", "mnist", "cifar10") for seed in range(3)]
    parser.add_argument("--runs", nargs="*", default=every, help="dataset:seed, one of cifar10 at least")
    parser.add_argument("--plain-minutes", type=float, default=600)
    parser.add_argument("--short-epochs", type=int, default=SHORT_EPOCHS, help="of the recipe that is to reach 93 %%")
    parser.add_argument("--vgg-batches", type=int, default=10)
    arguments = parser.parse_args()
    runs = [(dataset, int(seed)) for dataset, _, seed in (run.partition(":") for run in arguments.runs)]
    datasets = list(dict.fromkeys(dataset for dataset, _ in runs))
    if "cifar10" not in datasets:
        parser.error("--runs names no run of cifar10, such as cifar10:0: the comparison is with it.")
    blocks = check_parameters(configured_parameters(), datasets)
    results: dict[str, list[dict]] = {dataset: [] for dataset in datasets}
    data = prepare_data(blocks["cifar10"]["data"], "cifar10")
    device = choose_device("auto")
    dtype = torch.bfloat16 if device == "cuda" else best_dtype()
    peak = convolution_peak(dtype, device)
    print(f"{device}: convolution peak ({str(dtype).removeprefix('torch.')}) {peak / 1e9:.0f} GFLOP/s", flush=True)
    with torch.backends.cudnn.flags(enabled=True):
        vgg = vgg_epoch_seconds(data[0], arguments.vgg_batches, device) * VGG_EPOCHS
    for dataset, seed in runs:
        images = data if dataset == "cifar10" else prepare_data(blocks[dataset]["data"], dataset)
        results[dataset].append(ours(blocks[dataset]["training"], images, dataset, seed))
        print(f"{dataset}, seed {seed}: {results[dataset][-1]}", flush=True)
    print_accuracies(results)  # before the hour or more of the plain loop
    recipe = blocks["cifar10"]["training"]
    short = ours(recipe.model_copy(update={**SHORT, "epochs": arguments.short_epochs}), data, "cifar10", 0)
    print(f"cifar10, cut to {arguments.short_epochs} epochs: {short}", flush=True)
    plain = plain_loop(recipe, data, arguments.plain_minutes)
    print_comparison(results["cifar10"], short, plain, vgg, peak)


def mean_and_spread(values: list[float]) -> str:
    """Percent, with the standard deviation over seeds where there are several."""
    spread = f" ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{spread} %"


def print_accuracies(results: dict[str, list[dict]]) -> None:
    """The table of all datasets."""
    print("\n| dataset | seeds | test | train | seconds (median) | same class in bfloat16 |\n|---|---|---|---|---|---|")
    for dataset, runs in results.items():
        cells = [mean_and_spread([run[split] for run in runs]) for split in ("test", "train", "bfloat16")]
        seconds = np.median([run["seconds"] for run in runs])
        print(f"| `{dataset}` | {len(runs)} | {cells[0]} | {cells[1]} | {seconds:.0f} | {cells[2]} |")


def print_comparison(runs: list[dict], short: dict, plain: dict, vgg: float, peak: float) -> None:
    """CIFAR-10's table and the summary line; `>` marks a bound that was reached without the goal."""
    seconds, test = np.median([run["seconds"] for run in runs]), np.mean([run["test"] for run in runs])
    bound = "" if plain["test"] >= GOAL_PLAIN else ">"
    ratio = plain["seconds"] / short["seconds"]
    ratio = f">{math.floor(10 * ratio) / 10:.1f}" if bound else f"{ratio:.1f}"  # a bound is rounded down
    rows = [*[("this project's recipe", run, "", "") for run in runs],
            ("the same, cut short", short, "", "1"),
            (f"plain loop, {plain['epochs']} epochs", plain, bound, ratio)]  # fmt: skip
    print("\n| training on cifar10 | test | seconds | FLOP | share of peak | ratio |")
    print("|---|---|---|---|---|---|")
    for name, run, mark, last in rows:
        share = run["flops"] / run["seconds"] / peak
        cells = [name, f"{run['test']:.4f}", f"{mark}{run['seconds']:.0f}", f"{run['flops']:.2e}", f"{share:.0%}", last]
        print(f"| {' | '.join(cells)} |")
    extrapolated = f"VGG-16-BN, {VGG_EPOCHS} epochs (extrapolated)"
    print(f"| {extrapolated} | not run | {vgg:.0f} | | | {vgg / short['seconds']:.0f} |")
    if short["test"] < GOAL_PLAIN:
        print(f"Cut short it reaches {short['test']:.4f} only: the ratio is not between two trainings to 93 %.")
    print(f"cifar10: {'' if test >= GOAL else '>'}{seconds / 60:.1f} min, {ratio} x")


if __name__ == "__main__":
    main()
