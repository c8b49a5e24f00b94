"""Learning gradients by PyTorch's automatic differentiation, on 2-D grids at the barycenter.

A second oracle (float64) and the baseline of the speed comparison (float32). Conventions and
equation numbers are those of oracle.py; the weights' dtype and device are those of the run.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = np.ndarray
Offsets = Sequence[Sequence[int]]


class _Average(torch.autograd.Function):
    """Omega X by slices of the padded X; in-place sums make both passes cheap."""

    @staticmethod
    def forward(ctx, weights: Tensor, x: Tensor, offsets: Offsets) -> Tensor:
        radius = max(abs(o) for offset in offsets for o in offset)
        padded = functional.pad(x, (radius,) * 4)
        height, width = x.shape[1:]
        ctx.windows = [
            (slice(radius + dy, radius + dy + height), slice(radius + dx, radius + dx + width))
            for dy, dx in offsets
        ]
        ctx.save_for_backward(weights, padded)
        out = torch.zeros_like(x)
        for weight, (rows, columns) in zip(weights, ctx.windows, strict=True):
            out.addcmul_(weight, padded[:, rows, columns])
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, padded = ctx.saved_tensors
        weights_bar = torch.empty_like(weights)
        padded_bar = torch.zeros_like(padded) if ctx.needs_input_grad[1] else None
        for k, (rows, columns) in enumerate(ctx.windows):
            torch.sum(padded[:, rows, columns] * grad, 0, out=weights_bar[k])
            if padded_bar is not None:
                padded_bar[:, rows, columns].addcmul_(weights[k], grad)
        if padded_bar is None:
            return weights_bar, None, None
        radius = (padded.shape[1] - grad.shape[1]) // 2
        inner = (slice(None), *(slice(radius, size - radius) for size in padded.shape[1:]))
        return weights_bar, padded_bar[inner], None


def average(weights: Tensor, x: Tensor, offsets: Offsets) -> Tensor:
    """Omega X of x (J, H, W); weights that point outside the grid weigh 0."""
    return _Average.apply(weights, x, offsets)


def replicator(p: Tensor, u: Tensor) -> Tensor:
    """R_p u per pixel (2.11b)."""
    return p * (u - (p * u).sum(0))


def similarity(weights: Tensor, distances: Tensor, offsets: Offsets, rho: float) -> Tensor:
    """S(W0) at the barycenter (2.16)-(2.17)."""
    return torch.softmax(average(weights, distances / -rho, offsets), 0)


def phi_column(matrix: Tensor, time: float) -> Tensor:
    """T phi(T matrix) e1, by one exponential of the bordered matrix."""
    size = len(matrix)
    border = torch.zeros_like(matrix[:, :1])
    border[0] = 1.0
    bordered = functional.pad(torch.cat([matrix, border], 1), (0, 0, 0, 1))
    return torch.linalg.matrix_exp(time * bordered)[:size, size]


def flow_z(
    weights: Tensor,
    distances: Tensor,
    offsets: Offsets,
    time: float,
    dim: int,
    rho: float = 1.0,
) -> Tensor:
    """Z(T) in the Krylov space of dimension dim (2.28); no breakdown may occur before it."""
    s = similarity(weights, distances, offsets, rho)
    source = s - 1.0 / len(s)
    beta = torch.linalg.vector_norm(source)
    basis = [source / beta]
    zero = torch.zeros_like(beta)
    columns = []
    for step in range(dim):
        v = replicator(s, average(weights, basis[-1], offsets))
        # classical Gram-Schmidt: one vector is kept for all products
        products = [torch.dot(q.flatten(), v.flatten()) for q in basis]
        v = v - products[0] * basis[0]
        for product, q in zip(products[1:], basis[1:], strict=True):
            v.addcmul_(product, q, value=-1)
        column = products + [zero] * (dim - len(products))
        if step + 1 < dim:
            column[step + 1] = torch.linalg.vector_norm(v)
            basis.append(v / column[step + 1])
        columns.append(torch.stack(column))
    # the small exponential in float64 costs nothing
    coefficients = phi_column(torch.stack(columns, 1).double(), time).to(beta.dtype) * beta
    z = coefficients[0] * basis[0]
    for coefficient, q in zip(coefficients.unbind()[1:], basis[1:], strict=True):
        z.addcmul_(coefficient, q)
    return z


def exact_flow_z(
    weights: Tensor, distances: Tensor, offsets: Offsets, time: float, rho: float = 1.0
) -> Tensor:
    """Z(T) by the dense exponential of the bordered (n J + 1)-matrix, for tiny grids."""
    height, width = weights.shape[1:]
    rows, columns, values = [], [], []
    for k, (dy, dx) in enumerate(offsets):
        for y in range(max(0, -dy), min(height, height - dy)):
            for x in range(max(0, -dx), min(width, width - dx)):
                rows.append(y * width + x)
                columns.append((y + dy) * width + x + dx)
                values.append(weights[k, y, x])
    n, labels = height * width, len(distances)
    index = (torch.tensor(rows), torch.tensor(columns))
    omega = weights.new_zeros(n, n).index_put(index, torch.stack(values), accumulate=True)
    s = torch.softmax(distances.reshape(labels, n) @ omega.T / -rho, 0)
    replicators = torch.diag_embed(s.T) - s.T[:, :, None] * s.T[:, None, :]
    a = torch.einsum("ijl,ik->jilk", replicators, omega).reshape(labels * n, labels * n)
    source = (s - 1.0 / labels).reshape(-1, 1)
    bordered = functional.pad(torch.cat([a, source], 1), (0, 0, 0, 1))
    return torch.linalg.matrix_exp(time * bordered)[:-1, -1].reshape(labels, height, width)


def cosine_loss(z: Tensor, target: Tensor) -> Tensor:
    """Loss (3.4) at the barycenter over all pixels: V = Z / J, and Z has no mean over labels."""
    product = z.gather(0, target[None]).sum()
    length = (target.numel() * (1.0 - 1.0 / len(z))) ** 0.5
    return 1.0 - product / (length * torch.linalg.vector_norm(z))


def _differentiate(
    flow: Callable[[Tensor, Tensor], Tensor],
    weights: Tensor | Array,
    distances: Tensor | Array,
    target: Tensor | Array,
) -> tuple[float, Array]:
    """Cosine loss of a flow and its gradient in the weights."""
    weights = torch.as_tensor(weights).detach().requires_grad_()
    distances = torch.as_tensor(distances).to(weights)
    target = torch.as_tensor(target).to(weights.device, torch.int64)
    loss = cosine_loss(flow(weights, distances), target)
    (gradient,) = torch.autograd.grad(loss, weights)
    return float(loss.detach()), gradient.cpu().numpy()


def krylov_loss_and_gradient(
    weights: Tensor | Array,
    distances: Tensor | Array,
    offsets: Offsets,
    target: Tensor | Array,
    time: float,
    dim: int,
    rho: float = 1.0,
) -> tuple[float, Array]:
    """Cosine loss of the Krylov flow and its Euclidean gradient (K, H, W) in the weights."""
    return _differentiate(
        lambda w, d: flow_z(w, d, offsets, time, dim, rho), weights, distances, target
    )


def exact_loss_and_gradient(
    weights: Tensor | Array,
    distances: Tensor | Array,
    offsets: Offsets,
    target: Tensor | Array,
    time: float,
    rho: float = 1.0,
) -> tuple[float, Array]:
    """Cosine loss of the exact flow and its Euclidean gradient in the weights, for tiny grids."""
    return _differentiate(
        lambda w, d: exact_flow_z(w, d, offsets, time, rho), weights, distances, target
    )
