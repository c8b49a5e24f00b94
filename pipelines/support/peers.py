"""What people would use or write instead: the same problems by other programs.

Each library is imported where it is used; where it is not installed, `MISSING` is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MISSING = ImportError


def forward(weights: Any, distances: Any, time: float = 5.0, dim: int = 10) -> Any:
    """Z(T) in PyTorch by a Krylov space of dimension `dim`, 3x3, as one would write it.

    weights (9, H, W), distances (J, H, W) tensors; labels are its argmax.
    """
    import torch

    average = _average(weights)
    s = torch.softmax(average(-distances), dim=0)

    def operator(v: Any) -> Any:
        u = average(v)
        return s * (u - (s * u).sum(dim=0))

    b = s - 1 / len(s)
    beta = torch.linalg.vector_norm(b)
    basis, columns, none = [b / beta], [], torch.zeros((), device=b.device)
    for j in range(dim):
        w = operator(basis[j])
        column = []
        for q in basis:
            column.append(torch.dot(q.flatten(), w.flatten()))
            w = w - column[-1] * q
        column.append(torch.linalg.vector_norm(w))
        if j + 1 < dim:
            basis.append(w / column[-1])
        columns.append(torch.stack(column + [none] * (dim - 1 - j)))
    h = torch.stack(columns, dim=1)
    bordered = torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=b.device)
    bordered[:dim, :dim] = time * h[:dim].double()
    bordered[0, dim] = time
    coefficients = torch.linalg.matrix_exp(bordered)[:dim, dim].to(beta.dtype) * beta
    z = torch.zeros_like(b)
    for c, q in zip(coefficients, basis, strict=True):
        z = torch.addcmul(z, c, q)
    return z


def euler(
    weights: Any, distances: Any, time: float = 5.0, steps: int = 20, kept: int | None = None
) -> Any:
    """Z(T) in PyTorch by explicit Euler steps.

    All steps are stored for the gradient; with `kept`, so many at a time, computed once more.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    average = _average(weights)
    s = torch.softmax(average(-distances), dim=0)

    def run(z: Any, s: Any, count: int) -> Any:
        for _ in range(count):
            u = average(z)
            z = z + time / steps * (s * (u - (s * u).sum(dim=0)) + s - 1 / len(s))
        return z

    z = torch.zeros_like(s)
    if kept is None:
        return run(z, s, steps)
    for start in range(0, steps, kept):
        z = checkpoint(run, z, s, min(kept, steps - start), use_reentrant=True)
    return z


def _average(weights: Any) -> Any:
    import torch
    import torch.nn.functional as functional

    def average(x: Any) -> Any:
        padded = functional.pad(x, (1, 1, 1, 1))
        height, width = x.shape[1:]
        out = torch.zeros_like(x)
        for k in range(9):
            dy, dx = divmod(k, 3)
            out.addcmul_(weights[k], padded[:, dy : dy + height, dx : dx + width])
        return out

    return average


def gradient(
    weights: np.ndarray, distances: np.ndarray, target: np.ndarray, scheme: str = "krylov"
) -> np.ndarray:
    """The gradient of the cosine loss in the weights, by PyTorch's automatic differentiation."""
    return differentiate(weights, distances, target, forward if scheme == "krylov" else euler)[2]


def differentiate(
    weights: np.ndarray, distances: np.ndarray, target: np.ndarray, flow: Callable[..., Any]
) -> tuple[np.ndarray, float, np.ndarray]:
    """Z(T) of a flow, the cosine loss and its gradient in the weights; target from 0."""
    import torch

    w = torch.from_numpy(weights).requires_grad_()
    z = flow(w, torch.from_numpy(distances))
    hot = torch.nn.functional.one_hot(torch.from_numpy(target), len(z)).movedim(-1, 0)
    star = hot.to(z.dtype) - 1 / len(z)
    loss = 1 - (star * z).sum() / (star.norm() * z.norm())
    loss.backward()
    return z.detach().numpy(), float(loss.detach()), w.grad.numpy()


def matrix(weights: np.ndarray, s: np.ndarray, offsets: Any, time: float) -> Any:
    """[[T A, T b], [0, 0]] as a sparse matrix, for scipy's expm_multiply."""
    import scipy.sparse

    count, *grid = s.shape
    pixels = int(np.prod(grid))
    index = np.arange(pixels).reshape(grid)
    rows, columns, values = [], [], []
    for w, (dy, dx) in zip(weights, offsets, strict=True):
        y, x = np.nonzero(w)
        rows.append(index[y, x])
        columns.append(index[y + dy, x + dx])
        values.append(w[y, x])
    omega = scipy.sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(pixels, pixels),
    )
    flat = s.reshape(count, -1).astype(float)
    blocks = [
        [scipy.sparse.diags(flat[j] * ((j == k) - flat[k])) for k in range(count)]
        for j in range(count)
    ]
    a = scipy.sparse.bmat(blocks) @ scipy.sparse.kron(scipy.sparse.eye(count), omega)
    b = scipy.sparse.csr_matrix((flat - flat.mean(axis=0)).reshape(-1, 1))
    return time * scipy.sparse.bmat([[a, b], [None, scipy.sparse.csr_matrix((1, 1))]]).tocsr()


def cut(distances: np.ndarray, smooth: float = 0.5) -> np.ndarray:
    """Labels from 0 of a graph cut, or of alpha-expansion; 8 neighbors."""
    import maxflow

    count, height, width = distances.shape
    if count > 2:
        unary = np.ascontiguousarray(np.moveaxis(distances, 0, -1), np.float64)
        found: np.ndarray = maxflow.fastmin.aexpansion_grid(unary, smooth * (1 - np.eye(count)))
        return found
    graph = maxflow.GraphFloat(height * width, 4 * height * width)
    nodes = graph.add_grid_nodes((height, width))
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        structure = np.zeros((3, 3))
        structure[1 + dy, 1 + dx] = 1
        graph.add_grid_edges(nodes, smooth / np.hypot(dy, dx), structure, symmetric=True)
    graph.add_grid_tedges(nodes, distances[1].astype(float), distances[0].astype(float))
    graph.maxflow()
    return graph.get_grid_segments(nodes).astype(np.int64)


def dense_crf(distances: np.ndarray, image: np.ndarray, steps: int = 5) -> np.ndarray:
    """Labels from 0 of mean-field steps in a dense CRF with both of its usual kernels."""
    return marginals(distances, np.repeat(image[..., None], 3, 2), steps=steps).argmax(axis=0)


def marginals(
    distances: np.ndarray,
    color: np.ndarray,
    smooth: float = 3,
    weight: float = 3,
    reach: float = 20,
    contrast: float = 13,
    steps: int = 5,
) -> np.ndarray:
    """Marginals (J, y, x) of mean-field steps in a dense CRF.

    Parameters
    ----------
    color : (y, x, 3) uint8
    smooth : of the kernel of places, which is 3 pixels wide
    weight, reach, contrast : of the kernel of places and colors, and its widths
    """
    import pydensecrf.densecrf as densecrf

    count, height, width = distances.shape
    crf = densecrf.DenseCRF2D(width, height, count)
    crf.setUnaryEnergy(np.ascontiguousarray(distances.reshape(count, -1), np.float32))
    crf.addPairwiseGaussian(sxy=3, compat=smooth)
    pixels = np.ascontiguousarray(color)
    crf.addPairwiseBilateral(sxy=reach, srgb=contrast, rgbim=pixels, compat=weight)
    return np.array(crf.inference(steps)).reshape(count, height, width)
