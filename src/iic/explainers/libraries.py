"""The libraries themselves as back ends (`backend: library`): `lime`, `shap` and Captum, unchanged.

Each is called as its documentation says, on our superpixels and fill, so that anyone can hold ours against theirs on
an image of their own.

Every library is a function of an `Explained` image, a budget and a seed, and returns a value for each superpixel (LIME,
Kernel SHAP) or each pixel (occlusion). The network is what `answer` makes of it: outputs (B, classes) from float32
pixels (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Explained:
    """One image and everything that an explainer is given.

    Attributes:
        image: uint8 (C, H, W). fill: float32 (C, H, W). segments: int64 (H, W). target: the class.
        answer: probabilities (B, classes) of pixels (B, C, H, W), float32.
        batch_size: what the peer is best at, images a forward.
    """

    image: np.ndarray
    fill: np.ndarray
    segments: np.ndarray
    target: int
    answer: Callable[[Tensor], Tensor]
    batch_size: int = 250

    @property
    def superpixels(self) -> int:
        return int(self.segments.max()) + 1

    def value(self, masks: np.ndarray) -> np.ndarray:
        """The vectorised mask function that a careful user of shap or shapiq writes: (B, M) -> float64 (B,)."""
        image, fill = torch.from_numpy(self.image).float(), torch.from_numpy(self.fill)
        labels = torch.from_numpy(self.segments)
        found = []
        for part in torch.from_numpy(np.ascontiguousarray(masks) > 0.5).split(self.batch_size):
            keep = part[:, labels].unsqueeze(1)
            found.append(self.answer(torch.where(keep, image, fill))[:, self.target])
        return torch.cat(found).double().numpy()


@contextmanager
def seeded(seed: int):
    """The global generators of numpy and torch seeded, as these libraries want it, and put back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)


def shap_kernel(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`shap.KernelExplainer`, every superpixel in the regression."""
    import shap

    m = x.superpixels
    with seeded(seed):
        explainer = shap.KernelExplainer(x.value, np.zeros((1, m)))
        return explainer.shap_values(np.ones((1, m)), nsamples=budget, l1_reg=False, silent=True)[0]


@contextmanager
def _without_bar():
    """`lime_image` shows a progress bar for each image and has no switch for it."""
    from lime import lime_image

    shown = lime_image.tqdm
    lime_image.tqdm = iter
    try:
        yield
    finally:
        lime_image.tqdm = shown


def lime_image(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`lime.lime_image.LimeImageExplainer` with our superpixels; hidden ones take the fill's colour."""
    from lime.lime_image import LimeImageExplainer

    grey = len(x.image) == 1

    def classify(pictures: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
        return x.answer(pixels[:, :1] if grey else pixels).double().numpy()

    picture = np.repeat(x.image, 3, 0) if grey else x.image
    colour = np.resize(x.fill[:, 0, 0], 3) if grey else x.fill[:, 0, 0]
    explainer = LimeImageExplainer(random_state=seed)
    with _without_bar():
        found = explainer.explain_instance(
            picture.transpose(1, 2, 0).astype(np.float64),
            classify,
            labels=(x.target,),
            top_labels=None,
            hide_color=colour,
            num_samples=budget,
            batch_size=x.batch_size,
            segmentation_fn=lambda _: x.segments,
        )
    values = np.zeros(x.superpixels)
    for superpixel, coefficient in found.local_exp[x.target]:
        values[superpixel] = coefficient
    return values


def _by_captum(method: type, x: Explained, budget: int, seed: int, **options) -> np.ndarray:
    image, labels = torch.from_numpy(x.image)[None].float(), torch.from_numpy(x.segments)[None, None]
    with seeded(seed):
        found = method(x.answer, **options).attribute(
            image,
            baselines=torch.from_numpy(x.fill)[None],
            target=x.target,
            feature_mask=labels.expand_as(image).contiguous(),
            n_samples=budget,
            perturbations_per_eval=x.batch_size,
        )
    firsts = np.unique(x.segments, return_index=True)[1]
    return found[0, 0].double().numpy().ravel()[firsts]


def captum_kernel_shap(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`captum.attr.KernelShap`."""
    from captum.attr import KernelShap

    return _by_captum(KernelShap, x, budget, seed)


def captum_lime(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`captum.attr.Lime` with ridge regression; its default Lasso sets nearly all coefficients to zero."""
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    return _by_captum(Lime, x, budget, seed, interpretable_model=SkLearnRidge(alpha=1.0))


def captum_occlusion(x: Explained, window: int, stride: int) -> np.ndarray:
    """`captum.attr.Occlusion`: a value for each pixel, float64 (H, W)."""
    from captum.attr import Occlusion

    channels = len(x.image)
    found = Occlusion(x.answer).attribute(
        torch.from_numpy(x.image)[None].float(),
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=torch.from_numpy(x.fill)[None],
        target=x.target,
        perturbations_per_eval=x.batch_size,
    )
    return found[0, 0].double().numpy()
