"""
Features, round by round
========================

The tutorial problem of recursive feature machines (:arxiv:`2212.13881`): inputs are 100
independent normal numbers, and the target is the product of the first two. A kernel
that treats all coordinates alike is lost in 100 dimensions. One that learns its metric
finds the two.

**What to see:** the share of the two coordinates in the AGOP grows from round to round,
and the test R² with it. **What would contradict it:** a share that grows while the test
score does not (the machine would be sharpening noise), or a third coordinate rising.
"""

# %%
# The settings are those of the paper's notebook, with its data: Laplace kernel of
# bandwidth 10, penalty 1e-4, gradients centred, and the AGOP itself as the next metric,
# without rescaling. Nothing is chosen from the data.

import matplotlib.pyplot as plt
import numpy as np

from agop import RFMRegressor, datasets

X, y, directions = datasets.make_multi_index(12_000, 100, random_state=1717)
X_train, y_train, X_test, y_test = X[:2000], y[:2000], X[2000:], y[2000:]

settings = {
    "kernel": "laplace",
    "metric": "full",
    "bandwidth": 10.0,
    "alpha": 1e-4,
    "center": True,
    "normalize": "none",
    "fit_intercept": False,
}

# %%
# One fit for each number of rounds; round 0 is the plain kernel machine.

rounds = range(6)
diagonals, scores = [], []
for n_iter in rounds:
    machine = RFMRegressor(**settings, n_iter=n_iter).fit(X_train, y_train)
    diagonals.append(machine.feature_importances_)
    scores.append(machine.score(X_test, y_test))
    print(
        f"round {n_iter}: test R² {scores[-1]:.6f}, "
        f"share of the two {diagonals[-1][:2].sum():.3f}"
    )

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
image = axes[0].imshow(
    np.array(diagonals)[:, :20], aspect="auto", cmap="magma", norm="log", vmin=1e-4
)
axes[0].set(
    xlabel="coordinate (the first 20 of 100)",
    ylabel="round",
    title="diagonal of the AGOP, share of the trace (log)",
)
axes[0].set_xticks(range(0, 20, 2))
figure.colorbar(image, ax=axes[0])
axes[1].plot(rounds, scores, "o-", label="test R²")
axes[1].plot(
    rounds, [d[:2].sum() for d in diagonals], "s--", label="share of x₀ and x₁"
)
axes[1].plot(
    rounds, [d[2:].max() for d in diagonals], "^:", label="largest other coordinate"
)
axes[1].set(xlabel="round", ylim=(0, 1.02), title="finding two of 100 coordinates")
axes[1].legend(frameon=False)

# %%
# The AGOP of round 0 already points at the two coordinates, although the predictions it
# was computed from are poor: R² 0.08. That is why the recursion gets off the ground.
#
# A check from outside: the published notebook prints a test R² of 0.92314 for round 5.

print(f"here {scores[-1]:.5f}, published 0.92314")

# %%
# And one against wishful reading: with permuted targets there is nothing to find, and
# the two coordinates must not stand out.

shuffled = np.random.RandomState(0).permutation(y_train)
control = RFMRegressor(**settings, n_iter=5).fit(X_train, shuffled)
largest = np.sort(control.feature_importances_)[::-1]
print(
    f"permuted targets: test R² {control.score(X_test, y_test):.3f}, share of the two "
    f"{control.feature_importances_[:2].sum():.3f}, two largest {largest[:2].sum():.3f}"
)
