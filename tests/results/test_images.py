"""R8: on images a smaller power of the AGOP hurts less; none helps Fashion-MNIST."""

import pytest

from tests.results.expected import printed
from tests.results.protocols import fashion_rows, image_accuracies


@pytest.mark.slow
@pytest.mark.parametrize(
    ("power", "bandwidth", "measured"),
    [
        (1.0, 10.0, [0.8572, 0.8365, 0.8267, 0.8247]),
        (0.25, 10.0, [0.8572, 0.8515, 0.8528, 0.8522]),
    ],
)
def test_r8_fashion(data_path, power, bandwidth, measured):
    rows = fashion_rows(data_path("images/fashion_mnist_20k.npz"))
    accuracies = image_accuracies(rows, power, bandwidth)
    assert accuracies == [printed(accuracy, 4) for accuracy in measured]
    assert max(accuracies[1:]) < accuracies[0]  # round 0 must be a candidate
