"""Objects that a run asks for: looked at before it begins, made once its labels are complete."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..files.cropped import cropped
from ..files.image import Image
from ..files.selection import pixel_size
from ..labeling.plan import Plan
from ..labeling.run import Summary
from ..pool.tasks import Pool
from . import making, objects
from .finding import Finding
from .objects import Objects
from .result import open_result
from .unfinished import Progress


@dataclass(frozen=True)
class Wanted:
    """Objects that a run asks for.

    Attributes
    ----------
    classes : by name or label value
    finding : what an object is
    """

    classes: Sequence[str | int] = ()
    finding: Finding = Finding()

    def check(self, plan: Plan, pool: Pool | None = None) -> None:
        """Refuse what cannot be made of a run's labels, or in the memory of a pool's workers.

        Raises
        ------
        ValueError
            Says what was expected.
        """
        assert plan.out is not None
        self.finding.settings(pixel_size(plan.job.image))
        for cls in self.classes:
            value = objects.value_of(plan.names, cls)
            objects.check_place(plan.out.store, plan.out.name, plan.names[value], value)
        if self.classes and pool is not None:
            making.check_memory(self.bytes(plan), pool)

    def bytes(self, plan: Plan) -> int:
        """Peak memory of a worker that makes them."""
        job = plan.job
        assert job.labels is not None
        tile = making.tile_of(job.grid.tile, len(job.image.spatial_axes))
        edges = list(map(min, tile, job.grid.size))[job.front :]
        fill = self.finding.fill_holes is not False
        return making.predicted_bytes(edges, job.labels.dtype, fill, job.image)

    def make(
        self, plan: Plan, found: Summary, pool: Pool, progress: Progress | None = None
    ) -> list[Objects]:
        """Make them, of labels none of whose tiles failed."""
        if found.errors or not self.classes:
            return []
        assert plan.out is not None
        picture = None if plan.job.picture is not None else _measured(plan)
        return [
            objects.find_objects(
                open_result(plan.out.store, plan.out.name),
                cls,
                pool,
                self.finding,
                progress,
                picture,
            )
            for cls in self.classes
        ]


def wanted_objects(
    classes: str | int | Sequence[str | int] | None,
    connectivity: str | None = None,
    min_size: float | str | None = None,
    fill_holes: bool | float | str | None = None,
) -> Wanted:
    """What is asked for by keywords, None where one is not given.

    Raises
    ------
    ValueError
        If it is said what objects are, and none are asked for.
    """
    given = {"connectivity": connectivity, "min_size": min_size, "fill_holes": fill_holes}
    meaning = {name: value for name, value in given.items() if value is not None}
    listed = [classes] if isinstance(classes, str | int) else list(classes or ())
    if meaning and not listed:
        names = ", ".join(f"`{name}`" for name in meaning)
        raise InputError(f"{names}: of objects, which `objects` asks for")
    return Wanted(listed, Finding(**meaning))  # type: ignore[arg-type]


def _measured(plan: Plan) -> Image:
    """The part of the input that was labeled, as stored: where it has no copy in the output."""
    image, grid = dataclasses.replace(plan.job.image, gain=None), plan.job.grid
    return image if grid.size == image.grid else cropped(image, grid.origin, grid.size)
