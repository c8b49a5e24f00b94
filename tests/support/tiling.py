"""Label by tiles and as a whole, and what tells them apart."""

import numpy as np

from tiledlaf.labeling.request import label


def whole(image, **options):
    """Labels and confidence as one window."""
    return label(image, tile=4096, workers=1, confidence=True, **options)


def same(found, expected):
    """Both labels and confidence, bit for bit."""
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1].view(np.uint32), expected[1].view(np.uint32))


def points(shape, edge, reach, seed=0):
    """Undecided probabilities with a few decided pixels 1 to `reach` beyond the tiles' edges.

    Far from them a label hangs on the last bit that arrives from one pixel, so a halo that is
    one too small changes labels, which random data does not notice.
    """
    p = np.full((2, *shape), 0.5, np.float32)
    rng = np.random.default_rng(seed)
    for beyond in range(1, reach + 1):
        for corner in np.ndindex(*(-(-n // edge) for n in shape)):
            place = [c * edge + beyond - 1 for c in corner]
            place[rng.integers(len(shape))] += rng.integers(-edge // 2, edge // 2)
            if all(0 <= q < n for q, n in zip(place, shape, strict=True)) and rng.random() < 0.2:
                p[:, *place] = (0.05, 0.95) if rng.random() < 0.5 else (0.95, 0.05)
    return p
