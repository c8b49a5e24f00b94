"""The flow as one would write it in PyTorch: what speed is compared with."""

import torch
import torch.nn.functional as F


def forward(weights, distances, time=5.0, dim=10):
    """Z(T) by a Krylov space of dimension `dim`, float32, 3x3, uniform or any weights.

    weights (9, H, W), distances (J, H, W) tensors; labels are its argmax.
    """

    def average(x):
        padded = F.pad(x, (1, 1, 1, 1))
        height, width = x.shape[1:]
        out = torch.zeros_like(x)
        for k in range(9):
            dy, dx = divmod(k, 3)
            out.addcmul_(weights[k], padded[:, dy : dy + height, dx : dx + width])
        return out

    s = torch.softmax(average(-distances), dim=0)

    def operator(v):
        u = average(v)
        return s * (u - (s * u).sum(dim=0))

    b = s - 1 / len(s)
    beta = torch.linalg.vector_norm(b)
    basis, columns, none = [b / beta], [], torch.zeros(())
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
    bordered = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)
    bordered[:dim, :dim] = time * h[:dim].double()
    bordered[0, dim] = time
    coefficients = torch.linalg.matrix_exp(bordered)[:dim, dim].float() * beta
    z = torch.zeros_like(b)
    for c, q in zip(coefficients, basis, strict=True):
        z = torch.addcmul(z, c, q)
    return z
