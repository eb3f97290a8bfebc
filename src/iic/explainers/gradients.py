"""The gradient family, through Captum, on the frozen network in float32; many images at once.

Gradients are taken with respect to the normalised pixels (design, section 3: input x gradient multiplies by them), so
the baseline of integrated gradients and DeepLIFT, zero, is the dataset's mean colour. A network that does not begin
with the project's `Normalize` is explained from its pixels 0..255 on: the baseline is the mean colour there too, and
input x gradient multiplies by pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iic.classifiers.networks import Cast, Normalize, is_chain
from iic.errors import UserError
from iic.explainers.graph import SUMS, traced
from iic.params import AttributionParams


class AfterNormalize(nn.Module):
    """The network from its normalised pixels on; any other network as it is.

    Attributes:
        normalize: makes of pixels 0..255 what the network takes.
        baseline: the mean colour `mean`, float32 (C,) in pixel units, behind that: (1, C, 1, 1).
    """

    def __init__(self, model: nn.Module, mean: Tensor) -> None:
        super().__init__()
        layers = list(model) if is_chain(model) else []
        own = bool(layers) and isinstance(layers[0], Normalize)
        self.normalize = layers[0] if own else nn.Identity()
        self.network = nn.Sequential(*layers[1:]) if own else model
        self.baseline = self.normalize(mean.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def _leaf(x: Tensor) -> Tensor:
    """A tensor that gradients are asked of."""
    return x.detach().requires_grad_()


def _signed(maps: Tensor) -> Tensor:
    return maps.sum(1)


def _absolute(maps: Tensor) -> Tensor:
    return maps.abs().sum(1)


def gradient(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """|d logit / d x| (Simonyan et al. 2014)."""
    from captum.attr import Saliency

    return _absolute(Saliency(model).attribute(_leaf(x), target=targets, abs=False))


def input_x_gradient(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """x d logit / d x (Shrikumar et al. 2016)."""
    from captum.attr import InputXGradient

    return _signed(InputXGradient(model).attribute(_leaf(x), target=targets))


def integrated_gradients(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """Gradients along the way from the mean colour to the image (Sundararajan et al. 2017)."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(model)
    start = model.baseline.expand(1, *x.shape[1:])
    steps = params.gradient_steps
    return _signed(method.attribute(x, start, targets, n_steps=steps, internal_batch_size=len(x)))


def smoothgrad(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """|Mean gradient of noisy copies of the image| (Smilkov et al. 2017); the noise is the same for all images.

    Written out, because Captum's NoiseTunnel draws from the global generator, and an image's map would depend on the
    other images of its batch. The noise's standard deviation is `smoothgrad_noise` times the image's own range.
    """
    from captum.attr import Saliency

    generator = torch.Generator().manual_seed(params.seed)
    noise = torch.randn(params.gradient_steps, *x.shape[1:], generator=generator).to(x)
    scale = params.smoothgrad_noise * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    method = Saliency(model)
    return _absolute(sum(method.attribute(_leaf(x + scale * n), target=targets, abs=False) for n in noise) / len(noise))


def deeplift(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """Differences from the mean colour, carried back by the rescale rule (Shrikumar et al. 2017)."""
    import warnings

    from captum.attr import DeepLift

    with warnings.catch_warnings():  # Captum announces on every call that it sets hooks, and takes them off again
        warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
        start = model.baseline.expand(1, *x.shape[1:])
        return _signed(DeepLift(model).attribute(_leaf(x), start, targets))


def guided_backprop(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """Gradients of which every ReLU lets only positive ones through (Springenberg et al. 2015)."""
    import warnings

    from captum.attr import GuidedBackprop

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU", UserWarning)
        return _absolute(GuidedBackprop(model).attribute(_leaf(x), target=targets))


def grad_cam(model: nn.Module, x: Tensor, targets: Tensor, params: AttributionParams) -> Tensor:
    """Channels of the last convolution's ReLU, weighted by their mean gradient, enlarged (Selvaraju et al. 2017)."""
    from captum.attr import LayerAttribution, LayerGradCam

    maps = LayerGradCam(model, last_spatial(model)).attribute(x, target=targets, relu_attributions=True)
    return LayerAttribution.interpolate(maps, x.shape[2:], "bilinear")[:, 0]


def last_spatial(model: nn.Module) -> nn.Module:
    """The activation behind the last convolution that is computed, behind the sum that it goes into if it does; or that
    convolution."""
    graph = traced(model)
    modules = dict(graph.named_modules())
    convolutions = [n for n in graph.graph.nodes if n.op == "call_module" and isinstance(modules[n.target], nn.Conv2d)]
    if not convolutions:
        raise UserError("Grad-CAM needs a convolution, and this network has none: leave grad_cam out of IIC_METHODS.")
    following = next(iter(convolutions[-1].users), None)
    while following is not None and following.op == "call_function" and following.target in SUMS:
        following = next(iter(following.users), None)
    if following is not None and following.op == "call_module":
        behind = modules[following.target]
        if isinstance(behind, (nn.ReLU, Cast)):
            return model.get_submodule(following.target)
    return model.get_submodule(convolutions[-1].target)


GRADIENTS: dict[str, Callable[[nn.Module, Tensor, Tensor, AttributionParams], Tensor]] = {
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "deeplift": deeplift,
    "guided_backprop": guided_backprop,
    "grad_cam": grad_cam,
}


def passes(method: str, params: AttributionParams) -> float:
    """Forward passes that one image's map takes (each with a pass back)."""
    many = {"integrated_gradients": params.gradient_steps, "smoothgrad": params.gradient_steps, "deeplift": 2}
    return float(many.get(method, 1))
