"""Nodes that train one network and say how good it is."""

from __future__ import annotations

import time
from typing import Any

from iic.data.images import ImageSet
from iic.params import TrainingParams
from iic.progress import bar


def train_model(params: TrainingParams, train: ImageSet, card: dict, dataset: str) -> tuple[Any, dict]:
    """The trained network and its learning curve with the seconds it took."""
    import torch

    from iic.classifiers.inference import best_dtype
    from iic.classifiers.networks import build_network
    from iic.classifiers.training import Recipe
    from iic.classifiers.training import train as fit

    torch.manual_seed(params.seed)
    classes = len(card["train"]["images_per_class"])
    model = build_network(card["train"]["mean"], card["train"]["std"], params.widths, classes)
    recipe = Recipe(**params.model_dump(exclude={"seed", "widths"}))
    dtype = best_dtype()
    start = time.perf_counter()
    epochs = fit(model, train, recipe, seed=params.seed, dtype=dtype, progress=bar(f"{dataset}: training", "step"))
    curve = {"seconds": time.perf_counter() - start, "dtype": str(dtype).removeprefix("torch."), "epochs": epochs}
    return model, curve


def measure_accuracy(model: Any, train: ImageSet, test: ImageSet) -> dict:
    """Accuracy on both splits with 95 % intervals; one crop, no test-time augmentation."""
    from iic.classifiers.inference import freeze
    from iic.evaluation.scores import correct, proportion

    frozen = freeze(model)
    result = {"parameters": sum(p.numel() for p in model.parameters())}
    for split, data in (("train", train), ("test", test)):
        result[split] = {
            **proportion(correct(frozen, data.images, data.labels, bar(f"{split} accuracy", "batch"))),
            "n_images": len(data),
        }
    return result


def draw_learning_curve(curve: dict, accuracy: dict, dataset: str) -> Any:
    """Loss and accuracy by epoch."""
    from iic.report.curves import learning_curve

    return learning_curve(curve, accuracy, dataset)
