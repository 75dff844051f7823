"""R17 and R20 as they were measured without this library, and how to measure them.

Shared by the tests here and by benchmarks.
"""

import numpy as np
import torch
from torch import nn

from agop.networks.ansatz import neural_feature_ansatz
from agop.networks.estimator import NetworkAGOP
from tests.results.examples import example

resnet20 = example("resnet20")
modular_addition = example("modular_addition")
PRIME = modular_addition.PRIME

# --------------------------------------------------------------------- R17: ResNet-20
LAYERS = [
    "conv1",
    *(
        f"layer{stage}.{block}.conv{i}"
        for stage in (1, 2, 3)
        for block in range(3)
        for i in (1, 2)
    ),
]

#: Cosine of WᵀW and G^½ by layer, 256 images; of weights drawn anew with seed 0.
TRAINED = [
    *(0.839, 0.907, 0.939, 0.918, 0.969, 0.959, 0.972, 0.970, 0.976, 0.971),
    *(0.974, 0.974, 0.969, 0.967, 0.975, 0.974, 0.959, 0.947, 0.985),
]
DRAWN = [
    *(0.947, 0.924, 0.944, 0.893, 0.949, 0.905, 0.962, 0.902, 0.910, 0.920),
    *(0.945, 0.859, 0.934, 0.842, 0.880, 0.834, 0.831, 0.810, 0.688),
]

#: Means over the layers by power.
TRAINED_MEAN = {0.5: 0.955, 1: 0.885}
DRAWN_MEAN = {0.5: 0.888, 1: 0.767}


def kaiming(module):
    """Draw the weights of one module as the authors of the ResNet did."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight)


def drawn_resnet20():
    """A ResNet-20 with the random weights of the table."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet20.ResNet20().apply(kaiming)


def cosines(network, images, **settings):
    """The records of the convolutions, by power."""
    result = neural_feature_ansatz(
        network, images, layers=LAYERS, powers=(0.5, 1), **settings
    )
    return {
        power: [record for record in result.records if record["power"] == power]
        for power in (0.5, 1)
    }


def column(records, name="correlation"):
    """One number of every record."""
    return np.array([record[name] for record in records])


# -------------------------------------------------------------- R20: modular addition
#: Shares of the eigenvalues at the neurons, of all logits and of centred ones.
NEURONS_TRACE, CENTRED_TRACE = 961.9194, 658.2023
NEURONS = [0.3495, 0.1639, 0.1427, 0.1260, 0.1054, 0.0596, 0.0339, 0.0184, 0.0005]
CENTRED = [0.2452, 0.2367, 0.1844, 0.1543, 0.0875, 0.0495, 0.0271, 0.0144, 0.0007]

#: Of the AGOP at the one-hot of a: shares of the trace by frequency, of eigenvalues.
FREQUENCIES = {23: 0.819, 6: 0.111, 39: 0.052, 3: 0.010}
EMBEDDING = [0.4376, 0.3834, 0.0731, 0.0393, 0.0266, 0.0255]
CIRCULANT_DEVIATION = 0.011


def centred(logits):
    """Logits up to what softmax ignores."""
    return logits - logits.mean(1, keepdim=True)


def shares(matrix):
    """Eigenvalues over their sum, descending."""
    values = np.linalg.eigvalsh(matrix)[::-1]
    return values / values.sum()


def one_hot(network, tokens):
    """The AGOP at the embedding of a, pulled back to one number per token."""
    model = NetworkAGOP(network, layers="embedding", positions=0, n_probes=None)
    G = model.fit(tokens).agop_["embedding"]
    E = network.embedding.weight[:PRIME].detach().numpy()
    return E @ G @ E.T


def share_of_frequency(G, k):
    """Of the trace of G, along cosine and sine of 2πka / 113."""
    angles = 2 * np.pi * k * np.arange(PRIME) / PRIME
    waves = np.stack([np.cos(angles), np.sin(angles)]) * (2 / PRIME) ** 0.5
    return np.trace(waves @ G @ waves.T) / np.trace(G)


def circulant_deviation(G):
    """Share of a matrix that is not a function of column minus row."""
    rolled = np.stack([np.roll(row, -i) for i, row in enumerate(G)])
    return ((rolled - rolled.mean(0)) ** 2).sum() / (G**2).sum()
