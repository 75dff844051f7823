"""One pass over the data: every batch goes to the accumulators of all sites."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable

import torch

from agop.core.arrays import NumericalWarning, is_out_of_memory
from agop.core.progress import Progress
from agop.networks.data import Batch
from agop.networks.jacobians import NetworkJacobian, Rows

#: Bytes that the Jacobians of one batch may take, of all sites together. A quarter is
#: used, which stays near the processor, unless that would be few samples.
JACOBIAN_BYTES = 2**27
_FEW = 16

#: Rows, of all outputs, that a sketch is given at once: they take part of its memory.
SKETCH_ROWS = 32

#: So many squares of the largest gradient must add up without overflow.
_HEADROOM = 2**20

#: What a pass does with the Jacobians of a batch, one for each site.
Receiver = Callable[[list[Rows]], None]


def rows_that_fit(jacobian: NetworkJacobian, *, sketch: bool) -> int:
    """Samples whose Jacobians fit into the memory set aside for one batch.

    Parameters
    ----------
    jacobian : NetworkJacobian
        After it has examined data.
    sketch : bool
        Whether a sketch is kept, whose memory must stay small.

    Returns
    -------
    int
        At least 1.
    """
    gradients = [r.n_positions * jacobian.n_rows for r in jacobian.readings]
    if sketch:
        return max(1, SKETCH_ROWS // max(gradients))
    numbers = sum(
        count * reading.width
        for count, reading in zip(gradients, jacobian.readings, strict=True)
    )
    most = JACOBIAN_BYTES // (8 * numbers)
    return max(1, min(most, max(_FEW, most // 4)))


def sweep(
    jacobian: NetworkJacobian,
    batches: Iterable[Batch],
    receive: Receiver,
    *,
    size: int,
    progress: Progress,
) -> int:
    """Take the Jacobians of all batches.

    Parameters
    ----------
    jacobian : NetworkJacobian
    batches : iterable of Batch
        On the device of the network.
    receive : callable
        Called with the Jacobians of each batch, one :class:`Rows` for each site.
    size : int
        Larger batches are split. Halved, with a warning, when memory runs out.
    progress : Progress

    Returns
    -------
    int
        Number of samples.

    Raises
    ------
    ValueError
        If a gradient is not finite, and then the row is named; if its square is not;
        if the number of features changes.
    MemoryError
        If one sample alone does not fit.
    """
    seen = 0
    for batch in batches:
        waiting = batch.split(size)
        while waiting:
            part = waiting.pop(0)
            try:
                taken = jacobian(part)
            except (RuntimeError, MemoryError) as error:
                size = halved(len(part), error)
                waiting = [
                    piece for each in (part, *waiting) for piece in each.split(size)
                ]
                continue
            _check(jacobian, taken, seen)
            receive(taken)
            seen += len(part)
            progress.step(f"{seen} samples")
    return seen


class Sizes:
    """How large the gradients of a pass become, at each site."""

    def __init__(self) -> None:
        self._largest: list[float] = []
        self._dtype = torch.float64

    def update(self, taken: list[Rows]) -> None:
        """Look at a batch.

        Parameters
        ----------
        taken : list of Rows
            One for each site.
        """
        before = self._largest or [0.0] * len(taken)
        self._largest = [max(b, r.largest) for b, r in zip(before, taken, strict=True)]
        self._dtype = torch.promote_types(taken[0].jacobian.dtype, torch.float32)

    def warn(self, names: list[str]) -> None:
        """Say where the output has not moved at all, or not enough.

        Parameters
        ----------
        names : list of str
            Of the sites.
        """
        floor = torch.finfo(self._dtype).tiny ** 0.5
        sizes = dict(zip(names, self._largest, strict=True))
        zero = [repr(name) for name, size in sizes.items() if size == 0]
        tiny = [repr(name) for name, size in sizes.items() if 0 < size < floor]
        if zero:
            self._warn(
                f"The AGOP at {', '.join(zero)} is zero: the output does not change "
                "with what is there, at none of these samples (a constant output, "
                "saturated or dead units?)."
            )
        if tiny:
            self._warn(
                f"The gradients at {', '.join(tiny)} are below {floor:.0e}: their "
                f"squares are lost in {self._dtype}. Multiply the output by a "
                "constant, or pass dtype='float64'."
            )

    @staticmethod
    def _warn(message: str) -> None:
        warnings.warn(message, NumericalWarning, stacklevel=7)


def halved(size: int, error: BaseException) -> int:
    """Half of the size of a batch for which memory did not suffice, with a warning.

    Parameters
    ----------
    size : int
    error : BaseException
        What came of it.

    Returns
    -------
    int

    Raises
    ------
    MemoryError
        If the batch was one sample.
    BaseException
        The error itself, if it says something else.
    """
    if not is_out_of_memory(error):
        raise error
    if size == 1:
        raise MemoryError(
            "Out of memory with a single sample: look at fewer layers at a time, at "
            "fewer outputs (outputs=, n_probes=), or use a smaller input."
        ) from error
    warnings.warn(
        f"Out of memory with {size} samples at a time: going on with {size // 2}. Pass "
        f"batch_size={size // 2} to begin with it.",
        RuntimeWarning,
        stacklevel=8,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return size // 2


def _check(jacobian: NetworkJacobian, taken: list[Rows], seen: int) -> None:
    for reading, rows in zip(jacobian.readings, taken, strict=True):
        width = rows.jacobian.shape[-1]
        if width != reading.width:
            raise ValueError(
                f"At {reading.site.name!r} there are {width} features now, "
                f"{reading.width} in the first batch. Pass samples of one shape, or "
                "choose a layer or positions where the number of features is fixed."
            )
        if not math.isfinite(rows.largest):
            finite = torch.isfinite(rows.jacobian).flatten(1).all(1)
            row = seen + int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"The gradient at {reading.site.name!r} is not finite for row {row} of "
                "the data. Look for parameters that are NaN, for infinite slopes (a "
                "square root at 0) and for overflow (dtype='float64' may help)."
            )
        dtype = torch.promote_types(rows.jacobian.dtype, torch.float32)
        if rows.largest > (torch.finfo(dtype).max / _HEADROOM) ** 0.5:
            raise ValueError(
                f"The gradient at {reading.site.name!r} has entries of "
                f"{rows.largest:.1e}, whose squares overflow in {dtype}. Divide the "
                "output by a constant, or pass dtype='float64'."
            )
