"""How a network is trained, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

CPU_MICRO_BATCH = 125  # images whose activations stay in a CPU's caches, and in malloc's hands


@dataclass(frozen=True)
class Recipe:
    """Epochs, augmentation and learning rates of one training run.

    Learning rates are per summed loss. `micro_batch` images go through the network at once, BatchNorm sees only them:
    large enough for its statistics, small enough for the caches (and for malloc to reuse its memory); see `on`. The
    first `crop_epochs` epochs see windows of `crop` pixels a side only, which cost that much less. `cutout` is the side
    of the square that is blanked in each image, `cutmix` the probability that it gets a rectangle of another; `prune`
    the share of the easy images (loss below the mean) that an epoch leaves out.
    """

    epochs: int
    batch_size: int = 2000
    micro_batch: int = CPU_MICRO_BATCH
    flip: bool = True
    shift: int = 2
    crop: int = 28
    crop_epochs: int = 0
    cutout: int = 0
    cutmix: float = 0.0
    prune: float = 0.0
    label_smoothing: float = 0.2
    filter_lr: float = 0.24
    filter_momentum: float = 0.6
    bias_lr: float = 0.053
    head_lr: float = 0.67
    weight_decay: float = 2e-6
    whiten_bias_epochs: int = 3

    def on(self, device: str) -> Recipe:
        """The recipe for "cpu" or "cuda": a micro-batch of 0 becomes what suits it, on CUDA the whole batch."""
        if self.micro_batch:
            return self
        return replace(self, micro_batch=CPU_MICRO_BATCH if device == "cpu" else self.batch_size)
