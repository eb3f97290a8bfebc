"""Every parameter block, checked before any node runs; what parameters.yml does not name has these defaults.

Seeds key all draws of their block.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from iic.shipped import NETWORKS

if TYPE_CHECKING:
    from iic.bayes.settings import Settings


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Block(BaseModel):
    """A parameter block: unknown names and numbers written as text are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataParams(Block):
    """Where the images come from."""

    source: Literal["digits", "shapes", "parquet"]  # "parquet": files in <IIC_RAW>/<name>, Parquet or folders of PNG
    channels: Literal[1, 3]
    class_names: tuple[str, ...] = Field(min_length=2, strict=False)
    download: Literal["MNIST", "CIFAR10"] | None = None  # the torchvision dataset to take when there is no Parquet file
    n_train: PositiveInt | None = None  # for `shapes`; of the others so many images only, drawn by the seed
    n_test: PositiveInt | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _names_differ(self) -> DataParams:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("two class_names are the same")
        return self


class TrainingParams(Block):
    """Where a network comes from, and the recipe if it is trained here; see `iic.classifiers.recipe.Recipe`.

    `weights` is "trained" (here), "shipped" (the project's own, in `weights/`), "shipped_small" (of `cifar10`: less
    accurate, a fifth of the cost; the one of `seed`), or the path of your own network: a torch.export file (.pt2), or a
    state dict (.pt) with `factory`, "package.module:function", that builds its module.
    """

    weights: str = "trained"
    factory: str | None = None
    n_validation: int = Field(0, ge=0)  # training images held out to fit the temperature; 0 leaves it at 1

    epochs: PositiveInt = 8
    widths: tuple[PositiveInt, PositiveInt, PositiveInt] = Field((64, 256, 256), strict=False)  # channels of the blocks
    depth: PositiveInt = 2  # convolutions in each of the three blocks
    residual: bool = False  # a sum adds what a block's pooling gives to what its other convolutions make of it
    batch_size: PositiveInt = 2000
    # images through the network at once; BatchNorm sees only these. 0 is 125 on a CPU, the whole batch on CUDA
    micro_batch: int = Field(0, ge=0)
    flip: bool = False  # mirrored in every second epoch
    shift: int = Field(2, ge=0, le=8)  # pixels each way, at most
    crop: int = Field(28, ge=25)  # pixels a side; the network takes no smaller image
    crop_epochs: int = Field(0, ge=0)  # so many first epochs see windows of `crop` pixels only
    cutout: int = Field(0, ge=0, le=16)  # side of the square that is blanked in each image, pixels
    cutmix: float = Field(0.0, ge=0, le=1)  # probability that an image gets a rectangle of another, and of its label
    teachers: tuple[str, ...] = Field((), strict=False)  # state dicts of networks whose answers take the labels' place
    prune: float = Field(0.0, ge=0, lt=1)  # share of the images with a loss below the mean that an epoch leaves out
    label_smoothing: float = Field(0.2, ge=0, lt=1)  # share of each label that goes to all classes alike
    filter_lr: PositiveFloat = 0.24  # Muon's rate at the start, the angle of a step: smaller for smaller batches
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the convolutions; "auto" is what is faster here
    device: Literal["auto", "cpu", "cuda"] = "auto"  # where it is trained; "auto" is CUDA where there is one
    seed: Seed = 0

    @model_validator(mode="after")
    def _factory_has_weights(self) -> TrainingParams:
        if self.factory is not None and (self.weights in ("trained", *NETWORKS) or self.weights.endswith(".pt2")):
            raise ValueError(
                f"factory builds the module of a state dict, and weights is '{self.weights}': "
                "give the path of the state dict, or leave factory out"
            )
        return self

    @model_validator(mode="after")
    def _micro_batch_has_a_variance(self) -> TrainingParams:
        if self.micro_batch == 1:
            raise ValueError("a micro_batch of one image leaves BatchNorm without a variance: use 2 or more, or 0")
        return self

    @model_validator(mode="after")
    def _sums_have_something_to_bridge(self) -> TrainingParams:
        if self.residual and self.depth < 2:
            raise ValueError("residual needs a depth of 2 or more: a sum bridges a block's later convolutions")
        return self


class AttributionParams(Block):
    """Which images are explained, in which superpixels, at what cost, and where."""

    n_images: PositiveInt = 200
    seed: Seed = 0

    segmentation: Literal["slic", "grid", "pixels"] = "slic"  # "pixels": each by itself
    segments: str | None = None  # a .npy file of your own superpixels: integers (H, W), or (test images, H, W)
    superpixels: int = Field(50, ge=2)  # aimed at; SLIC finds fewer
    compactness: PositiveFloat = 10.0  # of SLIC: about 10 in colour, 0.1 in grey
    fill: Literal["mean", "constant", "superpixel_mean", "blur"] = "mean"  # what shows where a superpixel is off
    fill_constant: float = Field(0.0, ge=0, le=255)  # the grey of "constant"

    budget: int = Field(1000, ge=16)  # forwards per image of LIME, Kernel SHAP and RISE, at most
    stop_early: bool = False  # Kernel SHAP ends when the top fifth of an image is settled
    kernel_power: float = Field(0.0, ge=0, le=1)  # coalition sizes by the kernel's mass to this power; 0 is leverage
    lime_kernel_width: PositiveFloat = 0.25  # as in the package `lime`, of the cosine distance
    lime_ridge: PositiveFloat = 1.0  # the penalty of its regression
    rise_cells: int = Field(8, ge=2)  # a side of RISE's coarse grid
    occlusion_window: PositiveInt = 6  # pixels a side
    occlusion_stride: PositiveInt = 2  # pixels
    gradient_steps: PositiveInt = 32  # of integrated gradients; noisy copies of SmoothGrad
    smoothgrad_noise: PositiveFloat = 0.15  # standard deviation, as a share of the image's range
    # layer -> rule, before the composite's choice, as {"3": flat}: names of rules are in `explainers.composites.RULES`,
    # those of layers as `print(classifiers.inference.freeze(model))` has them
    lrp_rules: dict[str, str] = {}
    blur: PositiveFloat = 1.5  # standard deviation of the blurred twins, pixels

    backend: Literal["own", "library"] = "own"  # "library": lime, shap and Captum themselves, on the same superpixels
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # of methods that only ask for answers
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = Field(0, ge=0)  # images a forward; 0 takes what suits the device
    shard_size: PositiveInt = 100  # images a file: what a killed run loses at most
    scheduler: str | None = None  # address of a Dask scheduler; None explains in this process

    def determining(self) -> dict:
        """What the maps depend on, JSON-ready: all but where they are computed."""
        return self.model_dump(mode="json", exclude={"scheduler"})

    @model_validator(mode="after")
    def _windows_meet(self) -> AttributionParams:
        if self.occlusion_stride > self.occlusion_window:
            raise ValueError(
                f"an occlusion_stride of {self.occlusion_stride} leaves gaps between windows of "
                f"{self.occlusion_window}: make it no larger than occlusion_window"
            )
        return self

    @model_validator(mode="after")
    def _budget_suffices(self) -> AttributionParams:
        if self.budget < 4 * self.superpixels:
            raise ValueError(
                f"a budget of {self.budget} is less than four forwards for each of {self.superpixels} superpixels"
            )
        return self


class EvaluationParams(Block):
    """How explanations are judged: the headline on all explained images, the matrix of cells on some of them."""

    keep: float = Field(0.2, gt=0, lt=1)  # share of the pixels that is kept, or removed, in the headline
    noise_seeds: tuple[Seed, ...] = Field((0, 1, 2, 3, 4), min_length=1, strict=False)
    fills: tuple[Literal["salt_and_pepper", "mean_colour", "road", "blur", "donor"], ...] = Field(
        ("salt_and_pepper", "mean_colour", "road", "blur", "donor"), min_length=1, strict=False
    )  # of the matrix; the headline has salt and pepper and the mean colour
    shares: tuple[float, ...] = Field((0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), min_length=2, strict=False)  # of the matrix
    matrix_images: PositiveInt = 1000  # the first explained ones
    matrix_seeds: tuple[Seed, ...] = Field((0, 1), min_length=1, strict=False)  # of its fills' noise
    properties_images: PositiveInt = 200  # explained images for complexity, faithfulness, localisation, agreement
    sanity_images: PositiveInt = 20  # explained again on noisy copies and by randomised networks
    judge_epochs: PositiveInt = 2  # for which the second judge sees masked training images
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # of the forwards of judges and faithfulness
    leakage_images: PositiveInt = 300  # training images whose masks the mask network learns; a full study takes 5,000
    shortcut_class: NonNegativeInt = 0  # the class whose training images carry the planted watermark
    shortcut_share: float = Field(1.0, gt=0, le=1)  # of that class's training images; below 1 it may not be taken
    shortcut_epochs: PositiveInt = 6  # of the copy trained with it; at most the network's own: watermarks are easy
    shortcut_images: int = Field(50, ge=10)  # marked test images that are explained
    bootstrap: int = Field(2000, ge=100)  # replicates of every interval
    per_class: PositiveInt = 3  # rows of each class in the visual comparison
    seed: Seed = 0

    @model_validator(mode="after")
    def _values_differ(self) -> EvaluationParams:
        for name in ("noise_seeds", "fills", "shares", "matrix_seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"two {name} are the same")
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError("shares are between 0 and 1, such as 0.2")
        return self


Posterior = Literal["mean_field", "low_rank", "laplace", "ensemble", "dropout"]


class BayesianParams(Block):
    """The Bayesian network of `iic.bayes`: a whole one for datasets of one channel, a last layer for those of three."""

    weights: Literal["trained", "shipped"] = "trained"

    posterior: Posterior = "mean_field"  # the one that is explained
    references: tuple[Posterior, ...] = Field(("laplace", "low_rank", "dropout", "ensemble"), strict=False)  # beside it

    hidden: tuple[PositiveInt, ...] = Field((256,), strict=False)  # units of each hidden dense layer
    filters: tuple[PositiveInt, ...] = Field((), strict=False)  # of each 5x5 convolution before them, stride 2
    prior_scale: PositiveFloat = 0.5  # standard deviation of every weight and bias a priori
    narrow_scale: PositiveFloat | None = None  # of the prior's second, narrow Normal; None is a prior of one Normal
    wide_share: float = Field(0.5, gt=0, lt=1)  # of the part with prior_scale, where there is a narrow one
    own_scales: bool = False  # mean-field Normal: each weight's prior has a scale of its own, learnt, not prior_scale
    epochs: PositiveInt = 20
    reference_epochs: PositiveInt | None = None  # of the references, each of them trained as often; None is `epochs`
    reference_rates: dict[Posterior, PositiveFloat] = {}  # kind -> its learning rate, where `learning_rate` is not it
    batch_size: PositiveInt = 200
    learning_rate: PositiveFloat = 0.002
    final_rate: PositiveFloat = 0.1  # share of the learning rate that is left at the end
    init_scale: PositiveFloat = 0.01  # standard deviation of every weight when training starts
    local: bool = True  # mean-field Normal: draw pre-activations in place of weights
    kl_start: float = Field(1.0, ge=0)  # weight of the KL divergence at the first step
    kl_share: float = Field(0.0, ge=0, le=0.9)  # of the steps, in which it gets to the temperature
    temperature: PositiveFloat = 1.0  # its weight in the end; but for 1 the explained posterior is called tempered
    subtract_mean: bool = True  # of the pixels; without, what is black brings no weight's noise in
    shift: int = Field(0, ge=0)  # pixels that training images are moved by
    rank: PositiveInt = 4  # of the low-rank Normal
    members: int = Field(5, ge=2)  # of the deep ensemble
    dropout: float = Field(0.5, gt=0, lt=1)  # share of units that MC dropout leaves out

    samples: int = Field(100, ge=2)  # of the posterior
    threshold: float = Field(0.2, gt=0, lt=1)  # of the original study's rule: answers if a class's median exceeds it
    doubt_shares: tuple[float, ...] = Field((0.1, 0.2, 0.5), min_length=1, strict=False)  # of pixels kept or removed
    doubt_images: PositiveInt = 200  # explained images that are degraded so, at most
    noise_images: PositiveInt = 1000  # and as many of every other set of foreign images
    explained_images: PositiveInt = 500  # test images whose explanations are compared over the posterior
    refused_images: PositiveInt = 50  # the most doubted ones, whose doubt is explained
    variance_images: PositiveInt = 20  # explained again and again, for the table of sources of variance
    variance_retrained: bool = True  # whether the network is trained from other seeds for it, once less than `repeats`
    repeats: int = Field(3, ge=2)  # for that table
    seed: Seed = 0

    def settings(self) -> Settings:
        """Size, prior and training of a whole Bayesian network.

        Raises:
            UserError: some of them do not fit together.
        """
        from iic.bayes.settings import Settings

        chosen = {field.name for field in fields(Settings)} & set(type(self).model_fields)
        return Settings(**self.model_dump(include=chosen))

    @model_validator(mode="after")
    def _settings_fit(self) -> BayesianParams:
        self.settings()
        if self.own_scales and self.posterior != "mean_field":
            raise ValueError(f"own_scales is for the posterior mean_field, not {self.posterior}")
        return self

    @model_validator(mode="after")
    def _shares_are_shares(self) -> BayesianParams:
        if not all(0 < share < 1 for share in self.doubt_shares):
            raise ValueError("doubt_shares are between 0 and 1, such as 0.2")
        if len(set(self.doubt_shares)) < len(self.doubt_shares):
            raise ValueError("two doubt_shares are the same")
        return self
