"""Tiled equals whole, bit for bit, however the work is cut and wherever it runs."""

import dataclasses
import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling import points, same, whole

import tiledlaf
from tiledlaf import Euler, Krylov, Taylor
from tiledlaf.files import nodes
from tiledlaf.labeling import run as labeling_run
from tiledlaf.labeling import sample
from tiledlaf.labeling.choice import data_term
from tiledlaf.labeling.plan import make_plan
from tiledlaf.labeling.request import label
from tiledlaf.labeling.worker import label_tile
from tiledlaf.model.settings import Settings, make_settings
from tiledlaf.pool import dask as dask_pool
from tiledlaf.pool import opening, tasks, work

SCHEMES = {"taylor": Taylor(), "taylor, long": Taylor(1e-6), "euler": Euler(9)}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("neighborhood", ["3x3", "5x5", "rings:3,7"])
@pytest.mark.parametrize(("shape", "tile"), [((70, 90), 16), ((65, 64), 32), ((33, 130), 48)])
def test_tiles(shape, tile, neighborhood, scheme):
    image = np.random.default_rng(1).integers(0, 255, (3, *shape)).astype(np.uint8)
    options = {"classes": 3, "neighborhood": neighborhood, "integrator": SCHEMES[scheme]}
    same(label(image, tile=tile, confidence=True, **options), whole(image, **options))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    tile=st.integers(16, 40),
    labels=st.sampled_from([2, 3, 15]),  # each is compiled
    masked=st.booleans(),
    workers=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_tiles_of_any_size(shape, tile, labels, masked, workers, seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(labels), shape).transpose(2, 0, 1).astype(np.float32)
    image = np.zeros(shape, np.uint8)
    options = {"probabilities": p, "mask": rng.random(shape) > 0.4 if masked else None}
    same(
        label(image, tile=tile, workers=workers, confidence=True, **options),
        whole(image, **options),
    )


@pytest.mark.parametrize("neighborhood", ["3x3", "rings:3"])
@pytest.mark.parametrize("masked", [False, True])
def test_halo_is_as_large_as_needed_and_no_larger(neighborhood, masked):
    shape, edge = (150, 170), 48
    reach = Settings(tiledlaf.stencil.parse(neighborhood, 2), time=2.0).halo[0]
    p = points(shape, edge, reach)
    image = np.zeros(shape, np.uint8)
    mask = np.random.default_rng(5).random(shape) > 0.1 if masked else None
    options = {"probabilities": p, "neighborhood": neighborhood, "time": 2.0, "mask": mask}
    expected = whole(image, **options)
    same(label(image, tile=edge, confidence=True, **options), expected)
    short = labels_with_halo(image, edge, reach - 1, **options)
    assert (short != expected[0]).any()


def test_halo_of_the_defaults():
    """T = 5, tol = 1e-4, 3x3: 11 pixels do, 10 change labels."""
    shape, edge = (150, 170), 64
    p, image = points(shape, edge, 12), np.zeros(shape, np.uint8)
    expected = whole(image, probabilities=p)
    same(label(image, tile=edge, confidence=True, probabilities=p), expected)
    np.testing.assert_array_equal(labels_with_halo(image, edge, 11, probabilities=p), expected[0])
    assert (labels_with_halo(image, edge, 10, probabilities=p) != expected[0]).any()


def labels_with_halo(
    image, edge, halo, neighborhood="3x3", time=5.0, mask=None, probabilities=None
):
    """Labels by tiles with a halo of one's own choice."""
    from tiledlaf.files import images

    source, given = images.from_array(image), images.from_array(probabilities, "cyx")
    plan = make_plan(
        source,
        None,
        term=data_term(None, None, given, 0),
        probabilities=given,
        mask=None if mask is None else images.from_array(mask),
        tile=edge,
        settings=make_settings(neighborhood, 2, 1.0, time, None, "cpu"),
    )
    job = dataclasses.replace(plan.job, grid=dataclasses.replace(plan.job.grid, halo=(halo, halo)))
    labels = np.zeros(image.shape, np.uint8)
    for tile in job.grid:
        labels[tile.core] = label_tile(job, tile).labels
    return labels


@pytest.mark.parametrize("neighborhood", ["3x3x3", "3x3"])
@pytest.mark.parametrize("tile", [16, 24])
def test_volumes(tile, neighborhood):
    image = np.random.default_rng(2).integers(0, 999, (20, 41, 50)).astype(np.uint16)
    options = {"classes": 2, "neighborhood": neighborhood, "axes": "zyx", "time": 1.0}
    same(label(image, tile=tile, confidence=True, **options), whole(image, **options))


@pytest.mark.parametrize("region", [((0, 40), (0, 50)), ((13, 60), (31, 90)), ((69, 70), (89, 90))])
@pytest.mark.parametrize("masked", [False, True])
def test_region_is_the_crop_of_the_whole(region, masked):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (70, 90)).astype(np.uint8)
    options = {"classes": 3, "mask": rng.random((70, 90)) > 0.2 if masked else None}
    crop = tuple(slice(*span) for span in region)
    expected = [a[crop] for a in whole(image, **options)]
    same(label(image, region=region, tile=16, confidence=True, **options), expected)


def test_labels_are_zero_exactly_where_masked():
    rng = np.random.default_rng(4)
    image, mask = rng.random((60, 70)).astype(np.float32), rng.random((60, 70)) > 0.5
    image[~mask] = np.nan
    labels, confidence = label(image, classes=3, mask=mask, tile=32, confidence=True)
    np.testing.assert_array_equal(labels == 0, ~mask)
    np.testing.assert_array_equal(confidence == 0, ~mask)
    assert confidence[mask].min() > 1 / 3 - 1e-6


def test_krylov_tiles_agree_within_tolerance():
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.ones(3), (90, 80)).transpose(2, 0, 1).astype(np.float32)
    image, options = np.zeros((90, 80), np.uint8), {"integrator": Krylov(14)}
    _, confidence = whole(image, probabilities=p, **options)
    found = label(image, probabilities=p, tile=32, confidence=True, **options)
    # tol bounds the influence from beyond the halo relative to T; a 14-dimensional space adds less
    assert abs(found[1] - confidence).max() < 1e-4 * 5
    exact = whole(image, probabilities=p, integrator=Taylor(1e-9))
    assert abs(confidence - exact[1]).max() < 1e-4 * 5
    sure = exact[1] - 1 / 3 > 1e-2
    np.testing.assert_array_equal(found[0][sure], exact[0][sure])


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_kernels_are_exact_under_windows(kernel):
    """A window with its halo gives the whole image's bits, in each sibling."""
    from tiledlaf.flow import stencil
    from tiledlaf.labeling.worker import Window, label_window
    from tiledlaf.model import terms

    rng = np.random.default_rng(7)
    p = rng.dirichlet(np.ones(8), (61, 77)).transpose(2, 0, 1).astype(np.float32)
    options = Settings(stencil.box(3, 3), kernel=kernel)
    h = options.halo[0]
    expected = label_window(Window(None, p), terms.Probabilities(8), options)
    for y, x, height, width in ((20, 30, 9, 7), (0, 13, 17, 33), (40, 60, 21, 17), (30, 0, 1, 1)):
        window = (slice(max(0, y - h), y + height + h), slice(max(0, x - h), x + width + h))
        inner = tuple(
            slice(a - w.start, a - w.start + n)
            for a, w, n in zip((y, x), window, (height, width), strict=True)
        )
        part = np.ascontiguousarray(p[:, *window])
        for found, full in zip(
            label_window(Window(None, part), terms.Probabilities(8), options),
            expected,
            strict=True,
        ):
            np.testing.assert_array_equal(found[inner], full[y : y + height, x : x + width])


def test_siblings_agree_but_for_ties():
    rng = np.random.default_rng(8)
    p = rng.dirichlet(np.ones(3), (100, 120)).transpose(2, 0, 1).astype(np.float32)
    from tiledlaf.flow import stencil
    from tiledlaf.labeling.worker import Window, label_window
    from tiledlaf.model import terms

    one, two = (
        label_window(Window(None, p), terms.Probabilities(3), Settings(stencil.box(3, 3), kernel=k))
        for k in ("numpy", "numba")
    )
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)
    assert (one[2][one[0] != two[0]] < 1e-5).all()


def stored(path):
    """Decoded labels and confidence of a store."""
    return [np.asarray(nodes.open_array(path, n)[:]) for n in ("labels/tiledlaf/0", "confidence/0")]


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_stores_are_equal_wherever_they_are_made(tmp_path, scheduler):
    image = np.random.default_rng(9).integers(0, 255, (3, 150, 170)).astype(np.uint8)
    source = tmp_path / "image.npy"
    np.save(source, image)
    expected = whole(image, classes=3)
    out = tmp_path / "out.zarr"
    summary = label(
        source, out, classes=3, tile=32, workers=2, scheduler=scheduler, confidence=True
    )
    same(stored(str(out)), expected)
    assert summary.tiles == {"done": 30, "skipped": 0, "failed": 0}
    assert summary.pixels == [0, *np.bincount(expected[0].ravel())[1:]]
    np.testing.assert_array_equal(nodes.open_array(str(out), "0")[:], image)


def test_an_outside_scheduler(tmp_path):
    from distributed import LocalCluster

    image = np.random.default_rng(10).integers(0, 255, (100, 120)).astype(np.uint8)
    source = tmp_path / "image.npy"
    np.save(source, image)
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        protocol="tcp",
    ) as running:
        label(
            source,
            tmp_path / "out.zarr",
            classes=2,
            tile=32,
            confidence=True,
            scheduler=running.scheduler_address,
        )
    same(stored(str(tmp_path / "out.zarr")), whole(image, classes=2))


def test_a_device_that_workers_alone_have(tmp_path):
    """A stand-in for CuPy whose arrays are NumPy's: who asks for a GPU need not have one."""
    from distributed import Client, LocalCluster

    image = np.random.default_rng(12).integers(0, 255, (100, 120)).astype(np.uint8)
    source = tmp_path / "image.npy"
    np.save(source, image)

    def pretend():
        import sys
        import types

        cupy = types.ModuleType("cupy")
        cupy.moved = 0
        cupy.cuda = types.SimpleNamespace(is_available=lambda: True)

        def asarray(array):
            cupy.moved += 1
            return array

        cupy.asarray = asarray
        sys.modules["cupy"] = cupy

    def moved():
        import sys

        return sys.modules["cupy"].moved

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as running,
        Client(running) as client,
    ):
        given = {
            "classes": 2,
            "tile": 64,
            "confidence": True,
            "device": "cuda",
            "scheduler": running.scheduler_address,
        }
        with pytest.raises(ValueError, match="device cuda needs CuPy"):
            label(source, tmp_path / "out.zarr", **given)
        assert not (tmp_path / "out.zarr").exists()
        client.run(pretend)
        label(source, tmp_path / "out.zarr", **given)
        assert list(client.run(moved).values()) == [4]
    same(stored(str(tmp_path / "out.zarr")), whole(image, classes=2))


@pytest.mark.parametrize("chunks", [(-1, 30, 40), (1, 7, 100), (3, 90, -1)])
@pytest.mark.parametrize("masked", [False, True])
def test_dask_arrays_are_lazy_and_equal(chunks, masked):
    import dask
    import dask.array as da

    rng = np.random.default_rng(11)
    image = rng.integers(0, 255, (3, 90, 110)).astype(np.uint8)
    mask = rng.random((90, 110)) > 0.3 if masked else None

    def refuse(*args, **kwargs):
        raise AssertionError("building the graph computed something")

    with dask.config.set(scheduler=refuse):
        lazy = label(
            da.from_array(image, chunks),
            classes=3,
            confidence=True,
            mask=None if mask is None else da.from_array(mask, 50),
        )
    assert lazy[0].shape == (90, 110)
    assert lazy[0].dtype == np.uint8
    same(dask.compute(*lazy, scheduler="threads"), whole(image, classes=3, mask=mask))


def test_dask_probabilities():
    import dask.array as da

    p = np.random.default_rng(12).dirichlet(np.ones(3), (80, 70)).transpose(2, 0, 1)
    image = np.zeros((80, 70), np.uint8)
    lazy = label(image, probabilities=da.from_array(p.astype(np.float32), (3, 33, 20)))
    expected = whole(image, probabilities=p.astype(np.float32))[0]
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), expected)


def test_planning_computes_nothing(tmp_path, monkeypatch):
    from tiledlaf.files import image as image_files
    from tiledlaf.files import images

    path = tmp_path / "image.npy"
    np.save(path, np.zeros((64, 64), np.uint8))

    def refuse(*args, **kwargs):
        raise AssertionError("pixels were read")

    monkeypatch.setattr(image_files.Image, "read", refuse)
    make_plan(
        images.open_image(path),
        str(tmp_path / "out.zarr"),
        term=data_term(2, None, None, 0),
        settings=make_settings("3x3", 2, 1.0, 5.0, None, "cpu"),
    )
    assert not (tmp_path / "out.zarr").exists()


def test_a_bounded_number_of_tasks_is_in_flight():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    finished = 0
    with tasks.threads(2) as pool:
        for item, result, error, _ in pool.run(lambda job, i: i * job, 2, items()):
            assert (result, error) == (2 * item, None)
            finished += 1
            assert len(taken) <= finished + tasks.AHEAD * pool.workers
    assert finished == 100


def test_workers_that_come_late_get_tasks(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(dask_pool, "LOOK", 0.1)
    monkeypatch.setattr(work, "LOOK", 0)
    taken, finished, ahead = [], 0, []

    def items():
        for i in range(60):
            taken.append(i)
            yield i

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as few,
        dask_pool.dask(scheduler=few.scheduler_address) as pool,
    ):
        assert pool.workers == 1
        for item, result, error, _ in pool.run(lambda job, i: i * job, 2, items()):
            assert (result, error) == (2 * item, None)
            ahead.append(len(taken) - finished)
            finished += 1
            if finished == 1:
                few.scale(4)
                few.sync(few._correct_state)
    assert ahead[0] == tasks.AHEAD + 1
    assert max(ahead) == 4 * tasks.AHEAD + 1
    assert finished == 60


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_an_item_that_fails_does_not_take_its_batch_with_it(scheduler):
    with opening.open_pool(2, scheduler, None) as pool:
        found = {
            item: (result, error) for item, result, error, _ in pool.run(_inverse, 12, range(13), 5)
        }
    assert len(found) == 13
    assert isinstance(found.pop(0)[1], ZeroDivisionError)
    assert found == {i: (12 / i, None) for i in range(1, 13)}


def _inverse(job, item):
    return job / item


def test_reads_that_fail_once_are_tried_again():
    failed = set()

    def flaky(job, item):
        if item not in failed:
            failed.add(item)
            raise OSError("once")
        return item

    with tasks.threads(2) as pool:
        assert sorted(r for _, r, _, _ in pool.run(flaky, None, range(20))) == list(range(20))


def test_a_read_that_fails_once_costs_nothing(tmp_path, monkeypatch):
    from tiledlaf.files import image as image_files
    from tiledlaf.files import images

    image = np.random.default_rng(13).integers(0, 255, (64, 64)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    plan = make_plan(
        images.open_image(tmp_path / "image.npy"),
        str(tmp_path / "out.zarr"),
        tile=32,
        term=data_term(None, [[50.0], [200.0]], None, 0),
        settings=make_settings("3x3", 2, 1.0, 5.0, None, "cpu"),
    )
    read, failed = image_files.Image.read, []

    def flaky(self, window, channels=None):
        if len(failed) < 2:
            failed.append(window)
            raise OSError(errno.ESTALE, "stale file handle")
        return read(self, window, channels)

    plan = sample.settle(plan)
    monkeypatch.setattr(image_files.Image, "read", flaky)
    with tasks.threads(1) as pool:
        summary = labeling_run.run(plan, pool)
    assert (summary.tiles["done"], len(failed)) == (4, 2)
