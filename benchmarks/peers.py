"""The libraries that users know, each as its documentation calls it, on our superpixels and fill.

Every peer is a function of an `Explained` image, a budget and a seed, and returns a value for each superpixel. The
network is what `answer` makes of it: probabilities (B, classes) from float32 pixels (B, C, H, W).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
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


def shap_kernel(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`shap.KernelExplainer`, every superpixel in the regression."""
    import shap

    np.random.seed(seed)
    m = x.superpixels
    explainer = shap.KernelExplainer(x.value, np.zeros((1, m)))
    return explainer.shap_values(np.ones((1, m)), nsamples=budget, l1_reg=False, silent=True)[0]


def lime_image(x: Explained, budget: int, seed: int) -> np.ndarray:
    """`lime.lime_image.LimeImageExplainer` with our superpixels; hidden ones take the fill's colour."""
    from lime.lime_image import LimeImageExplainer

    grey = len(x.image) == 1

    def classify(pictures: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float()
        return x.answer(pixels[:, :1] if grey else pixels).double().numpy()

    picture = np.repeat(x.image, 3, 0) if grey else x.image
    colour = np.resize(x.fill[:, 0, 0], 3) if grey else x.fill[:, 0, 0]
    found = LimeImageExplainer(random_state=seed).explain_instance(
        picture.transpose(1, 2, 0).astype(np.float64),
        classify,
        labels=(x.target,),
        top_labels=None,
        hide_color=colour,
        num_samples=budget,
        batch_size=x.batch_size,
        segmentation_fn=lambda _: x.segments,
        progress_bar=False,
    )
    values = np.zeros(x.superpixels)
    for superpixel, coefficient in found.local_exp[x.target]:
        values[superpixel] = coefficient
    return values


def _by_captum(method: type, x: Explained, budget: int, seed: int, **options) -> np.ndarray:
    torch.manual_seed(seed)
    image, labels = torch.from_numpy(x.image)[None].float(), torch.from_numpy(x.segments)[None, None]
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


def shapiq_approximator(name: str) -> Callable[[Explained, int, int], np.ndarray]:
    """One of `shapiq`'s approximators of the Shapley value."""

    def approximate(x: Explained, budget: int, seed: int) -> np.ndarray:
        from shapiq import approximator

        m = x.superpixels
        nothing = float(x.value(np.zeros((1, m)))[0])
        options = {"pairing_trick": True} if name in ("KernelSHAP", "UnbiasedKernelSHAP", "SVARM") else {}
        method = getattr(approximator, name)(n=m, random_state=seed, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says, for instance, that not all masks were drawn
            found = method.approximate(budget=budget, game=lambda z: x.value(z) - nothing)
        return np.array([found[(i,)] for i in range(m)])

    return approximate


SHAPLEY: dict[str, Callable[[Explained, int, int], np.ndarray]] = {
    "shap.KernelExplainer": shap_kernel,
    "captum.KernelShap": captum_kernel_shap,
    "shapiq.KernelSHAP": shapiq_approximator("KernelSHAP"),
    "shapiq.SVARM": shapiq_approximator("SVARM"),
    "shapiq.UnbiasedKernelSHAP": shapiq_approximator("UnbiasedKernelSHAP"),
    "shapiq.PermutationSamplingSV": shapiq_approximator("PermutationSamplingSV"),
    "shapiq.OwenSamplingSV": shapiq_approximator("OwenSamplingSV"),
    "shapiq.ProxySPEX": shapiq_approximator("ProxySPEX"),
}
LIMES = {"lime_image": lime_image, "captum.Lime": captum_lime}
