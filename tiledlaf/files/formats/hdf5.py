"""HDF5, as ilastik writes it: a data set by its path in the file, or the only one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DamagedFile, InputError
from .. import image, nodes, stores, texts, transformations
from ..image import Levels, Part, Reader, State

MOST_DIMENSIONS = 5
SHOWN = 12  # most data sets to list in a message


@dataclass(frozen=True)
class Hdf5(Reader):
    """A data set of an HDF5 file, such as ``image.h5/exported_data``.

    Attributes
    ----------
    part : path of the data set in the file
    """

    part: str = ""

    name = "HDF5"
    suffixes = frozenset({".h5", ".hdf5", ".ilp"})

    def sniff(self, path: str) -> bool:
        """Whether a path is that of an HDF5 file, or leads into one."""
        return super().sniff(path if stores.is_url(path) else stores.split(path)[0])

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """The shape; axes and pixel sizes where ilastik, vigra or ImageJ have noted them."""
        image.check_level(path, level, 1)
        file, inner = stores.split(path)
        name = self.part or inner or _default(file)
        data = _opened(file).get(name)
        if not _is_image(data):
            raise InputError(
                f"{path}: expected an array of 2 to {MOST_DIMENSIONS} dimensions at {name!r}; the "
                f"file holds {_listed(file)}"
            )
        letters, sizes, units = _axes(path, data)
        return Levels(name, letters, (tuple(data.shape),), data.dtype, sizes, None, units)

    def open(self, path: str, name: str) -> Any:
        """The data set, read where it is sliced."""
        return _opened(stores.split(path)[0])[name]

    def state(self, path: str, name: str) -> State:
        """Size and time of the file."""
        return nodes.chunk_state(stores.split(path)[0])

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes without names are z, y, x."""
        file, inner = stores.split(path)
        data = _opened(file)[self.part or inner or _default(file, quiet=True)]
        unnamed = data.ndim == 3 and not _axes(path, data)[0]
        return self, "zyx" if unnamed else None

    def parts(self, path: str) -> list[Part]:
        """The data sets, if there are several."""
        file, inner = stores.split(path)
        found = {} if inner else _images(file)
        if len(found) < 2:
            return []
        return [
            Part(name, "", _axes(path, data)[0], tuple(data.shape), data.dtype.name)
            for name, data in found.items()
        ]

    def choose(self, path: str, series: str) -> Reader:
        """The reader of one data set, by its path or number."""
        found, name = list(_images(stores.split(path)[0])), series.strip("/")
        if name.isdecimal() and name not in found and int(name) < len(found):
            name = found[int(name)]
        if name not in found:
            raise InputError(
                f"{path}: expected one of {', '.join(found)} for `series`, got {name!r}"
            )
        return Hdf5(name)


def _opened(file: str) -> Any:
    try:
        import h5py
    except ImportError:
        suffix = Path(file).suffix
        raise InputError(
            f"{file}: files ending {suffix} need h5py: pip install 'tiledlaf[hdf5]'"
        ) from None
    try:
        return h5py.File(file, "r")
    except OSError as error:
        text = str(error).splitlines()[0]
        raise DamagedFile(f"{file}: this HDF5 file cannot be read, {text}") from None


def _is_image(data: Any) -> bool:
    """Whether it is an array of numbers with two axes or more."""
    shape = getattr(data, "shape", ())
    return 2 <= len(shape) <= MOST_DIMENSIONS and data.dtype.kind in "uifb" and all(shape)


def _images(file: str) -> dict[str, Any]:
    """The images in a file, by their paths."""
    found: dict[str, Any] = {}

    def visit(name: str, data: Any) -> None:
        if _is_image(data):
            found[name] = data

    _opened(file).visititems(visit)
    return found


def _default(file: str, quiet: bool = False) -> str:
    """The data set to take if none is named: the only or the largest one."""
    found = _images(file)
    if not found:
        raise InputError(f"{file}: expected an array of numbers, found {_listed(file)}")
    name = max(found, key=lambda n: found[n].size)
    if len(found) > 1 and not quiet:
        image.say(
            f"{file}: it holds {', '.join(found)}; the largest, {name}, is taken: {file}/PATH "
            "names another"
        )
    return name


def _listed(file: str) -> str:
    """Names and shapes of all arrays in a file."""
    names: list[str] = []

    def visit(name: str, data: Any) -> None:
        if hasattr(data, "shape"):
            names.append(f"{name} {tuple(data.shape)}")

    _opened(file).visititems(visit)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "no array"


def _axes(path: str, data: Any) -> tuple[str, list[float] | None, list[str | None] | None]:
    """Axes, pixel sizes and units of a data set; "" and None where they are not noted."""
    tags = data.attrs.get("axistags")
    if tags is not None:
        try:
            listed = texts.parsed(tags)["axes"]
            letters = "".join(transformations.letter({"name": a["key"]}) or "?" for a in listed)
        except Exception:  # damaged JSON costs the names of the axes, not the image
            letters = "?"
        if len(letters) == data.ndim and "?" not in letters:
            return letters, *_sizes(data, letters)
        image.say(f"{path}: its axistags cannot be read")
    dims = [transformations.letter({"name": d.label}) for d in data.dims]
    letters = "".join(map(str, dims)) if all(dims) else ""
    return letters, *_sizes(data, letters)


def _sizes(data: Any, letters: str) -> tuple[list[float] | None, list[str | None] | None]:
    """Pixel sizes as h5j and ImageJ's plugin for HDF5 note them: z, y, x in micrometers."""
    given = np.ravel(data.attrs.get("element_size_um", ()))
    spatial = [a for a in letters if a in image.SPATIAL]
    if len(given) != 3 or not spatial or not (given > 0).all():
        return None, None
    known = dict(zip("zyx", map(float, given), strict=True))
    sizes = [known[a] if a in image.SPATIAL else 1.0 for a in letters]
    return sizes, ["micrometer" if a in image.SPATIAL else None for a in letters]
