import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from torch import nn

from agop import NetworkAGOP, datasets
from agop.inspection import (
    DirectionDisplay,
    ExamplesDisplay,
    Image,
    OverlayDisplay,
    Table,
    Tokens,
)

WORDS = ["The", " cat", " sat"]
#: Rows of tokens of a text.
IDS = torch.tensor([[0, 1, 2], [2, 1, 0], [1, 1, 1], [0, 2, 2], [2, 0, 1]])


@pytest.fixture(scope="module")
def sentences():
    """Embeddings of three tokens, four numbers each, and two numbers made of them."""
    network = nn.Sequential(
        nn.Embedding(3, 4), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return network.eval()


@pytest.fixture(scope="module")
def X():
    return datasets.make_multi_index(120, 6, random_state=0)[0]


# ------------------------------------------------------------------------ examples
def test_extremes_of_a_direction(machine, X):
    display = ExamplesDisplay.from_estimator(machine, X, n_examples=3)
    projections = X @ machine.components_[0]
    np.testing.assert_allclose(display.projections, projections)
    order = np.argsort(projections)
    np.testing.assert_array_equal(display.indices, [*order[::-1][:3], *order[:3]])
    np.testing.assert_array_equal(display.examples, X[display.indices])
    distribution, first, *_, last = display.axes_
    assert sum(bar.get_height() for bar in distribution.patches) == len(X)
    marked = np.concatenate([line.get_xdata() for line in distribution.lines])
    np.testing.assert_allclose(marked, projections[display.indices])
    assert first.get_title() == f"{projections.max():.3g}".replace("-", "−")
    assert last.get_title() == f"{np.sort(projections)[2]:.3g}".replace("-", "−")
    assert distribution.get_xlabel() == "projection on direction 1"


def test_rows_of_a_table_are_in_standard_deviations(machine, X):
    frame = pd.DataFrame(X + 7, columns=list("abcdef"))
    display = ExamplesDisplay.from_projections(X[:, 1], frame, n_examples=2)
    assert isinstance(display.shape, Table)
    panel = display.axes_[1]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[0] == "b"  # in which the ends differ by construction
    expected = (X[:, 1].max() - X[:, 1].mean()) / X[:, 1].std()
    np.testing.assert_allclose(panel.patches[0].get_width(), expected)


def test_rows_are_those_that_a_pipeline_was_given(machine, X):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    pipeline = make_pipeline(PCA(3), clone(machine))
    pipeline.fit(frame, machine.predict(X))
    display = ExamplesDisplay.from_estimator(pipeline, frame, n_examples=1)
    np.testing.assert_allclose(display.projections, pipeline.transform(frame)[:, 0])
    assert list(display.shape.names()) == list("abcdef")


@pytest.mark.parametrize("n_samples", [2, 3, 7])
def test_no_example_is_at_both_ends(n_samples):
    rows = np.zeros((n_samples, 2))
    display = ExamplesDisplay.from_projections(rows[:, 0], rows)  # all tied
    assert len(display.indices) == 2 * min(4, n_samples // 2)
    assert len(set(display.indices)) == len(display.indices)


def test_images_are_drawn_as_images():
    images = torch.rand(10, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    display = ExamplesDisplay.from_projections(torch.arange(10.0), images, n_examples=2)
    assert display.shape == Image(4, 5, 3, channels_first=True)
    shown = np.asarray(display.axes_[1].images[0].get_array())
    expected = images[9].permute(1, 2, 0).numpy()
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.999999


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_texts(kind):
    texts = kind([f"sentence number {index}" for index in range(6)])
    display = ExamplesDisplay.from_projections(np.arange(6), texts, n_examples=2)
    assert display.examples == [f"sentence number {index}" for index in (5, 4, 0, 1)]
    assert isinstance(display.shape, Tokens)


def test_texts_stand_for_token_ids(machine, X):
    texts = [["row ", str(index)] for index in range(len(X))]
    display = ExamplesDisplay.from_estimator(machine, X, examples=texts)
    assert display.examples == [["row ", str(index)] for index in display.indices]


def test_rows_of_words_are_texts():
    words = np.array([["a", " b"], ["c", " d"], ["e", " f"]])
    display = ExamplesDisplay.from_projections(np.arange(3), words, n_examples=1)
    np.testing.assert_array_equal(display.examples, words[[2, 0]])
    assert isinstance(display.shape, Tokens)


def test_token_ids_need_texts_to_be_drawn(sentences):
    agop = NetworkAGOP(sentences, layers="0", positions="flatten").fit(IDS)
    with pytest.raises(ValueError, match=r"numbers, such as token ids.*examples="):
        ExamplesDisplay.from_estimator(agop, IDS, shape=Tokens(WORDS))
    texts = [[WORDS[token] for token in row] for row in IDS]
    display = ExamplesDisplay.from_estimator(
        agop, IDS, shape=Tokens(WORDS), examples=texts
    )
    assert display.examples == [texts[index] for index in display.indices]


def test_examples_that_cannot_be(machine, X):
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 inputs"):
        ExamplesDisplay.from_projections(np.zeros(3), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="at least two"):
        ExamplesDisplay.from_projections(np.zeros(1), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="n_examples=0: draw at least one"):
        ExamplesDisplay.from_estimator(machine, X, n_examples=0)
    for direction in (0, 99):
        with pytest.raises(ValueError, match=f"direction={direction}: .* 1 to"):
            ExamplesDisplay.from_estimator(machine, X, direction=direction)


# ------------------------------------------------------------------------- overlays
def test_average_overlay_is_the_diagonal(machine, X):
    display = OverlayDisplay.from_estimator(machine, X[:2], shape=(2, 3))
    for index, ax in enumerate(display.axes_):
        example, heat = ax.images
        np.testing.assert_array_equal(example.get_array(), X[index].reshape(2, 3))
        importances = machine.feature_importances_.reshape(2, 3)
        np.testing.assert_array_equal(heat.get_array(), importances)
        assert example.get_cmap().name == "gray"
        assert heat.get_clim() == (0, importances.max())
        # The strongest pixel is opaque, one without weight would not be seen.
        opacity = heat.get_alpha()
        np.testing.assert_allclose(opacity**2, importances / importances.max())


def test_overlay_of_an_example_is_its_squared_gradient(regressor, X):
    display = OverlayDisplay.from_estimator(
        regressor, X[:3] + 0.01, of="example", shape=(2, 3)
    )
    step = 1e-5 * np.eye(6)
    for row, values in zip(X[:3] + 0.01, display.values, strict=True):
        slopes = (regressor.predict(row + step) - regressor.predict(row - step)) / 2e-5
        np.testing.assert_allclose(values, slopes**2 / (slopes**2).sum(), atol=1e-5)


def test_overlay_of_an_example_goes_through_a_pipeline(regressor, X):
    pipeline = make_pipeline(PCA(6), clone(regressor))
    pipeline.fit(X, regressor.predict(X))
    display = OverlayDisplay.from_estimator(pipeline, X[:2], of="example", shape=(6,))
    slopes = pipeline[-1].jacobian(pipeline[:-1].transform(X[:2]))[:, 0]
    expected = slopes**2 / (slopes**2).sum(1, keepdims=True)
    np.testing.assert_allclose(display.values, expected)


def test_overlay_of_an_example_for_a_network():
    """f(x) = x₀² + 3 x₁ + x₂ x₃ has the gradient (2 x₀, 3, x₃, x₂)."""

    def function(x):
        x = x.flatten(1)
        return (x[:, 0] ** 2 + 3 * x[:, 1] + x[:, 2] * x[:, 3])[:, None]

    generator = torch.Generator().manual_seed(0)
    X = torch.randn(20, 1, 2, 2, generator=generator, dtype=torch.float64)
    agop = NetworkAGOP(function).fit(X)
    before = agop.agop_.copy()
    display = OverlayDisplay.from_estimator(agop, X[:4], of="example")
    x = X[:4].flatten(1).numpy()
    slopes = np.stack([2 * x[:, 0], np.full(4, 3), x[:, 3], x[:, 2]], 1)
    expected = slopes**2 / (slopes**2).sum(1, keepdims=True)
    np.testing.assert_allclose(display.values, expected)
    assert display.shape == Image(2, 2, 1, channels_first=True)
    np.testing.assert_array_equal(agop.agop_, before)
    assert agop.n_samples_seen_ == 20


@pytest.mark.parametrize(
    "options", [{"center": True}, {"positions": (1, 2)}, {"positions": "pixels"}]
)
def test_overlay_of_an_example_knows_no_sample(network, images, options):
    """What is asked of a sample does not touch the derivatives at one example."""
    agop = NetworkAGOP(network, **options).fit(images)
    display = OverlayDisplay.from_estimator(agop, images[:2], of="example")
    slopes = torch.func.jacrev(network)(images[:2]).detach()
    for index, values in enumerate(display.values):
        squares = slopes[index, :, index].flatten(1).square().sum(0)
        np.testing.assert_allclose(values, squares / squares.sum(), rtol=1e-4)
    assert agop.get_params()["center"] == options.get("center", False)
    assert agop.get_params()["positions"] == options.get("positions", "auto")


def squared_slopes(network, ids):
    """Of one text, by token and unit of its embedding, by finite differences."""
    x = network[0](ids).flatten().detach().double()
    head = copy.deepcopy(network[1:]).double()
    step = 1e-5 * torch.eye(12).double()
    with torch.no_grad():
        slopes = (head(x + step) - head(x - step)) / 2e-5
    return slopes.square().sum(1).reshape(3, 4).numpy()


def test_overlay_of_a_text_is_its_squared_gradient_by_token(sentences):
    agop = NetworkAGOP(sentences, layers="0").fit(IDS)
    display = OverlayDisplay.from_estimator(
        agop, IDS[:1], of="example", layer="0", shape=Tokens(WORDS)
    )
    squares = squared_slopes(sentences, IDS[0])
    expected = squares / squares.sum()
    np.testing.assert_allclose(display.values.reshape(3, 4), expected, atol=1e-5)
    (bar,) = display.ax_.child_axes
    assert bar.get_ylim() == pytest.approx((0, expected.sum(1).max()), rel=1e-4)


def test_tokens_of_a_layer(sentences):
    agop = NetworkAGOP(sentences, layers="0", positions="flatten").fit(IDS)
    squares = np.mean([squared_slopes(sentences, row) for row in IDS], axis=0)
    look = {"layer": "0", "shape": Tokens(WORDS)}
    diagonal = DirectionDisplay.from_estimator(agop, what="diagonal", **look)
    overlay = OverlayDisplay.from_estimator(agop, IDS[:1], **look)
    for display in (diagonal, overlay):
        values = display.values.reshape(3, 4)
        np.testing.assert_allclose(values, squares / squares.sum(), rtol=1e-4)
    direction = DirectionDisplay.from_estimator(agop, **look)
    assert len(direction.ax_.patches) == 2 * len(WORDS)  # boxes and letters


def test_features_that_tokens_share_are_not_shared_out(sentences):
    """Four numbers are not two for each of two tokens."""
    agop = NetworkAGOP(sentences, layers="0").fit(IDS)  # every token is a sample
    for Display, rows in ((DirectionDisplay, ()), (OverlayDisplay, (IDS[:1],))):
        with pytest.raises(ValueError, match="Fit with positions='flatten'"):
            Display.from_estimator(agop, *rows, layer="0", shape=Tokens(["a", "b"]))


def test_overlay_on_colours_adds_up_channels():
    values = np.random.default_rng(0).exponential(size=(1, 12))
    shape = Image(2, 2, 3, channels_first=True)
    display = OverlayDisplay(np.ones((1, 12)), values, ["a"], shape).plot()
    heat = display.ax_.images[1].get_array()
    np.testing.assert_allclose(heat, values.reshape(3, 2, 2).sum(0))


def test_overlays_share_a_scale():
    values = np.array([[0.1, 0.9], [0.5, 0.5]])
    display = OverlayDisplay(np.zeros((2, 2)), values, ["a", "b"], (1, 2)).plot()
    assert {ax.images[1].get_clim() for ax in display.axes_} == {(0, 0.9)}
    labels = [ax.get_ylabel() for ax in display.axes_[-1].child_axes]
    assert labels == ["share of the trace"]
    again = display.plot(image_kwargs={"vmax": 2.0, "cmap": "viridis"})
    assert again.ax_.images[1].get_clim() == (0, 2)


def test_overlay_on_a_series_lies_under_the_line():
    values = np.arange(6.0)[None]
    display = OverlayDisplay(np.ones((1, 6)), values, ["a"], (6,)).plot()
    (heat,) = display.ax_.images
    np.testing.assert_array_equal(heat.get_array(), values)
    assert heat.get_zorder() < display.ax_.lines[0].get_zorder()
    # Each step lies in the middle of its colour.
    assert heat.get_extent()[:2] == [-0.5, 5.5]


def test_overlays_that_cannot_be(machine, X):
    with pytest.raises(ValueError, match="use 'average' or 'example'"):
        OverlayDisplay.from_estimator(machine, X[:1], of="sum", shape=(2, 3))
    with pytest.raises(ValueError, match="needs an image, a series or a text"):
        OverlayDisplay.from_estimator(machine, X[:1])
    with pytest.raises(ValueError, match="they are not negative"):
        OverlayDisplay(X[:1], X[:1], ["a"], (2, 3)).plot()
    with pytest.raises(ValueError, match=r"values has shape \(1, 4\) and examples"):
        OverlayDisplay(X[:1], np.ones((1, 4)), ["a"], (2, 2)).plot()
    with pytest.raises(ValueError, match="layer='0'"):
        OverlayDisplay.from_estimator(
            machine, X[:1], of="example", layer="0", shape=(2, 3)
        )
    with pytest.raises(ValueError, match="does not fit 6 features"):
        OverlayDisplay.from_estimator(machine, X[:1], shape=(2, 2))
