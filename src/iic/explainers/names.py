"""The names of all methods, without the libraries that they need: what IIC_METHODS may hold.

A name with an ending is a fair twin: `_logit` explains the logit where the method explains a probability; `_superpixel`
averages a map of single pixels over the superpixels that LIME and Kernel SHAP use; `_blurred` blurs any map. Two more
endings are a method's own controls: `_mean_map` shows the mean of all its maps for every image, `_random_weights`
explains a copy of the network whose weights are drawn anew; `_random_weights_blurred` blurs that. (The mean of many
maps is smooth as it is.)
"""

from __future__ import annotations

from collections.abc import Sequence

SAMPLED = ("lime", "lime_fast", "kernel_shap", "kernel_shap_fast", "occlusion", "rise")
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
CONTROLS = ("random", "random_superpixels", "sobel", "contrast", "centre")
LIBRARY = ("lime", "kernel_shap", "occlusion")  # what backend "library" runs; the gradients are Captum's anyway
SUPERPIXEL_METHODS = ("lime", "lime_fast", "kernel_shap", "kernel_shap_fast")  # one value for each superpixel

LOGIT, SUPERPIXEL, BLURRED = "_logit", "_superpixel", "_blurred"
MEAN_MAP, RANDOM_WEIGHTS = "_mean_map", "_random_weights"
EXPLAINERS = (*SAMPLED, *LRP_COMPOSITES, *GRADIENTS)
BASE = (*EXPLAINERS, *CONTROLS)
DIRECT = (
    *BASE,
    *(name + LOGIT for name in SAMPLED),
    *(name + RANDOM_WEIGHTS for name in EXPLAINERS),
)
PIXEL_METHODS = tuple(name for name in BASE if name not in (*SUPERPIXEL_METHODS, "random_superpixels"))
METHODS = (
    *DIRECT,
    *(name + SUPERPIXEL for name in PIXEL_METHODS),
    *(name + BLURRED for name in BASE),
    *(name + MEAN_MAP for name in EXPLAINERS),
    *(name + LOGIT + BLURRED for name in SAMPLED),
    *(name + RANDOM_WEIGHTS + BLURRED for name in EXPLAINERS),
)
MAIN = ("lime", "kernel_shap", "lrp")
TWINS = ("lime_logit", "kernel_shap_logit", "lrp_superpixel")
DEFAULT = (*MAIN, *TWINS, *CONTROLS)
STUDY = (  # what a verdict needs that is to survive review: each method's blurred variant, and every control
    *MAIN,
    *TWINS,
    *(name + ending for ending in (BLURRED, MEAN_MAP, RANDOM_WEIGHTS, RANDOM_WEIGHTS + BLURRED) for name in MAIN),
    *CONTROLS,
    *(name + BLURRED for name in CONTROLS),
)


def source_of(method: str) -> str | None:
    """The method whose stored maps this one is derived from; None for one that asks the network itself."""
    for ending in (SUPERPIXEL, BLURRED, MEAN_MAP):
        if method.endswith(ending):
            return method.removesuffix(ending)
    return None


def explained_together(methods: Sequence[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The methods in groups whose maps come from the same forwards.

    Returns:
        the methods that ask the network, one or one and its twin on logits -> those of `methods` that are these, or
        derived from them.
    """
    sources = dict.fromkeys(source_of(method) or method for method in methods)
    twins = {source: source + LOGIT for source in sources if source + LOGIT in sources}
    groups = [(s, twins[s]) if s in twins else (s,) for s in sources if s not in twins.values()]
    return {group: tuple(m for m in methods if (source_of(m) or m) in group) for group in groups}


def base_of(method: str) -> str:
    """The name without its endings."""
    bare = method
    for ending in (BLURRED, LOGIT, SUPERPIXEL, MEAN_MAP, RANDOM_WEIGHTS):  # one that is blurred may have two
        bare = bare.removesuffix(ending)
    return bare


def own_controls(method: str) -> tuple[str, ...]:
    """The controls that are made of the method itself, or of the method that it is a variant of."""
    return tuple(base_of(method) + ending for ending in (MEAN_MAP, RANDOM_WEIGHTS, RANDOM_WEIGHTS + BLURRED))


def is_control(method: str) -> bool:
    """Whether the map knows nothing of the image's class as the trained network sees it."""
    return base_of(method) in CONTROLS or method in own_controls(method)


def is_control_of(control: str, method: str) -> bool:
    """Whether `method` has to beat `control`: one that knows nothing of the network, or the method's own."""
    return base_of(control) in CONTROLS or (control in own_controls(method) and control != method)


def controls_of(method: str) -> tuple[str, ...]:
    """All that a method has to beat in a strict study: the controls, these blurred, and its own."""
    return (*CONTROLS, *(name + BLURRED for name in CONTROLS), *own_controls(method))


def fair_twins(better: str, worse: str) -> list[tuple[str, str]]:
    """The comparisons that have to agree before `better` may be called better than `worse`.

    Superpixels are ranked whole and pixels one by one, and methods that only ask for outputs explain probabilities
    where the others explain logits. So a method of pixels is also averaged over the superpixels of the other; those
    that explain probabilities also explain logits; and both at once, where both differ.
    """
    pixels = [name in PIXEL_METHODS for name in (better, worse)]
    probability = [name in SAMPLED for name in (better, worse)]
    area = [n + SUPERPIXEL if p and pixels[0] != pixels[1] else n for n, p in zip((better, worse), pixels, strict=True)]
    scale = [LOGIT if p and probability[0] != probability[1] else "" for p in probability]
    pairs = [
        tuple(area),
        tuple(n + ending for n, ending in zip((better, worse), scale, strict=True)),
        tuple(n + ending for n, ending in zip(area, scale, strict=True)),
    ]
    return [pair for pair in dict.fromkeys(pairs) if pair != (better, worse)]
