"""The fixed recursion that `speed` times: its data and who computes it.

Five rounds and six solves in float32: Laplace kernel of bandwidth 10 with the L2
distance, penalty 1e-3, full metric, AGOP on all points, no early stopping.
"""

from dataclasses import dataclass

import numpy as np
import torch
from ours import our_default_model, our_fixed_model, our_metric
from xrfm import RFM

ROUNDS = 5
PREDICTED_ROWS = 10_000
TEST_ROWS = 2_000


@dataclass(frozen=True)
class Problem:
    """Training rows, and rows to predict of which the first `TEST_ROWS` are judged."""

    X: np.ndarray
    Y: np.ndarray
    X_new: np.ndarray
    Y_test: np.ndarray


def make_problem(n, d, outputs):
    """Draw Gaussian inputs and targets that depend on five random directions.

    Each output is sin(1.5 u1) + u2 u3 + [u4 > 0] / 2 + 0.05 noise, with u the
    coordinates in the five directions, rotated at random from the second output on.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n + PREDICTED_ROWS, d))
    basis = np.linalg.qr(rng.standard_normal((d, 5)))[0]
    rotation, columns = np.eye(5), []
    for _ in range(outputs):
        u = X @ basis @ rotation
        signal = np.sin(1.5 * u[:, 0]) + u[:, 1] * u[:, 2] + 0.5 * (u[:, 3] > 0)
        columns.append(signal + 0.05 * rng.standard_normal(len(X)))
        rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    X, Y = X.astype(np.float32), np.column_stack(columns).astype(np.float32)
    return Problem(X[:n], Y[:n], X[n:], Y[n : n + TEST_ROWS])


class Ours:
    """`agop` behind the interface of this benchmark."""

    def __init__(self, make_model):
        self.make_model = make_model

    def fit(self, X, Y):
        """Fit; one output is given as a vector."""
        self.model_ = self.make_model()
        self.model_.fit(X, Y[:, 0] if Y.shape[1] == 1 else Y)

    def predict(self, X):
        """Predict an array of shape (n, outputs)."""
        return np.asarray(self.model_.predict(X)).reshape(len(X), -1)

    def metric(self):
        """Give the matrix M of the last solve."""
        return np.asarray(our_metric(self.model_), dtype=np.float64)


class Theirs:
    """The leaf model of xRFM, spared what it does not need.

    It gets two validation rows, because it refuses none, and keeps its last round.
    """

    def __init__(self, kernel, solver):
        self.kernel = kernel
        self.solver = solver

    def fit(self, X, Y):
        """Fit on tensors that share the memory of the arrays."""
        X, Y = torch.from_numpy(X), torch.from_numpy(Y)
        self.model_ = RFM(
            self.kernel,
            bandwidth=10.0,
            device="cpu",
            solver=self.solver,
            verbose=False,
        )
        self.model_.fit(
            (X, Y),
            (X[:2], Y[:2]),
            iters=ROUNDS,
            reg=1e-3,
            total_points_to_sample=len(X),
            return_best_params=False,
            early_stop_rfm=False,
        )

    def predict(self, X):
        """Predict an array of shape (n, outputs)."""
        return self.model_.predict(torch.from_numpy(X)).numpy()

    def metric(self):
        """Give the matrix M of the last solve."""
        return self.model_.M.double().numpy()


CONTENDERS = {
    "agop": lambda: Ours(lambda: our_fixed_model(ROUNDS)),
    "agop-default": lambda: Ours(lambda: our_default_model("regression")),
    "xrfm": lambda: Theirs("laplace", "solve"),
    "xrfm-cholesky": lambda: Theirs("laplace", "cholesky"),
    "xrfm-light": lambda: Theirs("l2_high_dim", "solve"),
}
FIXED = [name for name in CONTENDERS if name != "agop-default"]
