"""Size, prior and training of a Bayesian network, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iic.errors import UserError

if TYPE_CHECKING:
    from iic.bayes.priors import Prior


@dataclass(frozen=True)
class Settings:
    """Size, prior and training of a Bayesian network.

    Attributes:
        hidden: units of each hidden dense layer; with () and no filters it is a linear classifier.
        filters: of each convolution before them (`sizes.KERNEL`, `sizes.STRIDE`); () is a fully connected network.
        prior_scale: standard deviation of every weight and bias a priori.
        epochs: passes over the training images.
        batch_size: images a step at most; an epoch is cut into parts of nearly equal size.
        learning_rate: of Adam at the first step; it decays geometrically.
        init_scale: standard deviation of every weight and bias when training starts.
        final_rate: share of the learning rate that is left at the last step.
        narrow_scale: standard deviation of the prior's narrow part; None is a prior of one Normal.
        wide_share: share of the part with `prior_scale` where there is a narrow one.
        own_scales: every weight's prior has a scale of its own, learnt (`priors.OwnScales`), in place of `prior_scale`;
            not for single sets of weights.
        local: mean-field Normal only: draw pre-activations in place of weights, signs of the filters'
            (`network.local_logits`).
        subtract_mean: whether inputs are x / 255 minus the mean pixel, or x / 255. Where most pixels are 0, a 0 keeps
            the noise of their weights out of the network.
        shift: images are moved by up to so many pixels each way, drawn anew in every epoch. The likelihood still counts
            each training image once; what is then maximised lies below the ELBO of the mean likelihood over all shifts
            (Nabarro 2022, arXiv 2106.05586).
        kl_start: weight of the KL divergence at the first step; it grows linearly.
        kl_share: share of all steps after which it is exactly `temperature`, .9 at most, so that the last tenth is
            learnt under it; 0: from the start.
        temperature: the weight at the end. 1 is the Bayesian posterior; anything else a tempered one, and says so.
        rank: of the low-rank Normal's factor.
        members: of a deep ensemble.
        dropout: share of the hidden units that MC dropout leaves out.
    """

    hidden: tuple[int, ...] = (512,)
    filters: tuple[int, ...] = ()
    prior_scale: float = 0.5
    epochs: int = 20
    batch_size: int = 250
    learning_rate: float = 2e-3
    init_scale: float = 0.01
    final_rate: float = 0.1
    narrow_scale: float | None = None
    wide_share: float = 0.5
    own_scales: bool = False
    local: bool = True
    subtract_mean: bool = True
    shift: int = 0
    kl_start: float = 1.0
    kl_share: float = 0.0
    temperature: float = 1.0
    rank: int = 4
    members: int = 5
    dropout: float = 0.5

    def __post_init__(self) -> None:
        positive = ("prior_scale", "epochs", "batch_size", "learning_rate", "init_scale", "final_rate", "temperature")
        for name in (*positive, "rank", "members"):
            if not getattr(self, name) > 0:
                raise UserError(f"The Bayesian network's {name} is {getattr(self, name)}: set it above 0.")
        for name in ("kl_start", "shift"):
            if not getattr(self, name) >= 0:
                raise UserError(f"The Bayesian network's {name} is {getattr(self, name)}: set it to 0 or more.")
        for name in ("hidden", "filters"):
            if any(units < 1 for units in getattr(self, name)):
                raise UserError(
                    f"The Bayesian network's {name} is {getattr(self, name)}: give every layer at least one unit."
                )
        if not (0 <= self.kl_share <= 0.9 and 0 < self.wide_share < 1 and 0 < self.dropout < 1):
            raise UserError(
                "The Bayesian network's kl_share, wide_share and dropout are shares: set them within 0 and 1, "
                "kl_share to 0.9 at most."
            )
        if self.own_scales and self.narrow_scale is not None:
            raise UserError(
                f"The Bayesian network's prior is one of own_scales or has a narrow_scale ({self.narrow_scale}): "
                "set one of the two only."
            )
        if self.narrow_scale is not None and not 0 < self.narrow_scale < self.prior_scale:
            raise UserError(
                f"The Bayesian network's narrow_scale is {self.narrow_scale}: set it between 0 and its prior_scale "
                f"({self.prior_scale})."
            )

    @property
    def prior(self) -> Prior:
        """The prior of every weight and bias."""
        from iic.bayes import priors  # here: parameters are checked before torch is needed

        if self.own_scales:
            return priors.OwnScales()
        if self.narrow_scale is None:
            return priors.Normal(self.prior_scale)
        return priors.ScaleMixture(self.wide_share, self.prior_scale, self.narrow_scale)

    def kl_weight(self, step: int, steps: int) -> float:
        """Weight of the KL divergence in step 0 <= step < steps; exactly `temperature` once the ramp is over."""
        ramp = self.kl_share * (steps - 1)
        if step >= ramp:
            return self.temperature
        return self.kl_start + (self.temperature - self.kl_start) * step / ramp
