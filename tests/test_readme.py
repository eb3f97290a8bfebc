"""The README's example, run as it stands there."""

import re

import numpy as np
from conftest import ROOT

from iic.classifiers.networks import network_from_state
from iic.data.shapes import draw_shapes
from iic.shipped import load_shipped


def test_the_readmes_example_explains_images():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    model = network_from_state(load_shipped(ROOT / "weights" / "shapes.pt")).eval()
    train, images = (draw_shapes(count, seed=seed).images for count, seed in ((40, 1), (3, 2)))
    found = {"model": model, "train": train, "images": images}
    exec(example, found)
    maps = found["maps"]
    assert maps.values.shape == maps.errors.shape == (3, 32, 32)
    assert np.isfinite(maps.values).all() and (maps.errors > 0).any()
    assert (maps.numbers["forwards"] <= 1000).all() and (maps.numbers["forwards"] > 900).all()
