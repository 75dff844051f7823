"""Naive oracles: loops and one-liners that share nothing with the library.

Every formula is written from the papers, in four independent ways where it matters:
scipy's ``cdist`` (values), a plain differentiable expression (Jacobians by autograd),
mpmath with 50 digits (values, gradients, AGOP), and explicit refits (leave-one-out).
"""

import math

import mpmath
import numpy as np
import torch
from scipy.spatial.distance import cdist

DIGITS = 50


# ------------------------------------------------------- values, by scipy and numpy
def laplace_values(X, Z):
    return np.exp(-cdist(X, Z))


def generalized_exponential_values(X, Z, exponent):
    return np.exp(-(cdist(X, Z) ** exponent))


def gaussian_values(X, Z):
    return np.exp(-cdist(X, Z, "sqeuclidean") / 2)


def matern32_values(X, Z):
    r = math.sqrt(3) * cdist(X, Z)
    return (1 + r) * np.exp(-r)


def matern52_values(X, Z):
    r = math.sqrt(5) * cdist(X, Z)
    return (1 + r + r**2 / 3) * np.exp(-r)


def product_laplace_values(X, Z):
    return np.exp(-cdist(X, Z, "cityblock"))


def lp_exponential_values(X, Z, p, exponent):
    return np.exp(-(cdist(X, Z, "minkowski", p=p) ** exponent))


def polynomial_values(X, Z, degree, offset):
    return np.array([[(x @ z + offset) ** degree for z in Z] for x in X])


def neural_tangent_values(X, Z, depth):
    """The recursion of Jacot et al. (2018) on covariances, pair by pair."""
    return np.array([[_neural_tangent_pair(x, z, depth) for z in Z] for x in X])


def _neural_tangent_pair(x, z, depth):
    covariance = tangent = float(x @ z)
    scale = math.sqrt(float(x @ x) * float(z @ z))
    if scale == 0:
        return 0.0
    for _ in range(depth):
        cosine = min(1.0, max(-1.0, covariance / scale))
        angle = math.acos(cosine)
        derivative = (math.pi - angle) / math.pi
        covariance = scale * (math.sin(angle) + (math.pi - angle) * cosine) / math.pi
        tangent = tangent * derivative + covariance
    return tangent


# -------------------------------------- differentiable expressions, one per kernel
def _power(s, exponent):
    """s ** exponent, with derivative 0 where s is 0: the convention for kinks."""
    zero = s == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, s) ** exponent)


def _differences(X, Z):
    return X[:, None, :] - Z[None, :, :]


def _squared(X, Z):
    return _differences(X, Z).square().sum(-1)


def laplace(X, Z):
    return torch.exp(-_power(_squared(X, Z), 0.5))


def generalized_exponential(X, Z, exponent):
    return torch.exp(-_power(_squared(X, Z), exponent / 2))


def gaussian(X, Z):
    return torch.exp(-_squared(X, Z) / 2)


def matern32(X, Z):
    r = math.sqrt(3) * _power(_squared(X, Z), 0.5)
    return (1 + r) * torch.exp(-r)


def matern52(X, Z):
    r = math.sqrt(5) * _power(_squared(X, Z), 0.5)
    return (1 + r + r**2 / 3) * torch.exp(-r)


def product_laplace(X, Z):
    return torch.exp(-_differences(X, Z).abs().sum(-1))


def lp_exponential(X, Z, p, exponent):
    s = _power(_differences(X, Z).abs(), p).sum(-1)
    return torch.exp(-_power(s, exponent / p))


def polynomial(X, Z, degree, offset):
    return (X @ Z.T + offset) ** degree


def neural_tangent(X, Z, depth):
    """The same recursion; the angle of parallel points is held fixed."""
    scale = X.norm(dim=1)[:, None] * Z.norm(dim=1)
    covariance = tangent = X @ Z.T
    for _ in range(depth):
        cosine = covariance / scale
        parallel = cosine.abs() > 1 - 1e-14
        inside = torch.where(parallel, 0.0, cosine)
        ends = torch.where(cosine > 0, 0.0, math.pi)
        angle = torch.where(parallel, ends, torch.acos(inside))
        derivative = (math.pi - angle) / math.pi
        sine = torch.where(parallel, 0.0, torch.sqrt(1 - inside**2))
        covariance = scale * (sine + (math.pi - angle) * cosine) / math.pi
        tangent = tangent * derivative + covariance
    return tangent


def kernel_jacobian(formula, X, Z, coef, factor):
    """Jacobian of x ↦ Σⱼ coef_j k(Aᵀx, Aᵀzⱼ) by autograd, shape (n, c, d)."""
    X = X.detach().clone().requires_grad_()
    centers = Z.detach().clone()
    outputs = formula(X @ factor, centers @ factor) @ coef  # (n, c)
    gradients = [
        torch.autograd.grad(outputs[:, output].sum(), X, retain_graph=True)[0]
        for output in range(coef.shape[1])
    ]
    return torch.stack(gradients, dim=1)


# ------------------------------------------------------------- mpmath, 50 digits
def _mp_squared(x, z):
    return mpmath.fsum((a - b) ** 2 for a, b in zip(x, z, strict=True))


def mp_laplace(x, z):
    return mpmath.exp(-mpmath.sqrt(_mp_squared(x, z)))


def mp_generalized_exponential(x, z, exponent):
    return mpmath.exp(-(_mp_squared(x, z) ** (mpmath.mpf(exponent) / 2)))


def mp_gaussian(x, z):
    return mpmath.exp(-_mp_squared(x, z) / 2)


def mp_matern32(x, z):
    r = mpmath.sqrt(3 * _mp_squared(x, z))
    return (1 + r) * mpmath.exp(-r)


def mp_matern52(x, z):
    r = mpmath.sqrt(5 * _mp_squared(x, z))
    return (1 + r + r**2 / 3) * mpmath.exp(-r)


def mp_product_laplace(x, z):
    return mpmath.exp(-mpmath.fsum(abs(a - b) for a, b in zip(x, z, strict=True)))


def mp_lp_exponential(x, z, p, exponent):
    p, exponent = mpmath.mpf(p), mpmath.mpf(exponent)
    s = mpmath.fsum(abs(a - b) ** p for a, b in zip(x, z, strict=True))
    return mpmath.exp(-(s ** (exponent / p)))


def mp_polynomial(x, z, degree, offset):
    return (mpmath.fdot(x, z) + offset) ** degree


def mp_neural_tangent(x, z, depth):
    scale = mpmath.sqrt(mpmath.fdot(x, x) * mpmath.fdot(z, z))
    covariance = tangent = mpmath.fdot(x, z)
    for _ in range(depth):
        angle = mpmath.acos(covariance / scale)
        covariance = mpmath.sqrt(scale**2 - covariance**2) + covariance * (
            mpmath.pi - angle
        )
        covariance = covariance / mpmath.pi
        tangent = tangent * (mpmath.pi - angle) / mpmath.pi + covariance
    return tangent


def mp_gradient(formula, x, z):
    """∂k(x, z)/∂x by a central difference with 50 digits left, a list of d."""
    with mpmath.workdps(2 * DIGITS):
        step = mpmath.mpf(10) ** -(DIGITS // 2)
        gradient = []
        for j in range(len(x)):
            ends = []
            for sign in (1, -1):
                moved = list(x)
                moved[j] += sign * step
                ends.append(formula(moved, z))
            gradient.append((ends[0] - ends[1]) / (2 * step))
    return gradient


def mp_machine(formula, X, Z, coef):
    """Values K(X, Z), Jacobian and AGOP of x ↦ Σⱼ coef_j k(x, zⱼ), as float64.

    The inputs are taken as exact binary numbers.
    """
    X, Z, coef = (
        [[mpmath.mpf(float(entry)) for entry in row] for row in rows]
        for rows in (X, Z, coef)
    )
    n, m, c, d = len(X), len(Z), len(coef[0]), len(X[0])
    with mpmath.workdps(DIGITS):
        values = [[formula(x, z) for z in Z] for x in X]
        jacobian = [[[mpmath.mpf(0)] * d for _ in range(c)] for _ in range(n)]
        for i in range(n):
            for j in range(m):
                gradient = mp_gradient(formula, X[i], Z[j])
                for output in range(c):
                    for k in range(d):
                        jacobian[i][output][k] += coef[j][output] * gradient[k]
        outer = [
            [
                mpmath.fsum(row[a] * row[b] for point in jacobian for row in point) / n
                for b in range(d)
            ]
            for a in range(d)
        ]
    return tuple(
        np.array(result, dtype=object).astype(float)
        for result in (values, jacobian, outer)
    )


# ------------------------------------------------------------------ outer product
def outer_product(jacobian, weights=None, center=False):
    """G = Σᵢ wᵢ JᵢᵀJᵢ / Σᵢ wᵢ by loops over points and outputs."""
    jacobian = np.asarray(jacobian, dtype=np.float64)
    n, c, d = jacobian.shape
    weights = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    total = math.fsum(weights)
    if center:
        mean = sum(weights[i] * jacobian[i] for i in range(n)) / total
        jacobian = jacobian - mean
    G = np.zeros((d, d))
    for i in range(n):
        for output in range(c):
            G += weights[i] * np.outer(jacobian[i, output], jacobian[i, output])
    return G / total


# -------------------------------------------------------------------------- ridge
def ridge(K, Y, alpha, weights, fit_intercept):
    """Coefficients and intercept of weighted kernel ridge from the whole system."""
    n, c = Y.shape
    system = K + alpha * np.diag(1 / weights)
    if not fit_intercept:
        return np.linalg.solve(system, Y), np.zeros(c)
    bordered = np.block(
        [[system, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]]
    )
    solved = np.linalg.solve(bordered, np.vstack([Y, np.zeros((1, c))]))
    return solved[:-1], solved[-1]


def leave_one_out(K, Y, alpha, weights, fit_intercept):
    """Residual of every row in a refit without one copy of it (or without it)."""
    residuals = np.empty_like(Y)
    for i in range(len(Y)):
        left = weights.copy()
        left[i] -= min(1.0, weights[i])
        kept = left > 0
        coef, intercept = ridge(
            K[np.ix_(kept, kept)], Y[kept], alpha, left[kept], fit_intercept
        )
        residuals[i] = Y[i] - K[i, kept] @ coef - intercept
    return residuals
