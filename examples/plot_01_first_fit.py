"""
A first fit
===========

A recursive feature machine is a kernel machine that learns its own metric: it fits,
looks where its predictions change, and fits again with distances measured there. This
example fits one to a table, and reads what it learned.

The table is scikit-learn's diabetes data: ten measurements of 442 patients, and how far
the disease went within a year. **What to see:** a score on new patients, which of the
measurements the model responds to, and whether learning a metric helped. **What would
contradict it** stands at the end.
"""

# %%
# Fit and score
# -------------
# Columns are scaled first: a derivative is per unit of its column, so that without
# scaling the answer would depend on whether weight is in kilograms or grams. Kernel,
# bandwidth, penalty, metric and number of rounds are chosen by cross-fitting inside
# ``fit``; here the kernel is given, which saves time.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agop import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    RFMRegressor,
    SpectrumDisplay,
)

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X = X.rename(
    columns={
        "bp": "blood pressure",
        "s1": "total cholesterol",
        "s2": "LDL",
        "s3": "HDL",
        "s4": "cholesterol / HDL",
        "s5": "log triglycerides",
        "s6": "glucose",
    }
)


def split_and_fit(regressor, seed):
    """A pipeline fitted to 60 % of the patients, and the others."""
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.4, random_state=seed
    )
    pipeline = make_pipeline(StandardScaler(), regressor).fit(X_train, y_train)
    return pipeline, X_test, y_test


pipeline, X_test, y_test = split_and_fit(
    RFMRegressor(kernel="laplace", random_state=0), seed=0
)
machine = pipeline[-1]
print(f"R² on new patients: {pipeline.score(X_test, y_test):.3f}")
print(f"rounds: {machine.best_iter_}, penalty: {machine.alpha_:.2g}")

# %%
# What it learned
# ---------------
# The average gradient outer product (AGOP) G = 1/n Σ ∇f(x) ∇f(x)ᵀ is one matrix, 10 by
# 10. Its eigenvalues say how many directions the model responds to; its leading
# eigenvector is the combination of measurements that counts most; its diagonal is the
# response to each measurement alone.

figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
SpectrumDisplay.from_estimator(pipeline, ax=axes[0, 0])
HistoryDisplay.from_estimator(pipeline, ax=axes[0, 1])
FeatureImportancesDisplay.from_estimator(pipeline, ax=axes[1, 0])
display = DirectionDisplay.from_estimator(pipeline, ax=axes[1, 1])

# %%
# One direction has four fifths of the trace: along all others the prediction hardly
# moves. ``transform`` projects on it. If that is right, new patients must line up along
# one curve, and the rest is noise for this model.

coordinate = pipeline.transform(X_test)[:, 0]
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.scatter(coordinate, y_test, s=14, alpha=0.6, label="new patients")
ax.scatter(coordinate, pipeline.predict(X_test), s=8, label="prediction")
ax.set(xlabel="first learned direction", ylabel="progression")
ax.legend(frameon=False)

# %%
# The curve is nearly straight, so a linear model should do as well. It does:

others = {
    "ridge regression": RidgeCV(np.logspace(-2, 3, 20)),
    "random forest": RandomForestRegressor(200, random_state=0),
}
for name, regressor in others.items():
    fitted, *held_out = split_and_fit(regressor, seed=0)
    print(f"{name:18} R² {fitted.score(*held_out):.3f}")

# %%
# What would contradict it
# ------------------------
# * *The spectrum.* If the model used all measurements alike, the effective rank would
#   be near 10 and the bars equal.
# * *The importances.* If other patients gave other bars, they would be about this split
#   and not about the model's task. Three more splits:

shares = [machine.feature_importances_]
for seed in (1, 2, 3):
    again, *_ = split_and_fit(RFMRegressor(kernel="laplace", random_state=0), seed)
    shares.append(again[-1].feature_importances_)
for index in np.argsort(-shares[0]):
    print(f"{X.columns[index]:18}", *(f"{share[index]:6.2f}" for share in shares))

# %%
# Triglycerides and body mass stay on top; below, the order changes and should not be
# believed. Correlated measurements (the cholesterols) can stand in for each other. And
# an importance is about the model: nothing here says what causes what.
#
# * *The rounds.* Where the loss is smallest at round 0, learning a metric did not help,
#   and the kernel machine it started from was kept. That is a result too: see the next
#   example for a problem where everything depends on the rounds.
