"""Draw what QuPath would show: annotations, labels, and the polygons that come back.

python make_picture.py SLIDE ANNOTATIONS LABELS.png POLYGONS PICTURE
"""

import json
import sys

import numpy as np
import PIL.Image
import PIL.ImageDraw
import tifffile

GAP, BAR, SIZE = 10, 30, 400


def outlines(path):
    """Rings of all annotations of a file, with the color of their class."""
    with open(path) as file:
        features = json.load(file)["features"]
    for feature in features:
        color = tuple(feature["properties"]["classification"]["color"])
        shape = feature["geometry"]
        many = shape["type"] == "MultiPolygon"
        for polygon in shape["coordinates"] if many else [shape["coordinates"]]:
            for ring in polygon:
                yield [tuple(point) for point in ring], color


def drawn(pixels, path, filled):
    """A picture with the annotations of a file on it."""
    picture = PIL.Image.fromarray(pixels)
    draw = PIL.ImageDraw.Draw(picture, "RGBA")
    for ring, color in outlines(path):
        if filled:
            draw.polygon(ring, fill=(*color, 110))
        draw.line(ring, fill=color, width=3, joint="curve")
    return picture


def main(slide, annotations, labels, polygons, target):
    """Put the three side by side."""
    pixels = tifffile.imread(slide)
    with PIL.Image.open(labels) as opened:
        over = np.asarray(opened.convert("RGB")).astype(float)
    blended = (0.45 * over + 0.55 * pixels).astype(np.uint8)
    parts = {
        "you draw some areas in QuPath": drawn(pixels, annotations, True),
        "every pixel gets a label": PIL.Image.fromarray(blended),
        "QuPath gets outlines back": drawn(pixels, polygons, False),
    }
    sheet = PIL.Image.new("RGB", (3 * SIZE + 4 * GAP, SIZE + BAR + GAP), "white")
    for number, (title, part) in enumerate(parts.items()):
        left = GAP + number * (SIZE + GAP)
        PIL.ImageDraw.Draw(sheet).text((left, 7), title, fill="black", font_size=15)
        sheet.paste(part.resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS), (left, BAR))
    sheet.save(target, quality=75)


if __name__ == "__main__":
    main(*sys.argv[1:])
