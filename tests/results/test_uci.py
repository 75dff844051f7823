"""R4: the suite of 121 UCI sets under an honest protocol.

The official script learns the metric on half of the rows and keeps it for four test
folds that overlap that half. Here metric, coefficients, scaler, penalty and round
are chosen on the training rows of each fold; see ``protocols.uci_accuracy``. All 21
shared sets, with a random forest beside them, are in ``benchmarks/results_rfm.py``.
"""

import numpy as np
import pytest

from tests.results.expected import printed
from tests.results.protocols import (
    UCI_ROUNDS,
    read_table,
    uci_accuracy,
    uci_folds,
)

#: Mean accuracy over the folds in percent: with the metric learned, and without.
MEASURED = {
    "iris": (95.3, 95.3),
    "monk1": (100.0, 77.9),
    "balance_scale": (96.6, 89.9),
    "vehicle": (85.2, 79.7),
}


@pytest.mark.parametrize("name", MEASURED)
def test_r4_honest_protocol(data_path, name):
    path = data_path(f"tabular/classification/{name}.tsv.gz")
    folds = list(uci_folds(*read_table(path)))
    learned, plain = (
        100 * np.mean([uci_accuracy(fold, n_rounds) for fold in folds])
        for n_rounds in (UCI_ROUNDS, 0)
    )
    expected, without = MEASURED[name]
    assert learned == printed(expected, 1)
    assert plain == printed(without, 1)
