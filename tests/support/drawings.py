"""Annotations as people's tools write them, and the images that they are of."""

import json

import numpy as np

from tiledlaf.files import images

SIZE = (60, 80)


def image(size=SIZE, **options):
    """An image in memory, of three channels."""
    return images.from_array(np.zeros((3, *size), np.uint8), **options)


def ring(x0, y0, x1, y1):
    """A rectangle, from corner to corner."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def box(x0, y0, x1, y1, *holes):
    """A rectangle with rectangular holes."""
    return {"type": "Polygon", "coordinates": [ring(x0, y0, x1, y1), *(ring(*h) for h in holes)]}


def feature(geometry, name=None, **more):
    """An annotation of QuPath; a name stands for its class, a mapping for how it is written."""
    properties = {"objectType": "annotation", **more}
    if name is not None:
        properties["classification"] = {"name": name} if isinstance(name, str) else name
    return {"type": "Feature", "id": "0", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def whole(labels):
    """All pixels of a label image."""
    return labels.read(tuple(slice(0, n) for n in labels.grid))[0]
