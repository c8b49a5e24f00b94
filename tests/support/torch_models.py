"""Flows in sequence and composed, by dense exponentials in PyTorch, for automatic differentiation.

A second oracle in float64 for tiny 2-D grids; the conventions are those of oracle.py.
"""

import torch
from torch import Tensor


def omega(weights: Tensor, offsets) -> Tensor:
    """Dense (n, n) matrix of the averages."""
    height, width = weights.shape[1:]
    index = torch.arange(height * width).reshape(height, width)
    rows, columns, values = [], [], []
    for k, (dy, dx) in enumerate(offsets):
        for y in range(max(0, -dy), min(height, height - dy)):
            for x in range(max(0, -dx), min(width, width - dx)):
                rows.append(int(index[y, x]))
                columns.append(int(index[y + dy, x + dx]))
                values.append(weights[k, y, x])
    matrix = weights.new_zeros(height * width, height * width)
    return matrix.index_put((torch.tensor(rows), torch.tensor(columns)), torch.stack(values))


def system(weights: Tensor, q: Tensor, offsets) -> tuple[Tensor, Tensor]:
    """A = R_S Omega (J n, J n) and Pi_0 S (J n), with S = softmax(Omega q)."""
    labels = len(q)
    average = omega(weights, offsets)
    s = torch.softmax(q.reshape(labels, -1) @ average.T, 0)
    replicators = torch.diag_embed(s.T) - s.T[:, :, None] * s.T[:, None, :]
    a = torch.einsum("ijl,ik->jilk", replicators, average)
    return a.reshape(s.numel(), s.numel()), (s - 1 / labels).flatten()


def solve(a: Tensor, b: Tensor, time: float) -> Tensor:
    """x(T) of x' = a x + b, x(0) = 0."""
    size = len(b)
    bordered = torch.cat([torch.cat([a, b[:, None]], 1), b.new_zeros(1, size + 1)])
    return torch.linalg.matrix_exp(time * bordered)[:size, size]


def sequence_z(weights, distances: Tensor, offsets, times, rho, log_w0=0.0) -> Tensor:
    """Z(T), the sum over all steps."""
    z = torch.zeros_like(distances)
    for one, time in zip(weights, times, strict=True):
        a, b = system(one, log_w0 + z - distances / rho, offsets)
        z = z + solve(a, b, time).reshape(z.shape)
    return z


def composition_z(layers, couplings, parallel: bool) -> Tensor:
    """Z(T) of the last layer; layers are (weights, distances, offsets, time, rho)."""
    grid = layers[0][1].shape[1:]
    eye = torch.eye(grid.numel(), dtype=torch.float64)
    maps = []
    for coupling in couplings:
        rows, columns = coupling.shape
        left, right = (torch.eye(m, dtype=torch.float64) - 1 / m for m in (rows, columns))
        # V = Z / J on both sides
        maps.append(torch.kron(rows / columns * (left @ coupling @ right), eye))
    systems = [system(w, -d / rho, offsets) for w, d, offsets, _, rho in layers]
    if not parallel:
        z = None
        for number, ((a, b), layer) in enumerate(zip(systems, layers, strict=True)):
            z = solve(a, b if z is None else b + maps[number - 1] @ z, layer[3])
        return z.reshape(-1, *grid)
    whole = torch.block_diag(*(a for a, _ in systems))
    sizes = [len(b) for _, b in systems]
    for number, one in enumerate(maps):
        row, column = sum(sizes[: number + 1]), sum(sizes[:number])
        whole = whole + torch.nn.functional.pad(
            one, (column, len(whole) - column - one.shape[1], row, len(whole) - row - one.shape[0])
        )
    z = solve(whole, torch.cat([b for _, b in systems]), layers[0][3])
    return z[-sizes[-1] :].reshape(-1, *grid)
