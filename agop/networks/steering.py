"""Adding a direction to a layer, or taking it out, while the network runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from agop.core.arrays import check_number
from agop.networks.data import as_batches
from agop.networks.guards import untouched
from agop.networks.interventions import (
    Intervention,
    Place,
    as_directions,
    find_site,
)
from agop.networks.layers import Site, visiting
from agop.networks.placing import placed
from agop.networks.sources import as_module

#: Samples at a time when a mean activation is taken.
_BATCH = 256


@contextmanager
def steer(
    network: Any,
    layer: Any,
    direction: Any,
    strength: float = 1.0,
    *,
    positions: Any = None,
) -> Iterator[nn.Module]:
    """Add a direction to the activations of a layer while the network runs.

    Inside the ``with`` statement every activation a of the layer becomes

        a + strength · direction,

    also while gradients are recorded, in training, and when the layer returns a tuple
    (its first tensor is changed). Hooks do this; they are gone at the end, also after
    an exception. For several layers, nest the statements.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        What :class:`~agop.NetworkAGOP` takes. Call what ``with … as`` gives: it is
        the network itself if that is a torch module.
    layer : str or Module
        Dotted name ("layer1.0.conv1") or module, for what it returns; with ":input"
        after the name, for what it is given; "input" is the input of the network.
    direction : array-like or tensor
        Of shape (n_features,): added to the features of every token (the last
        dimension), to the channels of every pixel (the second one, in the feature maps
        of convolutions), or, if it has as many entries, to all of an activation; or of
        the shape of an activation of one sample. For example a row of ``components_``
        of a NetworkAGOP, or an atom of a dictionary. It is not normalised. The
        gradient reaches a tensor that requires it.
    strength : float, default=1.0
        Negative against the direction.
    positions : int, slice, sequence of int or tuple of these, default=None
        Tokens, counted from the end if negative, in each call (-1: the last one); a
        tuple for the rows and columns of pixels. All by default.

    Yields
    ------
    Module

    Raises
    ------
    ValueError
        For an unknown layer (near names are shown), numbers that are not finite, and,
        when the network runs, a direction or positions that do not fit.

    Warns
    -----
    RuntimeWarning
        If the layer was never called, so that nothing was changed.

    See Also
    --------
    agop.ablate : Take directions out.
    agop.effect_curve : What comes of it, by strength.

    References
    ----------
    Turner et al., "Steering Language Models With Activation Engineering",
    :arxiv:`2308.10248`. Beaglehole, Radhakrishnan, Boix-Adserà and Belkin, "Toward
    universal steering and monitoring of AI models", :arxiv:`2502.03708`.

    Examples
    --------
    >>> import torch
    >>> from agop import steer
    >>> network = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> with steer(network, "0", [1.0, 0.0], strength=-3.0):
    ...     network(x)
    tensor([[0., 2.]])
    >>> network(x)
    tensor([[1., 2.]])
    """
    check_number("strength", strength, owner="steer")
    step = strength * as_directions(direction, "direction")
    module = as_module(network)
    place = Place(module, find_site(module, layer), step.shape, positions)
    with _intervening(module, place, partial(_moved, step=step.flatten())):
        yield module


@contextmanager
def ablate(
    network: Any,
    layer: Any,
    directions: Any,
    *,
    positions: Any = None,
    reference: Any = None,
) -> Iterator[nn.Module]:
    """Take directions out of the activations of a layer while the network runs.

    With Q an orthonormal basis of the directions, every activation a becomes

        a − Q Qᵀ (a − μ),

    μ = 0 by default: what the network computes without them. With reference data, μ is
    the mean activation there, which disturbs the layers behind less than 0 does where
    activations are far from centred.

    Parameters
    ----------
    network : Module, skorch net, MLPClassifier, MLPRegressor, Pipeline or callable
        As for :func:`agop.steer`.
    layer : str or Module
        As for :func:`agop.steer`.
    directions : array-like or tensor of shape (n_directions, n_features)
        Or a single one, (n_features,). They need not be orthogonal nor of unit norm;
        features as for :func:`agop.steer`.
    positions : int, slice, sequence of int or tuple of these, default=None
        As for :func:`agop.steer`.
    reference : array-like, tensor, dict, Dataset, DataLoader or iterable of batches, \
default=None
        Data over which the mean is taken, in eval mode, over samples and the chosen
        positions alike.

    Yields
    ------
    Module

    Raises
    ------
    ValueError
        As for :func:`agop.steer`, and for directions that are zero.

    Warns
    -----
    RuntimeWarning
        If the layer was never called, so that nothing was changed.

    See Also
    --------
    agop.steer : Add a direction.

    Examples
    --------
    >>> import torch
    >>> from agop import ablate
    >>> network = torch.nn.Sequential(torch.nn.Identity())
    >>> x = torch.tensor([[2.0, 4.0]])
    >>> with ablate(network, "0", [0.0, 3.0]):
    ...     network(x)
    tensor([[2., 0.]])
    """
    basis = _basis(as_directions(directions, "directions"))
    module = as_module(network)
    site = find_site(module, layer)
    mean = torch.zeros(len(basis), dtype=basis.dtype)
    if reference is not None:
        mean = _mean_coordinates(module, site, basis, positions, reference)
    place = Place(module, site, basis.shape[1:], positions)
    with _intervening(module, place, partial(_without, basis=basis, mean=mean)):
        yield module


# --------------------------------------------------------------------------- changes


def _moved(vectors: torch.Tensor, *, step: torch.Tensor) -> torch.Tensor:
    return vectors + step.to(vectors)


def _without(
    vectors: torch.Tensor, *, basis: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    basis = basis.to(vectors)  # (r, d)
    return vectors - (vectors @ basis.T - mean.to(vectors)) @ basis


def _basis(directions: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows that span the directions, in double precision."""
    if directions.ndim > 2:
        raise ValueError(
            "directions must be of shape (n_features,) or (n_directions, n_features); "
            f"got {tuple(directions.shape)}. Flatten those of a whole activation."
        )
    rows = torch.atleast_2d(directions.detach().cpu())
    precision = torch.finfo(rows.dtype).eps * max(rows.shape)
    rows = rows.double()
    norms = rows.norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise ValueError("One of the directions is zero: it points nowhere.")
    _, singular, basis = torch.linalg.svd(rows / norms, full_matrices=False)
    return basis[singular > precision * singular[0]]


def _mean_coordinates(
    module: nn.Module, site: Site, basis: torch.Tensor, positions: Any, reference: Any
) -> torch.Tensor:
    """Mean over data of the coordinates of activations along the rows of a basis."""
    network, bring = placed(module, None, None)
    place = Place(network, site, basis.shape[1:], positions)
    total = torch.zeros_like(basis[0])
    count = 0

    def look(activation: torch.Tensor) -> torch.Tensor:
        nonlocal count
        vectors = place.read(activation)
        total.add_(vectors.sum((0, 1), dtype=torch.float64).cpu())
        count += vectors.shape[0] * vectors.shape[1]
        return activation

    with untouched(network), torch.no_grad(), visiting(network, {site: look}):
        for batch in map(bring, as_batches(reference, batch_size=_BATCH)):
            network(*batch.args, **batch.kwargs)
    if count == 0:
        raise ValueError(
            f"Nothing passed {place.name} when the network ran on the reference data."
        )
    return basis @ (total / count)


@contextmanager
def _intervening(network: nn.Module, place: Place, change: Any) -> Iterator[None]:
    intervention = Intervention(place, change)
    with visiting(network, {place.site: intervention}):
        yield
    if intervention.n_calls == 0:
        warnings.warn(
            f"Nothing passed {place.name} inside this `with` statement, so nothing was "
            "changed. Call the network that `with … as network` gives: compiled and "
            "scripted networks run without hooks, and those of scikit-learn are "
            "copied. Some layers are never called, such as the out_proj of "
            "nn.MultiheadAttention.",
            RuntimeWarning,
            stacklevel=5,
        )
