"""Whether explaining scales: memory from 10,000 to 100,000 images, and two Dask workers beside one.

    make bench-scale
    make bench-scale ARGS="--images 1000 10000 --shards 8"

Memory: LIME with a small budget and a tiny network, so that what counts is everything around the forwards, on random
images of CIFAR-10's size; shards on disk, a process of its own for each number of images, whose peak is read when it
is through (asked for: 100,000 within 4 GiB). The images themselves are in memory, as a test set is.

Workers: the shipped CIFAR-10 network, Kernel SHAP, the same shards on one and on two local workers of one thread; wall
time of the second run of each, when the workers have the network (asked for: 1.8 times as fast).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from setting import Setting
from torch import nn

from iic.classifiers.inference import freeze
from iic.classifiers.networks import build_network
from iic.classifiers.precision import fast_forward
from iic.explainers.context import Context
from iic.explainers.segmentation import Segmenter
from iic.explainers.work import explain_images
from iic.params import AttributionParams

SMALL = AttributionParams(budget=36, superpixels=9, segmentation="grid")
LARGE_METHOD, WORKER_METHOD = "lime", "kernel_shap"


def explain_many(count: int) -> dict[str, float]:
    """Explain so many random images: this process's peak resident memory in bytes, and seconds."""
    torch.manual_seed(0)
    model = build_network([125.0] * 3, [60.0] * 3, widths=(4, 8, 8)).eval()
    nn.init.normal_(model[-1].weight)
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    forward = fast_forward(model, torch.from_numpy(images[:1000]), device="cpu")
    context = Context(freeze(model), forward, np.full(3, 125.0), SMALL, Segmenter(SMALL))
    indices, targets = np.arange(count), np.arange(count) % 10
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        maps, _ = explain_images(LARGE_METHOD, context, images, indices, targets, Path(folder), made={"images": count})
        seconds = time.perf_counter() - start
        assert len(maps.values) == count and np.isfinite(maps.values[count - 1]).all()
    return {"peak": peak_memory(), "seconds": seconds}


def peak_memory() -> int:
    """Peak resident memory, bytes. Linux has `ru_maxrss` begin with what the process was before it ran this program."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_own_process(count: int) -> dict[str, float]:
    """`explain_many` in a new process."""
    words = [sys.executable, __file__, "--alone", str(count)]
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    return json.loads(found.stdout.splitlines()[-1])


def seconds_on(workers: int, setting: Setting, indices: np.ndarray, targets: np.ndarray, shard_size: int) -> float:
    """Wall time of these images on so many local workers of one thread, when they have the network."""
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        params = setting.context.params.model_copy(
            update={"scheduler": cluster.scheduler_address, "shard_size": shard_size}
        )
        context = replace(setting.context, params=params)
        times = []
        for some in (slice(0, workers * shard_size), slice(None)):  # the first has the workers import and receive
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                chosen = indices[some], targets[some]
                explain_images(
                    WORKER_METHOD, context, setting.test.images, *chosen, Path(folder), made={"run": workers}
                )
                times.append(time.perf_counter() - start)
    return times[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--dataset", default="cifar10", help="for the workers")
    parser.add_argument("--shards", type=int, default=24, help="for the workers; 0 leaves them out")
    parser.add_argument("--shard-size", type=int, default=2)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(explain_many(arguments.alone)))
        return
    rows = []
    for count in arguments.images:
        found = in_own_process(count)
        row = f"| memory, `{LARGE_METHOD}` | {count:,} | 1 process | {found['seconds']:.1f} "
        rows.append(row + f"| peak {found['peak'] / 2**30:.2f} GiB, images {count * 3072 / 2**30:.2f} GiB |")
    if arguments.shards:
        setting = Setting.load(arguments.dataset)
        indices = setting.chosen(arguments.shards * arguments.shard_size)
        targets, alone = setting.targets(indices), 0.0
        for workers in (1, 2):
            seconds = seconds_on(workers, setting, indices, targets, arguments.shard_size)
            alone = alone or seconds
            row = f"| `{arguments.dataset}`, `{WORKER_METHOD}` | {len(indices)} | {workers} worker(s) of one thread "
            rows.append(row + f"| {seconds:.1f} | {alone / seconds:.2f} times as fast as one |")
    print("| what | images | where | s | found |")
    print("|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
