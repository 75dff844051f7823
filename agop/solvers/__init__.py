"""(K + alpha W⁻¹) C = Y, knowing the kernel matrix only as an operator."""

from agop.solvers.cholesky import (
    CholeskySolver,
    DenseOperator,
    Solution,
    leave_one_out_residuals,
)

__all__ = ["CholeskySolver", "DenseOperator", "Solution", "leave_one_out_residuals"]
