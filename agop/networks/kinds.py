"""Which accumulator keeps the AGOP of a site."""

from __future__ import annotations

import torch

from agop.core.arrays import InvalidParameterError, free_memory
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

#: Up to this width a full matrix is cheap to keep and to decompose; nothing larger than
#: that is kept unless it is asked for.
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
    device: torch.device,
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
    device : device
        Where gradients will arrive.

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
    MemoryError
        If a full matrix does not fit.
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
        _check_memory(reading, device)
        return kind, DenseOuterProduct(width, center=center)
    if kind == "diagonal":
        return kind, DiagonalOuterProduct(width, center=center)
    if kind == "rows":
        return kind, RowsOuterProduct(width, center=center)
    return _sketch(width, n_components, center)


def lasting(
    width: int, *, n_components: int | None, center: bool
) -> tuple[str, GradientOuterProduct]:
    """The accumulator for any number of gradients.

    Parameters
    ----------
    width : int
    n_components : int or None
    center : bool

    Returns
    -------
    kind : str
    accumulator : GradientOuterProduct
    """
    if width <= FULL_FEATURES:
        return "full", DenseOuterProduct(width, center=center)
    return _sketch(width, n_components, center)


def _sketch(
    width: int, n_components: int | None, center: bool
) -> tuple[str, GradientOuterProduct]:
    wanted = min(n_components or SKETCHED, width)
    return "low_rank", LowRankOuterProduct(width, wanted, center=center)


def _check_memory(reading: Reading, device: torch.device) -> None:
    """There must be room for the sum and for a product that is added to it."""
    needed, free = 2 * 8 * reading.width**2, free_memory(device)
    if free is not None and needed > free:
        raise MemoryError(
            f"A full AGOP at {reading.site.name!r} has {reading.width}² entries, "
            f"{needed / 2**31:.1f} GiB, and is needed twice; {free / 2**30:.1f} GiB "
            "are free. Pass kind='low_rank' for the leading directions, or 'diagonal'."
        )


def _smallest(width: int, n_gradients: int | None) -> str:
    """Exact as long as it is cheap."""
    most = min(width // 4, FULL_FEATURES**2 // width)
    if n_gradients is not None and n_gradients <= most:
        return "rows"
    return "full" if width <= FULL_FEATURES else "low_rank"
