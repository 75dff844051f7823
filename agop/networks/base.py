"""What estimators of networks share: parameters, data, and where a network runs."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import nn

from agop.core.arrays import (
    InvalidParameterError,
    as_host_array,
    check_number,
    check_option,
    refuse_strings,
    resolve_device,
)
from agop.networks.data import Batch, Batches, as_batches, is_array
from agop.networks.kinds import KINDS
from agop.networks.layers import find_sites
from agop.networks.outputs import needs_target, selection_of
from agop.networks.placing import placed
from agop.networks.positions import check_positions
from agop.networks.question import Question, spelled

#: Samples that are read at once, before they are split to what fits; fewer, if arrays
#: are wider than that.
_BATCH = 256
_BATCH_BYTES = 2**21

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


class NetworkEstimator(BaseEstimator):
    """Checked parameters, checked data, and the network in its place."""

    # ------------------------------------------------------------------ parameters

    def _question(self, module: nn.Module) -> Question:
        owner = type(self).__name__
        check_option("kind", self.kind, KINDS, owner=owner)
        check_option("center", self.center, [True, False], owner=owner)
        check_positions(self.positions, owner=owner)
        count = partial(check_number, owner=owner, integer=True, low=1)
        if self.n_components is not None:
            count("n_components", self.n_components)
        if self.max_batches is not None:
            count("max_batches", self.max_batches)
        if self.batch_size != "auto":
            count("batch_size", self.batch_size)
        if self.n_probes is not None and self.n_probes != "auto":
            count("n_probes", self.n_probes)
            self._check_center()
        if self.dtype is not None:
            check_option("dtype", self.dtype, _DTYPES, owner=owner)
        check_number("verbose", self.verbose, owner=owner, integer=True, low=0)
        return Question(
            sites=find_sites(module, self.layers),
            selection=selection_of(self.outputs, owner=owner),
            kind=self.kind,
            positions=self.positions,
            n_components=self.n_components,
            center=self.center,
            n_probes=None if self.center else _int(self.n_probes),
            output_key=self.output_key,
            batch_size=_int(self.batch_size),
            seed=self._seed(),
            verbose=self.verbose,
            outputs=spelled(self.outputs),
        )

    def _check_center(self) -> None:
        if self.center:
            raise InvalidParameterError(
                f"n_probes={self.n_probes} does not go with center=True: random "
                "combinations of the outputs have no mean Jacobian. Pass n_probes=None."
            )

    def _seed(self) -> int:
        generator = check_random_state(self.random_state)
        if self.random_state is None:  # numpy's own generator, which stays as it is
            generator = deepcopy(generator)
        return int(generator.randint(2**31 - 1))

    # ------------------------------------------------------------------------ data

    def _batches(
        self, module, X, y, sample_weight, *, reset: bool, targets: bool = True
    ) -> Batches:
        """The data as batches; what looks like a table is checked as one."""
        if is_array(X) and not isinstance(X, torch.Tensor):
            X = self._checked(module, X, reset=reset)
        elif reset:
            self._forget_table()
        wanted = targets and needs_target(self.outputs)
        return as_batches(
            X,
            self._encoded(y) if wanted else None,
            sample_weight,
            batch_size=self.batch_size
            if self.batch_size != "auto"
            else _read_at_once(X),
            max_batches=self.max_batches,
        )

    def _checked(self, module, X, *, reset: bool):
        refuse_strings(X)
        tokens = any(isinstance(part, nn.Embedding) for part in module.modules())
        X = validate_data(
            self,
            as_host_array(X),
            reset=reset,
            dtype=None if tokens else [np.float64, np.float32],
            allow_nd=True,
        )
        if reset and X.ndim > 2:
            self._forget_table()
        return X

    def _forget_table(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                delattr(self, name)

    def _encoded(self, y):
        """Labels as indices, where the network says which classes it knows."""
        classes = getattr(self.network, "classes_", None)
        if y is None or classes is None or isinstance(y, torch.Tensor):
            return y
        y, classes = np.asarray(y), np.asarray(classes)
        indices = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        unknown = classes[indices] != y
        if unknown.any():
            raise ValueError(
                f"y has labels that the network does not know: {y[unknown][:3]}; it "
                f"knows {classes[:10]}."
            )
        return indices

    def _placed(self, module: nn.Module) -> tuple[nn.Module, Callable[[Batch], Batch]]:
        """The network where it is to run, and how batches get there."""
        dtype = None if self.dtype is None else _DTYPES[self.dtype]
        device = None
        if self.device != "auto":
            named = resolve_device(self.device, owner=type(self).__name__)
            device = torch.empty(0, device=named).device  # with its number
        return placed(module, device, dtype)


def _int(value):
    """A plain int for one of numpy; everything else as it is."""
    return int(value) if isinstance(value, np.integer) else value


def _read_at_once(X) -> int:
    """Samples of a batch, if nobody says how many."""
    sparse = isinstance(X, torch.Tensor) and X.layout != torch.strided  # refused later
    if sparse or not getattr(X, "ndim", 0) or not getattr(X, "nbytes", 0):
        return _BATCH
    return max(1, min(_BATCH, _BATCH_BYTES * len(X) // X.nbytes))
