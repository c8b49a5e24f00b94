"""Speed, paired within one run: reported, not asserted. Memory and equality are asserted."""

import statistics
import time as clock

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tiledlaf import Taylor, dataterm, images, labeling, ngff, options, stencil
from tiledlaf.job import Window, compute, predicted_bytes
from tiledlaf.kernels import select
from tiledlaf.plan import make_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BOX = stencil.box(3, 3)


def alternate(ours, other, rounds):
    """Median seconds of both, run in turn, and the median of their ratios."""
    pairs = []
    for _ in range(rounds):
        times = []
        for call in (ours, other):
            start = clock.perf_counter()
            call()
            times.append(clock.perf_counter() - start)
        pairs.append(times)
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


@pytest.mark.parametrize("labels", [2, 4, 8, 10])
def test_forward_against_pytorch(labels, benchmark):
    """S, flow and labels at T = 5, tol = 1e-4, float32, 1024 x 1024, one thread."""
    torch = pytest.importorskip("torch", reason="PyTorch is what this benchmark compares with")
    import torch_flow

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    distances = (2 * rng.random((labels, 1024, 1024))).astype(np.float32)
    weights = stencil.uniform(BOX, (1024, 1024))
    p = Taylor(1e-4).polynomial(5.0)
    kernels = select(distances)

    def ours():
        return kernels.classify(weights, -distances, BOX, p.coefficients, p.keep, p.scale)

    tensors = torch.from_numpy(weights), torch.from_numpy(distances)

    def other():
        with torch.no_grad():
            return torch_flow.forward(*tensors).argmax(dim=0)

    mine, theirs = ours(), other().numpy() + 1
    assert (mine[2][mine[0] != theirs] < 5 * 1e-4).all()
    benchmark(ours)
    seconds, torch_seconds, ratio = alternate(ours, other, 5)
    benchmark.extra_info |= {"Mpx/s": 1.048 / seconds, "PyTorch Mpx/s": 1.048 / torch_seconds}
    print(
        f"\nforward, J = {labels}: {1.048 / seconds:.1f} Mpx/s, PyTorch Krylov-10 "
        f"{1.048 / torch_seconds:.2f} Mpx/s, {ratio:.1f} times faster"
    )


def big_image(path, edge):
    """Smooth cells with noise in a sharded Zarr array, from one block that is mirrored."""
    import zarr

    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((2048, 2048)), 6)
    block = 128 + 40 * smooth / smooth.std() + rng.normal(0, 12, smooth.shape)
    block = np.clip(block, 0, 255).astype(np.uint8)
    array = zarr.create_array(
        path, shape=(edge, edge), shards=(2048, 2048), chunks=(512, 512), dtype="uint8",
        dimension_names=("y", "x"),
    )  # fmt: skip
    for y in range(0, edge, 2048):
        for x in range(0, edge, 2048):
            array[y : y + 2048, x : x + 2048] = block[
                :: -1 if y // 2048 % 2 else 1, :: -1 if x // 2048 % 2 else 1
            ]


def repeat(job, index):
    """The kernels' own part of a tile, on data in memory, four times: seconds a time."""
    tile = job.grid.tile_at(index)
    data = Window(job.image.read(tile.window))
    compute(job, data, tile)
    start = clock.perf_counter()
    for _ in range(4):
        compute(job, data, tile)
    return (clock.perf_counter() - start) / 4


@pytest.mark.parametrize("classes", [4, 8])
def test_labeling_against_the_kernels(tmp_path, classes):
    """16384 x 16384 uint8, two workers: share of what the kernels alone reach; peak memory."""
    source = tmp_path / "big.zarr"
    big_image(source, 16384)
    plan = make_plan(
        images.open_image(source), str(tmp_path / "out.zarr"),
        term=dataterm.Clusters(classes),
        settings=options.make_settings("3x3", 2, 1.0, 5.0, None, "cpu"),
    )  # fmt: skip
    plan = labeling.settle(plan)
    tiles = [t.index for t in plan.job.grid]
    with labeling.open_pool(plan, 2, "processes", None) as pool:
        alone = []

        def kernels_alone(part):
            alone.extend(s for _, s, error in pool.run(repeat, plan.job, part) if not error)

        kernels_alone(tiles[:6])
        alone.clear()
        kernels_alone(tiles[6:12])
        records = []
        found = labeling.run(plan, pool, records.append)
        kernels_alone(tiles[12:18])
    pixels = np.prod(plan.job.grid.tile) / 1e6
    bound = 2 * pixels / statistics.median(alone)
    reached = 16384**2 / 1e6 / found.seconds
    peak = max(r["peak_mib"] for r in records)
    predicted = predicted_bytes(plan.job) / 2**20
    print(
        f"\nlabeling 16384 x 16384, J = {classes}, 2 workers: {reached:.1f} Mpx/s, kernels alone "
        f"{bound:.1f} Mpx/s: {100 * reached / bound:.0f} %; worker peak {peak} MiB, "
        f"predicted {predicted:.0f} MiB"
    )
    assert found.tiles == {"done": 64, "skipped": 0, "failed": 0}
    assert sum(found.pixels) == 16384**2
    assert peak <= predicted
    assert ngff.open_array(str(tmp_path / "out.zarr"), "labels/tiledlaf/0")[:64, :64].min() > 0
