"""Batches of samples: what a network is called with at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from agop.networks.conversion import as_tensor, check_finite, check_no_nan, has_rows

#: Which keyword argument is the input: the first of these that there is.
_INPUTS = (
    "inputs_embeds",
    "pixel_values",
    "input",
    "inputs",
    "x",
    "input_values",
    "input_ids",
)

_EXHAUSTED = (
    "The batches are exhausted: they come from a generator or an iterator, which can "
    "be gone through once only, and a second pass is needed. Pass a list of batches, "
    "a DataLoader, or an object whose __iter__ begins anew."
)


@dataclass(frozen=True, eq=False)
class Batch:
    """What a network is called with, and what belongs to these samples.

    Parameters
    ----------
    args : tuple
        Positional arguments of the network.
    kwargs : dict
        Keyword arguments of the network.
    target : Tensor of shape (n_samples, ...), default=None
    weight : Tensor of shape (n_samples,), default=None
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    weight: Any = None

    def __len__(self) -> int:
        return len(self.input)

    @property
    def input(self) -> torch.Tensor:
        """The tensor that counts as the input of the network.

        The first tensor among the positional arguments; if there is none, the keyword
        argument "inputs_embeds", "pixel_values", "input", "inputs", "x",
        "input_values", "input_ids", or else the first that is a tensor.
        """
        place = self._input_place
        return self.args[place] if isinstance(place, int) else self.kwargs[place]

    @property
    def _input_place(self) -> int | str:
        for position, value in enumerate(self.args):
            if has_rows(value):
                return position
        for name in (*_INPUTS, *self.kwargs):
            if has_rows(self.kwargs.get(name)):
                return name
        raise TypeError(
            "A batch needs an array or tensor whose first dimension is the samples."
        )

    def replace_input(self, tensor: torch.Tensor) -> Batch:
        """The same batch with another input.

        Parameters
        ----------
        tensor : Tensor

        Returns
        -------
        Batch
        """
        place = self._input_place
        if isinstance(place, int):
            args = (*self.args[:place], tensor, *self.args[place + 1 :])
            return replace(self, args=args)
        return replace(self, kwargs={**self.kwargs, place: tensor})

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Batch:
        """Copy to a device; floating numbers and uint8 images become `dtype`.

        Other whole numbers (tokens, labels) and booleans (masks) keep their type.
        Weights are not rounded to less than float32. All tensors are copies: a network
        that works in place does not reach the data.

        Parameters
        ----------
        device : torch.device or str
        dtype : torch.dtype

        Returns
        -------
        Batch

        Raises
        ------
        ValueError
            If a number of the input is too large for `dtype`.
        """

        def move(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            number = value.is_floating_point() or value.dtype == torch.uint8
            return value.to(device, dtype if number else value.dtype, copy=True)

        moved = self._map(move)
        if moved.input.dtype != self.input.dtype:
            check_finite(moved.input, "X")
        if self.weight is None:
            return moved
        weight_dtype = torch.promote_types(dtype, torch.float32)
        return replace(moved, weight=self.weight.to(device, weight_dtype))

    def split(self, size: int) -> list[Batch]:
        """Batches of at most `size` samples each, in order, without copies.

        What does not have one entry for each sample goes into every part.

        Parameters
        ----------
        size : int

        Returns
        -------
        list of Batch
        """
        n_samples = len(self)

        def part(start: int) -> Batch:
            rows = slice(start, start + size)
            return self._map(
                lambda value: value[rows] if has_rows(value, n_samples) else value
            )

        return [part(start) for start in range(0, n_samples, size)]

    def _map(self, function: Callable[[Any], Any]) -> Batch:
        return Batch(
            tuple(map(function, self.args)),
            {name: function(value) for name, value in self.kwargs.items()},
            function(self.target),
            function(self.weight),
        )


class Batches:
    """Data in batches, which are converted and checked as they pass.

    Parameters
    ----------
    read : callable
        Begins a pass: returns an iterator of Batch, of arrays or tensors.
    n_samples : int, default=None
        How many samples a pass has; None if this is not known.
    repeatable : bool, default=True
        Whether a second pass is possible.
    max_batches : int, default=None
        Where a pass ends at the latest.

    Yields
    ------
    Batch
        Of tensors, where the data are and in their dtype.

    Raises
    ------
    ValueError
        If there are no samples, or numbers that are not finite.
    RuntimeError
        On a second pass over a generator.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Batch]],
        *,
        n_samples: int | None = None,
        repeatable: bool = True,
        max_batches: int | None = None,
    ) -> None:
        self.n_samples = n_samples
        self.repeatable = repeatable
        self._read = read
        self._max_batches = max_batches
        self._begun = False

    def __iter__(self) -> Iterator[Batch]:
        repeated, self._begun = self._begun, True
        if repeated and not self.repeatable:
            raise RuntimeError(_EXHAUSTED)
        return self._pass(repeated)

    def _pass(self, repeated: bool) -> Iterator[Batch]:
        n_samples = 0
        for raw in itertools.islice(self._read(), self._max_batches):
            batch = _tensors(raw)
            if len(batch) == 0:
                continue
            _check_numbers(batch, n_samples)
            n_samples += len(batch)
            yield batch
        if n_samples == 0:
            if repeated:
                raise RuntimeError(_EXHAUSTED)
            raise ValueError(
                "Found array with 0 sample(s): there is no batch, or only empty ones."
            )


def _tensors(batch: Batch) -> Batch:
    """The same with tensors for arrays, in the types that networks know."""
    batch = batch._map(as_tensor)
    target = batch.target
    if target is None or target.is_floating_point():
        return batch
    return replace(batch, target=target.long())


def _check_numbers(batch: Batch, first_row: int) -> None:
    """Refuse what is not finite; a mask of an argument may hold infinities."""
    x = batch.input
    if x.numel() == 0:
        raise ValueError(
            f"Found array with 0 feature(s) (shape={tuple(x.shape)}) while a minimum "
            "of 1 is required."
        )
    check_finite(x, "X", first_row=first_row)
    for name, value in (*enumerate(batch.args), *batch.kwargs.items()):
        if value is not x and has_rows(value):
            check_no_nan(value, f"X[{name!r}]", first_row=first_row)
    if batch.target is not None:
        check_finite(batch.target, "y", first_row=first_row)
