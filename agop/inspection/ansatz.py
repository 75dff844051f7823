"""Pictures of the neural feature ansatz: weights beside gradients."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from agop.inspection.displays import (
    BLUE,
    GREY,
    ORANGE,
    Display,
    all_axes,
    legend_beside,
    line_colours,
    literal,
    name_ticks,
    tidy,
)


class AnsatzDisplay(Display):
    """How much the weights of layers resemble the gradients at their inputs.

    The neural feature ansatz: the correlation of WᵀW with a power of the AGOP at the
    layer's input. At random weights it is often high already, so that the value of the
    trained network means little without that of the same network re-initialised.

    Parameters
    ----------
    records : list of dict
        Each with the keys "layer", "power" and "correlation"; "baseline",
        "baseline_low" and "baseline_high" (mean and range of the correlation at
        re-initialised weights) if known; "step" if it was measured during training.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        One for each power, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> from agop import AnsatzDisplay
    >>> records = [
    ...     {"layer": "fc1", "power": 0.5, "correlation": 0.97, "baseline": 0.41},
    ...     {"layer": "fc2", "power": 0.5, "correlation": 0.95, "baseline": 0.38},
    ... ]
    >>> display = AnsatzDisplay(records).plot()
    >>> print(display.ax_.get_title())
    AGOP to the power 1/2
    """

    heading = "Neural feature ansatz"
    caption = (
        "Correlation of the weights of each layer (WᵀW) with a power of the average "
        "gradient outer product at its input: of the trained network, and of the same "
        "network at re-initialised weights (mean and range). Only what lies beyond the "
        "latter was learned."
    )

    def __init__(self, records):
        self.records = records

    @classmethod
    def from_result(cls, result, *, ax=None, **kwargs):
        """Draw what was measured on a trained network, or during training.

        Parameters
        ----------
        result : AnsatzResult or AnsatzRecorder
            From :func:`agop.neural_feature_ansatz`, or what a training loop called.
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each power; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        AnsatzDisplay
        """
        return cls(list(result.records)).plot(ax, **kwargs)

    def plot(self, ax=None, *, trained_kwargs=None, baseline_kwargs=None):
        """Draw one panel for each power: by layer, or over training.

        Parameters
        ----------
        ax : Axes or sequence of Axes, default=None
            Where to draw, one for each power; a new figure by default.
        trained_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for the trained network.
        baseline_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for re-initialised weights.

        Returns
        -------
        AnsatzDisplay
        """
        powers, layers = self._distinct("power"), self._distinct("layer")
        over_training = len(self._distinct("step")) > 1
        size = (4.4 if over_training else 3.8) * len(powers) + 2.2
        height = 3.6 if over_training else 1.6 + 0.3 * len(layers)
        panels = all_axes(ax, [list(range(len(powers)))], (size, height))
        draw = self._draw_training if over_training else self._draw_layers
        for place, (panel, power) in enumerate(zip(panels, powers, strict=True)):
            draw(panel, power, trained_kwargs or {}, baseline_kwargs or {})
            panel.set_title(f"AGOP to the power {_fraction(power)}")
            if place:
                panel.tick_params(labelleft=False)
                panel.set_ylabel("")
        legend_beside(panels[-1])
        return self._drawn(*panels)

    def _draw_layers(self, ax, power, trained_kwargs, baseline_kwargs) -> None:
        layers = self._distinct("layer")
        places = np.arange(len(layers))
        rows = [self._rows(layer=layer, power=power)[0] for layer in layers]
        values, means, low, high = (
            np.array([_number(row, key) for row in rows])
            for key in ("correlation", "baseline", "baseline_low", "baseline_high")
        )
        faint = {"color": ORANGE, "marker": "o", "mfc": "white", "linestyle": "none"}
        strong = {"color": BLUE, "marker": "o", "linestyle": "none"}
        strong |= {"label": "trained", "zorder": 3}
        ax.plot(values, places, **{**strong, **trained_kwargs})
        if np.isfinite(means).any():
            ax.hlines(places, low, high, color=ORANGE, linewidth=2, alpha=0.6)
            label = {"label": "re-initialised:\nmean and range"}
            ax.plot(means, places, **{**faint, **label, **baseline_kwargs})
        name_ticks(ax.yaxis, places, layers)
        lowest = np.nanmin([0.05, *values, *means, *low]) - 0.05
        ax.set(xlim=(lowest, 1.03), ylim=(len(layers) - 0.5, -0.5))
        ax.set_xlabel("correlation")
        tidy(ax, "both")

    def _draw_training(self, ax, power, trained_kwargs, baseline_kwargs) -> None:
        layers = self._distinct("layer")
        lowest, known = 0.05, False
        for layer, colour in zip(layers, line_colours(len(layers)), strict=True):
            rows = self._rows(layer=layer, power=power)
            rows.sort(key=lambda row: row["step"])
            steps, values, means = (
                [_number(row, key) for row in rows]
                for key in ("step", "correlation", "baseline")
            )
            line = {"color": colour, "marker": "o", "ms": 3, "label": literal(layer)}
            ax.plot(steps, values, **{**line, **trained_kwargs})
            dots = {"color": colour, "linestyle": ":"}
            ax.plot(steps, means, **{**dots, **baseline_kwargs})
            lowest = np.nanmin([lowest, *values, *means])
            known = known or bool(np.isfinite(means).any())
        if known:
            ax.plot([], [], color=GREY, linestyle=":", label="re-initialised")
        ax.set(ylim=(lowest - 0.05, 1.03), xlabel="step", ylabel="correlation")
        tidy(ax, "both")

    def _distinct(self, key: str) -> list:
        """Values of a key, in order of appearance; powers in ascending order."""
        values = list(dict.fromkeys(record.get(key) for record in self.records))
        return sorted(values) if key == "power" else values

    def _rows(self, **wanted) -> list[dict]:
        """The records with these values."""
        return [
            record
            for record in self.records
            if all(record.get(key) == value for key, value in wanted.items())
        ]

    def table(self) -> dict[str, Any]:
        """The records, by key.

        Returns
        -------
        dict of sequences of length n_records
        """
        keys = dict.fromkeys(key for record in self.records for key in record)
        return {key: [row.get(key, "–") for row in self.records] for key in keys}

    def summary(self) -> str:
        """Mean correlation over layers, trained and re-initialised, for each power.

        Returns
        -------
        str
        """
        last = max(self._distinct("step"))
        states = {"correlation": "trained", "baseline": "re-initialised"}
        sentences = []
        for power in self._distinct("power"):
            rows = self._rows(power=power, step=last)
            means = []
            for key, state in states.items():
                values = np.array([_number(row, key) for row in rows])
                if np.isfinite(values).any():
                    means.append(f"{np.nanmean(values):.2f} {state}")
            text = ", ".join(means) or "unknown"
            sentences.append(f"Power {_fraction(power)}: mean correlation {text}.")
        return " ".join(sentences)


def _fraction(power: float) -> str:
    """1/2 rather than 0.5."""
    near = Fraction(power).limit_denominator(8)
    return str(near) if abs(near - power) < 1e-9 else f"{power:g}"


def _number(record: dict, key: str) -> float:
    """A number of a record, NaN if it is not known."""
    value = record.get(key)
    return np.nan if value is None else float(value)
