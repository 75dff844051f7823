"""
A first fit
===========

A recursive feature machine is a kernel machine that learns its own metric: it fits,
looks where its predictions change, and fits again with distances measured there. This
example fits one to a table, and reads what it learned.

The table is scikit-learn's breast cancer data: 30 measurements of cell nuclei, and
whether the tumour is benign. **What to see:** a score on new patients, which directions
of the 30 the model responds to, and what the rounds were good for. **What would
contradict it:** stands at the end.
"""

# %%
# Fit and score
# -------------
# Columns are scaled first: a derivative is per unit of its column, so that without
# scaling the answer would depend on millimetres or centimetres. Kernel, bandwidth,
# penalty, metric and number of rounds are chosen by cross-fitting inside ``fit``; here
# the kernel is given, which saves time.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from agop import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    RFMClassifier,
    SpectrumDisplay,
)

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.4, stratify=y, random_state=0
)

models = {
    "recursive feature machine": RFMClassifier(kernel="laplace", random_state=0),
    "logistic regression": LogisticRegression(),
}
for name, classifier in models.items():
    pipeline = make_pipeline(StandardScaler(), classifier).fit(X_train, y_train)
    models[name] = pipeline
    loss = log_loss(y_test, pipeline.predict_proba(X_test))
    accuracy = pipeline.score(X_test, y_test)
    print(f"{name:28} accuracy {accuracy:.3f}, log loss {loss:.3f}")

pipeline = models["recursive feature machine"]
machine = pipeline[-1]
print("rounds:", machine.best_iter_, " penalty:", machine.alpha_)

# %%
# What it learned
# ---------------
# The average gradient outer product (AGOP) G = 1/n Σ ∇f(x) ∇f(x)ᵀ is one matrix, 30 by
# 30. Its eigenvalues say how many directions the model responds to; its leading
# eigenvector is the combination of measurements that counts most; its diagonal is the
# response to each measurement alone.

figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
SpectrumDisplay.from_estimator(pipeline, n_shown=8, ax=axes[0, 0])
HistoryDisplay.from_estimator(pipeline, ax=axes[0, 1])
FeatureImportancesDisplay.from_estimator(pipeline, ax=axes[1, 0])
display = DirectionDisplay.from_estimator(pipeline, ax=axes[1, 1])

# %%
# The first direction is a new feature of its own: ``transform`` projects on it. How
# well does it separate the two kinds of tumour, on patients that were not fitted?

coordinate = pipeline.transform(X_test)[:, 0]
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
bins = np.linspace(coordinate.min(), coordinate.max(), 40)
for label, name in enumerate(load_breast_cancer().target_names):
    ax.hist(coordinate[y_test == label], bins, alpha=0.6, label=name)
ax.set(xlabel="first learned direction", ylabel="new patients")
ax.legend(frameon=False)

# %%
# What would contradict it
# ------------------------
# * *The spectrum.* If the model used all measurements alike, the effective rank would
#   be near 30 and the bars equal.
# * *The importances.* These measurements are strongly correlated (radius, perimeter and
#   area say the same), so the model may lean on any of them: another split reorders
#   the bars. The importance of a feature is about the model, not about biology.
# * *The rounds.* If the loss is smallest at round 0, learning a metric did not help,
#   and the kernel machine it started from was kept. That is a result too.
#
# So look at another split before believing a bar:

shares = []
for seed in range(1, 4):
    part = train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed)
    again = make_pipeline(
        StandardScaler(), RFMClassifier(kernel="laplace", random_state=0)
    ).fit(part[0], part[2])
    shares.append(again[-1].feature_importances_)
order = np.argsort(-machine.feature_importances_)[:5]
print(f"{'':24}this split   three others")
for index in order:
    others = "  ".join(f"{share[index]:.2f}" for share in shares)
    print(
        f"{X.columns[index]:24}{machine.feature_importances_[index]:10.2f}   {others}"
    )
