"""Targets with known directions: the published trajectory, round by round.

R1 and R2 are of "Mechanism for feature learning in neural networks and
backpropagation-free machine learning models" (Science 383:1461, 2024,
arXiv:2212.13881), R16 of "Iteratively reweighted kernel machines efficiently learn
sparse functions" (arXiv:2505.08277).
"""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from agop import RFMRegressor
from tests.results.expected import printed
from tests.results.protocols import predict, rounds


# ------------------------------------------------------------------ R1: the tutorial
def tutorial_data():
    """x₀x₁ in 100 dimensions, from the generator and seed of the notebook."""
    generator = np.random.RandomState(1717)
    X = generator.normal(size=(2000, 100))
    X_test = generator.normal(size=(10_000, 100))
    return X, X[:, 0] * X[:, 1], X_test, X_test[:, 0] * X_test[:, 1]


def test_r1_tutorial_round_by_round():
    # The notebook stores the last round, in float32 arithmetic; our independent
    # float64 measurement agrees with it to 2e-9 and gives six digits of the others.
    X, y, X_test, y_test = tutorial_data()
    scores, traces = [], []
    for current in rounds(X, y, 1e-4, 5, center=True, normalize="none"):
        scores.append(r2_score(y_test, predict(current, X_test)))
        traces.append(float(current.machine.metric.diagonal().sum()))
    measured = [0.078951, 0.844830, 0.905191, 0.920918, 0.923135, 0.923145]
    assert scores == pytest.approx(measured, rel=0, abs=1e-6)
    assert scores[-1] == pytest.approx(0.9231449905104399, rel=0, abs=1e-6)
    train = r2_score(y, predict(current, X))
    assert train == pytest.approx(0.999996752594814, rel=0, abs=1e-6)
    assert traces[:2] == [100.0, printed(0.03249, 5)]
    assert traces[2:] == [printed(t, 4) for t in (1.2123, 1.8347, 2.3694, 2.8846)]

    M = current.machine.metric.matrix().numpy()
    diagonal = M.diagonal()
    assert diagonal[:2].tolist() == [printed(1.3615, 4), printed(1.4373, 4)]
    assert diagonal[:2].sum() / diagonal.sum() == printed(0.970, 3)
    assert M[0, 1] == printed(-0.0036, 4)
    assert diagonal[2:].max() == printed(0.0041, 4)


@pytest.mark.slow
def test_r1_tutorial_with_the_estimator():
    X, y, X_test, y_test = tutorial_data()
    model = RFMRegressor(
        kernel="laplace",
        metric="full",
        bandwidth=10.0,
        alpha=1e-4,
        n_iter=5,
        power=1.0,
        center=True,
        normalize="none",
        fit_intercept=False,
    ).fit(X, y)
    assert model.score(X_test, y_test) == pytest.approx(0.9231449905, rel=0, abs=1e-6)
    assert model.score(X, y) == pytest.approx(0.999996752594814, rel=0, abs=1e-6)
    assert np.trace(model.metric_) == printed(2.8846, 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"normalize": "none", "center": False}, 0.8938),
        ({"normalize": "trace", "center": True}, 0.9075),
        ({"normalize": "max", "center": True}, 0.9227),
        ({"normalize": "trace", "center": True, "power": 0.5}, 0.9847),
        ({"normalize": "none", "center": True, "metric": "diagonal"}, 0.9971),
    ],
)
def test_r1_neighbouring_algorithms_have_their_own_numbers(settings, expected):
    X, y, X_test, y_test = tutorial_data()
    *_, last = rounds(X, y, 1e-4, 5, **settings)
    assert r2_score(y_test, predict(last, X_test)) == printed(expected, 4)


# ------------------------------------------------------------- R2: a low-rank target
def low_rank_errors(seed):
    """Test errors round by round, and the share of the trace of every feature."""
    generator = np.random.default_rng(seed)
    X, X_test = (generator.normal(scale=0.5, size=(4000, 20)) for _ in range(2))

    def target(X):
        return X[:, 0] * X[:, 1] * (X[:, 5] > 0)

    errors = []
    for current in rounds(X, target(X), 1e-3, 5, normalize="none"):
        errors.append(np.mean((predict(current, X_test)[:, 0] - target(X_test)) ** 2))
    diagonal = current.machine.metric.diagonal().numpy()
    return errors, diagonal / diagonal.sum()


@pytest.mark.slow
def test_r2_low_rank_target():
    errors, shares = low_rank_errors(0)
    measured = [0.01342, 0.00588, 0.00291, 0.00232, 0.00217, 0.00213]
    assert errors == [printed(error, 5) for error in measured]
    # The notebook stores .012285 .006296 .003174 .002353 .002091 .001997 for a draw
    # without a seed. Three seeds of ours end at .00213 to .00231: within 15 % of it.
    stored = [0.012285, 0.006296, 0.003174, 0.002353, 0.002091, 0.001997]
    assert errors == pytest.approx(stored, rel=0.15)
    order = np.argsort(-shares)
    assert order[:3].tolist() == [5, 1, 0]
    assert shares[order[:3]].tolist() == [printed(s, 3) for s in (0.363, 0.321, 0.313)]
    assert shares[order[3]] == printed(0.0005, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "last"), [(1, 0.00231), (2, 0.00230)])
def test_r2_low_rank_target_with_other_seeds(seed, last):
    errors, _ = low_rank_errors(seed)
    assert errors[-1] == printed(last, 5)


# -------------------------------------------------- R16: sparse target on the hypercube
def hypercube(n_samples, seed):
    """Noise-free test errors round by round; share of the metric on three features."""
    generator = np.random.default_rng(seed)
    signs = [-1.0, 1.0]

    def target(X):
        return X[:, :3].sum(1) + X[:, :3].prod(1)

    X = generator.choice(signs, size=(n_samples, 200))
    y = target(X) + 0.1 * generator.normal(size=n_samples)
    X_test = generator.choice(signs, size=(2000, 200))
    errors = []
    for current in rounds(X, y, 1e-3, 5, metric="diagonal", bandwidth=200**0.5):
        errors.append(np.mean((predict(current, X_test)[:, 0] - target(X_test)) ** 2))
    diagonal = current.machine.metric.diagonal().numpy()
    return [*errors, diagonal[:3].sum() / diagonal.sum()]


@pytest.mark.parametrize(
    ("n_samples", "measured"),
    [
        (500, [2.359, 0.0191, 0.0018, 0.0021, 0.0025, 0.0027]),
        pytest.param(
            1000,
            [1.753, 0.0015, 0.0016, 0.0018, 0.0020, 0.0021],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_r16_hypercube(n_samples, measured):
    *errors, share = np.mean([hypercube(n_samples, seed) for seed in range(3)], axis=0)
    assert errors[0] == printed(measured[0], 3)
    assert errors[1:] == [printed(error, 4) for error in measured[1:]]
    assert share == printed(0.996, 3)
    # The error creeps up again: the last round is not the best one.
    assert min(errors) < 0.8 * errors[-1]
