"""Learn the posterior of a Bayesian network by stochastic variational inference, and sample its predictions.

Pyro is needed to learn only; a posterior is plain tensors, and sampling from it is plain torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iic.bayes import network
from iic.errors import UserError

_FINAL_RATE = 0.1  # the learning rate decays geometrically to this share of its start


@dataclass(frozen=True)
class Settings:
    """Size, prior and training of a Bayesian network.

    Attributes:
        hidden: units of each hidden layer; () is a linear classifier.
        prior_scale: standard deviation of every weight and bias a priori.
        epochs: passes over the training images.
        batch_size: images a step at most; an epoch is cut into parts of nearly equal size.
        learning_rate: of ClippedAdam at the first step; a tenth of it at the last.
        init_scale: standard deviation of every weight and bias when training starts.
    """

    hidden: tuple[int, ...] = (512,)
    prior_scale: float = 0.5
    epochs: int = 20
    batch_size: int = 250
    learning_rate: float = 2e-3
    init_scale: float = 0.01

    def __post_init__(self) -> None:
        for name in ("prior_scale", "epochs", "batch_size", "learning_rate", "init_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"The Bayesian network's {name} is {getattr(self, name)}: set it above 0.")
        if any(units < 1 for units in self.hidden):
            raise UserError(f"The Bayesian network's hidden is {self.hidden}: give every layer at least one unit.")


@dataclass(frozen=True)
class Posterior:
    """What is known of every weight and bias after training: independent Normals.

    Attributes:
        loc: name -> mean, float32; names and shapes as in `network.weight_shapes`, in layer order.
        scale: name -> standard deviation, float32, same shapes.
        pixel_mean: mean of the training pixels, 0..1, subtracted from every input.
        curve: float64 (epochs,), mean ELBO loss of each epoch's steps, in nats, for the whole training set.
    """

    loc: dict[str, Tensor]
    scale: dict[str, Tensor]
    pixel_mean: float
    curve: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only, for `torch.save`; `torch.load(..., weights_only=True)` reads them back."""
        state = {"pixel_mean": torch.tensor(self.pixel_mean, dtype=torch.float64), "curve": self.curve}
        for name in self.loc:
            state[f"{name}.loc"], state[f"{name}.scale"] = self.loc[name], self.scale[name]
        return state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Posterior:
        """The inverse of `state_dict`.

        Raises:
            UserError: a tensor is missing.
        """
        names = [key.removesuffix(".loc") for key in state if key.endswith(".loc")]
        missing = [key for key in ("pixel_mean", "curve", *(f"{name}.scale" for name in names)) if key not in state]
        if missing or not names:
            raise UserError(
                f"The saved Bayesian network lacks {', '.join(missing) or 'its weights'}: train and save it again."
            )
        loc = {name: state[f"{name}.loc"] for name in names}
        scale = {name: state[f"{name}.scale"] for name in names}
        return cls(loc, scale, state["pixel_mean"].item(), state["curve"])


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Posterior:
    """Learn mean and scale of every weight by maximising the ELBO (SVI, closed-form KL, ClippedAdam).

    Neither Pyro's parameter store nor torch's RNG is changed for the caller.

    Args:
        train_images: uint8 (N, C, H, W).
        train_labels: int64 (N,), class numbers from 0; the network has max + 1 classes.
        settings: size, prior and training.
        seed: keys the start, the order of the images and the sampled weights; the same seed gives the same posterior.
        progress: wraps the steps, such as tqdm.

    Raises:
        UserError: images and labels do not fit together, or the loss is no longer finite.
    """
    import pyro

    images, labels = torch.as_tensor(train_images), torch.as_tensor(train_labels)
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0 or labels.shape != images.shape[:1]:
        raise UserError(
            "A Bayesian network needs uint8 images (N, C, H, W) and one label each, "
            f"not {images.dtype} {tuple(images.shape)} and labels {tuple(labels.shape)}."
        )
    pixel_mean = images.sum(dtype=torch.int64).item() / images.numel() / 255
    sizes = (images[0].numel(), *settings.hidden, int(labels.max()) + 1)
    # validation costs time and would stop at a NaN before the loss can name the epoch
    with (
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Encountered (NaN|\\+?inf)", UserWarning)  # `_optimise` raises for it
        torch.default_generator.manual_seed(seed)
        curve = _optimise(images, labels, pixel_mean, sizes, settings, progress)
        store = pyro.get_param_store()
        names = network.weight_shapes(sizes)
        loc = {name: store[f"{name}.loc"].detach().clone() for name in names}
        scale = {name: store[f"{name}.scale"].detach().clone() for name in names}
    return Posterior(loc, scale, pixel_mean, curve)


def _optimise(
    images: Tensor,
    labels: Tensor,
    pixel_mean: float,
    sizes: tuple[int, ...],
    settings: Settings,
    progress: Callable[[Iterable], Iterable],
) -> Tensor:
    """Train the guide's parameters in Pyro's current store; the learning curve, float64 (epochs,), in nats."""
    from pyro.infer import SVI, TraceMeanField_ELBO
    from pyro.optim import ClippedAdam
    from pyro.poutine import scale

    count = len(images)
    parts = math.ceil(count / settings.batch_size)
    steps = settings.epochs * parts
    means = network.initial_means(sizes)

    def model(chosen: Tensor) -> None:
        inputs = network.normalise(images[chosen], pixel_mean)
        network.model(sizes, settings.prior_scale, count, inputs, labels[chosen], chosen)

    def guide(chosen: Tensor) -> None:
        network.guide(means, settings.init_scale)

    # per image, so that gradients are of the size that ClippedAdam's default clipping is made for
    adam = ClippedAdam({"lr": settings.learning_rate, "lrd": _FINAL_RATE ** (1 / steps)})
    svi = SVI(scale(model, 1 / count), scale(guide, 1 / count), adam, TraceMeanField_ELBO())
    curve = torch.zeros(settings.epochs, dtype=torch.float64)
    for step in progress(range(steps)):
        epoch, part = divmod(step, parts)
        if part == 0:
            batches = torch.randperm(count).tensor_split(parts)
        chosen = batches[part]
        loss = svi.step(chosen)
        if not math.isfinite(loss):
            raise UserError(
                f"The Bayesian network's loss is no longer finite in epoch {epoch + 1} of {settings.epochs}: "
                f"lower its learning_rate ({settings.learning_rate}) or its init_scale ({settings.init_scale})."
            )
        curve[epoch] += loss * len(chosen)  # loss per image * B, summed over the epoch: nats for all images
    return curve


def sample_weights(posterior: Posterior, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
    """`n_samples` sets of weights from the posterior; the first k are the same for every n_samples >= k."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_samples):
        yield {
            name: torch.addcmul(loc, posterior.scale[name], torch.randn(loc.shape, generator=generator))
            for name, loc in posterior.loc.items()
        }


@torch.no_grad()
def sample_logits(
    posterior: Posterior,
    images,
    n_samples: int,
    *,
    seed: int,
    batch_size: int = 1000,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Logits of each image under weights drawn from the posterior, one draw per sample for all images.

    Args:
        posterior: from `fit`.
        images: uint8 (N, C, H, W), of the training images' size.
        n_samples: number S of weight draws.
        seed: keys the draws.
        batch_size: images a forward; no draw depends on it.
        progress: wraps the samples, such as tqdm.

    Returns:
        float32 (S, N, classes).

    Raises:
        UserError: images of another type or size than the training images.
    """
    pixels = torch.as_tensor(images)
    weight = posterior.loc["layer0.weight"]  # (units, C * H * W)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels[:1].flatten(1).shape[1] != weight.shape[1]:
        raise UserError(
            f"This Bayesian network needs uint8 images (N, C, H, W) of {weight.shape[1]} values each, "
            f"not {pixels.dtype} {tuple(pixels.shape)}."
        )
    classes = list(posterior.loc.values())[-1].shape[0]
    outputs = torch.empty(n_samples, len(pixels), classes)
    for row, weights in enumerate(progress(sample_weights(posterior, n_samples, seed=seed))):
        for start in range(0, len(pixels), batch_size):
            inputs = network.normalise(pixels[start : start + batch_size], posterior.pixel_mean)
            outputs[row, start : start + batch_size] = network.logits(weights, inputs)
    return outputs


def sample_probabilities(posterior: Posterior, images, n_samples: int, **options) -> Tensor:
    """Softmax of `sample_logits`, same arguments and errors: float32 (S, N, classes), each row sums to 1."""
    return sample_logits(posterior, images, n_samples, **options).softmax(-1)
