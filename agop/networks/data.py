"""What may be called data, and the batches that a network is given."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from agop.core.arrays import check_sample_weight
from agop.networks.batches import Batch, Batches
from agop.networks.conversion import as_array, has_rows

__all__ = ["Batch", "Batches", "as_batches"]

#: Names under which a mapping carries targets; these are not passed to the network.
_TARGETS = ("labels", "label", "target")

_ACCEPTED = (
    "an array, DataFrame or tensor, a mapping from the network's keyword arguments to "
    "arrays, a tuple of arrays (several inputs), a torch Dataset or DataLoader, or an "
    "iterable of batches x, (x, y) or mappings"
)

_END = object()


# ------------------------------------------------------------------------ the reader


def as_batches(
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int,
    max_batches: int | None = None,
) -> Batches:
    """Read data of any of the usual kinds in batches.

    Parameters
    ----------
    X : array-like, tensor, mapping, tuple, Dataset, DataLoader or iterable
        * An array, DataFrame, tensor or list of numbers, samples first.
        * A mapping from keyword arguments of the network to arrays; "labels", "label"
          and "target" are targets and not passed on. Values that are no arrays, or
          have one row only, go into every batch.
        * A tuple of arrays: several inputs of the network.
        * A torch ``Dataset``, or anything else with a length and numbered items.
        * A ``DataLoader`` or another iterable of batches. A batch is x, (x, y), a
          mapping or a :class:`Batch`; x may be a tuple or a mapping of several
          inputs. The items of a list are batches if they are mappings, tuples of
          arrays, or arrays of two dimensions or more.

        Floating numbers and uint8 (images) will be cast to the dtype of the network.
        Other whole numbers are tokens, which become int32 or int64.
    y : array-like of shape (n_samples, ...), default=None
        Targets, beside arrays; the other kinds of data carry their own.
    sample_weight : array-like of shape (n_samples,), default=None
        Non-negative, beside arrays.
    batch_size : int
        Samples in a batch; data that come in batches are left as they are.
    max_batches : int, default=None
        Where a pass ends at the latest.

    Returns
    -------
    Batches

    Raises
    ------
    TypeError
        For data of another kind, and for sparse or masked arrays.
    ValueError
        For strings, complex numbers, inconsistent lengths, and data without an end.

    Notes
    -----
    The generator of torch, and that of a DataLoader, are put back after every batch.
    So all passes over a loader that shuffles have the same order.

    Examples
    --------
    >>> import numpy as np
    >>> from agop.networks.data import as_batches
    >>> [len(batch) for batch in as_batches(np.ones((5, 3)), batch_size=2)]
    [2, 2, 1]
    """
    if isinstance(X, (Mapping, tuple)) or is_array(X):
        whole = _batch(X, y)
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, len(whole), np.float64)
            whole = replace(whole, weight=weight)
        return Batches(
            lambda: iter(whole.split(batch_size)),
            n_samples=_at_most(len(whole), batch_size, max_batches),
            max_batches=max_batches,
        )
    if y is not None or sample_weight is not None:
        raise ValueError(
            "y and sample_weight can be given beside arrays only. Let the "
            f"{type(X).__name__} yield batches (x, y), or Batch objects "
            "with a target and a weight."
        )
    if _is_dataset(X):
        X = DataLoader(X, batch_size=batch_size)
    if not isinstance(X, Iterable) or isinstance(X, (str, bytes)):
        raise TypeError(f"Data are {_ACCEPTED}; got {type(X).__name__}.")
    if _is_endless(X) and max_batches is None:
        raise ValueError(
            f"The data have no end ({type(X).__name__}): say with max_batches after "
            "how many batches to stop."
        )
    return Batches(
        lambda: _loaded(X),
        n_samples=_n_samples(X, max_batches),
        repeatable=not isinstance(X, Iterator),
        max_batches=max_batches,
    )


def is_array(X: Any) -> bool:
    """Whether X is one array of samples, of any kind, rather than batches of them.

    Parameters
    ----------
    X : object

    Returns
    -------
    bool
    """
    if isinstance(X, list):
        return not (X and _is_batch(X[0]))
    return hasattr(X, "__array__") or hasattr(X, "toarray")  # the latter if sparse


def _is_batch(item: Any) -> bool:
    """Whether an item of a list is a batch, not a row of numbers."""
    if isinstance(item, (list, tuple)):
        return any(_is_batch(x) or getattr(x, "ndim", 0) > 0 for x in item)
    return isinstance(item, (Batch, Mapping)) or getattr(item, "ndim", 0) > 1


def _is_dataset(X: Any) -> bool:
    numbered = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    return isinstance(X, Dataset) or (numbered and not isinstance(X, Sequence))


def _is_endless(X: Any) -> bool:
    if isinstance(X, itertools.repeat):
        return operator.length_hint(X, -1) < 0
    return isinstance(X, (itertools.count, itertools.cycle))


def _n_samples(X: Any, max_batches: int | None) -> int | None:
    """Samples in a pass over a loader, if it can be known."""
    if not isinstance(X, DataLoader) or type(X.batch_sampler) is not BatchSampler:
        return None
    try:
        n_samples = len(X.sampler)  # type: ignore[arg-type]  # not all have a length
    except TypeError:
        return None
    batch_size = X.batch_sampler.batch_size
    if X.drop_last:
        n_samples -= n_samples % batch_size
    return _at_most(n_samples, batch_size, max_batches)


def _at_most(n_samples: int, batch_size: int, max_batches: int | None) -> int:
    return (
        n_samples if max_batches is None else min(n_samples, max_batches * batch_size)
    )


def _loaded(source: Iterable[Any]) -> Iterator[Batch]:
    """One pass over an iterable; the generators it draws from are put back."""
    sampler = getattr(source, "sampler", None)
    generators = [
        torch.default_generator,
        getattr(source, "generator", None),
        getattr(sampler, "generator", None),
    ]
    known = [each for each in generators if isinstance(each, torch.Generator)]
    states = [generator.get_state() for generator in known]
    with _resumed(known, states):
        iterator = iter(source)
    for number in itertools.count():
        with _resumed(known, states):
            item = next(iterator, _END)
        if item is _END:
            return
        try:
            batch = _read(item)
        except (TypeError, ValueError) as error:
            error.add_note(f"This is batch {number} of the data.")
            raise
        yield batch


@contextmanager
def _resumed(
    generators: list[torch.Generator], states: list[torch.Tensor]
) -> Iterator[None]:
    """Generators go on from `states`, which keep up with them, and are put back."""
    before = [generator.get_state() for generator in generators]
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    try:
        yield
    finally:
        states[:] = [generator.get_state() for generator in generators]
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


# --------------------------------------------------------------- from items to tensors


def _read(item: Any) -> Batch:
    """The batch that a loader means: x, (x, y), a mapping or a Batch."""
    if isinstance(item, Batch):
        return _arrays(item)
    if not isinstance(item, (tuple, list)):
        return _batch(item)
    if len(item) not in (1, 2):
        raise TypeError(
            f"A batch of {len(item)} items: it is not clear which are inputs. Yield "
            "((x1, x2), y) or a mapping for several inputs of the network."
        )
    x, *y = item
    return _batch(tuple(x) if isinstance(x, list) else x, *y)


def _batch(x: Any, y: Any = None) -> Batch:
    """A batch of arrays: x is a mapping, a tuple of several inputs, or one input."""
    if not isinstance(x, Mapping):
        return _arrays(Batch(x if isinstance(x, tuple) else (x,), {}, y))
    targets = [x[name] for name in _TARGETS if x.get(name) is not None]
    if targets and y is not None:
        raise ValueError(
            "Targets are given twice: as y and in the mapping, under one of the keys "
            f"{', '.join(_TARGETS)}."
        )
    kwargs = {name: value for name, value in x.items() if name not in _TARGETS}
    return _arrays(Batch((), kwargs, targets[0] if targets else y))


def _arrays(batch: Batch) -> Batch:
    """The same with arrays or tensors for what can be one, of consistent lengths."""
    args = tuple(_as_argument(value, "X") for value in batch.args)
    kwargs = {name: _as_argument(value, name) for name, value in batch.kwargs.items()}
    target, weight = (
        None if value is None else as_array(value, name)
        for value, name in ((batch.target, "y"), (batch.weight, "sample_weight"))
    )
    batch = Batch(args, kwargs, target, weight)
    n_samples = len(batch)
    inputs = [value for value in (*args, *kwargs.values()) if has_rows(value)]
    lengths = [len(value) for value in inputs if len(value) != 1 or n_samples == 1]
    lengths += [
        len(value) if value.ndim else 0
        for value in (target, weight)
        if value is not None
    ]
    if any(length != n_samples for length in lengths):
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"{[n_samples, *lengths[1:]]}. The first dimension of every array is the "
            "samples; an argument that is none of theirs goes into a function or "
            "module around the network."
        )
    return batch


def _as_argument(value: Any, name: str) -> Any:
    """An array or tensor; what cannot be one, such as None or True, as it is."""
    return as_array(value, name) if is_array(value) else value
