"""
Layers of a small CNN
=====================

What does a network keep from layer to layer, and what do its filters respond to? One
pass over the data gives the AGOP at its input, at the patches that a convolution reads,
and behind every layer.

**What to see:** training narrows the network. Of the 64 dimensions of an image its
output depends on about six, of the nine of a patch on two or three. **What would
contradict it:** spectra as narrow for the same network before training, or on permuted
labels; and intervals so wide that the directions cannot be told apart.
"""

# %%
# Handwritten digits, 8 by 8 pixels, half of them for training. The layers have names,
# so that they can be asked for.

from collections import OrderedDict

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from agop import (
    DirectionDisplay,
    ExamplesDisplay,
    LayersDisplay,
    NetworkAGOP,
    SpectrumDisplay,
    subspace_overlap,
)

digits = load_digits()
images = (digits.images[:, None] / 16).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.5, random_state=0
)


def train(labels, n_steps=400, seed=0):
    torch.manual_seed(seed)
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 16, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(512, 64),
        relu3=nn.ReLU(),
        fc2=nn.Linear(64, 10),
    )
    network = nn.Sequential(layers)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    inputs, targets = torch.from_numpy(X_train), torch.from_numpy(labels)
    for _ in range(n_steps):
        rows = torch.randint(len(inputs), (64,))
        loss = nn.functional.cross_entropy(network(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


permuted = np.random.RandomState(0).permutation(y_train)
networks = {
    "trained": train(y_train),
    "permuted labels": train(permuted),
    "not trained": train(y_train, n_steps=0),
}

# %%
# Side by side
# ------------
# A name alone means what a layer returns, ":input" what it is given, ":patch" the
# patches that a convolution reads. Pixels of a feature map count as samples, so that
# the AGOP of a layer with 32 channels is a matrix of 32 by 32.

layers = ["input", "conv1:patch", "conv2:patch", "pool", "fc1:input", "fc2:input"]
estimators = {
    name: NetworkAGOP(network, layers=layers).fit(X_test)
    for name, network in networks.items()
}
display = LayersDisplay.from_estimator(estimators["trained"])

# %%
# The trace has another unit in every layer (squared score per squared activation), and
# cannot be compared between them. The number of directions that share it can: the
# effective rank, here beside those of the two controls.

for name, network in networks.items():
    with torch.no_grad():
        predicted = network(torch.from_numpy(X_test)).argmax(1).numpy()
    print(f"{name}: accuracy {np.mean(predicted == y_test):.1%} on other images")

print(f"\n{'effective rank':14}{'width':>7}" + "".join(f"{n:>17}" for n in networks))
for layer in layers:
    spectra = [agop.spectrum(layer) for agop in estimators.values()]
    print(
        f"{layer:14}{spectra[0].directions.shape[1]:7}"
        + "".join(f"{spectrum.effective_rank:17.1f}" for spectrum in spectra)
    )

# %%
# At the input of the last layer nothing distinguishes them: with ten classes there are
# never more than ten directions, and for any weights there are nearly as many.
#
# Patches
# -------
# The leading directions of the patches that the first convolution reads: the trained
# network (upper row) and the same one before training (lower row).

figure, axes = plt.subplots(2, 3, figsize=(9, 5.2), layout="constrained")
for row, name in zip(axes, ("trained", "not trained"), strict=True):
    DirectionDisplay.from_estimator(
        estimators[name], layer="conv1:patch", n_directions=3, shape=(3, 3), ax=row
    )
    row[0].set_ylabel(name)

# %%
# How sure is it?
# ---------------
# ``bootstrap`` draws the images again. With twenty of them the second to fourth
# eigenvalue are closer than their error (the grey ground): of these three directions
# only the common subspace has a meaning. With all images they are told apart.

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for ax, n_images in zip(axes, (20, len(X_test)), strict=True):
    some = X_test[:n_images]
    agop = NetworkAGOP(networks["trained"], n_components=8, random_state=0).fit(some)
    bootstrap = agop.bootstrap(some)
    SpectrumDisplay.from_estimator(agop, bootstrap=bootstrap, n_shown=8, ax=ax)
    ax.set_title(f"{n_images} images: {ax.get_title()}")

# %%
# These intervals say what other images would give, and not what another training would.
# Four networks that differ in their seed only:

again = [train(y_train, seed=seed) for seed in (1, 2, 3)]
found = [NetworkAGOP(network, layers=layers).fit(X_test) for network in again]
found = [estimators["trained"], *found]
print("effective rank by seed")
for layer in ("input", "conv1:patch"):
    ranks = [f"{agop.spectrum(layer).effective_rank:.1f}" for agop in found]
    print(f"  {layer:12}", *ranks)

leading = [agop.spectrum("input").truncated(4).directions for agop in found]
overlaps = [subspace_overlap(leading[0], other).mean() for other in leading[1:]]
print("overlap of four directions of the input with those of the first seed")
print("              " + " ".join(f"{overlap:.2f}" for overlap in overlaps))
print(f"               {4 / 64:.2f} by chance")

# %%
# Along a direction
# -----------------
# ``transform`` projects data on the directions. The images furthest up and down along
# the first direction of the last layer:

display = ExamplesDisplay.from_estimator(
    estimators["trained"], X_test, layer="fc2:input"
)

# %%
# Reading it honestly
# -------------------
# * Training narrows the input and both convolutions where there is something to learn:
#   the controls are two to six times as wide. Few directions alone are no sign of
#   learning, as the last layer shows.
# * The patches of the trained network differ from seed to seed, and so does their
#   order: with one training only, the picture above is an anecdote. The subspace that
#   the input depends on is more stable, far above chance and far from equal.
# * An average over pixels counts the border too, where a patch reads zeros.
# * Every score can be moved together with all others without changing any
#   probability. ``outputs="probabilities"`` leaves such directions out.
