"""Train one network: the whole dataset is one tensor, augmentation is vectorised, bfloat16 where the machine has it.

Recipe: Jordan 2024 (arXiv 2404.00498) with Muon: whitened input, alternating flip, shifts, cutout (DeVries and Taylor
2017, arXiv 1708.04552), label smoothing, a learning rate that falls linearly to zero; images that are easy by now sit
out some epochs (Qin et al. 2024, InfoBatch, arXiv 2303.04947).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iic.classifiers.augmentation import augment
from iic.classifiers.batchnorm import settle
from iic.classifiers.checkpoint import Checkpoint
from iic.classifiers.inference import best_dtype
from iic.classifiers.networks import WHITENED
from iic.classifiers.optimizers import FilterMuon, whitening_filters
from iic.classifiers.recipe import Recipe
from iic.data.images import ImageSet
from iic.errors import UserError

STATISTICS = 5000  # images that whitening and BatchNorm's final statistics are taken from
AGREE = 0.4  # relative error of gradients up to which bfloat16 trains; colour images have 0.29 at most, digits 0.5
PRUNED_PART = 0.85  # of the epochs, rounded down, may leave easy images out; the others see all of them


def train(
    model: nn.Sequential,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict[str, float]]:
    """Train `model` in place; the learning curve by epoch: number, loss (smoothed), accuracy (augmented), images seen.

    Args:
        model: from `build_network`, just built.
        data: the training images.
        recipe: how.
        seed: keys the order of the images and the augmentation.
        dtype: of the convolutions behind the whitening one; weights stay float32.
        checkpoint: written after every epoch; a training that finds one goes on from there, to the same weights.
        progress: wraps the steps, such as tqdm.

    Raises:
        UserError: the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    if recipe.flip:
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flipped, images.flip(-1), images)
    sample = images[torch.randperm(len(images), generator=generator)[:STATISTICS]]
    _whiten(model, sample)
    pooled_first, first = pool_early(model), next(m for m in model if isinstance(m, nn.Conv2d))
    steps_per_epoch = math.ceil(len(images) / recipe.batch_size)
    optimizers = _optimizers(model, recipe)
    losses = torch.full((len(images),), math.inf)
    curve = _resume(checkpoint, model, optimizers, generator, losses)
    total = recipe.epochs * steps_per_epoch
    pooled_first.train()
    for step in progress(range(len(curve) * steps_per_epoch, total)):
        epoch, batch = divmod(step, steps_per_epoch)
        if batch == 0:
            view = augment(images, epoch, recipe, generator)
            order, weights = _seen(losses, epoch, recipe, generator)
            batches = order.tensor_split(steps_per_epoch)
            sums = torch.zeros(2)
        _set_rates(optimizers, step / total, step / (recipe.whiten_bias_epochs * steps_per_epoch))
        first.bias.requires_grad_(epoch < recipe.whiten_bias_epochs)  # saves a pass back through the largest images
        pooled_first.zero_grad(set_to_none=True)
        for chosen in batches[batch].tensor_split(math.ceil(len(batches[batch]) / recipe.micro_batch)):
            losses[chosen], hits = _backward(pooled_first, view[chosen], labels[chosen], weights[chosen], recipe, dtype)
            sums += torch.stack([losses[chosen], hits]) @ weights[chosen]
        for optimizer in optimizers:
            optimizer.step()
        if batch == steps_per_epoch - 1:
            mean_loss, accuracy = (sums / len(images)).tolist()
            if not math.isfinite(mean_loss):
                raise UserError(f"The training loss is no longer finite in epoch {epoch + 1}: use a larger batch_size.")
            curve.append({"epoch": epoch + 1, "loss": mean_loss, "accuracy": accuracy, "images": len(order)})
            if checkpoint is not None:
                checkpoint.save(_state(model, optimizers, generator, losses, curve))
    model.eval()
    pooled_first.eval()
    # the running averages of a short training still remember weights that are gone; these are of images without shifts
    parts = (p.float().contiguous(memory_format=torch.channels_last) for p in sample.split(recipe.micro_batch))
    settle(pooled_first, [m for m in pooled_first if isinstance(m, nn.BatchNorm2d)], parts)
    return curve


def choose_dtype(wanted: str, model: nn.Sequential, data: ImageSet, recipe: Recipe) -> torch.dtype:
    """The type called `wanted`; for "auto" bfloat16 where it is clearly faster and its gradients are right."""
    if wanted != "auto":
        return getattr(torch, wanted)
    fast = best_dtype() == torch.bfloat16 and bfloat16_agrees(model, data, recipe)
    return torch.bfloat16 if fast else torch.float32


def bfloat16_agrees(model: nn.Sequential, data: ImageSet, recipe: Recipe) -> bool:
    """Whether the first gradients in bfloat16 are float32's, for every parameter: the model is left as it is.

    On digits they are not: most pixels are the same black, some channels hardly vary, BatchNorm blows their gradients
    up, and a bias, whose gradient is the sum of these and nearly zero, gets the sum of their rounding errors.
    """
    found = []
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(data), generator=generator)[: recipe.micro_batch]
    images, labels = torch.from_numpy(data.images)[some], torch.from_numpy(data.labels)[some]
    for dtype in (torch.float32, torch.bfloat16):
        trial = copy.deepcopy(model)
        _whiten(trial, images)
        _backward(pool_early(trial).train(), images, labels, torch.ones(len(some)), recipe, dtype)
        found.append({name: p.grad for name, p in trial.named_parameters() if p.grad is not None})
    exact, rounded = found
    return all((rounded[name] - g).norm() < AGREE * g.norm() for name, g in exact.items())


def _seen(losses: Tensor, epoch: int, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One epoch's images in random order (n,), and each image's weight (N,), which keeps the gradient unbiased."""
    order, weights = torch.randperm(len(losses), generator=generator), torch.ones(len(losses))
    if not recipe.prune or epoch >= int(PRUNED_PART * recipe.epochs) or not losses.isfinite().all():
        return order, weights
    easy = losses < losses.mean()
    dropped = easy & (torch.rand(len(losses), generator=generator) < recipe.prune)
    weights[easy] = 1 / (1 - recipe.prune)
    return order[~dropped[order]], weights


def _state(model: nn.Module, optimizers: list, generator: torch.Generator, losses: Tensor, curve: list) -> dict:
    """Everything that the next epoch depends on."""
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "generator": generator.get_state(),
        "losses": losses,
        "curve": curve,
    }


def _resume(
    checkpoint: Checkpoint | None, model: nn.Module, optimizers: list, generator: torch.Generator, losses: Tensor
) -> list:
    """Put everything back as it was after the last whole epoch; the learning curve up to there, [] at the start."""
    state = None if checkpoint is None else checkpoint.load()
    if state is None:
        return []
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    generator.set_state(state["generator"])
    losses.copy_(state["losses"])
    return state["curve"]


def pool_early(model: nn.Sequential) -> nn.Sequential:
    """The same modules with each pooling of a block right behind its convolution, before BatchNorm and ReLU.

    Once trained the two orders compute the same, since BatchNorm's weights stay 1 and the largest of some numbers stays
    the largest when all are scaled and shifted alike; in training BatchNorm and ReLU then see a quarter of the pixels.
    The last pooling stays: BatchNorm would be left with one number per image. ReLUs work in place here, which saves
    memory traffic; outside they must not, because explainers keep their inputs.
    """
    layers: list[nn.Module] = []
    last = max(at for at, module in enumerate(model) if isinstance(module, nn.MaxPool2d))
    for at, module in enumerate(model):
        behind_norm = [type(m) for m in layers[-2:]] == [nn.BatchNorm2d, nn.ReLU]
        early = isinstance(module, nn.MaxPool2d) and behind_norm and at != last
        module = nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else module
        layers.insert(len(layers) - 2 if early else len(layers), module)
    return nn.Sequential(*layers)


def _backward(
    model: nn.Module, pixels: Tensor, labels: Tensor, weights: Tensor, recipe: Recipe, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add the gradients of one micro-batch; each image's loss (n,), and 1 where its class was named, else 0 (n,)."""
    whitened = model[:WHITENED](pixels.float().contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        logits = model[WHITENED:](whitened)
    losses = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing, reduction="none")
    (losses @ weights).backward()
    return losses.detach(), (logits.argmax(1) == labels).float()


def _whiten(model: nn.Sequential, images: Tensor) -> None:
    """Set and freeze the first convolution's filters from 2x2 patches of the training images."""
    first = next(m for m in model if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        patches = F.unfold(model[0](images), first.kernel_size).transpose(1, 2).flatten(0, 1)  # (P, C * 4)
        first.weight.copy_(whitening_filters(patches).view_as(first.weight))
        first.bias.zero_()
    first.weight.requires_grad_(False)


def _optimizers(model: nn.Sequential, recipe: Recipe) -> list:
    convolutions = [m for m in model if isinstance(m, nn.Conv2d)]
    head = model[-1]
    decay = recipe.weight_decay * recipe.batch_size
    norm_biases = [m.bias for m in model if isinstance(m, nn.BatchNorm2d)]
    # The published rates are for 256 features whose logits are divided by 256. Here the head carries that scale, so its
    # rate is divided by 256^2; and the fewer features, the larger each one's weight and the steps that it causes.
    narrowness = 256 / head.in_features
    head_lr = recipe.head_lr / 256**2 * narrowness
    bias_lr = recipe.bias_lr / narrowness
    bias = {"lr": bias_lr, "weight_decay": decay / bias_lr}
    groups = [
        {**bias, "params": [convolutions[0].bias], "whiten": True},
        {**bias, "params": norm_biases},
        {"params": list(head.parameters()), "lr": head_lr, "weight_decay": decay / head_lr},
    ]
    filters = [m.weight for m in convolutions[1:]]
    optimizers = [
        torch.optim.SGD(groups, lr=recipe.bias_lr, momentum=0.85, nesterov=True),
        FilterMuon(filters, lr=recipe.filter_lr, momentum=recipe.filter_momentum),
    ]
    for group in [g for o in optimizers for g in o.param_groups]:
        group["initial_lr"] = group["lr"]
    return optimizers


def _set_rates(optimizers: list, done: float, whiten_done: float) -> None:
    """Fall linearly to zero; the whitening bias stops earlier."""
    for group in [g for o in optimizers for g in o.param_groups]:
        group["lr"] = group["initial_lr"] * max(0.0, 1 - (whiten_done if group.get("whiten") else done))
