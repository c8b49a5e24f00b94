"""Tables: how much of the image each class covers, or measures of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...pool.tasks import Pool
from .. import areas, objects, tables
from ..exporting import Choice, Export, Progress, chosen
from ..result import Result


@dataclass(frozen=True)
class Table(Export):
    """A row for each class, or for each object of one."""

    options = frozenset({"classes", "objects"})

    @property
    def suffix(self) -> str:
        """The ending of these files."""
        (found,) = self.suffixes
        return found

    def check(self, result: Result, choice: Choice) -> None:
        """Refuse what needs a library that is not there."""
        tables.check(f"table{self.suffix}")

    def write(
        self, result: Result, path: str, choice: Choice, pool: Pool, progress: Progress
    ) -> None:
        """Write what the run has counted, or what is measured of objects."""
        if choice.objects is None:
            columns: tables.Columns = of_areas(result, choice)
        else:
            columns = objects.find_objects(result, choice.objects, pool, None, progress).table
        tables.put(path, self.suffix, columns)


def of_areas(result: Result, choice: Choice = Choice()) -> dict[str, list[Any]]:
    """The columns of a table of areas: value, class, pixels, share, and area_um2 or volume_um3."""
    values = chosen(result, choice)
    rows = [
        one
        for one in areas.of_result(result)
        if one.value in values or (choice.classes is None and one.pixels)
    ]
    size = "area_um2" if len(result.labels.spatial_axes) == 2 else "volume_um3"
    columns: dict[str, list[Any]] = {
        "value": [one.value for one in rows],
        "class": [one.name for one in rows],
        "pixels": [one.pixels for one in rows],
        "share": [one.share for one in rows],
    }
    if result.pixel_size is not None:
        columns[size] = [one.size for one in rows]
    return columns


@dataclass(frozen=True)
class Csv(Table):
    """Text that spreadsheets and R read."""

    name = "CSV"
    suffixes = frozenset({".csv"})


@dataclass(frozen=True)
class Parquet(Table):
    """Columns with types, as pandas, Polars and Arrow read them."""

    name = "Parquet"
    suffixes = frozenset({".parquet"})
