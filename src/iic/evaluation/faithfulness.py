"""Whether a map's numbers are what the network's output does when pixels change, and how steady the map is.

The network is asked through `answer`, a function of float32 pixels (B, C, H, W), 0..255, to outputs (B, classes):
logits or probabilities, whichever the map explains. What is taken out of an image is replaced by a fill colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iic.draws import generator
from iic.errors import UserError

BATCH = 250  # images a forward
ROUNDING = 1e-6  # float32's, relative: outputs that differ by no more are the same

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class Explanations:
    """Images, what was explained of them, and the network to compare that with.

    Attributes:
        answer: float32 (B, C, H, W) -> (B, classes).
        images: uint8 or float (N, C, H, W), pixels 0..255.
        indices: int64 (N,), positions in the test set, which key all draws.
        targets: int64 (N,), the explained classes.
        maps: float (N, H, W).
        fill: float (C,), the colour of what is taken out, pixel units.
    """

    answer: Callable[[Tensor], Tensor]
    images: np.ndarray
    indices: np.ndarray
    targets: np.ndarray
    maps: np.ndarray
    fill: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def outputs(self, row: int, shown: Tensor) -> Tensor:
        """The explained output float64 (B,) where so much of each pixel shows: fill + shown (image - fill).

        Args:
            row: which image.
            shown: float or bool (B, 1, H, W); 1 is the image, 0 the fill, exactly.
        """
        image = torch.from_numpy(self.images[row]).float()
        fill = torch.as_tensor(self.fill, dtype=torch.float32).view(-1, 1, 1).expand_as(image)
        parts = [torch.lerp(fill, image, part.float()) for part in shown.split(BATCH)]
        return torch.cat([self.answer(pixels)[:, int(self.targets[row])].double() for pixels in parts])


def infidelity(
    given: Explanations,
    *,
    seed: int,
    samples: int = 100,
    spread: float = 0.2,
    rescale: bool = True,
    progress: Progress = iter,
) -> np.ndarray:
    """E (sum of noise x map - (f(x) - f(x - noise (x - fill))))^2 by Captum (Yeh et al. 2019, arXiv 1901.09392, eq. 1).

    The noise is one Gaussian number per spatial pixel: by what share of its distance from the fill the pixel moves
    towards the fill. A map in this project is a pixel's contribution, its channels summed, so this is the change that
    the map makes a statement about; noise on the single channels would need a map of the gradient. Distances from the
    fill are scaled alike in pixels and in normalised pixels, so it does not matter in which of the two it is added. A
    pixel that has the fill's colour cannot move, as it cannot be taken out either.

    Args:
        given: what to judge.
        seed: keys the noise with each image's index, so that every method meets the same.
        samples: perturbations an image.
        spread: the noise's standard deviation, 1 = the whole distance from the fill.
        rescale: multiply each map by the number that makes this smallest, as the authors' code does. Needed to compare
            maps in different units (probabilities, logits, absolute gradients). It forgives a wrong sign.
        progress: wraps the loop over images, such as tqdm.

    Returns:
        float64 (N,), the output's unit squared, 0 = faithful.
    """
    return np.array([_infidelity(given, row, seed, samples, spread, rescale) for row in progress(range(len(given)))])


def _infidelity(given: Explanations, row: int, seed: int, samples: int, spread: float, rescale: bool) -> float:
    from captum.metrics import infidelity

    rng = generator("infidelity", seed, given.indices[row])

    def perturbed(shown: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.from_numpy(spread * rng.standard_normal(shown.shape))
        return noise, shown - noise

    scores = torch.from_numpy(given.maps[row].astype(np.float64))[None, None]
    found = infidelity(
        lambda shown: given.outputs(row, shown),
        perturbed,
        torch.ones_like(scores),  # Captum's inputs are how much of each pixel shows, (1, 1, H, W)
        scores,
        n_perturb_samples=samples,
        max_examples_per_batch=min(samples, BATCH),
        normalize=rescale,
    )
    return max(0.0, found.item())  # a difference of large numbers where maps are rescaled


def sensitivity_n(
    given: Explanations, n: int, *, seed: int, samples: int = 100, progress: Progress = iter
) -> np.ndarray:
    """Correlation of the sum of n pixels' values with the output's drop when they are filled (Ancona et al. 2018).

    arXiv 1711.06104, section 3.3: over random sets of n pixels, Pearson's correlation. It ignores the map's unit, not
    its sign. 0 where the output or the sums do not vary: such a map explains nothing of what happens.

    Args:
        given: what to judge.
        n: pixels a set.
        seed: keys the sets with each image's index, so that every method meets the same.
        samples: sets an image.
        progress: wraps the loop over images, such as tqdm.

    Returns:
        float64 (N,), -1..1.

    Raises:
        UserError: n is not between one and all but one of the pixels.
    """
    pixels = given.maps[0].size
    if not 1 <= n < pixels:
        raise UserError(f"sensitivity-n with n = {n} compares nothing: choose n from 1 to {pixels - 1} pixels.")
    found = [_sums_and_drops(given, row, n, seed, samples) for row in progress(range(len(given)))]
    return np.array([_correlation(*pair) for pair in found])


def _sums_and_drops(given: Explanations, row: int, n: int, seed: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Of random sets of n pixels: sums of the map and drops of the output, centred, float64 (samples,) each."""
    flat = given.maps[row].ravel().astype(np.float64)
    draws = generator("sensitivity_n", seed, given.indices[row]).random((samples, flat.size))
    chosen = np.zeros(draws.shape, bool)
    np.put_along_axis(chosen, np.argpartition(draws, n - 1, axis=1)[:, :n], True, axis=1)
    kept = np.concatenate([np.ones((1, flat.size), bool), ~chosen])
    outputs = given.outputs(row, torch.from_numpy(kept).view(-1, 1, *given.maps.shape[1:])).numpy()
    sums = _centred(chosen @ flat, 1e-12 * np.abs(flat).sum())
    return sums, _centred(outputs[0] - outputs[1:], ROUNDING * np.abs(outputs).max())


def _centred(values: np.ndarray, rounding: float) -> np.ndarray:
    """Deviations from the mean; zeros where values differ by rounding alone, which would correlate with anything."""
    return np.zeros_like(values) if np.ptp(values) <= rounding else values - values.mean()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine, -1..1; 0 where one of the two is zero."""
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.clip(a @ b / length, -1, 1)) if length > 0 else 0.0


def completeness_error(given: Explanations, progress: Progress = iter) -> np.ndarray:
    """|sum of map - (f(x) - f(fill))| / |f(x) - f(fill)| (Sundararajan et al. 2017, arXiv 1703.01365, section 3).

    Where the output at the image is the same as at the fill: 0 if the map sums to 0 as well, else infinity. So sum up
    many images by the median.

    Returns:
        float64 (N,), 0 = complete, 1 = the error of a map of zeros.
    """
    ends = torch.tensor([1.0, 0.0]).view(-1, 1, 1, 1).expand(-1, 1, *given.maps.shape[1:])
    outputs = torch.stack([given.outputs(row, ends) for row in progress(range(len(given)))]).numpy()  # (N, 2)
    gap = outputs[:, 0] - outputs[:, 1]
    error = np.abs(given.maps.sum((1, 2), dtype=np.float64) - gap)
    return np.divide(error, np.abs(gap), out=np.where(error == 0, 0.0, np.inf), where=gap != 0)


def max_sensitivity(
    explain: Callable[[Tensor, int], Tensor | np.ndarray],
    images: np.ndarray,
    *,
    indices: np.ndarray,
    seed: int,
    radius: float = 5.0,
    samples: int = 10,
    progress: Progress = iter,
) -> np.ndarray:
    """How much a map changes at most when its image hardly does, by Captum (Yeh et al. 2019, definition 3).

    max |map(x + noise) - map(x)| / |map(x)|, both lengths Euclidean, over `samples` noisy copies.

    Args:
        explain: float32 pixels (B, C, H, W) and the number of the image that they are copies of -> maps (B, H, W); by
            that number it knows the class to explain and the image's own draws, which stay the same.
        images: uint8 (N, C, H, W).
        indices: int64 (N,), positions in the test set, which with `seed` key the noise.
        seed: see `indices`.
        radius: the noise is uniform within +- so many pixel units, for each pixel and channel; what leaves 0..255 is
            cut off, since some methods know these bounds.
        samples: noisy copies an image.
        progress: wraps the loop over images, such as tqdm.

    Returns:
        float64 (N,), 0 = steady. Of a map of zeros, the length of the change itself.
    """
    rows = progress(range(len(images)))
    return np.array([_max_sensitivity(explain, images, row, indices, seed, radius, samples) for row in rows])


def _max_sensitivity(
    explain: Callable, images: np.ndarray, row: int, indices: np.ndarray, seed: int, radius: float, samples: int
) -> float:
    from captum.metrics import sensitivity_max

    rng = generator("max_sensitivity", seed, indices[row])

    def perturbed(pixels: Tensor) -> Tensor:
        return (pixels + torch.from_numpy(rng.uniform(-radius, radius, pixels.shape)).float()).clamp(0, 255)

    def maps(pixels: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        if isinstance(pixels, tuple):  # Captum passes the image itself like this, and takes its map back likewise
            return (maps(pixels[0]),)
        with torch.enable_grad():  # Captum switches gradients off, and some methods need them
            return torch.as_tensor(explain(pixels, row)).detach().double().flatten(1)

    image = torch.from_numpy(images[row : row + 1]).float()
    return sensitivity_max(maps, image, perturb_func=perturbed, n_perturb_samples=samples).item()
