"""The linearized assignment flow as a layer of PyTorch, with its gradient in closed form.

The backward pass computes both gradients from the inputs alone (Theorem 3.8 of Zeilmann, Petra,
Schnörr, J. Math. Imaging Vis. 2023): nothing of the integration is kept for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

try:
    import torch
except ImportError:
    raise ImportError("tiledlaf.torch needs PyTorch: pip install 'tiledlaf[torch]'") from None

from .errors import InputError, as_number
from .flow import stencil
from .flow.gradient import Polynomials, linearize
from .flow.linear import Taylor, check_growth, check_rho, check_time, solve
from .kernels.arrays import Array, Offsets, borrowing
from .kernels.numpy import shifted

__all__ = ["AssignmentFlowLayer", "assignment_flow"]

Tensor = Any  # torch.Tensor, whose types change from release to release
OUTPUTS = ("tangent", "probabilities")


def assignment_flow(
    distances: Tensor,
    logits: Tensor | None = None,
    neighborhood: str | Sequence[Sequence[int]] = "3x3",
    *,
    rho: float = 1.0,
    time: float = 5.0,
    tol: float = 1e-4,
    rank_tol: float = 5e-4,
) -> Tensor:
    """Z(T) of the linearized assignment flow at the barycenter, (2.20)-(2.24), of each image.

    Gradients in distances and logits are in closed form; there are none of higher order. The graph
    keeps these two tensors and nothing else, whatever `time` and `tol`.

    Parameters
    ----------
    distances : (N, J, *grid) float tensor on the CPU or a CUDA device
        Of N images (y, x) or volumes (z, y, x) to J labels. Types narrower than float32, as under
        autocast, are computed in float32. On CUDA this needs CuPy.
    logits : (N, K, *grid), optional
        The weight patch of a pixel is their softmax over its neighbors inside the image, (2.18);
        of positive weights, pass the logarithm. -inf leaves a neighbor out. Uniform if None.
    neighborhood : str or K offsets
        As for `stencil.parse`: ``3x3``, ``rings:3,7``; what logits are in the order of.
    rho : float
        Scale of the distances.
    time : float
        T.
    tol, rank_tol : float
        Of the flow and its gradient, as of `Polynomials`.

    Returns
    -------
    (N, J, *grid), float32 or float64
        Tangent: each pixel's values sum to 0. They are logits of the assignment W(T): use
        ``.softmax(1)`` for probabilities, ``.argmax(1)`` for labels from 0,
        ``torch.nn.functional.cross_entropy`` as it is.

    Raises
    ------
    InputError
        If shapes or devices do not fit each other, a number is out of range, or NaN comes out.

    Examples
    --------
    >>> import torch
    >>> from tiledlaf.torch import assignment_flow
    >>> distances = torch.rand(1, 3, 16, 20, requires_grad=True)  # of an image to three labels
    >>> logits = torch.zeros(1, 9, 16, 20, requires_grad=True)  # of 3x3 neighbors
    >>> z = assignment_flow(distances, logits)
    >>> z.square().sum().backward()
    >>> distances.grad.shape, logits.grad.shape
    (torch.Size([1, 3, 16, 20]), torch.Size([1, 9, 16, 20]))
    """
    offsets = stencil.choose(neighborhood, 3)
    _check(distances, logits, len(offsets))
    dtype = torch.promote_types(distances.dtype, torch.float32)
    if logits is None:
        shape = (len(distances), len(offsets), *distances.shape[2:])
        logits = distances.new_zeros((), dtype=dtype).expand(shape)
    dtype = torch.promote_types(dtype, logits.dtype)
    flat = [number for offset in offsets for number in offset]
    given = {"rho": rho, "time": time, "tol": tol, "rank_tol": rank_tol}
    numbers = [as_number(name, value) for name, value in given.items()]
    return _flow(distances.to(dtype), logits.to(dtype), flat, *numbers)


class AssignmentFlowLayer(torch.nn.Module):
    """The linearized assignment flow as the last layer of a network, `assignment_flow`.

    It has no parameters: distances and logits of the weights are what the network before it gives.

    Parameters
    ----------
    neighborhood, rho, time, tol, rank_tol
        As for `assignment_flow`.
    output : {"tangent", "probabilities"}
        Z(T), the logits of W(T); or W(T) = softmax(Z(T)).

    Attributes
    ----------
    neighbors : int
        K, how many logits a pixel has.

    Raises
    ------
    InputError
        If a parameter is out of range.

    Examples
    --------
    One convolution gives distances to two labels and weights of 3x3 neighbors:

    >>> import torch
    >>> from tiledlaf.torch import AssignmentFlowLayer
    >>> flow = AssignmentFlowLayer("3x3", time=3.0)
    >>> network = torch.nn.Conv2d(1, 2 + flow.neighbors, 3, padding=1)
    >>> distances, logits = network(torch.rand(4, 1, 16, 20)).split([2, flow.neighbors], 1)
    >>> target = torch.zeros(4, 16, 20, dtype=torch.long)
    >>> torch.nn.functional.cross_entropy(flow(distances, logits), target).backward()
    >>> network.weight.grad.shape
    torch.Size([11, 1, 3, 3])
    """

    def __init__(
        self,
        neighborhood: str | Sequence[Sequence[int]] = "3x3",
        *,
        rho: float = 1.0,
        time: float = 5.0,
        tol: float = 1e-4,
        rank_tol: float = 5e-4,
        output: str = "tangent",
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise InputError(f"output must be {' or '.join(OUTPUTS)}, got {output!r}")
        check_rho(rho)
        check_time(time)
        way = Polynomials(Taylor(tol).tol, rank_tol=rank_tol)
        self.neighborhood, self.output = neighborhood, output
        self.offsets = stencil.choose(neighborhood, 3)
        self.neighbors = len(self.offsets)
        self.rho, self.time = float(rho), float(time)
        self.tol, self.rank_tol = way.tol, way.rank_tol

    def forward(self, distances: Tensor, logits: Tensor | None = None) -> Tensor:
        """Z(T) or W(T), (N, J, *grid), as `assignment_flow` computes it."""
        numbers = {"rho": self.rho, "time": self.time, "tol": self.tol, "rank_tol": self.rank_tol}
        z = assignment_flow(distances, logits, self.offsets, **numbers)
        return z if self.output == "tangent" else z.softmax(1)

    def extra_repr(self) -> str:
        """The settings."""
        names = ("neighborhood", "rho", "time", "tol", "rank_tol", "output")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def _check(distances: Tensor, logits: Tensor | None, neighbors: int) -> None:
    """Refuse tensors that do not fit each other."""
    for name, tensor in (("distances", distances), ("logits", logits)):
        if tensor is None and name == "logits":
            continue
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"expected {name} as a tensor, got {type(tensor).__name__}")
        if tensor.is_complex() or tensor.device.type not in ("cpu", "cuda", "meta"):
            raise InputError(
                f"expected {name} of real numbers on the CPU or a CUDA device, got {tensor.dtype} "
                f"on {tensor.device}"
            )
    shape = tuple(distances.shape)
    if len(shape) not in (4, 5) or 0 in shape or shape[1] < 2:
        raise InputError(
            "distances must have shape (N, J, y, x) or (N, J, z, y, x) with two labels or more, "
            f"got {shape}"
        )
    expected = (shape[0], neighbors, *shape[2:])
    if logits is not None and tuple(logits.shape) != expected:
        raise InputError(f"logits must have shape {expected}, got {tuple(logits.shape)}")
    if logits is not None and logits.device != distances.device:
        raise InputError(
            f"expected distances and logits on one device, got {distances.device} and "
            f"{logits.device}"
        )


def _fitted(flat: Sequence[int], ndim: int) -> Offsets:
    """Offsets from their numbers, without that of the axis z for images."""
    triples = tuple(zip(*[iter(flat)] * 3, strict=True))
    if ndim == 2 and any(z for z, _, _ in triples):
        raise InputError("a 3-D neighborhood does not fit images with 2 spatial axes")
    return tuple(o[3 - ndim :] for o in triples)


def _weights(logits: Tensor, offsets: Offsets) -> Tensor:
    """Softmax over the neighbors inside the image, (K, *grid): 0 at the others."""
    outside = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
    for plane, offset in zip(outside, offsets, strict=True):
        plane[shifted(offset, plane.shape)[0]] = False
    return logits.masked_fill(outside, -math.inf).softmax(0)


@contextmanager
def _arrays(device: Any) -> Iterator[Callable[[Tensor], Array]]:
    """What gives the arrays of tensors, in the same memory where they are contiguous."""
    if device.type == "cpu":
        yield lambda tensor: tensor.detach().contiguous().numpy()
        return
    with borrowing(device.index, torch.cuda.current_stream(device).cuda_stream) as borrow:
        yield lambda tensor: borrow(tensor.detach().contiguous())


def _forward(
    distances: Tensor,
    logits: Tensor,
    flat: Sequence[int],
    rho: float,
    time: float,
    tol: float,
    rank_tol: float,
) -> Tensor:
    """Z(T) of each image."""
    offsets, found = _fitted(flat, distances.ndim - 2), []
    with _arrays(distances.device) as array:
        for image, patches in zip(distances, logits, strict=True):
            d, weights = array(image), array(_weights(patches, offsets))
            check_growth(Polynomials(tol), time, d.dtype)  # not only when the gradient is wanted
            z = solve(weights, d, offsets, time=time, rho=rho, integrator=Taylor(tol)).z
            found.append(torch.from_dlpack(z))
        return torch.stack(found)


def _pull(
    g: Tensor,
    distances: Tensor,
    logits: Tensor,
    flat: Sequence[int],
    rho: float,
    time: float,
    tol: float,
    rank_tol: float,
    inputs: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients in distances, which are empty without `inputs`, and in logits."""
    offsets, way = _fitted(flat, distances.ndim - 2), Polynomials(tol, rank_tol=rank_tol)
    of_distances, of_logits = [], []
    with _arrays(distances.device) as array:
        for image, patches, cotangent in zip(distances, logits, g, strict=True):
            weights = array(_weights(patches, offsets))
            flow = linearize(weights, array(image), offsets, time=time, rho=rho, way=way)
            found = flow.gradient(array(cotangent), inputs)
            of_logits.append(torch.from_dlpack(found.tangent))
            if inputs:
                of_distances.append(torch.from_dlpack(found.potential) / -rho)
        first = torch.stack(of_distances) if inputs else distances.new_empty(0)
        return first, torch.stack(of_logits)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    distances, logits, *ctx.numbers = inputs
    ctx.save_for_backward(distances, logits)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    wanted, also, *rest = ctx.needs_input_grad
    of_distances, of_logits = _adjoint(g, *ctx.saved_tensors, *ctx.numbers, wanted)
    return (of_distances if wanted else None, of_logits if also else None, *(None for _ in rest))


def _refuse(ctx: Any, *g: Tensor) -> None:
    raise InputError("expected first derivatives of the assignment flow, got one of higher order")


def _shapes(g: Tensor, distances: Tensor, logits: Tensor, *numbers: Any) -> tuple[Tensor, Tensor]:
    """What `_pull` gives, without its values."""
    first = distances.new_empty(distances.shape if numbers[-1] else 0)
    return first, logits.new_empty(logits.shape)


# operators that are opaque to PyTorch: torch.compile needs no break of its graph for them
GIVEN = (
    "Tensor distances, Tensor logits, int[] flat, float rho, float time, float tol, float rank_tol"
)
_flow = torch.library.custom_op(
    "tiledlaf::flow",
    _forward,
    mutates_args=(),
    schema=f"({GIVEN}) -> Tensor",
)
_flow.register_fake(lambda distances, *rest: distances.new_empty(distances.shape))
_flow.register_autograd(_backward, setup_context=_keep)
_adjoint = torch.library.custom_op(
    "tiledlaf::flow_adjoint",
    _pull,
    mutates_args=(),
    schema=f"(Tensor g, {GIVEN}, bool inputs) -> (Tensor, Tensor)",
)
_adjoint.register_fake(_shapes)
_adjoint.register_autograd(_refuse)
