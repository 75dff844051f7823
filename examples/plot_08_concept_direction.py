"""
A concept direction, found and steered
======================================

A network that writes knows things about its text that are in no single letter. Where
does it keep them? :class:`~agop.ConceptDirection` fits a recursive feature machine to
the activations of a layer, and takes the leading eigenvector of its AGOP as the
direction of the concept (:arxiv:`2502.03708`).

**What to see:** at the embedding nobody can tell the concept, behind the recurrent
layer everybody can; adding the direction there changes what the network writes, step by
step. **What would contradict it:** directions of the same length drawn at random that
do as much; a probe that is as good on permuted labels; or a simpler one that is better.
"""

# %%
# A text with a hidden state
# --------------------------
# The writer goes through an alphabet of twelve letters, forwards or backwards, and
# turns round now and then; two letters of five are drawn at random. Which way it goes
# is the concept. No letter says so: one has to remember those before it, and the random
# ones leave doubt.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from agop import (
    ConceptDirection,
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
    SteeringDisplay,
    activations,
    concept_auroc,
    effect_curve,
    steer,
)

ALPHABET = "abcdefghijkl"
K = len(ALPHABET)


def write(n_texts, length, generator):
    """Letters as numbers, and whether the writer goes backwards."""
    letters = np.empty((n_texts, length), dtype=int)
    backwards = np.empty((n_texts, length), dtype=bool)
    letter, back = generator.integers(K, size=n_texts), generator.random(n_texts) < 0.5
    for t in range(length):
        back = back ^ (generator.random(n_texts) < 0.03)
        any_letter = generator.integers(K, size=n_texts)
        next_letter = (letter + np.where(back, -1, 1)) % K
        letter = np.where(generator.random(n_texts) < 0.4, any_letter, next_letter)
        letters[:, t], backwards[:, t] = letter, back
    return letters, backwards


letters, backwards = write(4800, 40, np.random.default_rng(0))
for text, back in zip(letters[:4], backwards[:4], strict=True):
    line = [ALPHABET[letter] for letter in text]
    print("".join(a.upper() if b else a for a, b in zip(line, back, strict=True)))

# %%
# Capitals are for the reader: there the writer goes backwards. The network sees letters
# only, and learns to predict the next one.


class Writer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(K, 32)
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.hidden = nn.Sequential(nn.Linear(32, 64), nn.ReLU())
        self.head = nn.Linear(64, K)

    def forward(self, x):
        x, _ = self.gru(self.embedding(x))
        return self.head(self.hidden(x))


torch.manual_seed(0)
network = Writer()
optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
texts = torch.from_numpy(letters)
for _ in range(300):
    rows = texts[torch.randint(4000, (64,))]
    scores = network(rows[:, :-1])
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# Which layer knows?
# ------------------
# :func:`~agop.activations` of one letter from each of 800 texts that the network was
# not trained on. (Of several letters of a text, all or none should be held out; that is
# what ``groups`` of :func:`~agop.concept_auroc` is for.)

texts, labels = texts[4000:], backwards[4000:]
place = np.random.default_rng(1).integers(8, 40, size=800)
X = activations(network, ["embedding", "gru", "hidden"], texts, position=place)
y = labels[np.arange(800), place]
permuted = np.random.default_rng(2).permutation(y)
records = concept_auroc(X, y, cv=3)
control = concept_auroc({"gru": X["gru"]}, permuted, cv=3)


def mean(records, name, layer, estimator):
    return np.mean(
        [r[name] for r in records if (r["layer"], r["estimator"]) == (layer, estimator)]
    )


def line(title, records, name, layer):
    means = [mean(records, name, layer, estimator) for estimator in names]
    print(f"{title:22}" + "".join(f"{value:17.3f}" for value in means))


names = ["rfm", "logistic", "mean difference", "pca"]
print(f"{'AUROC on other texts':22}" + "".join(f"{name:>17}" for name in names))
for layer in X:
    line(layer, records, "auroc", layer)
line("gru, direction alone", records, "direction_auroc", "gru")
line("gru, permuted labels", control, "auroc", "gru")

# %%
# The machine is the best probe, by little. Its direction alone is as good as the
# weights of a logistic regression and the difference of the two means.
#
# Steering
# --------
# The directions are fitted to all 800 letters. A step along them has the length of the
# distance between the two means. What is read off is the share of "backwards" among the
# two letters that may come next.

directions = {
    "rfm": ConceptDirection(),
    "logistic": LogisticDirection(),
    "mean difference": MeanDifferenceDirection(),
    "pca": PCADirection(),
}
directions = {
    name: estimator.fit(X["gru"], y).direction_
    for name, estimator in directions.items()
}
step = np.linalg.norm(X["gru"][y].mean(0) - X["gru"][~y].mean(0))
strengths = np.linspace(-3, 3, 13)


def share_of_backwards(scores, text):
    """Among the neighbours of a letter, mean over a text."""
    probabilities = scores.softmax(-1)
    neighbours = torch.stack([(text - 1) % K, (text + 1) % K], -1)
    before, after = probabilities.gather(-1, neighbours)[:, 8:].unbind(-1)
    return (before / (before + after)).mean(1)


def curve(direction):
    return effect_curve(
        network,
        "gru",
        step * direction,
        texts[:100],
        strengths,
        texts[:100],
        outputs=share_of_backwards,
    )


figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
display = SteeringDisplay.from_result(
    curve(directions["rfm"]), output_names=["measured"], ax=axes[0]
)
axes[0].set(title="direction of the machine", ylabel='change of the share "backwards"')
for name, direction in directions.items():
    axes[1].plot(strengths, curve(direction).mean, label=name)
generator = np.random.default_rng(2)
for index in range(5):
    direction = generator.normal(size=32)
    direction /= np.linalg.norm(direction)
    label = "at random" if index == 0 else None
    axes[1].plot(strengths, curve(direction).mean, color="0.7", zorder=0, label=label)
axes[1].set(title="other directions", xlabel="strength")
axes[1].legend(frameon=False)

# %%
# And what the network writes: the most likely letter, then the next …


def continued(start, strength):
    text = torch.tensor([[ALPHABET.index(letter) for letter in start]])
    with torch.no_grad(), steer(network, "gru", directions["rfm"], strength * step):
        for _ in range(24):
            text = torch.cat([text, network(text)[:, -1:].argmax(-1)], 1)
    return "".join(ALPHABET[letter] for letter in text[0])


for start in ("abcdef", "lkjihg"):
    for strength in (-2, 0, 2):
        print(f"{strength:+d}  {continued(start, strength)}")

# %%
# Reading it honestly
# -------------------
# * A probe says that something can be known from a layer. Steering says that the
#   network uses it. Neither follows from the other.
# * Four methods give nearly the same direction here, and the simplest is enough: the
#   two kinds of activations are two clouds beside each other. A machine has more to
#   offer where they are not.
# * The curve bends. Beyond two steps nothing is gained, and at −2 the text begins to
#   limp (it drops letters): activations have left what the network knows.
# * Random directions are not without effect. Their curves are the yardstick, not zero.
