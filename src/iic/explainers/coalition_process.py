"""Shapley values by a Gaussian process over coalitions: what `kernel_shap_fast` adds to Kernel SHAP.

Kernel SHAP's regression treats every interaction of superpixels as noise. Here the game is a Gaussian process on
{-1, 1}^M whose kernel prod_i (1 + l_i x_i x'_i) gives the interaction of a set S the prior variance prod_{i in S} l_i:
small sets and important superpixels interact most. Only its odd part is used, g(z) = (v(z) - v(1 - z)) / 2, which the
pairs of masks show and which alone has Shapley values. These are a linear functional of g, known in closed form for a
product kernel through Owen's multilinear extension (Owen 1972): phi_i = integral over t of E[v(z_i = 1) - v(z_i = 0)],
the others being on with probability t. Nothing is learnt from other images; the constants below were checked on
training images, where the error hardly depends on them (docs/decisions.md).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iic.explainers.kernel_shap import PairedValues

STRENGTH = 2.0  # sum of all l_i: how strongly superpixels interact
FLOOR = 0.3  # what an unimportant superpixel counts, in mean absolute Shapley values
LARGEST = 0.9  # of an l_i
LINEAR = 1.0  # prior variance of main effects beyond the kernel's own, in mean l_i
UNEXPLAINED = 1e-2  # share of the variance left to interactions without form
ROUNDS = 2  # the first finds which superpixels are important, given Kernel SHAP's values; the second uses it
CAUTION = 1.2  # errors are enlarged so much: no game is quite such a process (held by 91-99 % of intervals without)
ADDITIVE = 1e-9  # what main effects may leave of the largest g for a game without interactions
NODES = 12  # Gauss-Legendre nodes of the integral over t, which is smooth


def process_shapley_values(found: PairedValues, pilot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapley values and their standard errors under the process.

    Args:
        found: one image's pairs of masks and what the network said of them.
        pilot: float64 (M,), Kernel SHAP's values, which say how strongly each superpixel may interact.

    Returns:
        float64 (M,) and (M,). Every mask used, or a game whose odd part has main effects only: the pilot itself, which
        is exact then, and zeros. Errors are the process's: of games that are not like one, such as a single AND of many
        superpixels, 95 % intervals hold the exact value far less often.
    """
    if (found.coalitions.sampled >= 1).all():
        return pilot, np.zeros_like(pilot)
    total = found.everything - found.nothing
    x = torch.from_numpy(found.coalitions.masks).double() * 2 - 1
    x = torch.cat([x, torch.ones(1, x.shape[1], dtype=torch.float64)])  # (P + 1, M): the pairs, and all against none
    g = torch.from_numpy(np.append((found.kept - found.others) / 2, total / 2))  # (P + 1,)
    values = torch.from_numpy(pilot)
    if (g - x @ values / 2).abs().max() <= ADDITIVE * g.abs().max():
        return pilot, np.zeros_like(pilot)
    for _ in range(ROUNDS):
        posterior = Posterior(x, g, interaction_strengths(values))
        values = posterior.mean()
    errors = posterior.errors()
    # What efficiency asks for holds up to the jitter of the last row; the rest is shared out evenly.
    return (values + (total - values.sum()) / len(values)).numpy(), errors.numpy()


def interaction_strengths(values: Tensor) -> Tensor:
    """l_i, float64 (M,), in proportion to the absolute Shapley values (M,) above a floor."""
    importance = values.abs()
    importance = importance + FLOOR * importance.mean() + torch.finfo(torch.float64).tiny
    return (STRENGTH * importance / importance.sum()).clamp(max=LARGEST)


class Posterior:
    """The Shapley values given g (P,) at the signs x (P, M); the last row of x is all against none."""

    def __init__(self, x: Tensor, g: Tensor, strengths: Tensor) -> None:
        self.strengths, self.linear = strengths, LINEAR * strengths.mean()
        kernel = odd_kernel(x, strengths, self.linear)  # (P, P)
        noise = UNEXPLAINED * kernel.diagonal().mean() * torch.ones(len(x), dtype=torch.float64)
        noise[-1] *= 1e-6  # v(1) - v(0) is what all values sum to
        self.factor = torch.linalg.cholesky(kernel + noise.diag())
        self.weights = torch.cholesky_solve(g[:, None], self.factor)[:, 0]
        self.reach = shapley_of_kernel(x, strengths, self.linear)  # (P, M)

    def mean(self) -> Tensor:
        """(M,)."""
        return self.weights @ self.reach

    def errors(self) -> Tensor:
        """Standard deviations, (M,); the process's scale is what its leave-one-out errors say.

        Leave-one-out: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 5.12.
        """
        inverse = torch.cholesky_inverse(self.factor)
        scale = (self.weights.square() / inverse.diagonal())[:-1].mean()
        left = shapley_variance(self.strengths, self.linear) - (self.reach * (inverse @ self.reach)).sum(0)
        return CAUTION * (scale * left.clamp(min=0)).sqrt()


def odd_kernel(x: Tensor, strengths: Tensor, linear: Tensor) -> Tensor:
    """The odd part in x of prod (1 + l_i x_i x'_i), plus linear sum x_i x'_i: signs (P, M) -> (P, P)."""
    # 1 + l s = sqrt(1 - l^2) exp(s atanh l) for s = -1, 1, and the odd part of exp is sinh
    level = (1 - strengths.square()).log().sum() / 2
    return level.exp() * ((x * strengths.atanh()) @ x.T).sinh() + linear * (x @ x.T)


def shapley_of_kernel(x: Tensor, strengths: Tensor, linear: Tensor) -> Tensor:
    """Shapley value of each superpixel in the game k(., x), for each x: signs (P, M) -> (P, M)."""
    u, w = _nodes()
    factors = 1 + (strengths * x)[..., None] * u  # (P, M, nodes): superpixel j is on with probability (1 + u) / 2
    others = factors.prod(1, keepdim=True) / factors
    return 2 * x * (strengths * (others @ w) + linear)


def shapley_variance(strengths: Tensor, linear: Tensor) -> Tensor:
    """Prior variance of each Shapley value, (M,)."""
    u, w = _nodes()
    factors = 1 + strengths[:, None, None] * u[:, None] * u  # (M, nodes, nodes)
    others = factors.prod(0) / factors
    return 4 * (strengths * (others @ w @ w) + linear)


def _nodes() -> tuple[Tensor, Tensor]:
    """Nodes on -1..1 and weights that sum to 1."""
    u, w = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(u), torch.from_numpy(w / 2)
