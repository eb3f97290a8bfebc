"""The one training loop, in Pyro, of every posterior: data, objective, steps.

A family says what the network's outputs are under its parameters, and the penalty in nats: the KL divergence from the
prior for a distribution of weights, the negative log prior for a single set. What is random it draws itself, by
reparameterisation, so the Pyro model has no latent site: the penalty is a factor, the labels are observed in a plate
that scales a batch to the training set, and Trace_ELBO of the model under an empty guide is the ELBO's estimate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.record import Record
from iic.bayes.settings import Settings
from iic.bayes.sizes import Size, layer_sizes
from iic.classifiers.augmentation import augment
from iic.classifiers.recipe import Recipe
from iic.errors import UserError


@dataclass(frozen=True)
class Data:
    """Training inputs at rest, and what makes them the network's.

    Attributes:
        raw: uint8 images (N, C, H, W) or float features (N, F).
        labels: (N,), class numbers from 0, or whatever the likelihood observes.
        pixel_mean: of `network.normalise`.
        unit: of `network.normalise`.
        sizes: `sizes.layer_sizes`, inputs first, classes last.
    """

    raw: Tensor
    labels: Tensor
    pixel_mean: float
    unit: float
    sizes: tuple[Size, ...]

    def inputs(self, chosen: Tensor | slice, raw: Tensor | None = None) -> Tensor:
        """float32 (B, inputs): some training inputs, or the same rows of `raw` in their place."""
        return network.normalise((self.raw if raw is None else raw)[chosen], self.pixel_mean, self.unit)


Family = Callable[[Sequence[Size], Settings], Callable[[Tensor], tuple[Tensor, Tensor]]]


def is_images(raw: Tensor) -> bool:
    """Whether these are images, uint8 (N, C, H, W)."""
    return raw.dtype == torch.uint8 and raw.ndim == 4


def is_features(raw: Tensor) -> bool:
    """Whether these are features, floats (N, F)."""
    return raw.is_floating_point() and raw.ndim == 2


def prepare(raw, labels, settings: Settings) -> Data:
    """What `learn` trains on; features are divided by their standard deviation over all values.

    Raises:
        UserError: inputs and labels do not fit together, features that are not finite, features to be shifted, inputs
            that the filters do not fit.
    """
    raw, labels = torch.as_tensor(raw), torch.as_tensor(labels)
    if not (is_images(raw) or is_features(raw)) or len(raw) == 0 or labels.shape != raw.shape[:1]:
        raise UserError(
            "A Bayesian network needs uint8 images (N, C, H, W) or float features (N, F), and one label each, "
            f"not {raw.dtype} {tuple(raw.shape)} and labels {tuple(labels.shape)}."
        )
    if is_images(raw):
        unit = network.PIXEL_UNIT
        mean = raw.sum(dtype=torch.int64).item() / raw.numel() / unit
    else:
        raw = raw.float()
        if not raw.isfinite().all():
            raise UserError("Some features of the Bayesian network are not finite: look for NaN in what made them.")
        if settings.shift:
            raise UserError(f"Features cannot be shifted by {settings.shift} pixels: set the shift to 0.")
        unit = raw.double().std(correction=0).item() or 1.0
        mean = raw.double().mean().item() / unit
    sizes = layer_sizes(raw.shape[1:], settings.filters, settings.hidden, int(labels.max()) + 1)
    return Data(raw, labels, mean if settings.subtract_mean else 0.0, unit, sizes)


def categorical(outputs: Tensor):
    """Pyro distribution of the labels (B,) given logits (B, classes)."""
    import pyro.distributions as dist

    return dist.Categorical(logits=outputs)


def learn(
    data: Data,
    settings: Settings,
    family: Family,
    *,
    seed: int,
    progress: Callable[[Iterable], Iterable] = iter,
    likelihood: Callable = categorical,
) -> tuple[dict[str, Tensor], dict]:
    """Train a family's parameters.

    Neither Pyro's parameter store nor torch's RNG is changed for the caller.

    Args:
        data: from `prepare`.
        settings: prior and training.
        family: called once with (sizes, settings), under the seed; what it returns is called with the inputs
            (B, inputs) of each step, registers its parameters by `pyro.param`, and gives outputs (B, sizes[-1]) and
            penalty.
        seed: keys the start, the order and shifts of the images and all that the family draws.
        progress: wraps the steps, such as tqdm.
        likelihood: outputs -> Pyro distribution of the labels (B,).

    Returns:
        Parameter name -> value, and the fields pixel_mean, curve and record of `record.Learnt`.

    Raises:
        UserError: the loss is no longer finite.
    """
    import pyro

    # validation costs time and would stop at a NaN before the loss can name the epoch
    with (
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Encountered (NaN|\\+?inf)", UserWarning)  # `_optimise` raises for it
        torch.default_generator.manual_seed(seed)
        curve, kl_weights = _optimise(data, settings, family(data.sizes, settings), progress, likelihood)
        parameters = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    record = Record(data.unit, settings.prior.numbers, kl_weights)
    return parameters, {"pixel_mean": data.pixel_mean, "curve": curve, "record": record}


def _optimise(
    data: Data, settings: Settings, forward: Callable, progress: Callable, likelihood: Callable
) -> tuple[Tensor, tuple[float, ...]]:
    """Train in Pyro's current store; the curve, float64 (epochs,), in nats, and each epoch's last KL weight."""
    from pyro import get_param_store

    count = len(data.raw)
    parts = math.ceil(count / settings.batch_size)
    steps = settings.epochs * parts
    take_step = _stepper(data, settings, steps, forward, likelihood)
    curve, kl_weights = torch.zeros(settings.epochs, dtype=torch.float64), []
    for step in progress(range(steps)):
        epoch, part = divmod(step, parts)
        if part == 0:
            batches, view = torch.randperm(count).tensor_split(parts), _shifted(data.raw, settings.shift)
        chosen, kl_weight = batches[part], settings.kl_weight(step, steps)
        loss = take_step(data.inputs(chosen, view), chosen, kl_weight)
        _require_finite(math.isfinite(loss), epoch, settings)
        curve[epoch] += loss * len(chosen)  # loss per image * B, summed over the epoch: nats for all images
        if part == parts - 1:
            kl_weights.append(kl_weight)
    # no loss has seen the last step's parameters
    _require_finite(all(value.isfinite().all() for value in get_param_store().values()), epoch, settings)
    return curve, tuple(kl_weights)


def _require_finite(finite: bool, epoch: int, settings: Settings) -> None:
    if not finite:
        raise UserError(
            f"The Bayesian network's loss is no longer finite in epoch {epoch + 1} of {settings.epochs}: "
            f"lower its learning_rate ({settings.learning_rate}) or its init_scale ({settings.init_scale})."
        )


def _stepper(data: Data, settings: Settings, steps: int, forward: Callable, likelihood: Callable) -> Callable:
    """(inputs, chosen, KL weight) -> loss per training image before one step of Adam."""
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import ExponentialLR

    count = len(data.raw)

    def model(inputs: Tensor, chosen: Tensor, kl_weight: float) -> None:
        outputs, penalty = forward(inputs)
        pyro.factor("penalty", -kl_weight * penalty)
        with pyro.plate("images", count, subsample=chosen):
            pyro.sample("labels", likelihood(outputs), obs=data.labels[chosen])

    def guide(inputs: Tensor, chosen: Tensor, kl_weight: float) -> None:
        """Empty: the model draws by itself."""

    # fused: one pass over the parameters a step, where they are the larger part of the work
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": settings.learning_rate, "fused": True}}
    rates = ExponentialLR({**adam, "gamma": settings.final_rate ** (1 / max(1, steps - 1))})
    # per image: the loss of any training set is of the same size
    svi = SVI(pyro.poutine.scale(model, 1 / count), guide, rates, Trace_ELBO())

    def take_step(inputs: Tensor, chosen: Tensor, kl_weight: float) -> float:
        loss = svi.step(inputs, chosen, kl_weight)
        rates.step()
        return loss

    return take_step


def _shifted(raw: Tensor, shift: int) -> Tensor:
    """An epoch's view of the images, drawn from torch's RNG."""
    recipe = Recipe(epochs=1, flip=False, shift=shift)
    return augment(raw, 0, recipe, torch.default_generator) if shift else raw
