"""R17 and R20 for `results_networks.py`: two networks about which the answer is known.

`ansatz`: the neural feature ansatz in a ResNet-20, trained and with weights drawn anew.
`modular_addition`: a transformer whose neurons and frequencies were found by hand.
"""

from functools import partial

import numpy as np

from agop import NetworkAGOP
from tests.results.ansatz import (
    CENTRED,
    CENTRED_TRACE,
    CIRCULANT_DEVIATION,
    DRAWN,
    DRAWN_MEAN,
    EMBEDDING,
    FREQUENCIES,
    LAYERS,
    NEURONS,
    NEURONS_TRACE,
    TRAINED,
    TRAINED_MEAN,
    centred,
    circulant_deviation,
    column,
    cosines,
    drawn_resnet20,
    kaiming,
    modular_addition,
    one_hot,
    resnet20,
    share_of_frequency,
    shares,
)

# ------------------------------------------------------------------------------ ansatz


def ansatz_part(data):
    """Cosine of WᵀW with two powers of the AGOP, over 19 convolutions.

    Parameters
    ----------
    data : callable
        From the name of a shared file to its path.
    """
    network = resnet20.load(data("models/resnet20-12fca82f.th"))
    images, _ = resnet20.load_images(data("images/cifar10_test_jpeg_3k.npz"), 256)
    yield "trained", partial(_ansatz, network, images, TRAINED, TRAINED_MEAN)
    drawn = drawn_resnet20()
    yield "drawn anew", partial(_ansatz, drawn, images, DRAWN, DRAWN_MEAN)
    yield "five draws", partial(_baselines, network, images)


def _ansatz(network, images, by_layer, means):
    records = cosines(network, images, n_baselines=0)
    found = column(records[0.5])
    return {
        **{f"power {p:g}": float(column(records[p]).mean()) for p in means},
        "target": {f"power {power:g}": mean for power, mean in means.items()},
        "largest_difference": float(abs(found - by_layer).max()),
        "layers": dict(zip(LAYERS, found.round(4).tolist(), strict=True)),
    }


def _baselines(network, images):
    drawn = {"n_baselines": 5, "initialize": kaiming, "random_state": 0}
    records = cosines(network, images, **drawn)[0.5]
    gains = column(records) - column(records, "baseline_high")
    return {
        "baseline": float(column(records, "baseline").mean()),
        "lowest": float(column(records, "baseline_low").min()),
        "highest": float(column(records, "baseline_high").max()),
        "layers above all draws": int((gains > 0).sum()),
        "layers": len(LAYERS),
    }


# -------------------------------------------------------------------- modular addition


def modular_addition_part(data):
    """The AGOP of all logits at the neurons, and at the one-hot of the first number.

    Parameters
    ----------
    data : callable
        From the name of a shared file to its path.
    """
    path = data("models/mod_addition_transformer_p113.pt")
    network = modular_addition.load(path).double()
    tokens, _ = modular_addition.all_pairs()
    few = tokens[:8]
    yield "neurons", partial(_neurons, network, few, "all", NEURONS_TRACE, NEURONS)
    yield (
        "neurons, centred",
        partial(_neurons, network, few, centred, CENTRED_TRACE, CENTRED),
    )
    yield "frequencies", partial(_frequencies, network, tokens)


def _neurons(network, tokens, outputs, trace, expected):
    model = NetworkAGOP(network, layers="neurons", outputs=outputs, n_probes=None)
    G = model.fit(tokens).agop_["neurons"]
    return {
        "trace": float(np.trace(G)),
        "target": trace,
        "largest_difference": float(abs(shares(G)[: len(expected)] - expected).max()),
    }


def _frequencies(network, tokens):
    G = one_hot(network, tokens)
    eigenvalues = shares(G)[: len(EMBEDDING)]
    return {
        **{f"frequency {k}": float(share_of_frequency(G, k)) for k in FREQUENCIES},
        "circulant deviation": float(circulant_deviation(G)),
        "target": {**FREQUENCIES, "circulant deviation": CIRCULANT_DEVIATION},
        "largest_difference": float(abs(eigenvalues - EMBEDDING).max()),
    }
