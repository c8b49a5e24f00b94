"""Pixel probabilities from boosted decision trees: fitted by scikit-learn, stored as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import InputError
from ..kernels import select
from ..kernels.arrays import Array

LEAVES = 32  # most leaves of a tree: the bits of a mask
FLOATS = (np.float32, np.float64)  # types of samples
ALL = (1 << LEAVES) - 1
TYPES = {
    "features": np.int64,
    "baseline": np.float32,
    "first": np.int64,
    "feature": np.int64,
    "threshold": np.float32,
    "mask": np.uint32,
    "value": np.float32,
}


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees whose values add up to the scores of labels.

    With two labels there is one score, for the second label; otherwise K, one per label.

    Attributes
    ----------
    features : int
        Number of features F of a pixel.
    baseline : (K,) float32
        Scores before the first tree.
    first : (T + 1,) int64
        Nodes of tree t are first[t] to first[t + 1]; it adds to score t % K.
    feature, threshold : (N,) int64, float32
        A node sends a pixel to the right where its feature is above the threshold.
    mask : (N,) uint32
        Zeros at the leaves to the left of a node.
    value : (T, 32) float32
        Values of the leaves, from left to right.
    """

    features: int
    baseline: np.ndarray
    first: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    mask: np.ndarray
    value: np.ndarray

    def __post_init__(self) -> None:
        for name, kind in TYPES.items():
            dtype = np.asarray(getattr(self, name)).dtype
            if dtype != kind:
                raise InputError(f"trees: expected {name} of type {np.dtype(kind)}, got {dtype}")
        self._check_shapes()
        self._check_nodes()

    def _check_shapes(self) -> None:
        trees, nodes = len(np.atleast_1d(self.value)), np.size(self.mask)
        shapes = {
            "features": (),
            "baseline": (np.size(self.baseline),),
            "first": (trees + 1,),
            "feature": (nodes,),
            "threshold": (nodes,),
            "mask": (nodes,),
            "value": (trees, LEAVES),
        }
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(
                    f"trees: expected {name} of shape {shape}, got {np.shape(getattr(self, name))}"
                )
        scores = len(self.baseline)
        if scores in (0, 2):
            raise InputError(f"trees: expected 1 score or 3 and more, got {scores}")
        if trees == 0 or trees % scores:
            raise InputError(
                f"trees: expected equally many for each of {scores} scores, got {trees}"
            )

    def _check_nodes(self) -> None:
        for name in ("baseline", "threshold", "value"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"trees: expected finite {name}, got NaN or inf")
        nodes, count = np.diff(self.first), len(self.mask)
        if self.first[0] != 0 or self.first[-1] != count or (nodes < 0).any():
            raise InputError(f"trees: expected first to rise from 0 to {count}, got other numbers")
        if nodes.max() >= LEAVES:
            raise InputError(f"trees: expected up to {LEAVES} leaves, got {nodes.max() + 1}")
        if count and not 0 <= self.feature.min() <= self.feature.max() < self.features:
            raise InputError(
                f"trees: expected features 0 to {self.features - 1} in nodes, "
                f"got {self.feature.min()} to {self.feature.max()}"
            )
        # a mask clears a run of leaves, never the last one of the tree: some leaf always remains
        cleared = ~self.mask
        lowest = cleared & (~cleared + np.uint32(1))
        inside = cleared.astype(np.int64) < 1 << np.repeat(nodes, nodes)
        if not (inside & (cleared != 0) & (cleared & (cleared + lowest) == 0)).all():
            raise InputError("trees: expected masks to clear a run of leaves, got another mask")

    @property
    def classes(self) -> int:
        """Number of labels J."""
        return max(len(self.baseline), 2)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields as arrays, by name."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Trees:
        """Trees that `to_arrays` wrote.

        Raises
        ------
        ValueError
            If an array is missing, unknown, of another type or shape, or does not hold trees.
        """
        if set(arrays) != set(TYPES):
            raise InputError(f"trees: expected arrays {sorted(TYPES)}, got {sorted(arrays)}")
        given = {name: np.asarray(arrays[name]) for name in TYPES}
        count = given.pop("features")
        if count.shape or count.dtype != np.int64:
            raise InputError(
                f"trees: expected features as one int64, got {count.dtype} of shape {count.shape}"
            )
        return cls(int(count), **{name: np.ascontiguousarray(a) for name, a in given.items()})

    def probabilities(self, features: Array, kernel: str | None = None) -> Array:
        """Probabilities of the labels: logistic function of one score, softmax of several.

        Parameters
        ----------
        features : (F, *grid) float32
            Finite; NaN would go to the left at each node.
        kernel : {"numpy", "numba", "cupy"}, optional
            As in `kernels.select`.

        Returns
        -------
        (J, *grid) float32
        """
        if features.dtype != np.float32 or features.ndim < 2 or len(features) != self.features:
            raise InputError(
                f"expected features as ({self.features}, *grid) float32, "
                f"got {features.dtype} of shape {features.shape}"
            )
        kernels = select(features, kernel)
        scores = kernels.scores(
            features, self.feature, self.threshold, self.mask, self.first, self.value, self.baseline
        )
        p: Array = kernels.softmax(scores)
        return p


def fit(
    samples: np.ndarray,
    labels: np.ndarray,
    classes: int,
    seed: int = 0,
    *,
    iterations: int = 150,
    rate: float = 0.1,
    leaves: int = 31,
    least: int = 50,
    penalty: float = 5.0,
    threads: int = 1,
) -> Trees:
    """Gradient boosting on a sample; the same trees on any number of threads.

    Parameters
    ----------
    samples : (n, F) float32, or float64, which is not copied
        Values that float32 holds.
    labels : (n,) integers
        0 to classes - 1, each at least once.
    classes : int
        Number of labels J.
    seed : int
        Selects the pixels that define the bins if there are more than 200 000.
    iterations : int
        Trees per score.
    rate : float
        Learning rate: the factor of each tree's values.
    leaves : int
        Most leaves of a tree, 2 to 32.
    least : int
        Fewest pixels in a leaf.
    penalty : float
        L2 penalty on the values of leaves.
    threads : int
        Threads wait for each other at every node: use more than one only for large samples on
        otherwise idle cores.

    Raises
    ------
    ValueError
        If the sample is not as described, or a label has no pixel in it.

    Examples
    --------
    Bright pixels have the label 1:

    >>> import numpy as np
    >>> from tiledlaf.model import trees
    >>> samples = np.linspace(0, 1, 100, dtype=np.float32)[:, None]  # one feature
    >>> labels = (samples[:, 0] > 0.5).astype(int)
    >>> found = trees.fit(samples, labels, 2, iterations=20, least=5)
    >>> found.classes, found.features
    (2, 1)
    >>> features = np.array([[[0.1, 0.9]]], np.float32)  # on a grid of 1 x 2
    >>> p = found.probabilities(features, kernel="numpy")
    >>> p.shape, p.argmax(axis=0).tolist()
    ((2, 1, 2), [[0, 1]])
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    if not 2 <= leaves <= LEAVES:
        raise InputError(f"expected 2 to {LEAVES} leaves, got {leaves}")
    _check_sample(samples, labels, classes)
    model = HistGradientBoostingClassifier(
        max_iter=iterations,
        learning_rate=rate,
        max_leaf_nodes=leaves,
        min_samples_leaf=least,
        l2_regularization=penalty,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(threads):
        model.fit(samples, labels)
    return _trees(model)


def _check_sample(samples: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if classes < 2:
        raise InputError(f"expected two or more classes, got {classes}")
    if samples.ndim != 2 or samples.dtype not in FLOATS or 0 in samples.shape:
        raise InputError(
            f"expected a sample (n, F) of floats, got {samples.dtype} of shape {samples.shape}"
        )
    if labels.shape != samples.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"expected {len(samples)} integer labels, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"expected labels 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    missing = sorted(set(range(classes)) - set(map(int, np.unique(labels))))
    if missing:
        raise InputError(
            f"expected pixels of all {classes} labels in the sample, got none of "
            f"{', '.join(map(str, missing))}"
        )
    if not np.isfinite(samples).all():
        raise InputError("expected finite features, got NaN or inf in the sample")


def _trees(model: Any) -> Trees:
    """The arrays of a fitted HistGradientBoostingClassifier."""
    trees = [_flat(tree.nodes) for step in model._predictors for tree in step]
    nodes = [node for rows, _ in trees for node in rows]
    value = np.zeros((len(trees), LEAVES), np.float32)
    for row, (_, leaves) in zip(value, trees, strict=True):
        row[: len(leaves)] = leaves
    threshold = np.array([node[1] for node in nodes], np.float64)
    return Trees(
        features=int(model.n_features_in_),
        baseline=np.asarray(model._baseline_prediction, np.float32).ravel(),
        first=np.cumsum([0] + [len(rows) for rows, _ in trees], dtype=np.int64),
        feature=np.array([node[0] for node in nodes], np.int64),
        threshold=_round_down(threshold),
        mask=np.array([node[2] for node in nodes], np.uint32),
        value=value,
    )


def _flat(nodes: np.ndarray) -> tuple[list[tuple[int, float, int]], list[float]]:
    """A tree's nodes as (feature, threshold, mask), and the values of its leaves."""
    rows: list[tuple[int, float, int]] = []
    leaves: list[float] = []

    def visit(i: int) -> None:
        node = nodes[i]
        if node["is_leaf"]:
            leaves.append(float(node["value"]))
            return
        start = len(leaves)
        visit(int(node["left"]))
        to_the_left = (1 << len(leaves)) - (1 << start)
        rows.append((int(node["feature_idx"]), float(node["num_threshold"]), ALL ^ to_the_left))
        visit(int(node["right"]))

    visit(0)
    return rows, leaves


def _round_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 up to each threshold: a float32 exceeds both or neither."""
    near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
