"""tiledlaf evaluate."""

from __future__ import annotations

from typing import Any

import click

from ..errors import InputError
from . import guide, shared

EXAMPLES = (
    (
        "an output beside annotations, pixel by pixel and cell by cell",
        "tiledlaf evaluate out.zarr slide.geojson --objects cell",
    ),
    (
        "where the errors are, and all numbers",
        "tiledlaf evaluate out.zarr truth.png --picture errors.png --json scores.json",
    ),
    (
        "two instance masks, as StarDist and Cellpose write them",
        "tiledlaf evaluate a.tif b.tif --instances object --label-instances cell",
    ),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Compare labels with the truth: errors, F1, IoU, objects.",
    groups={
        "name": "Labels and annotations",
        "outside": "Labels and annotations",
        "label_instances": "Labels and annotations",
        "objects": "Scores",
        "connectivity": "Scores",
    },
)
@click.argument("labels")
@click.argument("truth")
@click.option(
    "--boundary",
    metavar="NAME",
    help="Class that separates components, for the adapted Rand error.",
)
@click.option(
    "--objects",
    multiple=True,
    metavar="CLASS",
    help="Also compare the objects of a class one by one: F1 and panoptic quality; repeatable.",
)
@click.option(
    "--outside",
    metavar="CLASS",
    help="Class of what lies outside of all annotations (default: left out).",
)
@click.option(
    "--label-instances",
    metavar="CLASS",
    help="LABELS is an instance mask: its values are objects of CLASS, 0 is background.",
)
@click.option(
    "--connectivity",
    metavar="face|full",
    help="Neighbors within an object: pixels that share an edge (in volumes, a face), or also a "
    "corner (default: face).",
)
@click.option(
    "--name",
    default="tiledlaf",
    show_default=True,
    help="Read LABELS from labels/NAME of a store.",
)
@shared.label_meaning_options
@shared.annotation_options
@click.option("--json", "json_file", metavar="FILE", help="Also write all numbers as JSON.")
@click.option(
    "--picture", "picture_file", metavar="FILE.png", help="Also draw where the errors are."
)
def evaluate(
    labels: str,
    truth: str,
    boundary: str | None,
    objects: tuple[str, ...],
    outside: str | None,
    label_instances: str | None,
    connectivity: str | None,
    name: str,
    json_file: str | None,
    picture_file: str | None,
    **given: Any,
) -> None:
    """Compare LABELS with TRUTH: pixels by class, components, and objects one by one.

    LABELS is an output of tiledlaf or a label image of one channel; TRUTH is a label image of the
    same size, or of that of the labeled image, or a file of annotations, whose classes are named
    like the labels. --instances and --colors explain its values, --label-instances those of LABELS.
    If LABELS records which truth values each class stands for, other truth values are left out;
    otherwise the values are compared as they are. --boundary needs memory for the whole image,
    about 50 bytes per pixel; the rest is computed tile by tile.

    Objects are annotations, the instances of a mask, or connected pixels of a class. F1 counts
    matches whose intersection over union is at least 0.5 to 0.9. Instances are compared unasked.
    """
    from ..reports import evaluation

    written = {"--json": json_file, "--picture": picture_file}
    for option, path in written.items():
        if path is not None:
            shared.check_file(option, path)
            for other in (labels, truth):
                if shared.same(other, path):
                    raise InputError(f"{option} {path}: expected a file other than {other}")
    if json_file is not None and json_file == picture_file:
        raise InputError(f"--json {json_file}: expected a file other than --picture")
    meant = {**shared.meaning_of(given), "ignore": given["ignore"]}
    meant |= {"painting": shared.painting(given), "outside": outside}
    meant |= {"name": name, "label_instances": label_instances}
    found = evaluation.evaluate(
        labels, truth, boundary=boundary, objects=objects, connectivity=connectivity, **meant
    )
    shared.echo(*evaluation.lines(found))
    if json_file is not None:
        evaluation.write_json(found, json_file, {"labels": labels, "truth": truth})
    if picture_file is not None:
        evaluation.write_picture(found, picture_file, labels, truth, **meant)
