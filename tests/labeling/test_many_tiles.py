"""What many tiles cost beside their kernels: memory that each adds, tasks that wait at one time."""

import dataclasses
import json
import tracemalloc

import pytest
import simulation
from simulation import EDGE, Flight, empty, instead, planned, virtual

from tiledlaf.labeling import run as labeling_run
from tiledlaf.labeling import sample
from tiledlaf.pool import opening
from tiledlaf.pool.tasks import AHEAD

pytestmark = pytest.mark.slow  # thousands of tiles
FEW, MANY = 400, 2_000
KIB = 1.2  # a tile: the record that a summary needs, its place in the grid, and a line of the file
OVERVIEW = 64 * 1024  # KiB: the sheet and the pixels it is made of, at most two to a side for each


def traced(plan, function):
    """Most bytes that Python held during a run in threads."""
    with opening.open_pool(2, "threads") as pool:
        tracemalloc.start()
        try:
            found = labeling_run.run(plan, instead(pool, function))
            return found, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def slope(peaks):
    return (peaks[MANY] - peaks[FEW]) / (MANY - FEW) / 1024


def settled(job, overview=False):
    return dataclasses.replace(sample.settle(job), overview=overview)


def test_each_tile_adds_little_memory(tmp_path):
    """Of a run, and of one that starts again after nine tenths of it."""
    whole, again = {}, {}
    for tiles in (FEW, FEW, MANY):  # the first run loads what all need
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        plan = settled(virtual(folder, tiles))
        found, whole[tiles] = traced(plan, simulation.Cut(tiles * 9 // 10))
        assert found.tiles == {"done": tiles * 9 // 10, "skipped": 0, "failed": tiles // 10}
        found, again[tiles] = traced(settled(planned(folder)), empty)
        assert found.complete
        assert found.pixels[1] == tiles * EDGE**2
        assert found.fresh == tiles // 10 * EDGE**2
    assert slope(whole) < KIB
    assert slope(again) < 2 * KIB  # for a moment, all that the file says


def test_overview_needs_as_much_memory_for_many_tiles_as_for_few(tmp_path):
    """Whose levels are read twice as wide as it is shown, the most that there can be."""
    for number, tiles in enumerate((FEW, MANY // 2, 2 * MANY)):  # the first loads what all need
        with_it, without = (
            traced(settled(virtual(tmp_path / f"{number}-{drawn}", tiles), drawn), empty)
            for drawn in (True, False)
        )
        assert with_it[0].complete
        assert without[0].complete
        assert not number or (with_it[1] - without[1]) / 1024 < OVERVIEW


def test_tasks_wait_in_small_numbers(tmp_path):
    """At client and scheduler, however many tiles there are."""
    from distributed import default_client

    known, flight = [], Flight()

    def look(record):
        if not flight.answered % 100:
            found = default_client().run_on_scheduler(
                lambda dask_scheduler: len(dask_scheduler.tasks)
            )
            known.append(found)

    with opening.open_pool(2, "processes") as pool:
        plan = sample.settle(virtual(tmp_path, FEW))
        found = labeling_run.run(plan, instead(pool, empty, flight), look)
    assert found.complete
    assert len(known) >= FEW // 100
    # those that came back together are answered after others took their place
    assert flight.most <= 2 * AHEAD * pool.workers
    assert max(known) <= 2 * AHEAD * pool.workers


def test_laws_of_tables():
    """What is a constant and what each tile adds are told apart, as are powers."""
    rows = [
        {"processes": "apart", "tiles": n}
        | {"client ms a tile": 500 / n + 2, "scheduler ms a tile": n / 100}
        | {"client KiB a tile": 3000 / n, "scheduler KiB a tile": 0.5}
        for n in (1_000, 10_000, 100_000)
    ]
    found = {row["of"]: row for row in simulation.laws(json.loads(json.dumps({"costs": rows})))}
    assert found["client ms"]["constant"] == pytest.approx(500)
    assert found["client ms"]["a tile"] == pytest.approx(2)
    assert found["client KiB"]["constant"] == pytest.approx(3000)
    assert found["client KiB"]["a tile"] == pytest.approx(0, abs=1e-6)
    assert found["scheduler KiB"]["power"] == pytest.approx(1)
    assert found["scheduler ms"]["power"] == pytest.approx(2)
