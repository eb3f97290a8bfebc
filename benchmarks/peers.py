"""The libraries beside which ours is measured: the project's back ends, and `shapiq`'s approximators."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from iic.explainers.libraries import Explained, captum_kernel_shap, captum_lime, lime_image, shap_kernel


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
            found = method.approximate(budget=budget, game=lambda z: x.value(np.atleast_2d(z)) - nothing)
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
