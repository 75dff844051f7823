"""
Which pixels does my network use?
=================================

A small convolutional network learns to tell faces with glasses from faces without.
Does it look at the glasses? The diagonal of its AGOP, drawn as an image, answers; and
because these faces are drawn, it is known where the answer must lie.

**What to see:** most of the trace of the AGOP lies on the tenth of the picture where
glasses can be, for people whom the network never saw. **What would contradict it:** the
same picture for a network that was trained on permuted labels, or not at all; and a
network that still tells glasses when just these pixels are covered.
"""

# %%
# Faces
# -----
# Heads, hair, beards, hats, walls and light differ from picture to picture. Glasses are
# shades or thin frames, dark or light, so that no pixel by itself gives them away. The
# network is trained on half of the people and everything else is done on the others: a
# model that has seen a face before has an easy test.
#
# With ``REAL = True`` the same is done with photographs (the CMU faces, which do not
# come with this library: the file ``faces/cmu_faces_32x30.npz`` in the folder that the
# environment variable ``AGOP_DATA`` names).

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from agop import DirectionDisplay, NetworkAGOP, OverlayDisplay, datasets

REAL = False

if REAL:
    X, y, person, mask = datasets.load_cmu_faces()
else:
    X, y, person, mask = datasets.make_glasses_faces(2000, 200, random_state=0)
X = (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True)
X = X.astype(np.float32).reshape(-1, 1, *mask.shape)  # one channel, as torch has it
known = person < np.median(person)
X_train, y_train, X_test, y_test = X[known], y[known], X[~known], y[~known]

figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for label, row in enumerate(axes):
    for ax, face in zip(row, X_test[y_test == label], strict=False):
        ax.imshow(face[0], cmap="gray")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(("without", "with")[label])

# %%
# The network and its controls
# ----------------------------
# One output: positive for glasses. The same network is trained on permuted labels, and
# left as it was initialised.


def train(labels, n_steps=400):
    torch.manual_seed(0)
    height, width = mask.shape
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), 1),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    inputs = torch.from_numpy(X_train)
    targets = torch.from_numpy(labels).float()
    for _ in range(n_steps):
        rows = torch.randint(len(inputs), (32,))
        scores = network(inputs[rows])[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(scores, targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def accuracy(network, images):
    with torch.no_grad():
        scores = network(torch.from_numpy(images))[:, 0].numpy()
    return np.mean((scores > 0) == y_test)


permuted = np.random.RandomState(0).permutation(y_train)
networks = {
    "trained": train(y_train),
    "permuted labels": train(permuted),
    "not trained": train(y_train, n_steps=0),
}

# %%
# The AGOP
# --------
# :class:`~agop.NetworkAGOP` takes the network as it is, and leaves it so. Of the
# matrix only the diagonal is kept here: the mean squared derivative of the score by
# each pixel. ``feature_importances_`` are its shares. Beside it stand three maps that
# need no network: the squared difference of the two mean faces, the squared weights of
# a logistic regression, and the variance of the pixels.

estimators = {
    name: NetworkAGOP(network, kind="diagonal").fit(X_test)
    for name, network in networks.items()
}
flat, flat_test = (images.reshape(len(images), -1) for images in (X_train, X_test))
linear = LogisticRegression(max_iter=2000).fit(flat, y_train)
means = [flat[y_train == label].mean(0) for label in (0, 1)]
maps = {name: agop.feature_importances_ for name, agop in estimators.items()} | {
    "difference of means": np.square(means[1] - means[0]),
    "logistic regression": np.square(linear.coef_[0]),
    "variance": flat.var(0),
}
maps = {name: values / values.sum() for name, values in maps.items()}

print("accuracy on other people")
for name, network in networks.items():
    print(f"  {name:21}{accuracy(network, X_test):7.1%}")
print(f"  {'logistic regression':21}{linear.score(flat_test, y_test):7.1%}")
print(f"\nshare where glasses can be (chance {mask.mean():.1%})")
for name, values in maps.items():
    print(f"  {name:21}{values[mask.ravel()].sum():7.1%}")

figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for ax, (name, values) in zip(axes.flat, maps.items(), strict=True):
    DirectionDisplay(values[None], [name], signed=False, shape=mask.shape).plot(ax)
    ax.contour(mask, levels=[0.5], colors="white", linewidths=1)

# %%
# On single faces
# ---------------
# The AGOP is an average over people. The squared derivatives at one face say where the
# score of *this* face would move.

rows = [*np.flatnonzero(y_test == 1)[:2], *np.flatnonzero(y_test == 0)[:2]]
display = OverlayDisplay.from_estimator(
    estimators["trained"],
    X_test[rows],
    of="example",
    titles=["with", "with", "without", "without"],
)

# %%
# Does the network need these pixels?
# -----------------------------------
# A derivative is about small changes. Another question is what happens when pixels are
# taken away: those where glasses can be, or as many further down, around the mouth.


def cover(images, where):
    """The images with the mean face in some pixels."""
    return np.where(where, X_train.mean(0), images)


lower = np.roll(mask, mask.shape[0] // 3, axis=0)
print("accuracy on other people")
for name, images in {
    "as they are": X_test,
    "glasses covered": cover(X_test, mask),
    "mouth covered": cover(X_test, lower),
}.items():
    print(f"  {name:21}{accuracy(networks['trained'], images):7.1%}")

# %%
# Reading it honestly
# -------------------
# * The trained network looks at the glasses, and needs them: with these pixels covered
#   it guesses. Two different questions have the same answer.
# * The controls have a picture too. What was trained on permuted labels looks at the
#   middle of the picture, and what was never trained is not flat either: a share a
#   little above chance means nothing.
# * Look at the score first. Where it is at chance on other people, a map shows what
#   noise shows, however well the training faces were learned.
# * Here a linear model sees little, because glasses make a pixel lighter as often as
#   darker. On the photographs they are always dark, and the difference of two mean
#   faces shows the eyes as clearly as the AGOP of any model: there the AGOP agrees with
#   a simpler method, and discovers nothing.
# * A pixel without weight is one that this network does not use. Another network, or
#   this one on other faces, may.
