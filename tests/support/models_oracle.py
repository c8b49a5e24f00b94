"""Dense float64 oracle of the other flows: nonlinear, in sequence, composed; for small grids.

It shares no code with the library; the conventions are those of oracle.py. The nonlinear flow is
integrated as W on the simplex, a sequence as its points W^k, a composition as its tangents V: never
in the form that the library uses.
"""

import numpy as np
import oracle
from scipy.integrate import solve_ivp

Array = np.ndarray


def nonlinear(weights, distances, offsets, time, rho=1.0, w0=None, mask=None) -> Array:
    """W(T) of W' = R_W S(W), W(0) = W0 (2.9), by an integrator of high order for any ODE."""
    shape = distances.shape
    start = oracle._start(w0, shape, mask)

    def field(_, flat):
        w = flat.reshape(shape)
        s = oracle.similarity(weights, distances, offsets, rho, w, mask)
        return oracle.replicator(w, s).ravel()

    found = solve_ivp(field, (0, time), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-14)
    assert found.success
    return found.y[:, -1].reshape(shape)


def geometric(weights, distances, offsets, time, steps, a, b, rho=1.0, w0=None, mask=None) -> Array:
    """W after steps of the Runge-Kutta-Munthe-Kaas method with coefficients a and b.

    W <- exp_W(h sum b_i S(W_i)) with W_i = exp_W(h sum a_ij S(W_j)).
    """
    w, h = oracle._start(w0, distances.shape, mask), time / steps
    for _ in range(steps):
        stages = []
        for row in a:
            at = _exp(w, h * _combined(row, stages, w))
            stages.append(oracle.similarity(weights, distances, offsets, rho, at, mask))
        w = _exp(w, h * _combined(b, stages, w))
    return w


def _combined(row, stages, like) -> Array:
    return sum((c * s for c, s in zip(row, stages, strict=False)), np.zeros_like(like))


def _exp(p, u) -> Array:
    """exp_p(u) = p exp(u) / <p, exp(u)> (2.11e)."""
    e = p * np.exp(u - u.max(axis=0))
    return e / e.sum(axis=0)


def entropy(w, mask=None) -> float:
    """Mean of -sum_j w_j log w_j over the valid pixels."""
    pixels = np.ndindex(*w.shape[1:])
    rows = [w[:, *i] for i in pixels if mask is None or mask[i]]
    return float(np.mean([-sum(x * np.log(x) for x in row if x > 0) for row in rows]))


def sequence(weights, distances, offsets, times, rho=1.0, w0=None, mask=None) -> Array:
    """W^N of W^(k+1) = Exp_(W^k)(V(h_k; Omega^k, W^k)) (1.5)-(1.6)."""
    w = oracle._start(w0, distances.shape, mask)
    for omega, time in zip(weights, times, strict=True):
        w = oracle.lift(w, oracle.flow_v(omega, distances, offsets, time, rho, w, mask))
        w = oracle._start(w, w.shape, mask)
    return w


def composition(layers, couplings, parallel) -> list[Array]:
    """V(T) of each layer (5.1)-(5.3); layers are (weights, distances, offsets, time, rho)."""
    grid = layers[0][1].shape[1:]
    n = int(np.prod(grid))
    operators, sources = [], []
    for weights, distances, offsets, _, rho in layers:
        s = oracle.similarity(weights, distances, offsets, rho)
        operators.append(oracle.operator_matrix_v(weights, s, offsets, None))
        sources.append(oracle.replicator(np.full_like(s, 1 / len(s)), s).ravel())
    maps = [np.kron(_tangent_map(c), np.eye(n)) for c in couplings]
    if not parallel:
        found = []
        for number, layer in enumerate(layers):
            drive = maps[number - 1] @ found[-1] if number else 0
            found.append(oracle._solve(operators[number], sources[number] + drive, layer[3]))
    else:
        ends = np.cumsum([len(s) for s in sources])
        whole = np.zeros((ends[-1], ends[-1]))
        blocks = [slice(e - len(s), e) for e, s in zip(ends, sources, strict=True)]
        for number, block in enumerate(blocks):
            whole[block, block] = operators[number]
            if number:
                whole[block, blocks[number - 1]] = maps[number - 1]
        solved = oracle._solve(whole, np.concatenate(sources), layers[0][3])
        found = [solved[block] for block in blocks]
    return [v.reshape(-1, *grid) for v in found]


def _tangent_map(matrix) -> Array:
    """The matrix between tangent spaces: what sums to 0 goes to what sums to 0."""
    rows, columns = np.shape(matrix)
    left = np.eye(rows) - 1 / rows
    right = np.eye(columns) - 1 / columns
    return left @ matrix @ right


def moved(weights, direction, h) -> Array:
    """Omega = softmax(t + h direction) over the neighbors."""
    e = np.where(weights > 0, weights * np.exp(h * direction), 0.0)
    total = e.sum(axis=0)
    return e / np.where(total > 0, total, 1.0)


def slope(value, h=1e-4) -> float:
    """Derivative at 0 of a function of a number, by central differences of order 4."""
    return float(8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
