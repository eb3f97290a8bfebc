"""The names of all methods, without the libraries that they need: what IIC_METHODS may hold.

A name with an ending is a fair twin: `_logit` explains the logit where the method explains a probability; `_superpixel`
averages a map of single pixels over the superpixels that LIME and Kernel SHAP use; `_blurred` blurs any map.
"""

from __future__ import annotations

SAMPLED = ("lime", "kernel_shap", "kernel_shap_fast", "occlusion", "rise")
LRP_COMPOSITES = {
    "lrp": "epsilon_plus_flat",
    "lrp_epsilon": "epsilon",
    "lrp_alpha2_beta1": "epsilon_alpha2_beta1_flat",
    "lrp_gamma_box": "epsilon_gamma_box",
}
GRADIENTS = (
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "smoothgrad",
    "deeplift",
    "guided_backprop",
    "grad_cam",
)
HOOKED = ("deeplift", "guided_backprop", "grad_cam")  # look at modules, not only at outputs and gradients
CONTROLS = ("random", "sobel")
LIBRARY = ("lime", "kernel_shap", "occlusion")  # what backend "library" runs; the gradients are Captum's anyway
SUPERPIXEL_METHODS = ("lime", "kernel_shap", "kernel_shap_fast")  # one value for each superpixel

LOGIT, SUPERPIXEL, BLURRED = "_logit", "_superpixel", "_blurred"
BASE = (*SAMPLED, *LRP_COMPOSITES, *GRADIENTS, *CONTROLS)
DIRECT = (*BASE, *(name + LOGIT for name in ("lime", "kernel_shap")))
PIXEL_METHODS = tuple(name for name in BASE if name not in SUPERPIXEL_METHODS)
METHODS = (*DIRECT, *(name + SUPERPIXEL for name in PIXEL_METHODS), *(name + BLURRED for name in BASE))
DEFAULT = ("lime", "kernel_shap", "lrp", "random", "sobel")


def source_of(method: str) -> str | None:
    """The method whose stored maps this one is derived from; None for one that asks the network itself."""
    for ending in (SUPERPIXEL, BLURRED):
        if method.endswith(ending):
            return method.removesuffix(ending)
    return None
