"""Write sections as an electron microscope might see them: cells, dark membranes, and vesicles.

raw/ and labels/ hold three small sections with their labels to learn from (1 is membrane, 2 is
inside), section.tif and truth.tif a larger one. python make_sections.py
"""

from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage, spatial

PIXEL = 0.004  # micrometers


def section(edge, cells, seed):
    """Gray values and labels of one section."""
    rng = np.random.default_rng(seed)
    places = np.moveaxis(np.indices((edge, edge)), 0, -1) + np.stack(
        [8 * ndimage.gaussian_filter(rng.normal(0, 12, (edge, edge)), 12) for _ in "yx"], -1
    )
    centers = rng.uniform(-20, edge + 20, (cells, 2))
    near, _ = spatial.cKDTree(centers).query(places, 2)
    membrane = near[..., 1] - near[..., 0] < 4
    vesicles = np.zeros((edge, edge), bool)
    for y, x in rng.integers(8, edge - 8, (cells, 2)):
        vesicles[y - 2 : y + 3, x - 2 : x + 3] = True
    dark = 90 * membrane + 70 * (vesicles & ~membrane)
    gray = ndimage.gaussian_filter(190.0 - dark, 1) + rng.normal(0, 22, (edge, edge))
    return gray.clip(0, 255).astype(np.uint8), np.where(membrane, 1, 2).astype(np.uint8)


def write(name, pixels):
    """Write a gray image with its pixel size."""
    tifffile.imwrite(
        name,
        pixels,
        imagej=True,
        resolution=(1 / PIXEL, 1 / PIXEL),
        metadata={"unit": "um", "axes": "YX"},
    )


if __name__ == "__main__":
    for folder in ("raw", "labels"):
        Path(folder).mkdir(exist_ok=True)
    for number in range(3):
        pixels, labels = section(72, 10, number)
        write(f"raw/{number}.tif", pixels)
        write(f"labels/{number}.tif", labels)
    pixels, labels = section(384, 140, 9)
    write("section.tif", pixels)
    write("truth.tif", labels)
