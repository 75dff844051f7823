"""What may be called a network, and the torch module that stands for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from agop.networks.affine import affine_module, linear_layer

_ACCEPTED = (
    "a torch.nn.Module, a fitted skorch net, a fitted MLPClassifier or MLPRegressor "
    "of scikit-learn, a fitted Pipeline (or a search over one) that ends in one of "
    "these, or a differentiable function of tensors"
)

#: Where estimators keep their network, and how they are known before they are fitted.
_HOLDERS = {
    "best_estimator_": ("estimator", "refit"),  # searches
    "module_": ("module", "initialize"),  # skorch
}

#: What only models made of trees have: leaves, or boosters.
_SIGNS_OF_TREES = (
    "apply",
    "booster_",
    "get_booster",
    "get_leaf_values",
    "max_leaf_nodes",
)

# -------------------------------------------------------------------------- modules


class Exp(nn.Module):
    """The exponential, which ends a Poisson regression."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return exp(x)."""
        return x.exp()


class Steps(nn.Sequential):
    """Modules one after the other, each given its input in its own dtype.

    Parameters
    ----------
    steps : iterable of (str, Module)
        Names that cannot be attributes are changed a little: dots become underscores,
        and an underscore is added to names such as "forward".
    """

    def __init__(self, steps: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        for name, module in steps:
            _add(self, name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the steps."""
        for module in self:
            x = module(x.to(_dtype(module, x.dtype)))
        return x


class Function(nn.Module):
    """A function of tensors, with the modules it uses as its children.

    Modules that the function finds by name, in its closure or among the globals, are
    registered under that name: they are put in eval mode, their layers can be named.

    Parameters
    ----------
    function : callable
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        for name, module in _modules_of(function).items():
            _add(self, name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Function:
        if next(self.children(), None) is None:
            return Function(self.function)
        raise TypeError(
            "A function cannot be copied together with the modules it uses: the copy "
            "would go on using the same ones. Pass a torch.nn.Module."
        )


def _add(parent: nn.Module, name: str, module: nn.Module) -> None:
    name = name.replace(".", "_")
    while hasattr(parent, name):
        name += "_"
    parent.add_module(name, module)


def _modules_of(function: Callable[..., Any]) -> dict[str, nn.Module]:
    try:
        found = inspect.getclosurevars(function)
        names = {**found.globals, **found.nonlocals}
    except (TypeError, ValueError):  # not written in Python; not yet bound
        names = {}
    names["owner"] = getattr(function, "__self__", None)  # of a method
    return {name: each for name, each in names.items() if isinstance(each, nn.Module)}


def _dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    """The dtype of the first floating parameter or buffer."""
    tensors = chain(module.parameters(), module.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), default)


# -------------------------------------------------------------------------- sources


def as_module(source: Any) -> nn.Module:
    """The torch module that computes what a trained network computes.

    Parameters
    ----------
    source : Module, estimator or callable
        * A ``torch.nn.Module`` is returned as it is, taken out of ``DataParallel``,
          ``DistributedDataParallel`` or ``torch.compile``.
        * A fitted skorch net: its ``module_``.
        * A fitted ``MLPClassifier`` or ``MLPRegressor`` of scikit-learn: a copy in
          torch, with the layers "hidden0", "hidden0_activation", "hidden1", …,
          "output". A classifier returns the scores before softmax or, with one score
          for two classes, the logistic function. A regressor returns what it
          predicts.
        * A fitted ``Pipeline`` that ends in one of these. The steps before it must be
          affine (scaling, selection, PCA, random projection, columns put together):
          this is found by trying them on numbers, whatever their class. So gradients
          are with respect to the features that the user knows.
        * A search over one of these, a ``FrozenEstimator`` or a
          ``TransformedTargetRegressor`` around one.
        * A differentiable function of tensors.

    Returns
    -------
    Module
        The steps of a Pipeline are its children, under their names, so that
        "mlpclassifier.hidden0" is a layer. Parameters that stand for a step that is
        not a network are frozen (``requires_grad`` is False) and in float64.

    Raises
    ------
    TypeError
        If it is none of these; models made of trees have no gradient.
    ValueError
        If a step of a Pipeline is not affine.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from agop.networks.sources import as_module
    >>> X, y = load_iris(return_X_y=True)
    >>> network = MLPClassifier((8,), solver="lbfgs", alpha=0.1, random_state=0)
    >>> model = make_pipeline(StandardScaler(), network).fit(X, y)
    >>> as_module(model)
    Steps(
      (standardscaler): Scaling()
      (mlpclassifier): Steps(
        (hidden0): Linear(in_features=4, out_features=8, bias=True)
        (hidden0_activation): ReLU()
        (output): Linear(in_features=8, out_features=3, bias=True)
      )
    )
    """
    if isinstance(source, nn.Module):
        return _unwrapped(source)
    if isinstance(source, type):
        raise TypeError(
            f"The network is the class {source.__name__}: pass a trained instance."
        )
    if isinstance(source, (MLPClassifier, MLPRegressor)):
        return _perceptron(source)
    if isinstance(source, Pipeline):
        return _pipeline(source)
    if isinstance(source, TransformedTargetRegressor):
        return _transformed_target(source)
    if isinstance(source, FrozenEstimator):
        return as_module(source.estimator)
    for attribute, signs in _HOLDERS.items():
        if all(hasattr(source, sign) for sign in signs):
            return as_module(_fitted(source, attribute))
    if callable(source) and not hasattr(source, "fit"):
        return Function(source)
    raise TypeError(_refusal(source))


def _unwrapped(module: nn.Module) -> nn.Module:
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if isinstance(module, parallel):
        return _unwrapped(module.module)
    compiled = getattr(module, "_orig_mod", None)
    return _unwrapped(compiled) if isinstance(compiled, nn.Module) else module


def _fitted(source: Any, attribute: str) -> Any:
    if not hasattr(source, attribute):
        raise NotFittedError(
            f"This {type(source).__name__} has no {attribute}: it is not fitted yet, "
            "or was told not to keep it (refit=False). Call fit first."
        )
    return getattr(source, attribute)


def _refusal(source: Any) -> str:
    name = type(source).__name__
    if hasattr(source, "predict") and any(hasattr(source, s) for s in _SIGNS_OF_TREES):
        return (
            f"{name} is made of trees: it is piecewise constant, so its gradient is "
            "zero wherever there is one, and no AGOP can be taken. Look at a smooth "
            "model fitted to its predictions, for example an RFMRegressor."
        )
    return f"A network is {_ACCEPTED}; got {name}."


# ------------------------------------------------------ perceptrons of scikit-learn

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "exp": Exp,
}


def _perceptron(model: MLPClassifier | MLPRegressor) -> nn.Module:
    check_is_fitted(model)
    layers = [
        linear_layer(coef.T, intercept, trained=True)
        for coef, intercept in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    steps: list[tuple[str, nn.Module]] = []
    for i, layer in enumerate(layers[:-1]):
        steps.append((f"hidden{i}", layer))
        steps.append((f"hidden{i}_activation", _ACTIVATIONS[model.activation]()))
    steps.append(("output", layers[-1]))
    if isinstance(model, MLPRegressor) and model.out_activation_ != "identity":
        steps.append(("output_activation", _ACTIVATIONS[model.out_activation_]()))
    return Steps(steps)


# ------------------------------------------------------------- pipelines and targets


def _pipeline(pipeline: Pipeline) -> nn.Module:
    *before, (last, model) = pipeline.steps
    network = as_module(model)
    width: int | None = None
    steps: list[tuple[str, nn.Module]] = []
    for name, step in _transformers(before):
        if width is None:
            width = _n_features(step, name)
        module = affine_module(
            step.transform,
            width,
            f"The step {name!r} ({type(step).__name__})",
            getattr(step, "feature_names_in_", None),
        )
        width = len(module.bias)  # type: ignore[arg-type]  # one number per output
        steps.append((name, module))
    return _on_one_device(steps, (last, network))


def _transformers(steps: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The steps that do something, those of inner pipelines one by one."""
    for name, step in steps:
        if isinstance(step, Pipeline):
            yield from _transformers(step.steps)
        elif step is not None and step != "passthrough":
            yield name, step


def _transformed_target(model: TransformedTargetRegressor) -> nn.Module:
    network = as_module(_fitted(model, "regressor_"))
    transformer = model.transformer_
    target = affine_module(
        transformer.inverse_transform,
        _n_features(transformer, "transformer"),
        "The way back from the transformed target",
    )
    return _on_one_device([("target", target)], ("regressor", network), reverse=True)


def _on_one_device(
    steps: list[tuple[str, nn.Module]],
    network: tuple[str, nn.Module],
    *,
    reverse: bool = False,
) -> nn.Module:
    """The steps and the network in a row, the steps where the network is."""
    parameter = next(network[1].parameters(), None)
    if parameter is not None:
        for _, module in steps:
            module.to(parameter.device)
    return Steps([network, *steps] if reverse else [*steps, network])


def _n_features(step: Any, name: str) -> int:
    if not hasattr(step, "n_features_in_"):
        raise ValueError(
            f"The step {name!r} ({type(step).__name__}) is not fitted, or does not say "
            "how many features it takes (n_features_in_), so it cannot be tried on "
            "numbers. Set it in its fit, or transform the data first and pass the "
            "network alone."
        )
    return int(step.n_features_in_)
