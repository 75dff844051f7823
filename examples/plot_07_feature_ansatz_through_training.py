"""
The feature ansatz through training
===================================

The neural feature ansatz says what training does to a layer: WᵀW becomes proportional
to a power of the AGOP at the layer's input (:arxiv:`2212.13881`). A recorder, called
from the training loop, shows the correlation of the two as it grows.

**What to see:** the correlation rises in both hidden layers while the network learns.
In the first one it begins at 0.8: at weights that were never trained it is high
already, so that a number alone means little. **What would contradict it:** a
correlation that ends within the range of weights drawn anew. And what the ansatz does
*not* say: it rises just as well for targets without any rule.
"""

# %%
# The target is the product of the first two of 20 numbers. A network with two hidden
# layers is trained with weight decay, which lets go of what the weights were at first.
# :class:`~agop.AnsatzRecorder` measures five networks with weights drawn anew when it
# is made, and the network itself whenever it is called.

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from agop import (
    AnsatzDisplay,
    AnsatzRecorder,
    datasets,
    neural_feature_ansatz,
    neural_feature_matrix,
)

X, y, _ = datasets.make_multi_index(1200, 20, random_state=0)
X, y = torch.from_numpy(X).float(), torch.from_numpy(y / y.std()).float()
X_train, X_test, y_test = X[:600], X[600:], y[600:]
order = np.random.RandomState(0).permutation(600)
targets = {"true targets": y[:600], "permuted targets": y[:600][order]}
moments = [0, 10, 30, 60, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2000]


def r2(network, X, y):
    with torch.no_grad():
        return float(1 - (network(X)[:, 0] - y).square().mean() / y.var())


def follow(y_train):
    """A trained network, its initial weights, the recorder, and R² by moment."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    initial = copy.deepcopy(network)
    recorder = AnsatzRecorder(
        network, X_train[:300], layers=["0", "2"], n_baselines=5, random_state=0
    )
    scores = []
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(moments[-1] + 1):
        if step in moments:
            recorder(step)
            known, new = r2(network, X_train, y_train), r2(network, X_test, y_test)
            scores.append((known, new))
        rows = torch.randint(len(X_train), (64,))
        loss = (network(X_train[rows])[:, 0] - y_train[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, initial, recorder, scores


runs = {name: follow(y_train) for name, y_train in targets.items()}

# %%
# Correlation beside score
# ------------------------
# Dotted lines are the mean over weights drawn anew, in the colour of their layer.

figure, axes = plt.subplots(
    2, 2, figsize=(10, 6.4), layout="constrained", sharex=True, sharey="row"
)
for (upper, lower), (name, run) in zip(axes.T, runs.items(), strict=True):
    _, _, recorder, scores = run
    AnsatzDisplay.from_result(recorder, ax=upper)
    upper.set(title=name, xlabel="", ylim=(0.4, 1.02))
    lower.plot(moments, [known for known, _ in scores], "o-", ms=3, label="training")
    lower.plot(moments, [new for _, new in scores], "s-", ms=3, label="new data")
    lower.set(xlabel="step", ylabel="R²", ylim=(-1.2, 1.1))
axes[0, 0].get_legend().remove()
axes[1, 1].legend(frameon=False)

for name, (*_, recorder, scores) in runs.items():
    print(f"{name}: R² on new data {scores[-1][1]:.2f}")
    for record in recorder.records[-2:]:
        print(
            f"  layer {record['layer']}: {record['correlation']:.2f} after training, "
            f"{record['baseline_low']:.2f} to {record['baseline_high']:.2f} drawn anew"
        )

# %%
# The ansatz holds in both runs. It is about training, and says nothing about whether
# what was learned is true of new data: for permuted targets the correlation is as high,
# and the score on new data below zero.
#
# The two matrices
# ----------------
# What it does say is *where* the weights are: in the directions that the output depends
# on. The first layer of the two networks, WᵀW and the square root of the AGOP:


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(min=0)) @ vectors.T


figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
for row, (name, (network, initial, *_)) in zip(axes, runs.items(), strict=True):
    found = neural_feature_ansatz(network, X_train, layers="0", n_baselines=0)
    pictures = {
        "WᵀW before training": neural_feature_matrix(initial[0]).numpy(),
        "WᵀW after": found.layers["0"].neural_feature_matrix().numpy(),
        "root of the AGOP after": root(found.layers["0"].agop().numpy()),
    }
    for ax, (title, matrix) in zip(row, pictures.items(), strict=True):
        limit = np.abs(matrix).max()
        ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(title=title, xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# With true targets both have found the first two coordinates. With permuted ones both
# agree about nothing in particular.
#
# Powers, and the centred ansatz
# ------------------------------
# The power is a choice, and the number depends on it, before training as after. The
# *centred* ansatz (:arxiv:`2402.05271`) takes W − W₀ instead of W, W₀ being the weights
# before training, so that what did not change does not count.

network, initial, *_ = runs["true targets"]
settings = {"layers": ["0", "2"], "n_baselines": 5, "random_state": 0}
result = neural_feature_ansatz(network, X_train, powers=(0.25, 0.5, 1), **settings)
display = AnsatzDisplay.from_result(result)

# %%

centred = neural_feature_ansatz(network, X_train, initial=initial, **settings)
for record in centred.records:
    print(
        f"layer {record['layer']}: centred {record['correlation']:.2f}, of two "
        f"independent draws {record['baseline']:.2f}"
    )

# %%
# The middle layer stands far above its baseline at every power, and centred. The first
# layer does so at power 1, but hardly at ¼, where two nearly flat matrices agree
# whatever they show; and centred not at all. Weight decay has taken part of W₀ away,
# and W − W₀ counts that as learned.
#
# Always say which power, which version, and what weights drawn anew would give.
