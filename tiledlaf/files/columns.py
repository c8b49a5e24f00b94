"""Tables in a store: a Zarr group with one array of one axis per column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from ..errors import DamagedFile
from . import ngff, nodes, stores, units

ROWS = 2**16  # of a chunk


def write(
    store: str,
    group: str,
    columns: Mapping[str, np.ndarray],
    zarr_format: int,
    notes: Mapping[str, Any],
) -> None:
    """Write a table; its notes list the columns, and are written last.

    Parameters
    ----------
    columns : numbers, as many in each, by name
    notes : more to say of the table, as JSON
    """
    made = MemoryStore()
    for name, values in columns.items():
        options: dict[str, Any] = {}
        if zarr_format == 3:
            options["compressors"] = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
            options["dimension_names"] = ("row",)
        zarr.create_array(
            made,
            name=f"{group}/{name}",
            shape=values.shape,
            dtype=values.dtype,
            chunks=(min(ROWS, max(len(values), 1)),),
            fill_value=0,
            zarr_format=zarr_format,
            **options,
        )
        nodes.bring(made, stores.at(store), f"{group}/{name}")
        for start in range(0, len(values), ROWS):
            box = (slice(start, min(start + ROWS, len(values))),)
            units.write(store, f"{group}/{name}", box, values[box])
    listed = {"columns": list(columns), "rows": len(next(iter(columns.values()), ()))}
    # a group that is no image has no metadata of NGFF
    nodes.write_group(store, group, "0.4", zarr_format, {}, {**listed, **notes})


def read(store: str, group: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The columns of a table, and its notes.

    Raises
    ------
    ValueError
        If columns are missing or of other lengths than its notes say.
    """
    notes = ngff.read_notes(store, group) or {}
    if not isinstance(notes.get("columns"), list):
        raise DamagedFile(f"{store}/{group}: expected a table of tiledlaf, found none")
    found = {}
    for name in notes["columns"]:
        if not re.fullmatch(r"\w+", str(name)):
            raise DamagedFile(f"{store}/{group}: expected names of columns, got {name!r}")
        array = nodes.open_array(store, f"{group}/{name}")
        if array.shape != (notes.get("rows"),):
            raise DamagedFile(
                f"{store}/{group}: expected {notes.get('rows')} rows of {name}, got {array.shape}"
            )
        found[str(name)] = nodes.read(array, (slice(None),))
    return found, notes
