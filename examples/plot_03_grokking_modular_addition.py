"""
Grokking without a network
==========================

Networks that learn a + b modulo a prime sit at chance for long and then jump to 100 %.
:arxiv:`2407.20199` shows that kernel machines do the same when they learn features, and
that the jump is not sudden at all: the metric improves while the accuracy is flat.

**What to see:** test accuracy stays at zero for eight rounds, then rises to 1 within
ten; the block of the metric between a and b turns circulant (constant along wrapped
diagonals) during the flat rounds. **What would contradict it:** accuracy that rises
before the structure does, or a structure that appears for a table without a rule.
"""

# %%
# Each number is a name, one of 31 one-hot vectors: nothing tells the machine that 4
# follows 3. A Gaussian kernel, no penalty, and the square root of the AGOP as the next
# metric. The rounds are followed one by one with :func:`agop.rfm.recursion.recurse`,
# the layer below the estimators, which speaks torch.

import matplotlib.pyplot as plt
import numpy as np
import torch

from agop import datasets
from agop.kernels import FullMetric, Gaussian
from agop.rfm.recursion import Problem, Recipe, recurse

p, n_rounds = 31, 25
X, y = datasets.make_modular_addition(p)
order = np.random.RandomState(0).permutation(len(X))
train, test = order[: int(0.6 * len(X))], order[int(0.6 * len(X)) :]
recipe = Recipe(
    Gaussian(),
    FullMetric,
    bandwidth=2.5,
    power=0.5,
    center=True,
    normalize="none",
    fit_intercept=False,
)


def circulant_deviation(block):
    """Distance from a circulant matrix: 0 is circulant, random is near 1."""
    deviations = []
    for sign in (1, -1):
        rolled = np.array([np.roll(row, sign * i) for i, row in enumerate(block)])
        deviations.append(np.square(rolled - rolled.mean(0)).sum())
    return min(deviations) / np.square(block).sum()


def follow(labels):
    """Accuracy and deviation by round, and all metrics."""
    problem = Problem(
        torch.from_numpy(X[train]),
        torch.eye(p, dtype=torch.float64)[labels[train]],
        torch.ones(len(train), dtype=torch.float64),
    )
    accuracies, deviations, metrics = [], [], []
    alphas = [0.0] * (n_rounds + 1)
    for current in recurse(problem, recipe, alphas, leave_one_out=False):
        predicted = current.machine.predict(torch.from_numpy(X[test])).argmax(1).numpy()
        accuracies.append(np.mean(predicted == labels[test]))
        if current.index == 0:  # the identity: no metric was learned yet
            deviations.append(np.nan)
            continue
        factor = current.machine.metric.factor.numpy()
        metrics.append(factor @ factor.T)
        deviations.append(circulant_deviation(metrics[-1][p:, :p]))
    return accuracies, deviations, metrics


accuracies, deviations, metrics = follow(y)

# %%
# The control is a table without a rule: the same labels, dealt out at random.

random_table = np.random.RandomState(1).permutation(y)
control_accuracies, control_deviations, _ = follow(random_table)

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
for ax, title, accuracy, deviation in (
    (axes[0], "addition modulo 31", accuracies, deviations),
    (axes[1], "control: a random table", control_accuracies, control_deviations),
):
    ax.plot(accuracy, "o-", markersize=4, label="test accuracy")
    ax.plot(deviation, "s--", markersize=4, label="deviation from a circulant metric")
    ax.set(xlabel="round", title=title, ylim=(-0.03, 1.05))
    ax.legend(frameon=False, loc="center right")

for index in (0, 4, 8, 12, 16, 20):
    print(
        f"round {index:2}: accuracy {accuracies[index]:.3f}, "
        f"deviation {deviations[index]:.3f}"
    )

# %%
# The metric, 62 by 62, early, at the end of the flat rounds, and when all is solved.
# The diagonal is left out, which would outshine the rest.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained")
for ax, index in zip(axes, (1, 8, n_rounds), strict=True):
    picture = metrics[index - 1] - np.diag(np.diag(metrics[index - 1]))
    limit = np.quantile(np.abs(picture), 0.995)
    ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(
        title=f"round {index}: test accuracy {accuracies[index]:.0%}",
        xticks=[p / 2, 3 * p / 2],
        yticks=[p / 2, 3 * p / 2],
        xticklabels=["a", "b"],
        yticklabels=["a", "b"],
    )

# %%
# At round 8 no test pair is right yet, and the stripes are already there. Accuracy is
# the last thing to change: a measure of the features shows progress where the score
# shows none.
#
# How far does it carry? With half of the pairs instead of 60 % the same prime reaches
# about 0.9, and larger primes need a smaller share of the table: 61 is solved from half
# of it. The size of the prime and the share of the table decide, as they do for
# networks.
