"""Which accumulator keeps the AGOP of a site."""

from __future__ import annotations

from agop.core.arrays import InvalidParameterError
from agop.core.linear import LinearOuterProduct
from agop.core.outer_product import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    GradientOuterProduct,
    RowsOuterProduct,
)
from agop.core.sketch import LowRankOuterProduct
from agop.networks.jacobians import Reading

#: What a user may ask for.
KINDS = ("auto", "full", "linear", "diagonal", "rows", "low_rank")

#: Kinds for which the gradient may be stopped at the output of a linear layer.
THROUGH_LINEAR = ("auto", "linear")

#: Up to this width a full matrix is cheap to keep and to decompose.
FULL_FEATURES = 4096

#: Directions that a sketch keeps if nobody says how many.
SKETCHED = 10


def accumulator(
    reading: Reading,
    kind: str,
    *,
    n_gradients: int | None,
    n_components: int | None,
    center: bool,
) -> tuple[str, GradientOuterProduct]:
    """The accumulator for one site.

    Parameters
    ----------
    reading : Reading
    kind : str
        One of ``KINDS``.
    n_gradients : int or None
        Gradients that will arrive in all; None if that is not known.
    n_components : int or None
        Directions that are wanted.
    center : bool

    Returns
    -------
    kind : str
        The one that was taken, never "auto".
    accumulator : GradientOuterProduct

    Raises
    ------
    ValueError
        If "linear" was asked for where no linear layer narrows the way, or more
        directions than there are.
    """
    width = reading.width
    if n_components is not None and n_components > reading.n_features:
        raise InvalidParameterError(
            f"n_components={n_components} is larger than the dimensionality at "
            f"{reading.site.name!r}, which is {reading.n_features}."
        )
    if reading.weight is not None:
        return "linear", LinearOuterProduct(reading.weight, center=center)
    if kind == "linear":
        raise InvalidParameterError(
            f"kind='linear' does not fit {reading.site.name!r}: it is not read by one "
            "linear layer with fewer outputs than inputs. Use kind='auto'."
        )
    if kind == "auto":
        kind = _smallest(width, n_gradients)
    if kind == "full":
        return kind, DenseOuterProduct(width, center=center)
    if kind == "diagonal":
        return kind, DiagonalOuterProduct(width, center=center)
    if kind == "rows":
        return kind, RowsOuterProduct(width, center=center)
    wanted = min(n_components or SKETCHED, width)
    return "low_rank", LowRankOuterProduct(width, wanted, center=center)


def _smallest(width: int, n_gradients: int | None) -> str:
    """Exact as long as it is cheap."""
    if n_gradients is not None and 4 * n_gradients <= width:
        return "rows"
    return "full" if width <= FULL_FEATURES else "low_rank"
