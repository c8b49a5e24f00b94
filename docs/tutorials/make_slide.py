"""Write slide.ome.tif, a photograph that scikit-image ships, and annotations as QuPath saves them.

The tissue is a colon, its epithelium stained brown; learn.geojson and check.geojson stand for what
you would draw and export in QuPath. python make_slide.py
"""

import json
import uuid

import tifffile
from skimage import data

PIXEL = 0.5  # micrometers
COLORS = {"Gland": [200, 80, 0], "Other": [80, 120, 220]}
LEARN = [
    ("Gland", [(70, 110), (130, 100), (150, 160), (90, 180)]),
    ("Gland", [(80, 330), (135, 330), (140, 390), (80, 390)]),
    ("Other", [(180, 290), (235, 290), (230, 340), (178, 340)]),
    ("Other", [(474, 40), (506, 40), (506, 110), (476, 110)]),
    ("Other", [(272, 190), (284, 190), (330, 262), (290, 262)]),
    ("Other", [(0, 320), (36, 345), (30, 505), (0, 505)]),
    ("Other", [(334, 120), (345, 118), (375, 182), (366, 184)]),
]
CHECK = [
    ("Gland", [(285, 340), (360, 340), (360, 460), (295, 470)]),
    ("Gland", [(390, 60), (435, 60), (450, 190), (390, 240)]),
    ("Other", [(400, 330), (430, 310), (420, 500), (395, 440)]),
    ("Other", [(302, 45), (308, 45), (332, 100), (324, 100)]),
]


def features(areas):
    """A collection of annotations, with the words that QuPath 0.5 uses."""
    found = []
    for name, corners in areas:
        ring = [list(corner) for corner in (*corners, corners[0])]
        kind = {"name": name, "color": COLORS[name]}
        found.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, str(corners))),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "annotation", "classification": kind},
            }
        )
    return {"type": "FeatureCollection", "features": found}


if __name__ == "__main__":
    tifffile.imwrite(
        "slide.ome.tif",
        data.immunohistochemistry(),
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
        metadata={
            "axes": "YXS",
            "PhysicalSizeX": PIXEL,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": PIXEL,
            "PhysicalSizeYUnit": "µm",
        },
    )
    for name, areas in (("learn", LEARN), ("check", CHECK)):
        with open(f"{name}.geojson", "w") as file:
            json.dump(features(areas), file, indent=1)
