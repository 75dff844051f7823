"""Pictures of steering: what outputs do when a layer is changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import (
    GREY,
    Display,
    legend_beside,
    line_colours,
    literal,
    one_axes,
    tidy,
)


class SteeringDisplay(Display):
    """What a network puts out when a direction is added to a layer, by strength.

    Parameters
    ----------
    strengths : ndarray of shape (n_strengths,)
        Ascending; 0 is the network as it is.
    effects : ndarray of shape (n_strengths, n_outputs)
        Mean outputs, or mean changes of them.
    errors : ndarray of shape (n_strengths, n_outputs), default=None
        Their standard errors.
    slopes : ndarray of shape (n_outputs,), default=None
        Derivatives by strength, at 0.
    output_names : list of str, default=None
        output 0, output 1 … by default.
    label : str, default="mean output"
        What the effects are, with their unit.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        After :meth:`plot`.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import SteeringDisplay
    >>> strengths = np.linspace(-2, 2, 5)
    >>> display = SteeringDisplay(strengths, np.tanh(strengths)[:, None]).plot()
    >>> display.summary()
    'From strength -2 to 2, the mean output goes from -0.964 to 0.964 for output 0.'
    """

    heading = "Steering"
    caption = (
        "Mean outputs by the strength with which a direction is added. Bands are two "
        "standard errors wide on either side; strength 0 is the network as it is. "
        "Dashed lines, if any, go on as the derivative at 0 foretells."
    )

    def __init__(
        self,
        strengths,
        effects,
        *,
        errors=None,
        slopes=None,
        output_names=None,
        label="mean output",
    ):
        self.strengths = strengths
        self.effects = effects
        self.errors = errors
        self.slopes = slopes
        self.output_names = output_names
        self.label = label

    @classmethod
    def from_result(cls, curve, *, output_names=None, ax=None, **kwargs):
        """Draw the effect of steering on the outputs of a network.

        Parameters
        ----------
        curve : EffectCurve
            From :func:`agop.effect_curve`.
        output_names : list of str, default=None
            output 0, output 1 … by default.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        SteeringDisplay
        """
        order = np.argsort(curve.strengths, kind="stable")
        display = cls(
            curve.strengths[order],
            curve.mean[order],
            errors=curve.standard_error[order],
            slopes=curve.slope,
            output_names=output_names,
            label="mean change of the output",
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, max_outputs=6, line_kwargs=None, band_kwargs=None):
        """Draw a line for each output, with a band of two standard errors.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; a new figure by default.
        max_outputs : int, default=6
            Number of outputs, those that move most.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`.
        band_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.fill_between`.

        Returns
        -------
        SteeringDisplay
        """
        ax = one_axes(ax, width=7.5)
        effects, names = self._effects(), self._names()
        most = np.sort(self._most()[:max_outputs])
        colours = line_colours(len(most))
        ax.axvline(0, color=GREY, linestyle=":", linewidth=1)
        for colour, index in zip(colours, most, strict=True):
            line = {"color": colour, "marker": "o", "markersize": 4}
            line |= {"label": literal(names[index]), **(line_kwargs or {})}
            ax.plot(self.strengths, effects[:, index], **line)
            if self.errors is not None:
                margin = 2 * np.reshape(self.errors, effects.shape)[:, index]
                low, high = effects[:, index] - margin, effects[:, index] + margin
                band = {"color": colour, "alpha": 0.2, "lw": 0, **(band_kwargs or {})}
                ax.fill_between(self.strengths, low, high, **band)
        if self.slopes is not None:
            self._draw_slopes(ax, most, colours)
        ax.set_xlabel("strength")
        ax.set_ylabel(self.label, parse_math=False)
        tidy(ax, "both")
        if len(names) > 1 or self.slopes is not None:
            legend_beside(ax)
        return self._drawn(ax)

    def _draw_slopes(self, ax, outputs, colours) -> None:
        strengths = np.asarray(self.strengths)
        ax.set_ylim(ax.get_ylim())  # which these lines may leave
        for colour, index in zip(colours, outputs, strict=True):
            start = np.interp(0, strengths, self._effects()[:, index])
            line = start + np.ravel(self.slopes)[index] * strengths
            ax.plot(strengths, line, color=colour, linestyle="--", linewidth=1)
        ax.plot([], [], color=GREY, linestyle="--", label="slope at 0")

    def table(self) -> dict[str, Any]:
        """Effect and standard error by output, those that move most first.

        Returns
        -------
        dict of sequences of length n_outputs × n_strengths
        """
        effects, names, order = self._effects(), self._names(), self._most()
        columns: dict[str, Any] = {
            "output": np.repeat([names[index] for index in order], len(effects)),
            "strength": np.tile(self.strengths, len(order)),
            self.label: effects.T[order].ravel(),
        }
        if self.errors is not None:
            errors = np.reshape(self.errors, effects.shape)
            columns["standard error"] = errors.T[order].ravel()
        return columns

    def summary(self) -> str:
        """Where the output that moves most begins and ends.

        Returns
        -------
        str
        """
        most = self._most()[0]
        (low, *_, high), (first, *_, last) = self.strengths, self._effects()[:, most]
        return (
            f"From strength {low:.3g} to {high:.3g}, the {self.label} goes from "
            f"{first:.3g} to {last:.3g} for {self._names()[most]}."
        )

    def _effects(self) -> np.ndarray:
        return np.reshape(self.effects, (len(self.strengths), -1))

    def _most(self) -> np.ndarray:
        """Outputs, those that move most first."""
        return np.argsort(-np.ptp(self._effects(), axis=0), kind="stable")

    def _names(self) -> list[str]:
        names = self.output_names
        if names is None:
            names = [f"output {index}" for index in range(self._effects().shape[1])]
        return [str(name) for name in names]
