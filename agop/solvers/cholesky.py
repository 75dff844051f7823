"""Exact kernel ridge by Cholesky, with leave-one-out residuals in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from agop.core.linalg import cholesky_with_jitter, inverse_diagonal, solve_cholesky


class DenseOperator(Protocol):
    """What the exact solver needs to know of a kernel matrix."""

    def dense(self) -> torch.Tensor:
        """K of shape (n, n), written anew; diagonal and upper triangle are lent."""


@dataclass(frozen=True)
class Solution:
    """A ridge solution f(x) = intercept + Σᵢ coefᵢ k(x, xᵢ), and how good it is.

    Parameters
    ----------
    coef : Tensor of shape (n, c)
    intercept : Tensor of shape (c,)
    jitter : float
        What was added to the diagonal beyond the penalty.
    residuals : Tensor of shape (n, c) or None
        Leave-one-out residuals, if they were asked for.
    """

    coef: torch.Tensor
    intercept: torch.Tensor
    jitter: float
    residuals: torch.Tensor | None


class CholeskySolver:
    """Minimise Σᵢ wᵢ ‖yᵢ − f(xᵢ)‖² + alpha ‖f‖² over f = intercept + Σ c k(·, xᵢ).

    The conditions are (K + alpha W⁻¹) C + 1 bᵀ = Y and, with a free intercept b,
    1ᵀC = 0. With R the Cholesky factor of K + alpha W⁻¹, made in place, all outputs
    are solved at once. Leave-one-out residuals need the diagonal of the inverse, at
    the price of one triangular inverse.

    Parameters
    ----------
    fit_intercept : bool, default=True
        Add an intercept that is not penalised.
    leave_one_out : bool, default=True
        Compute the residuals.
    warn : bool, default=True
        Warn if the matrix needed jitter.

    Notes
    -----
    With P the inverse (of the bordered system if there is an intercept), the residual
    of row i when it is left out is C_i / P_ii. A weight k counts as k copies of a
    row, one of which is left out: with leverage H_ii = 1 − alpha P_ii / w_i and
    δ = min(1, w_i), the residual is (alpha C_i / w_i) / (1 − δ H_ii / w_i). A jitter
    counts as penalty: alpha / w_i stands for alpha / w_i + jitter.
    """

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        leave_one_out: bool = True,
        warn: bool = True,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.leave_one_out = leave_one_out
        self.warn = warn

    def solve(
        self,
        operator: DenseOperator,
        targets: torch.Tensor,
        alpha: float,
        sample_weight: torch.Tensor,
    ) -> Solution:
        """Solve for all outputs.

        Parameters
        ----------
        operator : DenseOperator
            The kernel matrix of the n points.
        targets : Tensor of shape (n, c)
        alpha : float
            Ridge penalty, non-negative.
        sample_weight : Tensor of shape (n,)
            Positive weights.

        Returns
        -------
        Solution

        Raises
        ------
        numpy.linalg.LinAlgError
            If the matrix is singular beyond repair; see
            :func:`agop.core.linalg.cholesky_with_jitter`.
        """

        def fill() -> torch.Tensor:
            matrix = operator.dense()
            matrix.diagonal().add_(alpha / sample_weight)
            return matrix

        level = torch.zeros_like(targets[0])
        if self.fit_intercept:
            # The intercept takes any constant; constant targets become exact zeros.
            level = targets[0] + (targets - targets[0]).mean(0)
        targets = targets - level
        factor, jitter = cholesky_with_jitter(fill, warn=self.warn)
        ones = torch.ones_like(targets[:, :1])
        solved = solve_cholesky(factor, torch.cat([targets, ones], dim=1))
        coef, of_ones = solved[:, :-1], solved[:, -1:]
        intercept = torch.zeros_like(targets[0])
        if self.fit_intercept:
            intercept = coef.sum(0) / of_ones.sum()
            coef = coef - of_ones * intercept
        residuals = None
        if self.leave_one_out:
            inverse = inverse_diagonal(factor)
            if self.fit_intercept:
                inverse = inverse - of_ones[:, 0].square() / of_ones.sum()
            penalty = alpha / sample_weight + jitter
            residuals = leave_one_out_residuals(coef, inverse, penalty, sample_weight)
        return Solution(coef, intercept + level, jitter, residuals)


def leave_one_out_residuals(
    coef: torch.Tensor,
    inverse: torch.Tensor,
    penalty: torch.Tensor,
    sample_weight: torch.Tensor,
) -> torch.Tensor:
    """Residual of every row when one copy of it is left out.

    Parameters
    ----------
    coef : Tensor of shape (n, c)
        Dual coefficients.
    inverse : Tensor of shape (n,)
        Diagonal of the inverse of the (bordered) system.
    penalty : Tensor of shape (n,)
        What the diagonal of the system has beyond K: alpha / w and any jitter.
    sample_weight : Tensor of shape (n,)

    Returns
    -------
    Tensor of shape (n, c)
    """
    tiny = torch.finfo(inverse.dtype).tiny
    alone = coef / inverse.clamp(min=tiny)[:, None]
    share = (1 / sample_weight).clamp(max=1)  # δ / w
    others = 1 - share + share * penalty * inverse  # 1 − δ H / w
    copies = (penalty / others.clamp(min=tiny))[:, None] * coef
    return torch.where((sample_weight <= 1)[:, None], alone, copies)
