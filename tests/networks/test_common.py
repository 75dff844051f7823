"""scikit-learn's common checks without expected failures; networks of any width."""

import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from agop import NetworkAGOP


class Waves:
    """Three outputs of tables of any width; a function whose name tells no address."""

    def __call__(self, X):
        frequency = torch.arange(1, X.shape[1] + 1, dtype=X.dtype) / X.shape[1]
        moved = X * frequency
        outputs = [moved.sin().sum(1), moved.cos().sum(1), (X[:, 0] / 3).tanh()]
        return torch.stack(outputs, 1)

    def __repr__(self):
        return "Waves()"


class Sines:
    """As many outputs as features."""

    def __call__(self, X):
        return X.sin()

    def __repr__(self):
        return "Sines()"


waves = Waves()


class AnyWidth(nn.Module):
    """Adds up the features in five ways.

    It has no parameters: one of the checks compares networks by their pickles, and
    those of tensors tell where they lie in memory.
    """

    def __init__(self):
        super().__init__()
        self.squashed = nn.Tanh()

    def forward(self, X):
        phases = torch.arange(X.shape[1], dtype=X.dtype)
        basis = torch.stack([(k * phases).cos() for k in range(1, 6)], 1)
        return self.squashed(X @ basis / 10).cumsum(1)


@parametrize_with_checks(
    [
        NetworkAGOP(waves),
        NetworkAGOP(Sines(), kind="low_rank", n_components=1, outputs=[0]),
        NetworkAGOP(waves, kind="rows", n_components=1, random_state=0),
        NetworkAGOP(waves, kind="diagonal", center=True, batch_size=3),
        NetworkAGOP(AnyWidth(), layers=["input", "squashed"], dtype="float64"),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)
