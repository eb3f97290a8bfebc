"""How well a network is trained, by its recipe: learnt from a part of the training images, judged on the rest.

    make bench-recipes ARGS="--settings '{}' '{epochs: 18, batch_size: 500}'"
    make bench-recipes ARGS="--dataset mnist --settings '{cutout: 6}' --seeds 0 1 2"

Each of `--settings` is a YAML mapping of parameters that differ from the dataset's block `training` (parameters.yml).
Seconds are those of training alone; NLL in nats an image, at temperature 1. On CUDA an epoch on a few images goes
before, so that the first row's seconds hold no loading. The test images are looked at with `--test` only, which
learns from all training images: for recipes that are chosen already. `--workers` trains so many at a time, which a GPU
that one training leaves idle has room for; seconds are then those of a shared machine, loading included.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing

import torch
import torch.nn.functional as F
import yaml

from iic.checks import check_parameters
from iic.classifiers.inference import freeze, predict_logits
from iic.classifiers.precision import choose_device
from iic.data.images import ImageSet, hold_out
from iic.params import TrainingParams
from iic.pipelines.data_prep.nodes import prepare_data
from iic.pipelines.training.nodes import train_model
from iic.selection import configured_parameters

Task = tuple[str, TrainingParams]
WARM_UP = 6000  # images


def row(text: str, params: TrainingParams, dataset: str, card: dict, train: ImageSet, held: ImageSet) -> str:
    """One line of the table."""
    model, curve = train_model(params, train, card, dataset)
    device = choose_device(params.device)
    logits = predict_logits(freeze(model).to(device), torch.from_numpy(held.images).to(device)).cpu()
    labels = torch.from_numpy(held.labels)
    accuracy, nll = (logits.argmax(1) == labels).double().mean().item(), F.cross_entropy(logits, labels).item()
    learnt = curve["epochs"][-1]["accuracy"]
    return f"| `{text}` | {params.seed} | {curve['seconds']:.1f} | {learnt:.2%} | {accuracy:.2%} | {nll:.4f} |"


def warm_up(params: TrainingParams, dataset: str, card: dict, train: ImageSet) -> None:
    """Train for an epoch on a few images where that loads what CUDA needs."""
    if choose_device(params.device) == "cuda":
        few = hold_out(train, min(WARM_UP, len(train) - 1), params.seed)[1]
        train_model(params.model_copy(update={"epochs": 1}), few, card, dataset)


def _work(tasks, dataset: str, card: dict, train: ImageSet, held: ImageSet) -> None:
    """Trains what is left in the queue, one after the other."""
    while (task := tasks.get()) is not None:
        print(row(*task, dataset, card, train, held), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--settings", nargs="+", default=["{}"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--held-out", type=int, default=10000, help="training images that judge")
    parser.add_argument("--test", action="store_true", help="learn from all of them, and the test images judge")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    blocks = check_parameters(configured_parameters(), [arguments.dataset])[arguments.dataset]
    given = blocks["training"].model_dump()
    runs = itertools.product(arguments.settings, arguments.seeds)
    tasks = [(text, TrainingParams(**{**given, **yaml.safe_load(text), "seed": seed})) for text, seed in runs]
    data, test, card = prepare_data(blocks["data"], arguments.dataset)
    train, held = (data, test) if arguments.test else hold_out(data, arguments.held_out, blocks["training"].seed)
    judges = "test" if arguments.test else "held-out"
    print(f"| settings | seed | s | accuracy on augmented images, last epoch | {judges} accuracy | NLL |")
    print("|---|---|---|---|---|---|", flush=True)
    if arguments.workers == 1:
        warm_up(tasks[0][1], arguments.dataset, card, train)
        for task in tasks:
            print(row(*task, arguments.dataset, card, train, held), flush=True)
        return
    forked = multiprocessing.get_context("fork")  # the images are shared
    queue = forked.Queue()
    for task in [*tasks, *[None] * arguments.workers]:
        queue.put(task)
    shared = (queue, arguments.dataset, card, train, held)
    workers = [forked.Process(target=_work, args=shared) for _ in range(arguments.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("A worker failed; its error stands above, and its trainings are missing from the table.")


if __name__ == "__main__":
    main()
