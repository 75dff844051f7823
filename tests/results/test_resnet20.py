"""R17: the convolutional neural feature ansatz in a trained ResNet-20.

"Mechanism of feature learning in convolutional neural networks" (arXiv:2309.00570): for
every convolution, WᵀW is correlated with a power of the AGOP at the patches that it
reads. The table was measured without this library: CIFAR-10 test images that went
through JPEG, the first 256, 10 logits, cosine of the matrices. Weights drawn anew stand
beside it: there the cosine is .89 already, and `conv1` even loses by training.
"""

import pytest
import torch

from tests.results.ansatz import (
    DRAWN,
    DRAWN_MEAN,
    LAYERS,
    TRAINED,
    TRAINED_MEAN,
    column,
    cosines,
    drawn_resnet20,
    kaiming,
    resnet20,
)


@pytest.fixture(scope="module")
def network(data_path):
    return resnet20.load(data_path("models/resnet20-12fca82f.th"))


@pytest.fixture(scope="module")
def images(data_path):
    path = data_path("images/cifar10_test_jpeg_3k.npz")
    return resnet20.load_images(path, 256)[0]


def test_r17_few_images_show_it(network, images):
    """All layers in one pass, and a baseline of the library's own draws beside it."""
    few = images[:8]
    records = cosines(network, few, initialize=kaiming, random_state=0)[0.5]
    assert [record["layer"] for record in records] == LAYERS
    trained, drawn = column(records), column(records, "baseline")
    assert trained.mean() == pytest.approx(TRAINED_MEAN[0.5], abs=0.02)
    assert drawn.mean() == pytest.approx(DRAWN_MEAN[0.5], abs=0.05)
    assert trained[0] < drawn[0]  # the first layer loses
    assert trained[-1] > drawn[-1] + 0.2  # the last one gains


@pytest.mark.slow
def test_r17_accuracy(network, data_path):
    path = data_path("images/cifar10_test_jpeg_3k.npz")
    images, classes = resnet20.load_images(path, 3000)
    with torch.no_grad():
        scores = torch.cat([network(part) for part in images.split(250)])
    assert (scores.argmax(1).numpy() == classes).mean() == 0.804


@pytest.mark.slow
def test_r17_trained(network, images):
    records = cosines(network, images, n_baselines=0)
    assert column(records[0.5]) == pytest.approx(TRAINED, abs=0.001)
    assert column(records[0.5], "pearson") == pytest.approx(TRAINED, abs=0.003)
    for power, mean in TRAINED_MEAN.items():
        assert column(records[power]).mean() == pytest.approx(mean, abs=0.001)


@pytest.mark.slow
def test_r17_weights_drawn_anew(images):
    records = cosines(drawn_resnet20(), images, n_baselines=0)
    assert column(records[0.5]) == pytest.approx(DRAWN, abs=0.001)
    for power, mean in DRAWN_MEAN.items():
        assert column(records[power]).mean() == pytest.approx(mean, abs=0.001)
