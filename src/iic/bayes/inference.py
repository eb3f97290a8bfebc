"""The mean-field Normal posterior, learnt by stochastic variational inference; and predictions of any posterior.

Pyro is needed to learn only; a posterior is plain tensors, and sampling from it is plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iic.bayes import network
from iic.bayes.priors import LOG_ROOT_2PI, Prior
from iic.bayes.record import UNRECORDED, Learnt, Record, draw_generator
from iic.bayes.settings import Settings
from iic.bayes.sizes import Size
from iic.bayes.training import is_features, is_images, learn, prepare
from iic.classifiers.inference import best_dtype
from iic.classifiers.precision import keep_freed_memory
from iic.errors import UserError


@dataclass(frozen=True)
class Posterior(Learnt):
    """What is known of every weight and bias after training: independent Normals (Blundell 2015, arXiv 1505.05424).

    Attributes:
        loc: name -> mean, float32; names and shapes as in `network.weight_shapes`, in layer order.
        scale: name -> standard deviation, float32, same shapes.
        pixel_mean: mean of the training pixels, 0..1, subtracted from every input.
        curve, record: as in `record.Learnt`; where the KL weight is 1 the curve is the negative ELBO.
    """

    kind: ClassVar[str] = "mean_field"
    loc: dict[str, Tensor]
    scale: dict[str, Tensor]
    pixel_mean: float
    curve: Tensor
    record: Record = UNRECORDED

    def draw(self, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
        """Sets of weights from the Normals; the first k are the same for every n_samples >= k."""
        generator = draw_generator(seed)
        for _ in range(n_samples):
            yield {
                name: torch.addcmul(loc, self.scale[name], torch.randn(loc.shape, generator=generator))
                for name, loc in self.loc.items()
            }


def fit(
    train_images, train_labels, settings: Settings, *, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> Posterior:
    """Learn mean and scale of every weight by maximising the ELBO.

    Args:
        train_images: uint8 (N, C, H, W), or float features (N, F).
        train_labels: int64 (N,), class numbers from 0; the network has max + 1 classes.
        settings: size, prior and training.
        seed: keys the start, the order of the images and all draws; the same seed gives the same posterior.
        progress: wraps the steps, such as tqdm.

    Raises:
        UserError: images and labels do not fit together, or the loss is no longer finite.
    """
    data = prepare(train_images, train_labels, settings)
    parameters, fields = learn(data, settings, mean_field, seed=seed, progress=progress)
    names = network.weight_shapes(data.sizes)
    loc, scale = ({name: parameters[f"{name}.{part}"] for name in names} for part in ("loc", "scale"))
    return Posterior(loc, scale, **fields)


def mean_field(sizes: Sequence[Size], settings: Settings) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The family of `training.learn`: parameters `<name>.loc` and `<name>.scale`; means start like a plain network."""
    import pyro
    from pyro.distributions import constraints

    means, prior = network.initial_means(sizes), settings.prior

    def forward(inputs: Tensor) -> tuple[Tensor, Tensor]:
        loc = {name: pyro.param(f"{name}.loc", mean) for name, mean in means.items()}
        scale = {
            name: pyro.param(
                f"{name}.scale",
                torch.full_like(mean, settings.init_scale),
                constraint=constraints.softplus_positive,
            )
            for name, mean in means.items()
        }
        variance = {name: value.square() for name, value in scale.items()}
        sample = None
        if prior.needs_sample or not settings.local:
            sample = {name: torch.addcmul(loc[name], scale[name], torch.randn_like(loc[name])) for name in loc}
        local = settings.local
        outputs = network.local_logits(loc, variance, inputs) if local else network.logits(sample, inputs)
        return outputs, kl_divergence(prior, loc, variance, sample)

    return forward


def kl_divergence(
    prior: Prior, loc: Mapping[str, Tensor], variance: Mapping[str, Tensor], sample: Mapping[str, Tensor] | None = None
) -> Tensor:
    """KL(independent Normals || prior), in nats, over all names; estimated from the sample if the prior needs one."""
    total = torch.zeros(())
    for name, mean in loc.items():
        entropy = variance[name].log().sum() / 2 + mean.numel() * (0.5 + LOG_ROOT_2PI)
        drawn = None if sample is None else sample[name]
        total = total + prior.cross_entropy(mean, variance[name], drawn) - entropy
    return total


def sample_weights(posterior: Learnt, n_samples: int, *, seed: int) -> Iterator[dict[str, Tensor]]:
    """Sets of weights of `network.logits` from any posterior; the first k are the same for every n_samples >= k."""
    return posterior.draw(n_samples, seed=seed)


@torch.no_grad()
def sample_logits(
    posterior: Learnt,
    images,
    n_samples: int,
    *,
    seed: int,
    batch_size: int = 1000,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Logits of each image under weights drawn from the posterior, one draw per sample for all images.

    What all draws have alike (`Learnt.fixed_layers`) is computed once, in float32; a draw that comes again is copied.

    Args:
        posterior: of any kind.
        images: what it was trained on: uint8 (N, C, H, W) of the training images' size, or float features (N, F).
        n_samples: number S of weight draws.
        seed: keys the draws.
        batch_size: images a forward; no draw depends on it. Of 1,000, the maps stay in a CPU's caches.
        dtype: what the other hidden layers compute in; the last layer computes in float32. See `fast_dtype`.
        progress: wraps the samples, such as tqdm.

    Returns:
        float32 (S, N, classes).

    Raises:
        UserError: inputs of another type or size than the training images.
    """
    keep_freed_memory()
    inputs, shapes = _inputs(posterior, torch.as_tensor(images)), list(posterior.shapes.values())
    first, different = posterior.fixed_layers, posterior.distinct(n_samples)
    if first:
        alike = next(sample_weights(posterior, 1, seed=seed))
        inputs = torch.cat([network.hidden_layers(alike, x, range(first)) for x in inputs.split(batch_size)])
    if first < len(shapes) // 2 - 1:  # else the layer that is left is the last
        inputs = inputs.to(dtype)
    outputs = torch.empty(n_samples, len(inputs), shapes[-1][0])
    for row, weights in enumerate(progress(sample_weights(posterior, different, seed=seed))):
        weights = network.lowered(weights, dtype)
        for x, part in zip(inputs.split(batch_size), outputs[row].split(batch_size), strict=True):
            part.copy_(network.logits(weights, x, first=first))
    for row in range(different, n_samples):
        outputs[row] = outputs[row - different]
    return outputs


def _inputs(posterior: Learnt, raw: Tensor) -> Tensor:
    """What the first layer sees of raw images or features, float32 (N, F); a UserError for those of another kind."""
    of_pixels = not posterior.of_features
    fits = is_images(raw) if of_pixels else is_features(raw)
    wanted = network.wanted_inputs(posterior.shapes, math.prod(raw.shape[1:]) if fits else 0)
    if wanted is not None:
        kind = "uint8 images (N, C, H, W)" if of_pixels else "float features (N, F)"
        raise UserError(f"This Bayesian network needs {kind} of {wanted} each, not {raw.dtype} {tuple(raw.shape)}.")
    return network.normalise(raw, posterior.pixel_mean, posterior.record.unit)


def fast_dtype(posterior: Learnt, n_samples: int) -> torch.dtype:
    """What hidden layers had better compute in: `best_dtype`, if they are computed anew for every sample.

    The rounding of weights that are drawn anew averages out over the samples. Of weights that are not it stays, and
    they need no speed: float32.
    """
    hidden = len(posterior.shapes) // 2 - 1
    anew = posterior.fixed_layers < hidden and posterior.distinct(n_samples) == n_samples
    return best_dtype() if anew else torch.float32


def sample_probabilities(posterior: Learnt, images, n_samples: int, **options) -> Tensor:
    """Softmax of `sample_logits`, same arguments and errors: float32 (S, N, classes), each row sums to 1."""
    return sample_logits(posterior, images, n_samples, **options).softmax(-1)
