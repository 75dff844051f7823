import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, Rectangle

from agop.inspection import (
    DirectionDisplay,
    Form,
    Image,
    OverlayDisplay,
    Series,
    Table,
    Tokens,
)
from agop.inspection.displays import draw_words, unique
from agop.inspection.forms import Style
from agop.inspection.shapes import as_form, shape_of

#: Of four features each.
FORMS = (Series(4), Series(2, 2), Image(2, 2), Tokens("abcd"), Table("abcd"))


def drawn_image(form, row, signed=True):
    _, ax = plt.subplots()
    form.draw_weights(ax, row, signed, Style())
    return np.asarray(ax.images[0].get_array()), ax


# --------------------------------------------------------------------------- layout
def test_images_of_torch_have_the_channels_first():
    images = torch.arange(24.0).reshape(3, 2, 4)
    form = Image(2, 4, 3, channels_first=True)
    pixels = form.pixels(images.flatten().numpy())
    for (channel, row, column), value in np.ndenumerate(images.numpy()):
        assert pixels[row, column, channel] == value
        name = form.names()[int(value)]
        assert name == f"pixel {row}, {column}, channel {channel}"


def test_images_with_the_channels_last():
    image = np.arange(24.0).reshape(2, 4, 3)
    form = Image(2, 4, 3)
    np.testing.assert_array_equal(form.pixels(image.ravel()), image)
    assert form.names()[int(image[1, 2, 0])] == "pixel 1, 2, channel 0"
    assert Image(2, 2).names() == [f"pixel {i}, {j}" for i in (0, 1) for j in (0, 1)]


@pytest.mark.parametrize("channels_first", [True, False])
def test_series(channels_first):
    lines = np.arange(10.0).reshape(2, 5)  # two channels
    row = (lines if channels_first else lines.T).ravel()
    form = Series(5, 2, channels_first, label="month")
    np.testing.assert_array_equal(form.lines(row), lines)
    index = int(np.flatnonzero(row == lines[1, 3])[0])
    assert form.names()[index] == "month 3, channel 1"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6,), Series(6)),
        ((2, 3), Image(2, 3)),
        ((2, 1, 3), Image(2, 1, 3)),
        ((1, 2, 3), Image(1, 2, 3)),  # as in earlier versions
        ((3, 1, 2), Image(1, 2, 3, channels_first=True)),
        ((1, 3, 2), Image(3, 2, 1, channels_first=True)),
        ((2, 3, 1), Image(2, 3, 1)),
        (Series(3, 2), Series(3, 2)),
    ],
)
def test_form_of_a_shape(shape, expected):
    assert as_form(shape, 6) == expected


def test_form_of_a_table():
    assert as_form(None, 2).names() == ["x0", "x1"]
    assert as_form(None, 2, ["a", "b"]).names() == ["a", "b"]
    with pytest.raises(ValueError, match=r"shape=\(2, 2\) does not fit 5 features"):
        as_form((2, 2), 5)


def test_shape_of_samples():
    assert shape_of(np.zeros((9, 3, 2, 4))) == Image(2, 4, 3, channels_first=True)
    assert shape_of(torch.zeros(9, 2, 4)).pixels(np.arange(8)).shape == (2, 4, 1)
    table = shape_of(np.array([[1.0, 5.0], [3.0, 5.0]]), ["a", "b"])
    assert isinstance(table, Table)
    np.testing.assert_array_equal(table.center, [2, 5])
    np.testing.assert_array_equal(table.spread, [1, 0])


# ------------------------------------------------------------------------- weights
def test_channels_of_a_direction_lie_side_by_side():
    row = np.arange(1.0, 2 * 2 * 5 + 1)
    form = Image(2, 2, 5, channels_first=True)
    sheet, ax = drawn_image(form, row)
    assert sheet.shape == (5, 8)  # 2 × 3 tiles and gaps of one
    tiles = row.reshape(5, 2, 2)
    for channel, (top, left) in enumerate([(0, 0), (0, 3), (0, 6), (3, 0), (3, 3)]):
        np.testing.assert_array_equal(
            sheet[top : top + 2, left : left + 2], tiles[channel]
        )
    assert np.ma.getmaskarray(ax.images[0].get_array())[2].all()
    assert ax.images[0].get_clim() == (-20, 20)


def test_shares_of_channels_add_up():
    row = np.random.default_rng(0).exponential(size=12)
    image, _ = drawn_image(Image(2, 2, 3, channels_first=True), row, signed=False)
    np.testing.assert_allclose(image, row.reshape(3, 2, 2).sum(0))


def test_one_channel_is_a_line_and_several_are_strips():
    row = np.array([0.1, -0.5, 0.2, 0.0, 0.3, 0.4])
    _, ax = plt.subplots()
    Series(6).draw_weights(ax, row, True, Style(line_kwargs={"color": "red"}))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), row)
    assert ax.lines[0].get_color() == "red"
    assert ax.get_ylabel() == "weight"
    strips, ax = drawn_image(Series(3, 2), row)
    np.testing.assert_array_equal(strips, row.reshape(2, 3))
    assert ax.images[0].get_clim() == (-0.5, 0.5)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["channel 0", "channel 1"]


def test_diagonal_is_in_per_cent():
    for form in FORMS:
        display = DirectionDisplay(
            np.full((1, 4), 0.25), ["d"], signed=False, shape=form
        )
        display.plot().figure_.canvas.draw()
        axes = [display.ax_, *display.ax_.child_axes]
        labels = [
            label.get_text()
            for ax in axes
            for label in [*ax.get_yticklabels(), *ax.get_xticklabels()]
        ]
        assert "20%" in labels, form
        assert any(
            "share of the trace" in (ax.get_xlabel(), ax.get_ylabel()) for ax in axes
        )


def test_zeros_can_be_drawn():
    for form in FORMS:
        for signed in (True, False):
            display = DirectionDisplay(
                np.zeros((1, 4)), ["0"], signed=signed, shape=form
            )
            display.plot().figure_.canvas.draw()


# ------------------------------------------------------------------------ examples
def test_examples_share_a_scale():
    rows = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
    _, axes = plt.subplots(1, 2)
    Image(2, 2).draw_examples(axes, rows, Style())
    assert {ax.images[0].get_clim() for ax in axes} == {(0.0, 7.0)}
    _, axes = plt.subplots(1, 2)
    Series(4).draw_examples(axes, rows, Style())
    assert axes[0].get_ylim() == axes[1].get_ylim()
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), rows[1])


def test_colour_examples_use_the_whole_range():
    rows = np.random.default_rng(0).normal(size=(2, 12))
    _, axes = plt.subplots(1, 2)
    Image(2, 2, 3).draw_examples(axes, rows, Style())
    pixels = np.array([ax.images[0].get_array() for ax in axes])
    assert (pixels.min(), pixels.max()) == (0, 1)
    np.testing.assert_allclose(
        pixels.ravel(), (rows.ravel() - rows.min()) / np.ptp(rows)
    )


def test_channels_of_examples_do_not_meet():
    rows = np.random.default_rng(0).normal(size=(1, 30))
    _, ax = plt.subplots()
    Series(10, 3).draw_examples([ax], rows, Style())
    lines = [line.get_ydata() for line in ax.lines]
    for upper, lower in itertools.pairwise(lines):
        assert upper.min() > lower.max() - 1e-9
    low, high = ax.get_ylim()
    assert low <= lines[-1].min() and lines[0].max() <= high


def test_table_examples_are_standardised_and_ordered():
    center, spread = np.array([1.0, 0.0, 5.0]), np.array([2.0, 1.0, 0.0])
    rows = np.array([[5.0, 0.1, 5.0], [-3.0, 0.0, 5.0]])
    _, axes = plt.subplots(1, 2)
    form = Table(["a", "b", "c"], center, spread)
    form.draw_examples(axes, rows, Style(max_features=2))
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["a", "b"]
    assert [bar.get_width() for bar in axes[0].patches] == [2, 0.1]
    assert axes[0].get_xlabel() == "standard deviations"
    Table(["a", "b", "c"]).draw_examples(axes, rows, Style())
    assert axes[0].get_xlabel() == "value"


def test_an_overlay_needs_a_picture():
    with pytest.raises(ValueError, match="needs an image, a series or a text"):
        Table("ab").draw_overlays([], np.zeros((0, 2)), np.zeros((0, 2)), Style())


# -------------------------------------------------------------------------- tokens
def boxes_of(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def test_tokens_are_coloured_by_their_values():
    values = np.array([[-1.0, 0.0, 0.5]])
    display = DirectionDisplay(
        values, ["d"], signed=True, shape=Tokens(["a", " b", "c"])
    )
    boxes = boxes_of(display.plot().ax_)
    expected = plt.get_cmap("RdBu_r")((values[0] + 1) / 2)
    assert [to_hex(box.get_facecolor()) for box in boxes] == [*map(to_hex, expected)]


def colours_of(ax):
    return [to_hex(box.get_facecolor()) for box in boxes_of(ax)]


def oranges(values):
    """Colours of numbers from zero to the largest."""
    return [to_hex(colour) for colour in plt.get_cmap("Oranges")(values / max(values))]


def test_shares_of_a_token_add_up():
    row = np.array([0.1, 0.2, 0.0, 0.15, 0.5, 0.05])
    display = DirectionDisplay(row[None], ["d"], signed=False, shape=Tokens("abc"))
    assert colours_of(display.plot().ax_) == oranges(np.array([0.3, 0.15, 0.55]))
    assert display.table()["feature"][0] == "2: c, unit 0"


def test_a_direction_gives_a_token_its_norm():
    """A rotation of the embedding, the same for every token, changes no colour."""
    row = np.array([[3.0, -4.0], [0.6, 0.8], [0.0, 0.0]])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    for units in (row, -row, row @ turn):
        display = DirectionDisplay(
            units.reshape(1, 6), ["d"], signed=True, shape=Tokens("abc")
        ).plot()
        assert colours_of(display.ax_) == oranges(np.array([5.0, 1.0, 0.0]))
        (bar,) = display.ax_.child_axes
        assert bar.get_ylabel() == "norm of the weights"
        assert bar.get_ylim() == pytest.approx((0, 5))


def test_tokens_share_out_features():
    assert as_form(Tokens("abc"), 12) == Tokens("abc", width=4)
    assert as_form(Tokens("abc"), 3) == Tokens("abc")
    for form in (Tokens("abc"), Tokens("abc", width=2), Tokens()):
        with pytest.raises(ValueError, match="does not fit 8 features"):
            as_form(form, 8)
    with pytest.raises(ValueError, match="does not fit 12 features"):
        as_form(Tokens("abc", width=2), 12)


def test_overlay_of_a_text():
    values = np.array([[0.1, 0.2, 0.0, 0.15, 0.5, 0.05]])
    display = OverlayDisplay(np.zeros((1, 3)), values, ["a"], Tokens("abc")).plot()
    assert colours_of(display.ax_) == oranges(np.array([0.3, 0.15, 0.55]))
    (bar,) = display.ax_.child_axes
    assert bar.get_ylabel() == "share of the trace"
    assert bar.get_ylim() == pytest.approx((0, 0.55))
    assert display.summary() == "Largest share at 2: c, unit 0 (a)."
    two = OverlayDisplay(np.zeros((2, 3)), np.ones((2, 3)), ["a", "b"], Tokens("abc"))
    with pytest.raises(ValueError, match="text of one example; got 2"):
        two.plot()


def test_letters_stay_within_their_boxes():
    figure, ax = plt.subplots()
    words = ["Wide", " WWW", " iii", "\n", " gjpqy|", "x" * 100, "end.\n", "new $y_{$"]
    draw_words(ax, words, np.ones((len(words), 4)), columns=16)
    figure.canvas.draw()
    boxes = boxes_of(ax)
    assert len(boxes) == len(words)
    extents = [box.get_window_extent() for box in boxes]
    letters = [p.get_window_extent() for p in ax.patches if isinstance(p, PathPatch)]
    assert len(letters) == len(words) - 1  # one word is a newline only
    for letter in letters:
        middle = (letter.x0 + letter.x1) / 2, (letter.y0 + letter.y1) / 2
        (box,) = [extent for extent in extents if extent.contains(*middle)]
        assert box.x0 - 1 <= letter.x0 and letter.x1 <= box.x1 + 1
        assert box.y0 - 1 <= letter.y0 and letter.y1 <= box.y1 + 1
    for index, box in enumerate(extents):
        for other in extents[:index]:
            assert min(box.x1, other.x1) - max(box.x0, other.x0) < 1e-6 or not (
                min(box.y1, other.y1) - max(box.y0, other.y0) > 1e-6
            )
        assert ax.bbox.x0 - 1 <= box.x0 and box.x1 <= ax.bbox.x1 + 1


def test_lines_break_after_newlines_and_when_full():
    _, ax = plt.subplots()
    draw_words(ax, ["aaa", " bb", " c\n", "d", "世界世"], np.ones((5, 4)), columns=6)
    places = [
        (box.get_x(), round(box.get_y() + 0.43), box.get_width())
        for box in boxes_of(ax)
    ]
    # A letter of East Asia takes two columns; a space does not begin a line.
    assert places == [(0, 0, 3), (3, 0, 3), (0, 1, 1), (0, 2, 1), (0, 3, 6)]


def test_dark_ground_has_white_letters():
    _, ax = plt.subplots()
    draw_words(ax, ["a", "b"], [[0, 0, 0.2, 1], [1, 1, 0.8, 1]])
    letters = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    assert [to_hex(patch.get_facecolor()) for patch in letters] == [
        "#ffffff",
        "#000000",
    ]


# --------------------------------------------------------------------------- others
def test_forms_of_your_own():
    class Upside(Image):
        def pixels(self, row):
            return super().pixels(row)[::-1]

    assert isinstance(Upside(2, 1), Form)
    image, _ = drawn_image(Upside(2, 1), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(image, [[2], [1]])


def test_unique_names():
    assert list(unique(["a", "b", "a", "a"])) == ["a", "b", "a (2)", "a (3)"]
