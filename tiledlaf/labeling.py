"""Label an image: carry a plan out tile by tile, and sum it up."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import cluster, dataterm, images, levels, output, records, stores
from .cluster import UNWATCHED, Pool, Watch
from .examples import color
from .flow import Integrator
from .images import Image
from .job import (
    Window,
    checker,
    label_tile,
    label_window,
    margin,
    place,
    predicted_bytes,
    run_tile,
)
from .kernels import on_device, to_host
from .model import Model
from .options import Choice, choose, find_device, open_probabilities
from .plan import SMALL, Plan, check_model, make_plan, needed_bytes, readable
from .records import Appender
from .redaction import redacted
from .tiles import Tile

Progress = Callable[[dict[str, Any]], None]
TASK = 2**20  # pixels of small tiles that make a task: its own cost stays small


@dataclass
class Summary:
    """What a run did; `tiles` of earlier starts included.

    Attributes
    ----------
    tiles : number of tiles by state: done, skipped, failed
    pixels : number of pixels of each label value, those without a label first
    proven : labeled pixels whose label is certain, None where the integrator has no bound
    seconds : of this start
    output : path of the store
    fresh : number of pixels that this start has labeled
    """

    tiles: dict[str, int]
    pixels: list[int]
    proven: int | None
    seconds: float
    output: str
    errors: list[str] = field(default_factory=list)
    fresh: int = 0

    @property
    def rate(self) -> float:
        """Pixels a second that this start has labeled."""
        return self.fresh / self.seconds

    @property
    def complete(self) -> bool:
        """Whether no tile failed or is left."""
        return not self.errors


def check_resources(plan: Plan, pool: Pool) -> None:
    """Refuse a run without its device, or one that cannot fit into memory or onto the disk.

    Raises
    ------
    ValueError
        Says what is missing; with both numbers.
    """
    find_device(plan.job.settings.device, pool)
    need = predicted_bytes(plan.job)
    if pool.memory is not None and need > pool.memory:
        raise ValueError(
            f"a worker would need {need / 2**20:.0f} MiB "
            f"and may use {pool.memory / 2**20:.0f} MiB; take a smaller --tile or fewer workers"
        )
    if plan.out is not None and plan.held is None:
        free = output.free_bytes(plan.out.store)
        if free is not None and needed_bytes(plan) > free:
            raise ValueError(
                f"{plan.out.store}: about {needed_bytes(plan) / 2**20:.0f} MiB are needed and "
                f"{free / 2**20:.0f} MiB are free"
            )


def open_pool(
    plan: Plan,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    watch: Watch = UNWATCHED,
) -> contextlib.AbstractContextManager[Pool]:
    """Threads for small images, else processes; or the cluster that was named."""
    small = len(plan.job.grid) == 1 or math.prod(plan.job.grid.size) <= SMALL
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise ValueError(f"expected 1 or more workers, got {workers}")
    named = scheduler is not None or scheduler_file is not None
    if plan.job.image.source == "memory" and named and scheduler != "threads":
        raise ValueError("arrays in memory are labeled by threads; save them as Zarr for a cluster")
    if (small and not named and not watch) or plan.job.image.source == "memory":
        scheduler = "threads"
    if scheduler == "threads":
        return cluster.open_pool(min(count, len(plan.job.grid)), scheduler, None, watch)
    return cluster.open_pool(count, scheduler or "processes", scheduler_file, watch)


def settle(plan: Plan) -> Plan:
    """Find prototypes and scale, or take those that the store keeps."""
    term = plan.job.term
    if plan.held and "prototypes" in plan.held:
        rows = tuple(map(tuple, plan.held["prototypes"]))
        term = dataterm.Prototypes(rows, plan.held["scale"])
    elif isinstance(term, dataterm.Probabilities) and plan.job.probabilities is not None:
        _check_sample(plan)
    else:
        term = dataterm.settle(term, plan.sample)
    return dataclasses.replace(plan, job=dataclasses.replace(plan.job, term=term))


def _check_sample(plan: Plan) -> None:
    """Refuse probabilities that are none, before anything is written."""
    source = plan.job.probabilities
    assert source is not None
    sources = [source] if plan.job.mask is None else [source, plan.job.mask]
    for window in dataterm.sample_windows(source.grid, plan.seed):
        for part, (block, *mask) in readable(sources, window):
            if np.isfinite(block).all():  # NaN is a matter of its tile
                try:
                    dataterm.normalized(block, mask[0][0] != 0 if mask else None)
                except dataterm.BadPixels as error:
                    raise ValueError(f"{source.path}: {error.moved(part)}") from None
                except ValueError as error:
                    raise ValueError(f"{source.path}: {error}") from None


def run(plan: Plan, pool: Pool, progress: Progress | None = None) -> Summary:
    """Label all tiles that are not done, write levels, and sum up.

    Parameters
    ----------
    plan : from `make_plan`, settled
    progress : called with the record of each tile as it finishes
    """
    started = clock.perf_counter()
    job, out = plan.job, plan.out
    assert out is not None, "a plan without an output: run it in memory"
    assert job.labels is not None
    fingerprint = output.fingerprint(plan.settings)
    if plan.held is None:
        notes: dict[str, Any] = {
            "settings": plan.settings,
            "fingerprint": fingerprint,
            "tile": list(job.grid.tile),
            "tiles": len(job.grid),
        }
        if plan.classes:
            notes["values"] = [list(one.values) for one in plan.classes]
            notes["colors"] = [list(one.color or color(v)) for v, one in enumerate(plan.classes, 1)]
        if isinstance(job.term, dataterm.Prototypes):
            notes |= {"prototypes": [list(v) for v in job.term.values], "scale": job.term.scale}
        out = out.start(
            notes,
            plan.image_print,
            job.labels,
            job.picture,
            job.confidence,
            plan.names,
            plan.before,
        )
    elif plan.held.get("names") != list(plan.names.values()):
        out.describe(plan.held, plan.names, job.labels)
    old = records.journal(out.records)
    known = records.latest(old)
    if known:
        whole = checker(job)
        known = {
            index: record
            for index, record in known.items()
            if record.get("state") not in records.FINISHED or whole(record)
        }

    def finished(tile: Tile) -> bool:
        return known.get(tile.index, {}).get("state") in records.FINISHED

    # of an output that is complete no file changes
    idle = records.complete(old) and all(map(finished, job.grid))
    left = (tile.index for tile in job.grid if not finished(tile))
    fair = (len(job.grid) - len(known)) // (8 * pool.workers)
    before = sum(r.get("pixels", 0) for r in known.values())
    batch = max(min(TASK // math.prod(job.grid.tile), fair), 1)
    with records.appending(out.records) as log:

        def tell(stage: str) -> None:
            if not idle:
                cluster.retried(Appender.mark, log, stage)

        tell(records.BEGUN)
        for index, record, error, retries in pool.run(run_tile, job, left, batch):
            if error is not None:
                where = place(job, job.grid.tile_at(index))
                text = redacted(f"{where}: {type(error).__name__}: {error}")
                record = {"tile": list(index), "state": "failed", "error": text}
            if retries:
                record["retries"] = retries
            cluster.retried(Appender.add, log, record)
            known[tuple(index)] = record
            if progress is not None:
                progress(record)
        for pyramid, reduce in (
            (job.picture, levels.mean),
            (job.labels, levels.nearest),
            (job.confidence, levels.nearest),
        ):
            for work in [] if pyramid is None else levels.coarse(out.store, pyramid, reduce):
                for _, _, error, _ in pool.run(levels.finish, work, work.units):
                    if error is not None:
                        raise error
                    if log.due():
                        tell(records.LEVELS)
        out.finish(fingerprint, job.grid.tile, job.picture, job.confidence is not None)
        complete = all(map(finished, job.grid))
        tell(records.COMPLETE if complete else records.ENDED)
    if complete and not stores.is_url(out.store):
        since = records.journal(out.records)[len(old) :]
        out.remove_parts(alone=all(r.get("run") == log.run for r in since))
    return summarize(plan, known, clock.perf_counter() - started, before)


def summarize(
    plan: Plan, known: Mapping[Any, Mapping[str, Any]], seconds: float, before: int = 0
) -> Summary:
    """Add up the records of all tiles; `before` pixels were labeled by earlier starts."""
    states = [r["state"] for r in known.values()]
    counts = np.zeros(plan.job.term.classes + 1, np.int64)
    for record in known.values():
        counts += np.array(record.get("counts", 0), np.int64)
    counts[0] = math.prod(plan.job.grid.size) - counts[1:].sum()  # masked out, skipped or failed
    proven = sum(r.get("proven", 0) for r in known.values())
    return Summary(
        {state: states.count(state) for state in ("done", "skipped", "failed")},
        counts.tolist(),
        None if plan.job.settings.bound is None else proven,
        seconds,
        plan.out.store if plan.out else "",
        [r["error"] for r in known.values() if r["state"] == "failed"],
        sum(r.get("pixels", 0) for r in known.values()) - before,
    )


def label(
    image: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    classes: int | None = None,
    prototypes: Any = None,
    probabilities: Any = None,
    model: Model | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    neighborhood: str | Sequence[Sequence[int]] | None = None,
    rho: float | None = None,
    time: float | None = None,
    integrator: Integrator | None = None,
    mask: Any = None,
    region: Sequence[tuple[int, int]] | None = None,
    level: int = 0,
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    confidence: bool = False,
    seed: int = 0,
    tile: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """Label an image by a linearized assignment flow, tile by tile.

    Parameters
    ----------
    image : array, dask array or path
        2-D is (y, x); 3-D is (c, y, x) if the first axis is at most 4, (y, x, c) if the last is
        3 or 4; else say `axes`. Paths: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy.
    output : path, optional
        An OME-Zarr to write. Without one, arrays are returned.
    classes : int, optional
        Number of prototypes to find by k-means. Give exactly one data term.
    prototypes : (J, C) array, optional
        In image units.
    probabilities : (J, *grid) array, dask array or path, optional
        Of any model: floats that sum to 1, or unsigned integers.
    model : Model or path, optional
        Of a training; gives data term, neighborhood, rho, time and integrator.
    weights : path, optional
        Weight patches of this image, from `estimate`; they give neighborhood, rho and time.
    neighborhood : str or offsets
        ``3x3`` by default, ``5x5``, ``3x3x3``, ``rings:3,7``, a file of offsets, or the offsets.
    rho, time : float
        Scale of the distances (1) and integration time T (5).
    integrator : optional
        Taylor(1e-4) by default, Krylov, Euler; LinearizedSequence; of the nonlinear flow
        GeometricEuler and RKMK4.
    mask : array or path, optional
        Pixels where it is 0 are not labeled.
    region : (start, stop) a spatial axis, optional
        Label this part only: the crop of the whole image's labels.
    confidence : bool
        Also return, or write, max_j W_j(T).
    tile, workers, scheduler, device
        How the work is cut and where it runs; the labels do not depend on it.
    progress : callable, optional
        Gets the record of each tile.
    **options
        For an output: name, names, copy_image, into_input, overwrite (see `make_plan`).

    Returns
    -------
    labels, or (labels, confidence), or Summary
        Labels are 1..J, 0 where masked. Dask arrays give lazy dask arrays, an `output` a Summary.

    Raises
    ------
    ValueError
        If the input cannot be labeled so; says what was expected and what came.
    """
    if any(map(cluster.is_dask, (image, probabilities, mask))):
        if output is not None or region is not None or options:
            raise ValueError(
                "dask arrays are labeled lazily, without output, region or its options"
            )
        return _lazy(
            image,
            probabilities,
            mask,
            axes,
            channels,
            seed,
            confidence,
            lambda bare, given: choose(
                bare,
                classes=classes,
                prototypes=prototypes,
                probabilities=given,
                model=model,
                weights=weights,
                neighborhood=neighborhood,
                rho=rho,
                time=time,
                integrator=integrator,
                device=device,
                seed=seed,
            ),
        )
    source = _open(image, level=level, axes=axes, channels=channels)
    given = None
    if probabilities is not None:
        given = open_probabilities(probabilities, source.spatial_axes)
    masked = None if mask is None else _open(mask, axes=source.spatial_axes)
    chosen = choose(
        source,
        classes=classes,
        prototypes=prototypes,
        probabilities=given,
        model=model,
        weights=weights,
        neighborhood=neighborhood,
        rho=rho,
        time=time,
        integrator=integrator,
        device=device,
        seed=seed,
    )
    if options.get("into_input"):
        if output is not None and os.fspath(output) != source.path:
            raise ValueError("expected either an output or into_input")
        output = source.path
    plan = make_plan(
        source,
        None if output is None else os.fspath(output),
        term=chosen.term,
        settings=chosen.settings,
        model=chosen.model,
        weights=chosen.weights,
        classes=chosen.classes,
        probabilities=given,
        mask=masked,
        region=region,
        tile=tile,
        confidence=confidence,
        seed=seed,
        **options,
    )
    with open_pool(plan, workers, scheduler, None) as pool:
        check_resources(plan, pool)
        plan = settle(plan)
        if plan.out is not None:
            return run(plan, pool, progress)
        return run_in_memory(plan, pool, confidence, progress)


def _open(image: Any, **options: Any) -> Image:
    if isinstance(image, str | os.PathLike):
        return images.open_image(image, **options)
    options.pop("level", None)
    return images.from_array(image, **options)


def run_in_memory(
    plan: Plan, pool: Pool, confidence: bool, progress: Progress | None = None
) -> Any:
    """Label all tiles into arrays of this process; raises ValueError if a tile fails."""
    labels = np.zeros(plan.job.grid.size, np.min_scalar_type(plan.job.term.classes))
    certain = np.zeros(labels.shape if confidence else (0,) * labels.ndim, np.float32)
    for tile, found, error, _ in pool.run(label_tile, plan.job, plan.job.grid):
        if error is not None:
            raise error
        if found is not None:
            labels[tile.core] = found.labels
            if found.confidence is not None:
                certain[tile.core] = found.confidence
        if progress is not None:
            progress({"tile": list(tile.index), "state": "done", "pixels": labels[tile.core].size})
    return (labels, certain) if confidence else labels


def _lazy(
    image: Any,
    probabilities: Any,
    mask: Any,
    axes: str | None,
    channels: Sequence[int] | None,
    seed: int,
    confidence: bool,
    choose: Callable[[Image, Image | None], Choice],
) -> Any:
    """Lazy labels of dask arrays; k-means is a delayed task on a sample."""
    bare = images.describe(image, axes, channels)
    planes = images.channels_first(image, bare)
    given = None
    if probabilities is not None:
        given = images.describe(probabilities, "c" + bare.spatial_axes)
        if given.grid != bare.grid:
            raise ValueError(
                f"expected probabilities of the image's size {bare.grid}, got {given.grid}"
            )
    chosen = choose(bare, given)
    if chosen.weights is not None:
        raise ValueError("weights of an image are not for lazy arrays: label the image itself")
    if chosen.model is not None:
        check_model(chosen.model, bare, given)
    settings, features = chosen.settings, None
    term: Any = chosen.term
    if given is None and chosen.model is None:
        windows = dataterm.sample_windows(bare.grid, seed)
        term = cluster.delayed(
            _settle_blocks,
            term,
            [planes[:, *w] for w in windows],
            None if mask is None else [mask[w] for w in windows],
        )
    if settings.predictor is not None:
        features = settings.predictor.features
    arrays = {"image": planes} if given is None or features is not None else {}
    if given is not None:
        arrays["probabilities"] = probabilities
    if mask is not None:
        if mask.shape != bare.grid:
            raise ValueError(f"expected a mask of the image's size {bare.grid}, got {mask.shape}")
        arrays["mask"] = mask[None]
    beyond = margin(chosen.term, features, len(bare.grid))
    halo = tuple(h + m for h, m in zip(settings.halo, beyond, strict=True))
    stack = cluster.map_windows(
        _lazy_block, list(arrays.values()), halo, (term, settings, list(arrays))
    )
    labels = stack[0].astype(np.min_scalar_type(chosen.term.classes))
    return (labels, stack[1]) if confidence else labels


def _settle_blocks(term: dataterm.Pending, blocks: Any, masks: Any) -> dataterm.DataTerm:
    return dataterm.settle(term, lambda: dataterm.pixels_of(blocks, masks))


def _lazy_block(*blocks: np.ndarray, extra: Any) -> np.ndarray:
    term, settings, names = extra
    given = dict(zip(names, blocks, strict=True))
    valid = given["mask"][0] != 0 if "mask" in given else None
    data = Window(given.get("image"), given.get("probabilities"), valid)
    whole = tuple(slice(0, n) for n in blocks[0].shape[1:])
    labels, confidence, _ = label_window(
        data.cut(whole, on_device(settings.device)), term, settings
    )
    return np.stack([to_host(labels).astype(np.float32), to_host(confidence)])
