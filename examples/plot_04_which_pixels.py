"""
Which pixels decide?
====================

The diagonal of the AGOP, drawn as an image, says where a model looks. A picture that
looks right is not yet evidence. Here it is compared with what simpler methods show, on
images where the answer is known and on real ones where it is not.

**What to see:** on generated images the patch is invisible to class means and linear
weights, and the AGOP finds it; on digits everything finds the same pixels. **What would
contradict it:** a patch that lights up for permuted labels too.
"""

# %%
# Images with a known answer
# --------------------------
# In each image a patch of 4 by 4 pixels has stripes along rows (label 0) or columns
# (label 1), as often light-dark as dark-light. Each pixel by itself says nothing about
# the label: class means are equal, and a linear model is at chance. Outside, blobs of
# larger variance distract.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from agop import DirectionDisplay, RFMClassifier, datasets

shape = (12, 12)
X, y, mask = datasets.make_striped_images(2000, shape, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)

figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for index, ax in enumerate(axes):
    ax.imshow(X_train[index].reshape(shape), cmap="gray")
    ax.set(title=f"label {y_train[index]}", xticks=[], yticks=[])

# %%
# Fit the machine, the same machine on permuted labels, and two other methods.


def machine():
    return RFMClassifier(kernel="laplace", metric="full", random_state=0)


def importances(X, y):
    """What each method says about every pixel, as shares, and its fitted model."""
    shuffled = np.random.RandomState(0).permutation(y)
    fitted = {
        "AGOP": machine().fit(X, y),
        "AGOP, permuted labels": machine().fit(X, shuffled),
        "random forest": RandomForestClassifier(200, random_state=0).fit(X, y),
        "logistic regression": LogisticRegression(max_iter=2000).fit(X, y),
    }
    means = [X[y == label].mean(0) for label in np.unique(y)]
    maps = {
        "AGOP": fitted["AGOP"].feature_importances_,
        "AGOP, permuted labels": fitted["AGOP, permuted labels"].feature_importances_,
        "random forest": fitted["random forest"].feature_importances_,
        "logistic regression": np.square(fitted["logistic regression"].coef_[0]),
        "difference of means": np.square(means[1] - means[0]),
        "variance": X.var(0),
    }
    return fitted, {name: values / values.sum() for name, values in maps.items()}


def draw(maps, shape):
    _, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for ax, (name, values) in zip(axes.flat, maps.items(), strict=True):
        DirectionDisplay(values[None], [name], signed=False, shape=shape).plot(ax)


fitted, maps = importances(X_train, y_train)
for name, model in fitted.items():
    print(f"{name:24} test accuracy {model.score(X_test, y_test):.3f}")
print(f"\n{'share inside the patch':24} (chance {mask.mean():.3f})")
for name, values in maps.items():
    print(f"{name:24} {values[mask.ravel()].sum():.3f}")

draw(maps, shape)

# %%
# The directions say more than the diagonal: not only where, but what. The two leading
# eigenvectors are the two patterns; the third is noise, and has no share.

display = DirectionDisplay.from_estimator(fitted["AGOP"], n_directions=3, shape=shape)

# %%
# Real images
# -----------
# The digits 3 and 8, 8 by 8 pixels. Nobody knows the answer; everybody expects the left
# side, where an 8 is closed and a 3 is open.

digits = load_digits()
rows = np.isin(digits.target, (3, 8))
X_train, X_test, y_train, y_test = train_test_split(
    digits.data[rows] / 16, digits.target[rows], test_size=0.5, random_state=0
)
fitted, maps = importances(X_train, y_train)
for name, model in fitted.items():
    print(f"{name:24} test accuracy {model.score(X_test, y_test):.3f}")
print("rounds kept:", fitted["AGOP"].best_iter_)

draw(maps, (8, 8))

# %%
# Reading it honestly
# -------------------
# * On the stripes the AGOP finds what class means and linear weights cannot show. The
#   random forest finds the patch too, less sharply, and scores as well: what it takes
#   is a model that is not linear, not this one in particular. With 600 images instead
#   of 1000 the forest still finds it, and the machine does not.
# * On the digits all methods agree on the left side. The AGOP is right, but a
#   difference of two average images shows as much: this is agreement, not discovery.
#   Learning a metric did not help either: round 0, the plain kernel, was kept.
# * Permuted labels give no patch on the stripes. On real images they need not look
#   flat: where pixels never vary, no model can look, whatever the labels.
# * A pixel without weight is one this model does not use, not one without information.
