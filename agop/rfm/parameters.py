"""From the parameters of an estimator to what a fit may choose from."""

from __future__ import annotations

from typing import Any, Protocol

from agop.core.arrays import InvalidParameterError, check_number, check_option
from agop.kernels import KERNELS, DiagonalMetric, FullMetric, Kernel
from agop.kernels.metric import NORMALIZATIONS
from agop.rfm.bandwidth import Median
from agop.rfm.fitting import DEFAULTS, FACTORS, METRICS, PENALTIES, Settings
from agop.rfm.recursion import Recipe


class Parameters(Protocol):
    """What the constructor of an estimator stored, unchecked."""

    kernel: Any
    metric: Any
    n_iter: Any
    bandwidth: Any
    alpha: Any
    power: Any
    center: Any
    normalize: Any
    fit_intercept: Any
    n_components: Any
    verbose: Any


def settings_of(parameters: Parameters, *, calibrated: bool) -> Settings:
    """Check all parameters, and say what they leave open.

    Parameters
    ----------
    parameters : estimator
    calibrated : bool
        Whether scores become probabilities.

    Returns
    -------
    Settings

    Raises
    ------
    InvalidParameterError
        If a parameter has a wrong type or is out of range.
    """
    owner = type(parameters).__name__
    _check_simple(parameters, owner)
    recipes = tuple(
        Recipe(
            kernel,
            metric,
            bandwidth,
            power=float(parameters.power),
            center=bool(parameters.center),
            normalize=parameters.normalize,
            fit_intercept=bool(parameters.fit_intercept),
        )
        for kernel, bandwidth in _bases(parameters, owner)
        for metric in _metrics(parameters.metric, kernel, owner)
    )
    if not recipes:
        raise InvalidParameterError(
            f"The 'kernel' parameter of {owner} is {parameters.kernel!r}, which "
            "depends on the axes: a full metric has no meaning for it. Use "
            "metric='diagonal'."
        )
    alpha, n_iter = parameters.alpha, parameters.n_iter
    return Settings(
        recipes,
        PENALTIES if _is(alpha, "auto") else (float(alpha),),
        None if _is(n_iter, "auto") else int(n_iter),
        calibrated,
    )


def _check_simple(parameters: Parameters, owner: str) -> None:
    """Check what does not depend on other parameters."""
    for name in ("center", "fit_intercept"):
        check_option(name, getattr(parameters, name), (True, False), owner=owner)
    check_option("normalize", parameters.normalize, NORMALIZATIONS, owner=owner)
    check_number("power", parameters.power, owner=owner, low=0, open_low=True)
    check_number("verbose", parameters.verbose, owner=owner, integer=True, low=0)
    if parameters.n_components is not None:
        check_number(
            "n_components", parameters.n_components, owner=owner, integer=True, low=1
        )
    _check_number_or("n_iter", parameters.n_iter, owner, ["auto"], integer=True, low=0)
    _check_number_or("alpha", parameters.alpha, owner, ["auto"], low=0)
    _check_number_or(
        "bandwidth",
        parameters.bandwidth,
        owner,
        ["auto", "median"],
        low=0,
        open_low=True,
    )


def _bases(parameters: Parameters, owner: str) -> list[tuple[Kernel, float | Median]]:
    """Kernels and bandwidths to be tried."""
    bandwidths = _bandwidths(parameters)
    if isinstance(parameters.kernel, Kernel):
        kernels = [parameters.kernel]
    else:
        check_option("kernel", parameters.kernel, ("auto", *KERNELS), owner=owner)
        if parameters.kernel != "auto":
            kernels = [KERNELS[parameters.kernel]()]
        elif _is(parameters.bandwidth, "auto"):
            return list(DEFAULTS)
        else:
            kernels = list(dict.fromkeys(kernel for kernel, _ in DEFAULTS))
    return [(kernel, bandwidth) for kernel in kernels for bandwidth in bandwidths]


def _bandwidths(parameters: Parameters) -> list[float | Median]:
    if _is(parameters.bandwidth, "auto"):
        return [Median(factor) for factor in FACTORS]
    if _is(parameters.bandwidth, "median"):
        return [Median()]
    return [float(parameters.bandwidth)]


def _metrics(
    metric: object, kernel: Kernel, owner: str
) -> list[type[FullMetric] | type[DiagonalMetric]]:
    check_option("metric", metric, ("auto", *METRICS), owner=owner)
    return [
        known
        for name, known in METRICS.items()
        if metric in ("auto", name)
        and (kernel.rotation_invariant or known is DiagonalMetric)
    ]


def _is(value: object, word: str) -> bool:
    return isinstance(value, str) and value == word


def _check_number_or(
    name: str, value: object, owner: str, words: list[str], **limits: Any
) -> None:
    """Raise unless `value` is one of the words, or a number within limits."""
    if isinstance(value, str) and value in words:
        return
    try:
        check_number(name, value, owner=owner, **limits)
    except InvalidParameterError as error:
        allowed = " or ".join(repr(word) for word in words)
        raise InvalidParameterError(f"{error} It may also be {allowed}.") from None
