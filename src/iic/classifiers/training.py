"""Train one network: the whole dataset is one tensor, augmentation is vectorised, bfloat16 where the machine has it.

Recipe: Jordan 2024 (arXiv 2404.00498) with Muon: whitened input, alternating flip, shifts, cutout (DeVries and Taylor
2017, arXiv 1708.04552), label smoothing, a learning rate that falls linearly to zero; images that are easy by now sit
out some epochs (Qin et al. 2024, InfoBatch, arXiv 2303.04947). Longer recipes mix pictures (`mixing.py`) and learn from
networks that are trained already (`distillation.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.classifiers.augmentation import augment
from iic.classifiers.batchnorm import settle
from iic.classifiers.checkpoint import Checkpoint
from iic.classifiers.distillation import Teachers
from iic.classifiers.mixing import cut_mix
from iic.classifiers.networks import WHITENED, Residual
from iic.classifiers.optimizers import build_optimizers, set_rates, whitening_filters
from iic.classifiers.precision import keep_freed_memory
from iic.classifiers.recipe import Recipe
from iic.classifiers.side_by_side import SideBySide, can_lie_side_by_side
from iic.data.images import ImageSet
from iic.errors import UserError

STATISTICS = 5000  # images that whitening and BatchNorm's final statistics are taken from
PRUNED_PART = 0.85  # of the epochs, rounded down, may leave easy images out; the others see all of them


def train(
    model: nn.Sequential,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    teachers: Sequence[nn.Sequential] = (),
    checkpoint: Checkpoint | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict[str, float]]:
    """Train `model` in place; the learning curve by epoch: number, loss (smoothed), accuracy (augmented), images seen.

    Args:
        model: from `build_network`, just built, on the CPU, where its weights are again in the end.
        data: the training images.
        recipe: how.
        seed: keys the order of the images and the augmentation.
        dtype: of the convolutions behind the whitening one; weights stay float32.
        device: "cpu" or "cuda"; all draws are the same on both, the weights are not.
        teachers: trained networks whose mean answer is learnt in place of the labels; none learns the labels.
        checkpoint: written after every epoch; a training that finds one goes on from there, on the same device to the
            same weights.
        progress: wraps the steps, such as tqdm.

    Raises:
        UserError: the loss is no longer finite.
    """
    keep_freed_memory()
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        run = _Run(model, data, recipe, seed, dtype, device, teachers)
        saved = None if checkpoint is None else checkpoint.load()
        if saved is not None:
            run.resume(saved)
        for number in progress(range(len(run.curve) * run.steps, recipe.epochs * run.steps)):
            run.step(number)
            if (number + 1) % run.steps == 0:
                run.curve.append(run.row())
                if checkpoint is not None:
                    checkpoint.save(run.state())
        run.finish()
    return run.curve


class _Run:
    """One training, on its device: images, network, optimisers, and the epoch that it is in."""

    def __init__(
        self,
        model: nn.Sequential,
        data: ImageSet,
        recipe: Recipe,
        seed: int,
        dtype: torch.dtype,
        device: str,
        teachers: Sequence[nn.Sequential],
    ) -> None:
        self.model, self.recipe, self.dtype, self.device = model.to(device), recipe, dtype, device
        if teachers:  # their answers are soft enough
            self.recipe = replace(recipe, label_smoothing=0.0)
        self.generator = torch.Generator().manual_seed(seed)  # of the CPU: the same draws wherever it trains
        images, self.labels = (torch.from_numpy(a).to(device) for a in (data.images, data.labels))
        if recipe.flip:
            flipped = torch.rand(len(images), 1, 1, 1, generator=self.generator) < 0.5
            images = torch.where(flipped.to(device), images.flip(-1), images)
        self.images = images
        self.sample = images[torch.randperm(len(images), generator=self.generator)[:STATISTICS].to(device)]
        self.teachers = Teachers(teachers, self.sample, recipe.flip, device) if teachers else None
        whiten(model, self.sample)
        self.pooled_first, self.first = pool_early(model).train(), next(m for m in model if isinstance(m, nn.Conv2d))
        self.optimizers = build_optimizers(model, recipe)
        self.steps = math.ceil(len(images) / recipe.batch_size)  # of an epoch
        self.losses = torch.full((len(images),), math.inf, device=device)
        self.curve: list[dict[str, float]] = []

    def step(self, number: int) -> None:
        """The step of this number, counted over all epochs; the first of an epoch draws what it sees."""
        recipe, (epoch, batch) = self.recipe, divmod(number, self.steps)
        if batch == 0:
            self._begin(epoch)
        whitening = recipe.whiten_bias_epochs
        set_rates(self.optimizers, number / (recipe.epochs * self.steps), number / (whitening * self.steps))
        self.first.bias.requires_grad_(epoch < whitening)  # saves a pass back through the largest images
        self.pooled_first.zero_grad(set_to_none=True)
        parts = math.ceil(len(self.batches[batch]) / recipe.micro_batch)
        for chosen in self.batches[batch].tensor_split(parts):
            labels, weights = self.labels[chosen], self.weights[chosen]
            pixels = self.view[chosen]
            goal = self._goal(chosen, pixels)
            losses, hits = backward(self.pooled_first, pixels, labels, weights, recipe, self.dtype, goal)
            self.losses[chosen] = losses
            self.sums += torch.stack([losses, hits, torch.ones_like(hits)]).double() @ weights.double()
        for optimizer in self.optimizers:
            optimizer.step()

    def _begin(self, epoch: int) -> None:
        self.view, self.mixed = augment(self.images, epoch, self.recipe, self.generator), None
        if self.recipe.cutmix:
            self.view, self.mixed = cut_mix(self.view, self.recipe.cutmix, self.generator)
        order, weights = _seen(self.losses.cpu(), epoch, self.recipe, self.generator)
        self.batches, self.weights = order.to(self.device).tensor_split(self.steps), weights.to(self.device)
        # of losses, hits and 1, weighted; float64 holds sums of float32 weights exactly, so no share exceeds 1
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def _goal(self, chosen: Tensor, pixels: Tensor) -> Tensor | None:
        """What the chosen images' answers are to be, (n, classes); None for their labels."""
        if self.teachers is not None:
            return self.teachers(pixels)
        if self.mixed is not None:
            return self.mixed.soften(self.labels, chosen, self.model[-1].out_features)
        return None

    def row(self) -> dict[str, float]:
        """The learning curve's row of the epoch that has just ended."""
        epoch = len(self.curve) + 1
        loss, accuracy = (self.sums[:2] / self.sums[2]).tolist()
        if not math.isfinite(loss):
            raise UserError(f"The training loss is no longer finite in epoch {epoch}: use a larger batch_size.")
        return {"epoch": epoch, "loss": loss, "accuracy": accuracy, "images": sum(map(len, self.batches))}

    def state(self) -> dict:
        """Everything that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(),
            "losses": self.losses,
            "curve": self.curve,
        }

    def resume(self, state: dict) -> None:
        """Put everything back as it was after the last whole epoch, whatever device that was on."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.losses.copy_(state["losses"])
        self.curve = state["curve"]

    def finish(self) -> None:
        """The network ready to be used, on the CPU.

        The running averages of a short training still remember weights that are gone; the statistics that take their
        place are of images without shifts.
        """
        self.model.eval()
        self.pooled_first.eval()
        batches = self.sample.split(self.recipe.micro_batch)
        parts = (p.float().contiguous(memory_format=torch.channels_last) for p in batches)
        settle(self.pooled_first, [m for m in self.pooled_first.modules() if isinstance(m, nn.BatchNorm2d)], parts)
        self.model.cpu()


def _seen(losses: Tensor, epoch: int, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One epoch's images in random order (n,), and each image's weight (N,), which keeps the gradient unbiased."""
    order, weights = torch.randperm(len(losses), generator=generator), torch.ones(len(losses))
    if not recipe.prune or epoch >= int(PRUNED_PART * recipe.epochs) or not losses.isfinite().all():
        return order, weights
    easy = losses < losses.mean()
    dropped = easy & (torch.rand(len(losses), generator=generator) < recipe.prune)
    weights[easy] = 1 / (1 - recipe.prune)
    return order[~dropped[order]], weights


def pool_early(model: nn.Sequential) -> nn.Sequential:
    """The same modules with each pooling of a block right behind its convolution, before BatchNorm and ReLU.

    Once trained the two orders compute the same, since BatchNorm's weights stay 1 and the largest of some numbers stays
    the largest when all are scaled and shifted alike; in training BatchNorm and ReLU then see a quarter of the pixels.
    The last pooling stays: BatchNorm would be left with one number per image. ReLUs work in place here, which saves
    memory traffic; outside they must not, because explainers keep their inputs. Convolutions take small maps side by
    side where that pays.
    """
    layers: list[nn.Module] = []
    last = max(at for at, module in enumerate(model) if isinstance(module, nn.MaxPool2d))
    for at, module in enumerate(model):
        behind_norm = [type(m) for m in layers[-2:]] == [nn.BatchNorm2d, nn.ReLU]
        early = isinstance(module, nn.MaxPool2d) and behind_norm and at != last
        layers.insert(len(layers) - 2 if early else len(layers), _for_training(module))
    return nn.Sequential(*layers)


def _for_training(module: nn.Module) -> nn.Module:
    """A module that computes the same with the same weights, in less time."""
    if isinstance(module, Residual):
        return Residual(*map(_for_training, module.path))
    if isinstance(module, nn.ReLU):
        return nn.ReLU(inplace=True)
    return SideBySide(module) if can_lie_side_by_side(module) else module


def backward(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    weights: Tensor,
    recipe: Recipe,
    dtype: torch.dtype,
    goal: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the gradients of one micro-batch; each image's loss (n,), and 1 where its class was named, else 0 (n,).

    `goal` (n, classes) is learnt in place of the labels (n,).
    """
    whitened = model[:WHITENED](pixels.float().contiguous(memory_format=torch.channels_last))
    with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = model[WHITENED:](whitened)
    goal = labels if goal is None else goal
    losses = F.cross_entropy(logits.float(), goal, label_smoothing=recipe.label_smoothing, reduction="none")
    (losses @ weights).backward()
    return losses.detach(), (logits.argmax(1) == labels).float()


def whiten(model: nn.Sequential, images: Tensor) -> None:
    """Set and freeze the first convolution's filters from 2x2 patches of the training images."""
    first = next(m for m in model if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        patches = F.unfold(model[0](images), first.kernel_size).transpose(1, 2).flatten(0, 1)  # (P, C * 4)
        first.weight.copy_(whitening_filters(patches).view_as(first.weight))
        first.bias.zero_()
    first.weight.requires_grad_(False)
