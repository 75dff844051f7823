"""What the two estimators of Recursive Feature Machines share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from agop.core.arrays import (
    InvalidParameterError,
    as_host_array,
    check_sample_weight,
    follow_input,
    memory_error,
    plain_arithmetic,
    refuse_strings,
    resolve_device,
    to_numpy,
    to_tensor,
)
from agop.core.outer_product import DenseOuterProduct
from agop.core.progress import CallbackSupportMixin, Progress, with_callbacks
from agop.core.version import __version__
from agop.kernels import (
    KERNELS,
    DiagonalMetric,
    FullMetric,
    Kernel,
    Metric,
)
from agop.rfm import persistence
from agop.rfm.fitting import (
    ROUNDS,
    Fit,
    fit,
)
from agop.rfm.machine import KernelMachine
from agop.rfm.parameters import settings_of
from agop.rfm.recursion import Problem, Round

_DTYPES = [np.float64, np.float32]


class RecursiveFeatureMachine(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Everything but the meaning of y.

    Subclasses say how settings are compared (``_loss``), whether scores become
    probabilities (``_calibrated``), what y may be (``_y_checks``), and turn y into a
    table of targets (``_encode``).
    """

    _loss: ClassVar[Callable[..., float]]
    _calibrated: ClassVar[bool]
    _y_checks: ClassVar[dict[str, bool]]

    def __init__(
        self,
        *,
        kernel="auto",
        metric="auto",
        n_iter="auto",
        bandwidth="auto",
        alpha="auto",
        power=1.0,
        center=False,
        normalize="trace",
        fit_intercept=True,
        n_components=None,
        device="cpu",
        random_state=None,
        verbose=0,
    ):
        self.kernel = kernel
        self.metric = metric
        self.n_iter = n_iter
        self.bandwidth = bandwidth
        self.alpha = alpha
        self.power = power
        self.center = center
        self.normalize = normalize
        self.fit_intercept = fit_intercept
        self.n_components = n_components
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------------------- fit

    @with_callbacks
    def fit(self, X, y, sample_weight=None):
        """Fit the machine and, as far as they are left open, its settings.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense and finite. float64 and float32 are computed as they are, all other
            types in float64.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets; a classifier takes labels of any type, of shape (n_samples,).
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k is the same as k copies of a row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data; the message says what and what to do.
        MemoryError
            If the kernel matrix, n_samples² numbers, does not fit.
        numpy.linalg.LinAlgError
            If the kernel matrix is singular and alpha too small.
        """
        names = ("n_features_in_", "feature_names_in_")
        before = {name: vars(self)[name] for name in names if name in vars(self)}
        try:
            fitted = self._fit(X, y, sample_weight)
        except BaseException as error:
            for name in names:
                vars(self).pop(name, None)
            vars(self).update(before)
            if type(error) is not MemoryError:
                exhausted = memory_error(error, _n_rows(X))
                if exhausted is not None:
                    raise exhausted from error
            raise
        vars(self).update(fitted)
        return self

    @plain_arithmetic
    def _fit(self, X, y, sample_weight) -> dict[str, Any]:
        settings = settings_of(self, calibrated=self._calibrated)
        device = resolve_device(self.device, owner=type(self).__name__)
        X, targets, weight, extra = self._validate(X, y, sample_weight)
        self._check_n_components(*X.shape)
        table = targets.reshape(len(targets), -1)
        problem = Problem(*(to_tensor(array, device) for array in (X, table, weight)))
        rounds = ROUNDS if settings.n_iter is None else settings.n_iter
        steps = (1 + settings.cross_fitted) * (rounds + 1)
        context = self._init_callback_context(max_subtasks=steps)
        told = {"estimator": self, "X": X, "y": y}
        context.call_on_fit_task_begin(**told)
        with Progress(type(self).__name__, steps, self.verbose) as progress:

            def report(name: str, message: str, **state) -> bool:
                progress.step(message)
                task = context.subcontext(task_name=name)
                task.call_on_fit_task_begin(**told)
                return bool(task.call_on_fit_task_end(**told, **state))

            def on_round(current: Round) -> bool:
                state = self._machine_attributes(current.machine, targets.ndim)
                return report(
                    "round",
                    f"round {current.index}: alpha {current.alpha:g}, "
                    f"{current.seconds:.2f} s",
                    reconstruction_attributes={**state, **extra, "X_fit_": X},
                )

            result = fit(
                problem,
                settings,
                self._loss,
                self._generator(),
                report,
                on_round=on_round,
            )
        context.call_on_fit_task_end(**told)
        return {**self._fitted_attributes(result, targets.ndim), **extra, "X_fit_": X}

    def _generator(self) -> np.random.RandomState:
        generator = check_random_state(self.random_state)
        # None stands for numpy's global generator, which is read but not advanced.
        return deepcopy(generator) if self.random_state is None else generator

    def _fitted_attributes(self, result: Fit, ndim: int) -> dict[str, Any]:
        spectrum = result.spectrum
        dtype = result.machine.centers.dtype
        rank = int((spectrum.eigenvalues > 0).sum())
        used = spectrum.truncated(rank)
        factor = used.directions.T * used.eigenvalues.sqrt()
        n_components = self.n_components or spectrum.n_separated()
        leading = spectrum.truncated(n_components)
        diagonal = factor.square().sum(1)
        total = max(spectrum.trace, np.finfo(float).tiny)
        return {
            **self._machine_attributes(result.machine, ndim),
            "alpha_": float(result.alpha),
            "best_iter_": result.n_rounds,
            "n_iter_": len(result.history["round"]) - 1,
            "jitter_": float(result.jitter),
            "history_": result.history,
            "eigenvalues_": to_numpy(leading.eigenvalues),
            "explained_ratio_": to_numpy(leading.shares),
            "components_": to_numpy(leading.directions.to(dtype)),
            "feature_importances_": to_numpy(diagonal / total),
            "agop_factor_": to_numpy(factor),
        }

    def _machine_attributes(self, machine: KernelMachine, ndim: int) -> dict[str, Any]:
        coef, intercept = to_numpy(machine.coef), to_numpy(machine.intercept)
        return {
            "kernel_": _kernel_name(machine.kernel),
            "bandwidth_": float(machine.bandwidth),
            "metric_factor_": to_numpy(_metric_array(machine.metric)),
            "dual_coef_": coef[:, 0] if ndim == 1 else coef,
            "intercept_": float(intercept[0]) if ndim == 1 else intercept,
            "offset_": to_numpy(machine.offset),
        }

    # ---------------------------------------------------------- parameters and data

    def _check_n_components(self, n_samples: int, n_features: int) -> None:
        most = min(n_samples, n_features)
        if self.n_components is not None and self.n_components > most:
            raise InvalidParameterError(
                f"n_components={self.n_components} is larger than the dimensionality "
                f"of the data, n_samples={n_samples} and n_features={n_features}. Use "
                f"at most {most}."
            )

    @np.errstate(over="ignore")  # what overflows is refused as infinite
    def _validate(self, X, y, sample_weight):
        """X, targets and weights as arrays of one dtype, rows of weight 0 left out."""
        X = as_host_array(X)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        refuse_strings(X)
        X, y = validate_data(
            self, X, as_host_array(y, "y"), dtype=_DTYPES, **self._y_checks
        )
        weight = check_sample_weight(sample_weight, len(X), X.dtype)
        rows = weight > 0
        y = y[rows]
        weight, targets, extra = self._encode(y, weight[rows])
        # In the dtype of X they may be infinite.
        targets = check_array(targets, dtype=X.dtype, ensure_2d=False, input_name="y")
        weight = weight.astype(X.dtype, copy=False)
        return np.ascontiguousarray(X[rows]), targets, weight, extra

    # ------------------------------------------------------------------ predictions

    def _check_X(self, X) -> torch.Tensor:
        check_is_fitted(self, "dual_coef_")
        X = as_host_array(X)
        refuse_strings(X)
        with np.errstate(over="ignore"):  # what overflows is refused as infinite
            X = validate_data(self, X, dtype=self.X_fit_.dtype, reset=False)
        device = resolve_device(self.device, owner=type(self).__name__)
        return to_tensor(X, device)

    def _machine(self) -> KernelMachine:
        device = resolve_device(self.device, owner=type(self).__name__)
        X, offset, coef, factor = (
            to_tensor(array, device)
            for array in (
                self.X_fit_,
                self.offset_,
                self.dual_coef_.reshape(len(self.X_fit_), -1),
                self.metric_factor_,
            )
        )
        known = isinstance(self.kernel_, str)
        return KernelMachine(
            KERNELS[self.kernel_]() if known else self.kernel_,
            DiagonalMetric(factor) if factor.ndim == 1 else FullMetric(factor),
            self.bandwidth_,
            X - offset,
            offset,
            coef,
            to_tensor(np.atleast_1d(self.intercept_).astype(self.X_fit_.dtype), device),
        )

    @plain_arithmetic
    def _scores(self, X) -> np.ndarray:
        """Outputs of the machine, shape (n_samples, n_outputs)."""
        X = self._check_X(X)
        return to_numpy(self._machine().predict(X))

    @plain_arithmetic
    def jacobian(self, X):
        """Derivatives of every output with respect to every feature.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_outputs, n_features)
            In units of output per input. At a training point the term of the point
            itself is left out where the kernel has a kink.
        """
        points = self._check_X(X)
        return follow_input(to_numpy(self._machine().jacobian(points)), X)

    @plain_arithmetic
    def output_agop(self, X=None, sample_weight=None):
        """The AGOP of each output, or class, on its own.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), default=None
            Points over which to average; the training points by default.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        ndarray of shape (n_outputs, n_features, n_features)
            At the training points they add up to ``agop_``, if the fit had no
            weights or the same ones are given here.
        """
        check_is_fitted(self, "dual_coef_")
        points = self._check_X(self.X_fit_ if X is None else X)
        weight = check_sample_weight(sample_weight, len(points), self.X_fit_.dtype)
        weight = to_tensor(weight, points.device)
        machine = self._machine()
        products = [
            DenseOuterProduct(points.shape[1], center=bool(self.center))
            for _ in range(machine.coef.shape[1])
        ]
        for block, jacobian in machine.jacobians(points):
            for output, product in enumerate(products):
                product.update(jacobian[:, output : output + 1], weight[block])
        return np.stack([to_numpy(product.value()) for product in products])

    def transform(self, X):
        """Project on the learned directions: X @ components_.T.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        points = self._check_X(X).cpu().numpy()
        return follow_input(points @ self.components_.T, X)

    # ------------------------------------------------------------ fitted, on demand

    @property
    def agop_(self) -> np.ndarray:
        """The AGOP at the training points, ndarray of shape (d, d), in float64."""
        check_is_fitted(self, "dual_coef_")
        return self.agop_factor_ @ self.agop_factor_.T

    @property
    def metric_(self) -> np.ndarray:
        """The metric M of the final round, ndarray of shape (d, d)."""
        check_is_fitted(self, "dual_coef_")
        factor = self.metric_factor_
        return np.diag(factor**2) if factor.ndim == 1 else factor @ factor.T

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    # ------------------------------------------------------------------ persistence

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to one file, without pickle.

        Parameters
        ----------
        path : path-like
            An existing file is overwritten.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        ValueError
            If a parameter, such as a kernel of your own, has no meaning in a file.
        """
        check_is_fitted(self, "dual_coef_")
        fitted = {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("_")
        }
        parameters = self.get_params(deep=False)
        persistence.write(path, type(self).__name__, parameters, fitted)

    @classmethod
    def load(cls, path: str | PathLike[str]):
        """Read an estimator that :meth:`save` wrote; its predictions are the same bits.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            If the file is foreign, damaged, newer, or holds another class.
        """
        parameters, fitted = persistence.read(path, cls.__name__)
        try:
            estimator = cls(**parameters)
        except TypeError as error:
            raise ValueError(
                f"{path} is damaged or was written by another version of agop: {error}."
            ) from error
        estimator.__dict__.update(fitted)
        return estimator

    def __getstate__(self):
        """State for pickle, with the version that wrote it."""
        return {**super().__getstate__(), "_agop_version": __version__}

    def __setstate__(self, state):
        """Restore a pickle; warn if another version wrote it."""
        state = dict(state)
        written = state.pop("_agop_version", "unknown")
        if written != __version__:
            warnings.warn(
                f"This {type(self).__name__} was pickled by agop {written} and is read "
                f"by agop {__version__}: it may behave differently. Use save and load "
                "to keep estimators across versions.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(state)

    def __sklearn_tags__(self):
        """What scikit-learn may expect of this estimator."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _n_rows(X: Any) -> int:
    """Number of rows of what the user passed, as far as it says."""
    shape = getattr(X, "shape", None)
    if shape:
        return int(shape[0])
    return len(X) if isinstance(X, (list, tuple)) else 0


def _kernel_name(kernel: Kernel) -> str | Kernel:
    """The name of a kernel that a name can make; else the kernel."""
    for name, known in KERNELS.items():
        if type(kernel) is known and kernel == known():
            return name
    return kernel


def _metric_array(metric: Metric) -> torch.Tensor:
    """The factor A: (d,) if it is diagonal, (d, r) if not."""
    if isinstance(metric, FullMetric):
        return metric.factor
    return metric.diagonal().sqrt()
