"""Nodes that train or fetch one network and say how good it is."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from iic.data.card import content_of
from iic.data.images import ImageSet, check_sides, hold_out
from iic.files import sha256
from iic.params import TrainingParams
from iic.progress import bar
from iic.shipped import NETWORKS, check_shipped, load_shipped, network_path


def checkpoint_path(project: Path, dataset: str) -> Path:
    """Where the state of an interrupted training lies."""
    return project / "data" / "06_models" / dataset / "training.checkpoint"


def train_model(
    params: TrainingParams, train: ImageSet, card: dict, dataset: str, project: Path | None = None
) -> tuple[Any, dict]:
    """The network and its learning curve with the seconds it took: trained here, shipped, or the user's own.

    In a `project` folder an interrupted training goes on from its last epoch.
    """
    if params.weights == "trained":
        return _train(params, train, card, dataset, project)
    if params.weights in NETWORKS:
        from iic.classifiers.networks import network_from_state

        path = network_path(project or Path(), dataset, params.weights, params.seed)
        shipped = check_shipped(path, content_of(card))
        return network_from_state(load_shipped(path)), shipped["learning_curve"]
    from iic.classifiers.own import check_forward, load_own

    model = load_own((project or Path()) / params.weights, params.factory)
    check_forward(model, tuple(card["shape_chw"]), len(card["train"]["images_per_class"]))
    return model, {"seconds": 0.0, "dtype": "float32", "epochs": []}


def like_the_explained(training: TrainingParams, dataset: str, project: Path) -> TrainingParams:
    """The recipe for networks of the explained one's form, trained here: a shipped one's form is in its card."""
    if training.weights not in NETWORKS:
        return training
    recipe = check_shipped(network_path(project, dataset, training.weights, training.seed))["recipe"]
    form = {name: recipe[name] for name in ("widths", "depth", "residual") if name in recipe}
    return TrainingParams(**{**training.model_dump(), "weights": "trained", **form})


def _train(params: TrainingParams, train: ImageSet, card: dict, dataset: str, project: Path | None) -> tuple[Any, dict]:
    import torch

    from iic.classifiers.calibration import fit_temperature
    from iic.classifiers.checkpoint import Checkpoint
    from iic.classifiers.distillation import load_teachers
    from iic.classifiers.inference import predict_logits
    from iic.classifiers.networks import build_network
    from iic.classifiers.precision import choose_device
    from iic.classifiers.recipe import Recipe
    from iic.classifiers.training import train as fit
    from iic.classifiers.training_dtype import choose_dtype

    device = choose_device(params.device)
    check_sides(train.images.shape[1:], f"A training image of '{dataset}'")
    torch.manual_seed(params.seed)
    classes = len(card["train"]["images_per_class"])
    paths = [(project or Path()) / path for path in params.teachers]
    teachers = load_teachers(paths, train.images.shape[1], classes)
    checksums = {name: sha256(path) for name, path in zip(params.teachers, paths, strict=True)}
    taught = {"teachers": checksums} if teachers else {}
    model = build_network(
        card["train"]["mean"], card["train"]["std"], params.widths, classes, params.depth, params.residual
    )
    recipe = Recipe(**params.model_dump(include={field.name for field in fields(Recipe)})).on(device)
    rest, held = hold_out(train, params.n_validation, params.seed)
    checkpoint = None
    if project is not None:
        about = params.model_dump(exclude={"device"})  # a training goes on wherever there is room for it
        made_from = {"params": about, "data": card["train"]["sha256"], **taught}
        checkpoint = Checkpoint(checkpoint_path(project, dataset), made_from)
    if checkpoint is not None and checkpoint.dtype is not None:  # what is faster here may have been found otherwise
        dtype = getattr(torch, checkpoint.dtype)
    else:
        dtype = choose_dtype(params.dtype, model, rest, recipe, device)
    if checkpoint is not None:
        checkpoint.dtype = str(dtype).removeprefix("torch.")
    start = time.perf_counter()
    show = bar(f"{dataset}: training", "step")
    where = {"device": device, "dtype": dtype, "teachers": teachers}
    epochs = fit(model, rest, recipe, seed=params.seed, **where, checkpoint=checkpoint, progress=show)
    seconds = time.perf_counter() - start + (0.0 if checkpoint is None else checkpoint.earlier_seconds)
    curve = {"seconds": seconds, "dtype": str(dtype).removeprefix("torch."), "device": device, "epochs": epochs}
    curve |= taught  # which networks it learnt from: the model card shows it
    if len(held):
        model.temperature.fill_(
            fit_temperature(predict_logits(model, torch.from_numpy(held.images)), torch.from_numpy(held.labels))
        )
    return model, curve


def measure_accuracy(model: Any, train: ImageSet, test: ImageSet) -> dict:
    """Accuracy on both splits with 95 % intervals, calibration; one crop, no test-time augmentation."""
    import torch

    from iic.classifiers.calibration import calibration
    from iic.classifiers.inference import fingerprint, freeze, predict_logits
    from iic.classifiers.precision import choose_device
    from iic.evaluation.scores import proportion

    device, frozen = choose_device("auto"), freeze(model)
    result = {
        "network": fingerprint(frozen),
        "parameters": sum(p.numel() for p in model.parameters()),
        "temperature": model.temperature.item(),
    }
    frozen, temperature = frozen.to(device), result["temperature"]
    for split, data in (("train", train), ("test", test)):
        images = torch.from_numpy(data.images).to(device)
        logits = predict_logits(frozen, images, progress=bar(f"{split} accuracy", "batch")).cpu()
        labels = torch.from_numpy(data.labels)
        hits = (logits.argmax(1) == labels).numpy()
        result[split] = {**proportion(hits), "n_images": len(data), **calibration(logits, labels, temperature)}
    return result


def draw_learning_curve(curve: dict, accuracy: dict, dataset: str) -> Any:
    """Loss and accuracy by epoch."""
    from iic.report.curves import learning_curve

    return learning_curve(curve, accuracy, dataset)
