"""What is checked before any node runs: names, parameters, and whether there are enough images."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from iic.data.loading import check_source, first_shape
from iic.errors import UserError
from iic.explainers.names import RANDOM_WEIGHTS, base_of
from iic.explainers.possible import COALITIONS, check_budget, check_possible
from iic.params import AttributionParams, BayesianParams, Block, DataParams, EvaluationParams, TrainingParams
from iic.shipped import FOLDER, NETWORKS, check_shipped, load_shipped, network_path

if TYPE_CHECKING:
    from torch import nn

BLOCKS: dict[str, type[Block]] = {
    "data": DataParams,
    "training": TrainingParams,
    "attribution": AttributionParams,
    "evaluation": EvaluationParams,
    "bayesian": BayesianParams,
}


def check_parameters(parameters: dict[str, Any], datasets: Iterable[str]) -> dict[str, dict[str, Block]]:
    """The parameter blocks of the datasets, as models; those of other configured datasets are checked with them.

    Raises:
        UserError: an unknown dataset, block or parameter, a wrong type or a value out of range.
    """
    for key, value in parameters.items():
        if not isinstance(value, dict) or "data" not in value:
            raise UserError(f"Parameter '{key}' belongs to no configured dataset ({_configured(parameters)}).")
    configured = {name: _check_dataset(parameters, name) for name in {**parameters, **dict.fromkeys(datasets)}}
    return {name: configured[name] for name in datasets}


def _configured(parameters: dict[str, Any]) -> str:
    return ", ".join(sorted(k for k, v in parameters.items() if isinstance(v, dict) and "data" in v))


def _check_dataset(parameters: dict[str, Any], name: str) -> dict[str, Block]:
    if name not in parameters:
        raise UserError(
            f"Unknown dataset '{name}' in IIC_DATASETS: choose from {_configured(parameters)}, or give it a block in "
            "conf/local/parameters.yml."
        )
    block = parameters[name]
    for key in block:
        if key not in BLOCKS:
            raise UserError(f"Unknown parameter block '{name}.{key}': choose from {', '.join(BLOCKS)}.")
    models = {}
    for key, model in BLOCKS.items():
        try:
            models[key] = model.model_validate(block.get(key, {}))
        except ValidationError as error:
            raise UserError(_sentence(error, f"{name}.{key}", model)) from error
    marked, classes = models["evaluation"].shortcut_class, models["data"].class_names
    if marked >= len(classes):
        raise UserError(
            f"{name}.evaluation.shortcut_class is {marked}, but '{name}' has {len(classes)} classes, counted from 0: "
            "choose one of them."
        )
    return models


def _sentence(error: ValidationError, where: str, model: type[Block]) -> str:
    """The first problem in one sentence, with the nearest name for a parameter that does not exist."""
    first = error.errors()[0]
    path = ".".join([where, *map(str, first["loc"])])
    if first["type"] == "value_error":  # one of our own validators, about the block
        return f"The parameters '{where}' do not fit together: {str(first['ctx']['error']).rstrip('.')}."
    if first["type"] == "extra_forbidden":
        known = list(model.model_fields)
        near = get_close_matches(str(first["loc"][0]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(known)}."
        return f"Unknown parameter '{path}': {hint}"
    if first["type"] == "missing":
        return f"Parameter '{path}' is missing: give it in conf/base/parameters.yml."
    if first["type"] == "tuple_type":
        return (
            f"Parameter '{path}' is {first['input']!r}, but should be a list: write it into "
            f"conf/local/parameters.yml, as in `{where.replace('.', ': {')}: {{{first['loc'][0]}: [...]}}}}`."
        )
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"Parameter '{path}' is {first['input']!r}, but {reason}: change it in the parameters."


def check_explaining(blocks: dict[str, dict[str, Block]], methods: Iterable[str], project: Path) -> None:
    """Raise UserError if a method is asked for what it cannot do, or for a file or a device that is not there.

    Args:
        blocks: the parameters of each dataset whose images are to be explained.
        methods: what explains them.
        project: its folder.
    """
    bases = {base_of(method) for method in methods}
    for name, models in blocks.items():
        params, shape = models["attribution"], first_shape(name, models["data"])
        if params.device == "cuda":
            from iic.classifiers.precision import choose_device

            choose_device(params.device)
        if params.segments is not None and not (project / params.segments).is_file():
            raise UserError(f"There is no file {project / params.segments}: {name}.attribution.segments names it.")
        if "occlusion" in bases and shape is not None and params.occlusion_window >= min(shape[1:]):
            raise UserError(
                f"{name}.attribution.occlusion_window is {params.occlusion_window}, and its images have "
                f"{min(shape[1:])} pixels a side: make it smaller."
            )
        if bases & set(COALITIONS):
            check_budget(name, params, shape)
        for base in sorted(bases):
            check_possible(base, params)


def is_own(training: TrainingParams) -> bool:
    """Whether the network is the user's own."""
    return training.weights not in ("trained", *NETWORKS)


def check_weights(
    blocks: dict[str, dict[str, Block]], methods: Collection[str], project: Path, last_layer: Collection[str] = ()
) -> None:
    """Raise UserError if weights that a run would load are missing or altered, a method cannot explain a network, or
    there is no device to train one on, or no network to learn from.

    A network that is still to be trained is looked at too, if its layers are given LRP rules by name.

    Args:
        blocks: the parameters of each dataset of the run.
        methods: what is to explain their networks.
        project: its folder.
        last_layer: datasets whose network is to get a Bayesian last layer.
    """
    for name, models in blocks.items():
        training, rules = models["training"], models["attribution"].lrp_rules
        if models["bayesian"].weights == "shipped" and models["data"].channels == 1:
            check_shipped(project / FOLDER / f"{name}_bayesian.pt")
        if training.weights in NETWORKS:
            check_shipped(network_path(project, name, training.weights, training.seed))
        if training.weights == "trained" and training.device == "cuda":
            from iic.classifiers.precision import choose_device

            choose_device(training.device)
        if training.weights == "trained" and training.teachers:
            from iic.classifiers.distillation import load_teachers

            paths = [project / path for path in training.teachers]
            load_teachers(paths, models["data"].channels, len(models["data"].class_names))
        if not is_own(training) and not rules:
            continue  # every method explains the project's own networks
        from iic.classifiers.inference import freeze
        from iic.explainers.methods import check_network

        network = _network(name, models, project)
        frozen = freeze(network)
        check_network(frozen, methods, rules)
        if is_own(training):
            _check_own(network, name, models, methods)
            if name in last_layer:
                from iic.bayes.last_layer import check_last_layer

                check_last_layer(frozen)


def check_bayesian(blocks: dict[str, dict[str, Block]], last_layer: Collection[str], project: Path) -> None:
    """Raise UserError if the posterior that is to be explained cannot be learnt.

    Args:
        blocks: the parameters of the datasets that get one.
        last_layer: those of which it is one of their network's last layer.
        project: its folder.
    """
    from iic.bayes import possible
    from iic.bayes.sizes import layer_sizes

    for name, models in blocks.items():
        params, shape = models["bayesian"], first_shape(name, models["data"])
        last, settings, classes = name in last_layer, params.settings(), len(models["data"].class_names)
        if params.weights == "shipped":
            check_shipped(project / FOLDER / f"{name}_bayesian.pt")
            continue
        if last and settings.shift:
            raise UserError(f"{name}.bayesian.shift is {settings.shift}, but a last layer sees no pixels: set it to 0.")
        if not last and shape is None:
            continue
        layers, training = ((), ()) if last else (settings.filters, settings.hidden), models["training"]
        features = training.widths[-1] if training.weights == "trained" else 1  # of others known once they are loaded
        seen = (features,) if last else shape
        try:
            possible.check_possible(params.posterior, settings, layer_sizes(seen, *layers, classes))
        except UserError as error:
            raise UserError(f"The parameters '{name}.bayesian' do not fit together: {error}") from error


def _check_own(network: nn.Module, name: str, models: dict[str, Block], methods: Collection[str]) -> None:
    """Raise UserError if a user's own network takes no such images, or has weights that cannot be drawn anew."""
    from iic.classifiers.own import check_forward
    from iic.evaluation.randomisation import check_redrawable

    shape = first_shape(name, models["data"])
    if shape is not None:
        check_forward(network, shape, len(models["data"].class_names))
    if any(RANDOM_WEIGHTS in method for method in methods):
        check_redrawable(network)


def _network(name: str, models: dict[str, Block], project: Path) -> nn.Module:
    """The network that is to be explained; before it is trained, one of its layers."""
    training = models["training"]
    if is_own(training):
        from iic.classifiers.own import load_own

        return load_own(project / training.weights, training.factory)
    from iic.classifiers.networks import build_network, network_from_state

    if training.weights in NETWORKS:
        return network_from_state(load_shipped(network_path(project, name, training.weights, training.seed)))
    import torch

    channels, classes = models["data"].channels, len(models["data"].class_names)
    with torch.random.fork_rng(devices=[]):  # leave no trace in the draws of what runs next
        return build_network(
            [0.0] * channels, [1.0] * channels, training.widths, classes, training.depth, training.residual
        )


def check_images(blocks: dict[str, dict[str, Block]], prepared: dict[str, int]) -> None:
    """Raise UserError if a dataset's files are missing or of the wrong form, or hold fewer images than are explained.

    Args:
        blocks: the parameters of each dataset of the run.
        prepared: the number of test images of the datasets that an earlier run has prepared.
    """
    for name, models in blocks.items():
        available = (
            prepared[name]
            if name in prepared
            else check_source(name, models["data"], any_size=is_own(models["training"]))
        )
        wanted = models["attribution"].n_images
        if wanted > available:
            raise UserError(
                f"{name}.attribution.n_images is {wanted}, but '{name}' has {available} test images: lower n_images."
            )
        _check_shares(name, models)


def _check_shares(name: str, models: dict[str, Block]) -> None:
    """Raise UserError if a share of the pixels that is kept or removed is not a single pixel, or is all of them."""
    shape = first_shape(name, models["data"])
    if shape is None:
        return
    pixels, judged = shape[1] * shape[2], models["evaluation"]
    shares = {"evaluation.keep": (judged.keep,), "evaluation.shares": judged.shares}
    shares["bayesian.doubt_shares"] = models["bayesian"].doubt_shares
    for parameter, values in shares.items():
        for share in values:
            if not 0 < round(share * pixels) < pixels:
                raise UserError(
                    f"{name}.{parameter} has {share}, which of the {pixels} pixels of an image is "
                    f"{round(share * pixels)}: choose a share that keeps one at least, and not all."
                )
