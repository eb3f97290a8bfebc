"""What the figures share: a canvas that needs no screen, colours that colour-blind readers can tell apart."""

from __future__ import annotations

# Okabe & Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#555555"
DIVERGING = "RdBu_r"  # red speaks for the class, blue against, white is zero

FILLS = {"salt_and_pepper": ("salt and pepper", BLUE), "mean_colour": ("mean colour", ORANGE)}
TITLES = {
    "lime": "LIME",
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
    "random": "random pixels\n(control)",
    "sobel": "Sobel edges\n(control)",
}
TWINS = {"_logit": "on logits", "_superpixel": "by superpixel", "_blurred": "blurred"}


def title(method: str) -> str:
    """How pictures call a method."""
    for ending, words in TWINS.items():
        if method.endswith(ending):
            return f"{title(method.removesuffix(ending))}\n{words}"
    return TITLES.get(method, method.replace("_", " "))


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options):
    """A figure of its own canvas, in inches, and its axes; no pyplot state, no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
