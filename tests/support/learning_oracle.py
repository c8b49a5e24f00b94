"""Dense float64 oracle of learning the linearized assignment flow, for tests on small grids.

It shares no code with the library; the conventions and equation numbers are those of oracle.py.
Losses are functions of Z (J, *grid), V = R_W0 Z; gradients are with respect to Z, 0 at unlabelled
pixels. labelled None is every pixel; the target of an unlabelled pixel is not looked at. The
neighbours of a pixel are the offsets with weight > 0 where only the weights are given.
"""

import numpy as np
import oracle
from numpy.typing import ArrayLike
from scipy.linalg import expm_frechet

Array = np.ndarray


# losses


def _one_hot(target: Array, labels: int, labelled: Array | None) -> tuple[Array, Array]:
    """One-hot (J, *grid) target, 0 at unlabelled pixels, and the labelled pixels."""
    target = np.asarray(target)
    labelled = np.ones(target.shape, bool) if labelled is None else np.asarray(labelled, bool)
    if not labelled.any():
        raise ValueError("no labelled pixel")
    if not np.isin(target[labelled], np.arange(labels)).all():
        raise ValueError("target label out of range")
    one_hot = np.zeros((labels, *target.shape))
    for pixel in np.ndindex(*target.shape):
        if labelled[pixel]:
            one_hot[(target[pixel], *pixel)] = 1.0
    return one_hot, labelled


def _cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays taken as vectors."""
    lengths = np.linalg.norm(a.ravel()) * np.linalg.norm(b.ravel())
    if lengths == 0:
        raise ValueError("the cosine of a zero vector")
    return float(np.sum(a * b) / lengths)


def _cosine_gradient(a: Array, b: Array) -> Array:
    """Gradient of the cosine with respect to b: the part of a/|a| orthogonal to b, over |b|."""
    a = a / np.linalg.norm(a.ravel())
    length = np.linalg.norm(b.ravel())
    b = b / length
    return (a - np.sum(a * b) * b) / length


def _vectors(
    z: Array, target: Array, w0: Array | None, labelled: Array | None
) -> tuple[Array, Array, Array, Array]:
    """V* and V, both 0 at unlabelled pixels, W0 and the labelled pixels."""
    z = np.asarray(z, np.float64)
    one_hot, labelled = _one_hot(target, len(z), labelled)
    start = oracle._start(w0, z.shape, labelled)
    v = np.where(labelled, oracle.replicator(start, z), 0.0)
    return oracle._tangent(one_hot), v, start, labelled


def loss_cosine(
    z: Array, target: Array, w0: Array | None = None, labelled: Array | None = None
) -> float:
    """1 - <V*, V> / (|V*| |V|), one cosine of all labelled pixels together (3.4)."""
    v_star, v, _, _ = _vectors(z, target, w0, labelled)
    return 1.0 - _cosine(v_star, v)


def grad_cosine(
    z: Array, target: Array, w0: Array | None = None, labelled: Array | None = None
) -> Array:
    """Gradient of loss_cosine: R_W0 of the gradient in V."""
    v_star, v, start, _ = _vectors(z, target, w0, labelled)
    return -oracle.replicator(start, _cosine_gradient(v_star, v))


def loss_pixel_cosine(
    z: Array, target: Array, w0: Array | None = None, labelled: Array | None = None
) -> float:
    """Mean over the labelled pixels of 1 - cos(V*_i, V_i); V_i = 0 is an error."""
    v_star, v, _, labelled = _vectors(z, target, w0, labelled)
    return float(np.mean([1.0 - _cosine(v_star[:, *i], v[:, *i]) for i in np.argwhere(labelled)]))


def grad_pixel_cosine(
    z: Array, target: Array, w0: Array | None = None, labelled: Array | None = None
) -> Array:
    """Gradient of loss_pixel_cosine; 0 for two labels."""
    v_star, v, start, labelled = _vectors(z, target, w0, labelled)
    grad = np.zeros_like(v)
    for i in np.argwhere(labelled):
        grad[:, *i] = -_cosine_gradient(v_star[:, *i], v[:, *i]) / labelled.sum()
    return oracle.replicator(start, grad)


def _pixel_costs(one_hot: Array, class_weights: ArrayLike | None) -> Array:
    """c_{y_i} / sum of c_{y_i}, 0 at unlabelled pixels."""
    c = np.ones(len(one_hot)) if class_weights is None else np.asarray(class_weights, np.float64)
    costs = np.tensordot(c, one_hot, axes=1)
    return costs / costs.sum()


def loss_cross_entropy(
    z: Array,
    target: Array,
    w0: Array | None = None,
    labelled: Array | None = None,
    class_weights: ArrayLike | None = None,
    scale: float = 1.0,
) -> float:
    """Mean of -log softmax(log W0 + scale Z)_{y_i} weighted by c_{y_i}."""
    z = np.asarray(z, np.float64)
    one_hot, labelled = _one_hot(target, len(z), labelled)
    logits = np.log(oracle._start(w0, z.shape, labelled)) + scale * z
    logits = logits - logits.max(axis=0)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=0))
    return float(-np.sum(_pixel_costs(one_hot, class_weights) * one_hot * log_softmax))


def grad_cross_entropy(
    z: Array,
    target: Array,
    w0: Array | None = None,
    labelled: Array | None = None,
    class_weights: ArrayLike | None = None,
    scale: float = 1.0,
) -> Array:
    """Gradient of loss_cross_entropy: scale c_{y_i} (softmax - one-hot) / sum of c_{y_i}."""
    z = np.asarray(z, np.float64)
    one_hot, labelled = _one_hot(target, len(z), labelled)
    w = oracle._softmax(np.log(oracle._start(w0, z.shape, labelled)) + scale * z)
    return scale * _pixel_costs(one_hot, class_weights) * (w - one_hot)


# weight patches


def weight_coordinates(weights: Array) -> Array:
    """t = Pi_0 log Omega over the neighbours of each pixel, 0 elsewhere."""
    weights = np.asarray(weights, np.float64)
    t = np.zeros(weights.shape)
    for pixel in np.ndindex(*weights.shape[1:]):
        near = np.flatnonzero(weights[:, *pixel] > 0)
        if near.size:
            log = np.log(weights[near, *pixel])
            t[near, *pixel] = log - log.mean()
    return t


def weights_of(t: Array, valid: Array) -> Array:
    """Omega = softmax(t) over the valid neighbours, 0 elsewhere."""
    weights = np.zeros(np.shape(t))
    for pixel in np.ndindex(*weights.shape[1:]):
        near = np.flatnonzero(valid[:, *pixel])
        if near.size:
            weights[near, *pixel] = oracle._softmax(t[near, *pixel])
    return weights


def regularizer(weights: Array, tau: float) -> float:
    """tau / 2 sum of |t_i|^2, t = Pi_0 log Omega (3.5)."""
    return 0.5 * tau * float(np.sum(weight_coordinates(weights) ** 2))


def grad_regularizer(weights: Array, tau: float) -> Array:
    """Gradient of the regularizer in the coordinates t: tau t."""
    return tau * weight_coordinates(weights)


def exp_step(weights: Array, euclidean: Array, h: float) -> Array:
    """Riemannian step (3.7): Omega exp(-h grad L), normalised; t <- t - h Pi_0 grad L."""
    return weights_of(weight_coordinates(weights) - h * np.asarray(euclidean), weights > 0)


def tangent_step(weights: Array, euclidean: Array, h: float) -> Array:
    """Plain descent in t: t <- t - h R_Omega grad L."""
    t = weight_coordinates(weights) - h * oracle.replicator(weights, np.asarray(euclidean))
    return weights_of(t, weights > 0)


# gradient with respect to the weights


def _pull_back(
    a_bar: Array,
    b_bar: Array,
    weights: Array,
    s: Array,
    log_likelihood: Array,
    offsets: oracle.Offsets,
    mask: Array | None,
) -> dict[str, Array]:
    """Gradients from those in the matrix A = R_S Omega (n J, n J) and the source b = Pi_0 S."""
    labels, grid = len(s), s.shape[1:]
    n = int(np.prod(grid))
    planes, q = s.reshape(labels, n), log_likelihood.reshape(labels, n)
    replicators = oracle._replicator_matrix(s)
    omega = np.kron(np.eye(labels), oracle.omega_matrix(weights, offsets))
    # A = replicators @ omega, so these are the gradients in its two factors
    replicators_bar = a_bar @ omega.T
    omega_bar = replicators.T @ a_bar
    # the block of pixel i is diag(p) - p p^T
    s_bar = oracle._tangent(b_bar.reshape(labels, n))
    for i in range(n):
        rows = np.arange(labels) * n + i
        block = replicators_bar[np.ix_(rows, rows)]
        s_bar[:, i] += np.diag(block) - (block + block.T) @ planes[:, i]
    # S = softmax(Omega q)
    average_bar = (replicators @ s_bar.ravel()).reshape(labels, n)
    dense = average_bar.T @ q
    for j in range(labels):
        dense += omega_bar[j * n : (j + 1) * n, j * n : (j + 1) * n]
    index = np.arange(n).reshape(grid)
    euclidean = np.zeros(weights.shape)
    for k, *pixel in np.argwhere(oracle._valid_neighbours(offsets, grid, mask)):
        other = oracle._neighbour(pixel, offsets[k], grid)
        euclidean[k, *pixel] = dense[index[*pixel], index[other]]
    return {"euclidean": euclidean, "riemannian": oracle.replicator(weights, euclidean)}


def _log_likelihood(distances: Array, rho: float, w0: Array | None, mask: Array | None) -> Array:
    """The averaged log W0 - D / rho, finite at masked-out pixels too."""
    d = np.asarray(distances, np.float64)
    if mask is not None:
        d = np.where(mask, d, 0.0)
    return np.log(oracle._start(w0, d.shape, mask)) - d / rho


def gradient(
    weights: Array,
    distances: Array,
    offsets: oracle.Offsets,
    g: Array,
    time: float,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> dict[str, Array]:
    """Exact gradient of <g, Z(T)> in the weights, by the dense Frechet derivative of expm.

    "euclidean" (K, *grid) is dL/dOmega, every weight of a valid neighbour on its own and 0
    elsewhere; "riemannian" is R_Omega of it, that is dL/dt of Omega = softmax(t).
    """
    weights = np.asarray(weights, np.float64)
    s = oracle.similarity(weights, distances, offsets, rho, w0, mask)
    size = s.size
    bordered = np.zeros((size + 1, size + 1))
    bordered[:size, :size] = time * oracle.operator_matrix(weights, s, offsets)
    bordered[:size, size] = time * oracle._tangent(s).ravel()
    # Z(T) is the last column of expm, whose derivative has the transposed one as adjoint
    direction = np.zeros_like(bordered)
    direction[:size, size] = np.asarray(g, np.float64).ravel()
    bar = time * expm_frechet(bordered.T, direction, compute_expm=False)
    q = _log_likelihood(distances, rho, w0, mask)
    return _pull_back(bar[:size, :size], bar[:size, size], weights, s, q, offsets, mask)


def taylor_gradient(
    weights: Array,
    distances: Array,
    offsets: oracle.Offsets,
    g: Array,
    time: float,
    degree: int,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> dict[str, Array]:
    """Exact gradient of <g, Z_n>, Z_n the Taylor polynomial of n = degree terms (oracle.taylor)."""
    weights = np.asarray(weights, np.float64)
    s = oracle.similarity(weights, distances, offsets, rho, w0, mask)
    a = oracle.operator_matrix(weights, s, offsets)
    powers, coefficients = [oracle._tangent(s).ravel()], [time]
    for k in range(2, degree + 1):
        powers.append(a @ powers[-1])
        coefficients.append(coefficients[-1] * time / k)
    g = np.asarray(g, np.float64).ravel()
    a_bar, power_bar = np.zeros_like(a), coefficients[-1] * g
    for power, coefficient in zip(powers[-2::-1], coefficients[-2::-1], strict=True):
        a_bar += np.outer(power_bar, power)
        power_bar = coefficient * g + a.T @ power_bar
    q = _log_likelihood(distances, rho, w0, mask)
    return _pull_back(a_bar, power_bar, weights, s, q, offsets, mask)


# predictor


def _memberships(feature: Array, prototypes: Array, sigma: float) -> tuple[Array, Array]:
    """Distances to the prototypes and softmax(-sigma distances), of one pixel's feature."""
    lengths = np.linalg.norm(prototypes - feature, axis=1)
    return lengths, oracle._softmax(-sigma * lengths)


def predictor(
    features: Array, prototypes: Array, patches: Array, sigma: float, uniform: Array
) -> Array:
    """Omega_i = softmax of sum_j a_ij nu_j over the neighbours, those with uniform > 0 (4.3)."""
    t = np.zeros(uniform.shape)
    for pixel in np.ndindex(*uniform.shape[1:]):
        _, a = _memberships(features[:, *pixel], prototypes, sigma)
        t[:, *pixel] = a @ patches
    return weights_of(t, uniform > 0)


def predictor_gradient(
    features: Array, prototypes: Array, patches: Array, sigma: float, uniform: Array, gu: Array
) -> tuple[Array, Array, float]:
    """Gradients in prototypes (N, F), patches (N, K) and sigma, gu = R_Omega dL/dOmega (K, *grid).

    The term of a prototype is 0 where the feature equals it; pixels without neighbours have none.
    """
    d_prototypes, d_patches, d_sigma = np.zeros(prototypes.shape), np.zeros(patches.shape), 0.0
    for pixel in np.ndindex(*uniform.shape[1:]):
        feature, arriving = features[:, *pixel], np.where(uniform[:, *pixel] > 0, gu[:, *pixel], 0)
        lengths, a = _memberships(feature, prototypes, sigma)
        # a = softmax(-sigma lengths)
        a_bar = np.array([arriving @ patch for patch in patches])
        exponent_bar = a * (a_bar - a @ a_bar)
        for j in range(len(prototypes)):
            d_patches[j] += a[j] * arriving
            d_sigma -= exponent_bar[j] * lengths[j]
            if lengths[j] > 0:
                unit = (prototypes[j] - feature) / lengths[j]
                d_prototypes[j] -= sigma * exponent_bar[j] * unit
    return d_prototypes, d_patches, float(d_sigma)
