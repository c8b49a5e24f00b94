"""Export what is in an output as a file of another program, by its suffix."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import onnxmodel
from ..model.model import load
from ..pool.opening import PROCESSES, THREADS, Running, open_pool
from ..pool.tasks import Pool, check_progress
from ..registry import Registry
from . import objects as finding
from . import targets
from .exporting import Choice, Export, Progress
from .finding import Finding
from .formats.geojson import GeoJson
from .formats.ometiff import OmeTiff
from .formats.png import Png
from .formats.table import Csv, Parquet
from .result import Result, open_result

MODELS = ".onnx"  # suffix of what a model becomes
SMALL = 2**24  # pixels of a plane: outlines hold Python's lock, so threads are for a few alone

FORMATS: Registry[Export] = Registry(
    "tiledlaf.exports",
    {
        "ome-tiff": OmeTiff(),
        "geojson": GeoJson(),
        "csv": Csv(),
        "parquet": Parquet(),
        "png": Png(),
    },
)


def format_of(target: str | os.PathLike[str]) -> Export:
    """The format of a file by its suffix, the longest that fits.

    Raises
    ------
    ValueError
        If none fits; names all.
    """
    name = os.fspath(target).lower()
    fits = [
        (len(suffix), one)
        for one in FORMATS.values()
        for suffix in one.suffixes
        if name.endswith(suffix)
    ]
    if not fits:
        every = ", ".join(sorted({s for one in FORMATS.values() for s in one.suffixes}))
        raise InputError(f"{os.fspath(target)}: expected a file ending {every}")
    return max(fits, key=lambda pair: pair[0])[1]


def export(
    output: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    classes: str | int | Sequence[str | int] | None = None,
    objects: str | None = None,
    connectivity: str | None = None,
    min_size: float | str | None = None,
    fill_holes: bool | float | str | None = None,
    simplify: float | None = None,
    z: int | None = None,
    time_point: int | None = None,
    overwrite: bool = False,
    running: Running = Running(),
    progress: Progress | None = None,
) -> None:
    """Write labels as a file of another program: polygons, pyramids, tables or a picture.

    A model becomes a network in ONNX, which other programs run on images.

    Parameters
    ----------
    output : path
        An output of `label`, finished; the file of a model for a target that ends .onnx.
    target : path
        A new file, or the URL of an object; its suffix says which format.
    name : str, optional
        Of the labels; may be left out where there is one.
    classes : names, optional
        Which classes, by name or label value; all by default.
    objects : str, optional
        A class whose objects are exported one by one; they are made if they are not there.
    connectivity, min_size, fill_holes : optional
        What an object is, as `tiledlaf.objects` takes it; objects of other settings are made anew.
        Without these, those that are there are exported.
    simplify : float, optional
        How far the borders of polygons may move, in micrometers (Douglas and Peucker); neighbors
        keep theirs in common.
    z, time_point : int, optional
        The plane of a volume, and the time point, from 0, for formats that hold one.
    overwrite : bool
        Whether a file that is there is replaced.
    running : Running
        Where the work is done.
    progress : callable, optional
        Called with {"stage", "done", "of"} as the work goes on.

    Raises
    ------
    ValueError
        If the labels are not finished, or the format cannot hold what is asked for.
        If ONNX cannot express a part of the model.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np, tiledlaf
    >>> image = np.zeros((6, 8)); image[:, 4:] = 1
    >>> np.save("halves.npy", image)
    >>> _ = tiledlaf.label("halves.npy", "halves.zarr", classes=2, names=["left", "right"])
    >>> tiledlaf.export("halves.zarr", "halves.csv")
    >>> print(Path("halves.csv").read_text(), end="")
    value,class,pixels,share
    1,left,24,0.5
    2,right,24,0.5
    """
    check_progress(progress)
    some: Any = classes
    if classes is not None:
        some = (classes,) if isinstance(classes, str | int) else tuple(classes)
    choice = Choice(some, objects, simplify, z, time_point)
    asked = {"connectivity": connectivity, "min_size": min_size, "fill_holes": fill_holes}
    said = {name: value for name, value in asked.items() if value is not None}
    if os.fspath(target).lower().endswith(MODELS):
        for option in (*choice.named, *said, *(["name"] if name is not None else [])):
            raise InputError(f"`{option}` is nothing that ONNX knows")
        _export_model(output, target, overwrite)
        return
    form = format_of(target)
    if said and objects is None:
        raise InputError(f"`{next(iter(said))}`: of objects, which `objects` asks for")
    meant = Finding(**said) if said else None  # type: ignore[arg-type]
    if classes is not None and objects is not None:
        raise InputError("expected at most one of `classes` and `objects`")
    for option in choice.named:
        if option not in form.options:
            raise InputError(f"`{option}` is nothing that {form.name} knows")
    targets.check(target, overwrite)
    targets.check_outside(target, output)
    result = open_result(output, name)
    if choice.objects is not None:
        finding.value_of(result.names, choice.objects)
    if meant is not None:
        meant.settings(result.pixel_size)
    form.check(result, choice)
    pooled = form.pooled or choice.objects is not None
    with _pool(pooled, result, running) as pool, targets.written(target, overwrite) as part:
        if meant is not None and choice.objects is not None:
            finding.find_objects(result, choice.objects, pool, meant, progress)
        form.write(result, part, choice, pool, progress or _untold)


def _export_model(
    model: str | os.PathLike[str], target: str | os.PathLike[str], overwrite: bool
) -> None:
    targets.check(target, overwrite)
    made = onnxmodel.to_onnx(load(model))
    with targets.written(target, overwrite) as part:
        Path(part).write_bytes(made)


def _pool(pooled: bool, result: Result, running: Running) -> AbstractContextManager[Pool]:
    """Threads for what has no tasks, and for what is small; else processes or what is named."""
    if not pooled:
        return open_pool(1, THREADS)
    if not running.named and math.prod(result.labels.grid[-2:]) > SMALL:
        running = dataclasses.replace(running, scheduler=PROCESSES)
    return finding.open_pool(result, running)


def _untold(record: dict[str, Any]) -> None:
    pass
