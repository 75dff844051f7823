"""Inputs that were made to move along a direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from agop.inspection.displays import BLUE, GREY, Display, all_axes, tidy
from agop.inspection.forms import Form, Style
from agop.inspection.shapes import as_form, image_of


class VisualizationDisplay(Display):
    """An input that was changed to move along a direction, and how it went.

    Parameters
    ----------
    start : ndarray of shape (n_features,)
        Where the search began: an example, or noise.
    optimum : ndarray of shape (n_features,)
        Where it ended.
    trajectory : ndarray of shape (n_steps,)
        The projection on the direction, step by step.
    shape : tuple of int or Form, default=None
        What inputs look like, as for :class:`DirectionDisplay`.
    feature_names : list of str, default=None
        For a table.
    label : str, default="projection"
        What was raised.

    Attributes
    ----------
    axes_ : list of matplotlib.axes.Axes
        Start, optimum and trajectory, after :meth:`plot`.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        After :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from agop import VisualizationDisplay
    >>> noise = np.random.default_rng(0).normal(size=16)
    >>> wanted = np.eye(4).ravel()
    >>> display = VisualizationDisplay(
    ...     noise, noise + 3 * wanted, np.linspace(0, 3, 20), shape=(4, 4)
    ... )
    >>> [ax.get_title() for ax in display.plot().axes_]
    ['start', 'optimum', '']
    """

    heading = "Feature visualisation"
    caption = (
        "The input where the search began, the input that moves furthest along the "
        "direction, and the projection on the direction step by step."
    )

    def __init__(
        self,
        start,
        optimum,
        trajectory,
        *,
        shape=None,
        feature_names=None,
        label="projection",
    ):
        self.start = start
        self.optimum = optimum
        self.trajectory = trajectory
        self.shape = shape
        self.feature_names = feature_names
        self.label = label

    @classmethod
    def from_result(cls, result, *, sample=0, shape=None, ax=None, **kwargs):
        """Draw an input that was optimised for a direction.

        Parameters
        ----------
        result : Visualization
            From :func:`agop.visualize_direction`.
        sample : int, default=0
            Which of its inputs.
        shape : tuple of int or Form, default=None
            What inputs look like; images if they have two or three dimensions.
        ax : sequence of 3 Axes, default=None
            Where to draw; a new figure by default.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        VisualizationDisplay
        """
        start = result.start[sample]
        if shape is None and start.ndim in (2, 3):
            shape = image_of(start.shape)
        optimum, path = result.optimum[sample], result.trajectory[:, sample]
        display = cls(start.ravel(), optimum.ravel(), path, shape=shape)
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax=None,
        *,
        max_features=10,
        image_kwargs=None,
        bar_kwargs=None,
        line_kwargs=None,
    ):
        """Draw both inputs on one scale, and the trajectory.

        Parameters
        ----------
        ax : sequence of 3 Axes, default=None
            Where to draw; a new figure by default.
        max_features : int, default=10
            Number of bars, those that changed most, for a table.
        image_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.imshow`.
        bar_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.barh`.
        line_kwargs : dict, default=None
            Passed to :meth:`matplotlib.axes.Axes.plot`, for the trajectory.

        Returns
        -------
        VisualizationDisplay
        """
        form = self._form()
        width, height = form.panel
        start, optimum, path = all_axes(
            ax,
            [["start", "optimum", "trajectory"]],
            (2 * width + 4.0, height),
            width_ratios=[width, width, 4.0],
        )
        inputs = np.stack([np.ravel(self.start), np.ravel(self.optimum)])
        form.draw_examples(
            [start, optimum], inputs, Style(max_features, image_kwargs, bar_kwargs)
        )
        start.set_title("start")
        optimum.set_title("optimum")
        path.plot(self.trajectory, **{"color": BLUE, **(line_kwargs or {})})
        path.axhline(self.trajectory[0], color=GREY, linestyle=":")
        path.set_xlabel("step")
        path.set_ylabel(self.label, parse_math=False)
        path.margins(x=0)
        tidy(path, "y")
        return self._drawn(start, optimum, path)

    def table(self) -> dict[str, Any]:
        """Both inputs by feature, those that changed most first.

        Returns
        -------
        dict of sequences of length n_features
        """
        start, optimum = np.ravel(self.start), np.ravel(self.optimum)
        order = np.argsort(-np.abs(optimum - start), kind="stable")
        names = self._form().names()
        return {
            "feature": [names[index] for index in order],
            "start": start[order],
            "optimum": optimum[order],
        }

    def summary(self) -> str:
        """How far the search came.

        Returns
        -------
        str
        """
        return (
            f"The {self.label} went from {self.trajectory[0]:.3g} to "
            f"{self.trajectory[-1]:.3g} in {len(self.trajectory) - 1} steps."
        )

    def _form(self) -> Form:
        return as_form(self.shape, np.size(self.start), self.feature_names)
