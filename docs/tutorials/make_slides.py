"""Write four small slides of unequal size, pieces of a photograph that scikit-image ships.

colors.csv and names.txt have the colors of three classes, and their names. python make_slides.py
"""

from pathlib import Path

import tifffile
from skimage import data

COLORS = "150,100,60\n170,180,205\n240,235,230\n"  # brown stain, blue stroma, pale lumen
PIECES = {
    "a": (slice(0, 512), slice(0, 512)),
    "b": (slice(0, 256), slice(0, 384)),
    "c": (slice(200, 512), slice(100, 512)),
    "d": (slice(256, 512), slice(0, 256)),
}

if __name__ == "__main__":
    Path("slides").mkdir(exist_ok=True)
    photograph = data.immunohistochemistry()
    for name, piece in PIECES.items():
        tifffile.imwrite(
            f"slides/{name}.ome.tif",
            photograph[piece],
            photometric="rgb",
            metadata={
                "axes": "YXS",
                **dict.fromkeys(("PhysicalSizeX", "PhysicalSizeY"), 0.5),
                **dict.fromkeys(("PhysicalSizeXUnit", "PhysicalSizeYUnit"), "µm"),
            },
        )
    Path("colors.csv").write_text(COLORS)
    Path("names.txt").write_text("gland\nstroma\nlumen\n")
