"""R11: modular addition is learned suddenly, by feature learning alone.

"Emergence in non-neural models: grokking modular arithmetic via average gradient
outer product" (ICML 2025, arXiv:2407.20199). M = G^½, no penalty. Test accuracy stays
at zero for about ten rounds and then rises to 1, while two measures of M move from the
first round on: how far the block of M between the two numbers is from circulant, and
how near M is to the M of the end.

No penalty is no difficulty here. Distinct pairs keep the Gaussian kernel matrix
positive definite as long as M tells them apart. The quadratic kernel starts at
δ_aa′ + δ_bb′ + 2 δ_aa′δ_bb′, which is at least 2 I, and stays positive definite while
M has rank 2(p − 1) or more. The code of the paper solves the same system; the jitter
that the library adds to a singular matrix is asserted to be zero in every round.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from agop.kernels import Polynomial
from tests.results.expected import printed
from tests.results.protocols import predict, rounds

GAUSSIAN = {"kernel": "gaussian", "bandwidth": 2.5, "normalize": "none"}
QUADRATIC = {"kernel": Polynomial(degree=2), "bandwidth": 1.0, "normalize": "max"}


def modular_addition(p, share):
    """All pairs as two one-hots, a random share for training: X, y, X_test, y_test."""
    a, b = np.divmod(np.arange(p * p), p)
    order = np.random.default_rng(0).permutation(p * p)
    n = int(share * p * p)
    X = np.concatenate([np.eye(p)[a], np.eye(p)[b]], axis=1)[order]
    y = ((a + b) % p)[order]
    return X[:n], y[:n], X[n:], y[n:]


@dataclass
class Course:
    """Test accuracy and metric of every round until all test pairs are right."""

    accuracies: list
    metrics: list

    def circulant_deviations(self):
        """Distance of the block C from a circulant matrix, from round 1 on.

        0 for a circulant matrix in either direction, nearly 1 for one without
        structure.
        """
        return [
            min(_spread(_block(M), sign) for sign in (1, -1)) for M in self.metrics[1:]
        ]

    def alignments(self):
        """Cosine of the metric with the last one, from round 1 on."""
        last = self.metrics[-1] / np.linalg.norm(self.metrics[-1])
        return [(M * last).sum() / np.linalg.norm(M) for M in self.metrics[1:]]


def _block(M):
    p = len(M) // 2
    return M[p:, :p]


def _spread(block, sign):
    rolled = np.stack([np.roll(row, sign * i) for i, row in enumerate(block)])
    return ((rolled - rolled.mean(0)) ** 2).sum() / (block**2).sum()


def learn(p, share, n_iter, **settings):
    X, y, X_test, y_test = modular_addition(p, share)
    course = Course([], [])
    for current in rounds(X, np.eye(p)[y], 0.0, n_iter, power=0.5, **settings):
        assert current.solution.jitter == 0
        hits = predict(current, X_test).argmax(1) == y_test
        course.accuracies.append(hits.mean())
        course.metrics.append(current.machine.metric.matrix().numpy())
        if hits.all():
            break
    return course


def check_that_measures_move_first(course, p):
    """Until accuracy reaches chance, D has fallen fourfold and M has turned by a third.

    The bounds are loose on purpose: the published statement is that the measures
    improve gradually while accuracy does not.
    """
    before = int(np.argmax(np.array(course.accuracies) > 1 / p)) - 1
    assert before >= 5
    deviations, alignments = course.circulant_deviations(), course.alignments()
    assert deviations[before - 1] < deviations[0] / 4
    turned = (alignments[before - 1] - alignments[0]) / (1 - alignments[0])
    assert turned > 1 / 3
    assert np.all(np.diff(alignments) > 0)


# ------------------------------------------------------------- small, what must happen
def test_r11_small_prime_groks():
    p = 23
    course = learn(p, 0.7, 30, center=True, **GAUSSIAN)
    # Flat at zero, below chance: a plain kernel and five rounds know nothing.
    assert course.accuracies[:6] == [0.0] * 6
    assert course.accuracies[-1] == 1.0
    check_that_measures_move_first(course, p)
    assert np.all(np.diff(course.circulant_deviations()) < 0)

    # The limit is [[A, Cᵀ], [C, A]], C circulant, A = c₁I + c₂11ᵀ. Each block is within
    # a twentieth of it, in squared norm, where a C without structure is off by about 1.
    M = course.metrics[-1]
    assert course.circulant_deviations()[-1] < 0.05
    for block in (M[:p, :p], M[p:, p:]):
        off = block[~np.eye(p, dtype=bool)]
        residual = np.diag(block).var() * p + off.var() * off.size
        assert residual < 0.05 * (block**2).sum()


def test_r11_small_prime_quadratic_kernel():
    p = 23
    course = learn(p, 0.7, 14, center=True, **QUADRATIC)
    assert course.accuracies[:6] == [0.0] * 6
    assert course.accuracies[-1] > 0.9
    check_that_measures_move_first(course, p)


# ------------------------------------------------------------------------ as published
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "measured", "last", "deviation"),
    [
        pytest.param(
            {**GAUSSIAN, "center": True},
            [0.001, 0.075, 0.309, 0.583, 0.785, 0.897, 0.947, 0.978, 0.991],
            25,
            0.731,
            id="gaussian",
        ),
        pytest.param(
            {**QUADRATIC, "center": True},
            [0.017, 0.168, 0.468, 0.716, 0.863, 0.936, 0.969, 0.986, 0.993],
            23,
            None,
            id="quadratic",
        ),
    ],
)
def test_r11_addition_modulo_61(settings, measured, last, deviation):
    course = learn(61, 0.5, 30, **settings)
    assert course.accuracies[10:19] == [printed(accuracy, 3) for accuracy in measured]
    assert len(course.accuracies) - 1 == last
    assert course.accuracies[-1] == 1.0
    check_that_measures_move_first(course, 61)
    if deviation is not None:
        assert course.circulant_deviations()[0] == printed(deviation, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bandwidth", "measured"),
    [
        pytest.param(2.5, [0.000, 0.003, 0.029, 0.085], id="code, not centred"),
        # exp(−s/L) with L = 2.5, in our terms exp(−s/(2 · 1.25)).
        pytest.param(1.25**0.5, [0.000, 0.000, 0.000, 0.002], id="paper"),
    ],
)
def test_r11_versions_that_do_not_grok(bandwidth, measured):
    settings = {**GAUSSIAN, "bandwidth": bandwidth, "center": False}
    course = learn(61, 0.5, 13, **settings)
    assert course.accuracies[10:] == [printed(accuracy, 3) for accuracy in measured]
