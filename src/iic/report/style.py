"""What the figures share: a canvas that needs no screen, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iic.explainers.names import LOGIT, LRP_COMPOSITES, SAMPLED, base_of, is_control

MANY = 14  # methods whose names no longer fit beside each other
# Okabe & Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#555555"
COLOURS = (BLUE, "#D55E00", GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000")
MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.", (0, (1, 3)))
GREYS = (GREY, "#8C8C8C", "#B4B4B4", "#222222")  # of controls, once the dashes are used up
DIVERGING = "RdBu_r"  # red speaks for the class, blue against, white is zero

FILLS = {
    "salt_and_pepper": ("salt and pepper", BLUE),
    "mean_colour": ("mean colour", ORANGE),
    "road": ("ROAD (noisy linear imputation)", GREEN),
    "blur": ("blurred image", "#CC79A7"),
    "donor": ("another training image", "#56B4E9"),
}
JUDGES = {"explained": "the explained network", "adapted": "its copy that has seen masked images"}
TITLES = {
    "lime": "LIME",
    "lime_fast": "LIME\n(fast)",
    "kernel_shap": "Kernel SHAP",
    "kernel_shap_fast": "Kernel SHAP\n(fast)",
    "rise": "RISE",
    "lrp": "LRP",
    "lrp_epsilon": "LRP ε",
    "lrp_alpha2_beta1": "LRP α2β1",
    "lrp_gamma_box": "LRP γ-box",
    "input_x_gradient": "input × gradient",
    "smoothgrad": "SmoothGrad",
    "deeplift": "DeepLIFT",
    "guided_backprop": "guided backprop",
    "grad_cam": "Grad-CAM",
    "random": "random\npixels\n(control)",
    "random_superpixels": "random\nsuperpixels\n(control)",
    "sobel": "Sobel edges\n(control)",
    "contrast": "distance from\nmean colour\n(control)",
    "centre": "centre\n(control)",
}
TWINS = {
    "_logit": "on logits",
    "_superpixel": "by superpixel",
    "_blurred": "blurred",
    "_mean_map": "mean map (control)",
    "_random_weights": "random weights (control)",
}

UNITS = {
    **dict.fromkeys(SAMPLED, "probability"),
    **dict.fromkeys((*LRP_COMPOSITES, "input_x_gradient", "integrated_gradients", "deeplift"), "logit"),
    **dict.fromkeys(("gradient", "smoothgrad", "guided_backprop"), "logit per unit\nof the input"),
    **dict.fromkeys(("sobel", "contrast"), "pixel values"),
}


def unit(method: str) -> str:
    """What a map's numbers are; those of the other methods have no unit, only an order."""
    return "logit" if LOGIT in method else UNITS.get(base_of(method), "no unit")


def title(method: str) -> str:
    """How pictures call a method."""
    for ending, words in TWINS.items():
        if method.endswith(ending):
            return f"{title(method.removesuffix(ending))}\n{words}"
    return TITLES.get(method, method.replace("_", " "))


def one_line(method: str) -> str:
    """The same where there is no room for several lines."""
    return title(method).replace("\n", " ")


def chart_size(methods: Sequence[str], height: float) -> tuple[float, float]:
    """Inches of a chart with bars of so many methods and of this height, names below and the legend beside included."""
    many = len(methods) > MANY
    return (0.62 if many else 1.1) * len(methods) + 3.5, height + (2.4 if many else 0)


def name_methods(axis: Any, methods: Sequence[str]) -> None:
    """Methods' names below their places 0, 1, ... of the x axis; upright where there are many."""
    many = len(methods) > MANY
    names = [one_line(method) if many else title(method) for method in methods]
    axis.set_xticks(range(len(methods)), names, fontsize=8, rotation=90 if many else 0)
    axis.set_xlim(-0.6, len(methods) - 0.4)


def method_styles(methods: list[str]) -> dict[str, dict]:
    """Colour, dashes, marker and label of each method: explainers coloured, controls grey; no two look alike."""
    explainers = [m for m in methods if not is_control(m)]
    controls = [m for m in methods if is_control(m)]
    styles = {}
    for number, method in enumerate(explainers):
        styles[method] = {"color": COLOURS[number % len(COLOURS)], "ls": DASHES[number // len(COLOURS) % len(DASHES)]}
    for number, method in enumerate(controls):
        styles[method] = {"color": GREYS[number // len(DASHES) % len(GREYS)], "ls": DASHES[number % len(DASHES)]}
    for number, method in enumerate((*explainers, *controls)):
        number -= len(explainers) if number >= len(explainers) else 0
        styles[method] |= {"marker": MARKERS[number % len(MARKERS)], "label": one_line(method)}
    return styles


def write_above(axis: Any, place: float, top: float, words: str) -> None:
    """A bar's number above what reaches up to `top`, legible on a line that crosses it."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
    axis.text(place, top + 0.01, words, ha="center", va="bottom", fontsize=7, bbox=box)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of its own canvas, in inches, and its axes; no pyplot state, no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
