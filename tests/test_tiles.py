import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiledlaf.tiles import Grid


@given(data=st.data(), ndim=st.integers(2, 3))
def test_cores_cover_the_output_once_and_windows_hold_their_halo(data, ndim):
    def draw(*spans):
        return tuple(data.draw(st.integers(*span)) for span in spans)

    image = draw(*[(1, 30)] * ndim)
    origin = draw(*[(0, n - 1) for n in image])
    size = draw(*[(1, n - o) for n, o in zip(image, origin, strict=True)])
    grid = Grid(image, origin, size, draw(*[(1, 12)] * ndim), draw(*[(0, 5)] * ndim))
    seen = np.zeros(size, int)
    whole = np.arange(np.prod(image)).reshape(image)
    crop = whole[tuple(slice(o, o + s) for o, s in zip(origin, size, strict=True))]
    tiles = list(grid)
    assert len(tiles) == len(grid)
    for tile in tiles:
        seen[tile.core] += 1
        np.testing.assert_array_equal(whole[tile.window][tile.inner], crop[tile.core])
        for w, core, o, h, n in zip(tile.window, tile.core, origin, grid.halo, image, strict=True):
            assert w.start == max(0, o + core.start - h)
            assert w.stop == min(n, o + core.stop + h)
    assert (seen == 1).all()
