"""Which numbers of a network's output are differentiated."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from agop.core.arrays import InvalidParameterError

#: From the output of a network and the targets to (n_samples, n_outputs).
Selection = Callable[[torch.Tensor, "torch.Tensor | None"], torch.Tensor]


# ------------------------------------------------------------- what a network returns


def pick_output(returned: Any, key: Any = None) -> torch.Tensor:
    """The tensor that counts as the output, among all that a network returns.

    Parameters
    ----------
    returned : Tensor, tuple, mapping or dataclass
    key : str, int or callable, default=None
        Which one; by default the only floating tensor, or the one called "logits".

    Returns
    -------
    Tensor of shape (n_samples, ...)

    Raises
    ------
    ValueError
        If there are several, or none; what there is gets listed.
    """
    if callable(key):
        returned = key(returned)
    elif isinstance(returned, torch.Tensor):
        if key is not None:
            raise ValueError(
                f"output_key={key!r} does not fit: the network returns one tensor, "
                "which is the output. For some of its columns, use outputs=."
            )
    else:
        returned = _item(returned, key)
    if not isinstance(returned, torch.Tensor):
        raise ValueError(
            f"output_key={key!r} gives a {type(returned).__name__}, not a tensor."
        )
    return returned


def _item(returned: Any, key: Any) -> Any:
    named = _named(returned)
    if key is not None:
        try:
            return named[key] if key in named else returned[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"output_key={key!r}: the network returns {_listed(returned, named)}."
            ) from None
    if isinstance(named.get("logits"), torch.Tensor):
        return named["logits"]
    tensors = [
        item
        for item in named.values()
        if isinstance(item, torch.Tensor) and item.is_floating_point()
    ]
    if len(tensors) == 1:
        return tensors[0]
    raise ValueError(
        f"The network returns {_listed(returned, named)}. Say with output_key= (a "
        "name, an index or a function) which of them is the output."
    )


def _named(returned: Any) -> dict[Any, Any]:
    """What can be picked by name or index; empty for what is neither."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        return {
            field.name: getattr(returned, field.name)
            for field in dataclasses.fields(returned)
        }
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    return {}


def _listed(returned: Any, named: dict[Any, Any]) -> str:
    kind = type(returned).__name__
    if isinstance(returned, (tuple, list)):
        return f"a {kind} of length {len(returned)}"
    return f"a {kind} with {', '.join(map(repr, named)) or 'no tensors'}"


def rows_of(output: torch.Tensor, n_samples: int) -> torch.Tensor:
    """An output with one row of numbers for each sample.

    Parameters
    ----------
    output : Tensor
    n_samples : int

    Returns
    -------
    Tensor of shape (n_samples, ...), of two dimensions at least

    Raises
    ------
    ValueError
        If it has not one entry for each sample.
    """
    if output.ndim == 0 or len(output) != n_samples:
        raise ValueError(
            f"The network returns shape {tuple(output.shape)} for {n_samples} samples: "
            "one row for each is needed. If the batch is another dimension, move it to "
            "the front in a small wrapper module; if a loss is returned, return the "
            "scores and give outputs='loss'."
        )
    return output[:, None] if output.ndim == 1 else output


# ------------------------------------------------------------------------ selections


def all_outputs(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """Every number of the output."""
    return output.flatten(1)


def last_position(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """The outputs at the last position of a sequence."""
    if output.ndim < 3:
        raise ValueError(
            "outputs='last' is for sequences (n_samples, n_positions, n_outputs); the "
            f"output has shape {tuple(output.shape)}."
        )
    return output[:, -1].flatten(1)


def probabilities(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """Softmax of the scores; the logistic function of a single one."""
    if output.shape[-1] == 1:
        return output.sigmoid().flatten(1)
    return output.softmax(-1).flatten(1)


def label_score(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """The score of the true class."""
    return output.gather(-1, _classes(output, target, "label")).flatten(1)


def predicted_score(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """The score of the class with the highest one."""
    return _highest(output).flatten(1)


def log_probability(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """The logarithm of the probability of the true class."""
    classes = _classes(output, target, "log_probability")
    return _log_probability(output, classes)


def margin(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """The score of the true class minus the highest of the others."""
    classes = _classes(output, target, "margin")
    others = output.scatter(-1, classes, -torch.inf)
    return (output.gather(-1, classes) - _highest(others)).flatten(1)


def loss(output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy for classes, half the squared error for numbers."""
    if target is None:
        raise ValueError(_needs_target("loss"))
    if not target.is_floating_point() and output.ndim > target.ndim:
        return -_log_probability(output, _classes(output, target, "loss"))
    numbers = output.flatten(1)
    if numbers.shape != target.reshape(len(target), -1).shape:
        raise ValueError(
            f"outputs='loss': targets of shape {tuple(target.shape)} do not fit an "
            f"output of shape {tuple(output.shape)}. Of floats, one for each output is "
            "needed; classes are ints."
        )
    difference = numbers - target.reshape(numbers.shape).to(numbers)
    return difference.square().sum(1, keepdim=True) / 2


def _highest(scores: torch.Tensor) -> torch.Tensor:
    """Of equal ones the first, which has a gradient of its own."""
    return scores.gather(-1, scores.argmax(-1, keepdim=True))


def _log_probability(output: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return output.log_softmax(-1).gather(-1, classes).flatten(1)


def _classes(
    output: torch.Tensor, target: torch.Tensor | None, name: str
) -> torch.Tensor:
    """The targets as indices into the last dimension of the output."""
    if target is None:
        raise ValueError(_needs_target(name))
    if target.is_floating_point() and not torch.equal(target, target.round()):
        raise ValueError(
            f"outputs={name!r} needs classes as targets; these are not whole numbers."
        )
    if output.shape[-1] == 1:
        raise ValueError(
            f"outputs={name!r} with classes as targets needs a score for each class; "
            "the network has a single output. For the squared error pass y as floats; "
            "for a logistic loss give a function of output and target as outputs."
        )
    classes = target.to(output.device).long()
    if classes.shape != output.shape[:-1]:
        raise ValueError(
            f"outputs={name!r}: targets of shape {tuple(classes.shape)} do not fit an "
            f"output of shape {tuple(output.shape)}; {tuple(output.shape[:-1])} is "
            "needed."
        )
    if not 0 <= int(classes.min()) <= int(classes.max()) < output.shape[-1]:
        raise ValueError(
            f"outputs={name!r}: targets must be classes 0 … {output.shape[-1] - 1}; "
            f"got {int(classes.min())} … {int(classes.max())}."
        )
    return classes[..., None]


def _needs_target(name: str) -> str:
    return (
        f"outputs={name!r} needs the targets: pass y to fit, or batches that have them."
    )


#: Selections by the name that users give.
SELECTIONS: dict[str, Selection] = {
    "all": all_outputs,
    "last": last_position,
    "probabilities": probabilities,
    "label": label_score,
    "predicted": predicted_score,
    "log_probability": log_probability,
    "margin": margin,
    "loss": loss,
}

#: Those that cannot do without targets.
_WITH_TARGET = ("label", "log_probability", "margin", "loss")

#: Selections that are linear in the scores of the last layer, class by class.
LINEAR = (all_outputs, last_position)


def selection_of(outputs: Any, *, owner: str) -> Selection:
    """The function that a user's `outputs` stands for.

    Parameters
    ----------
    outputs : str, int, sequence of int, or callable
        A name in ``SELECTIONS``; indices into the last dimension of the output; or a
        function of the output, or of the output and the targets, that returns one
        number or one row of numbers for each sample.
    owner : str
        Whose parameter it is, for messages.

    Returns
    -------
    callable
    """
    if isinstance(outputs, str) and outputs in SELECTIONS:
        return SELECTIONS[outputs]
    if callable(outputs):
        return _Own(outputs)
    indices = _indices(outputs)
    if indices is None:
        known = ", ".join(map(repr, SELECTIONS))
        raise InvalidParameterError(
            f"The 'outputs' parameter of {owner} must be one of {{{known}}}, an int, a "
            f"list of int or a function. Got {outputs!r} instead."
        )

    return _Chosen(indices)


@dataclass(frozen=True)
class _Chosen:
    """Some entries of the last dimension of the output."""

    indices: list[int]

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        width = output.shape[-1]
        if not all(-width <= index < width for index in self.indices):
            raise ValueError(
                f"outputs={self.indices} does not fit a network with {width} outputs."
            )
        return output[..., self.indices].flatten(1)


@dataclass(frozen=True)
class _Own:
    """A function of the user's, with a look at what it returns."""

    function: Callable[..., Any]

    def __call__(
        self, output: torch.Tensor, target: torch.Tensor | None
    ) -> torch.Tensor:
        if not _takes_two(self.function):
            values = self.function(output)
        elif target is None:
            raise ValueError(_needs_target(getattr(self.function, "__name__", "…")))
        else:
            values = self.function(output, target)
        shape: tuple[int, ...] = getattr(values, "shape", ())
        if not isinstance(values, torch.Tensor) or shape[:1] != output.shape[:1]:
            found = tuple(shape) or type(values).__name__
            raise ValueError(
                "The function given as outputs must return a tensor with one number, "
                f"or one row of numbers, for each of the {len(output)} samples (no sum "
                f"or mean over them); it returned {found}."
            )
        return values.reshape(len(output), -1)


def needs_target(outputs: Any) -> bool:
    """Whether a selection reads the targets.

    Parameters
    ----------
    outputs : str, int, sequence of int, or callable

    Returns
    -------
    bool
    """
    if isinstance(outputs, str):
        return outputs in _WITH_TARGET
    return callable(outputs) and _takes_two(outputs)


def _indices(outputs: Any) -> list[int] | None:
    """Whole numbers as a list; None for anything else."""
    if isinstance(outputs, (int, np.integer)):
        outputs = [outputs]
    if not isinstance(outputs, (list, tuple, range, np.ndarray)):
        return None
    numbers = [isinstance(i, (int, np.integer)) for i in outputs]
    flags = [isinstance(i, bool) for i in outputs]
    good = numbers and all(numbers) and not any(flags)
    return list(map(int, outputs)) if good else None


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function, or a module such as a loss, needs a second argument."""
    if isinstance(function, nn.Module):
        function = function.forward
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions do not tell
        return False
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(needed) >= 2
