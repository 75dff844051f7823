"""Which entries of an activation are positions, and which are features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any

import torch
from torch import nn

from agop.core.arrays import InvalidParameterError
from agop.networks.layers import Site

#: Layers whose activations have their channels second, positions behind them.
_CHANNELS_SECOND = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)

#: Layers that work on the last dimension, whatever comes before it.
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)


class Positions(ABC):
    """How an activation is cut into vectors of features, one for each position."""

    @abstractmethod
    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of features.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, *shape)
            Or a gradient with respect to one.

        Returns
        -------
        Tensor of shape (n_samples, n_positions, n_features)
        """


class Flatten(Positions):
    """One position: all entries are features."""

    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of features, one for each sample.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, *shape)

        Returns
        -------
        Tensor of shape (n_samples, 1, n_features)
        """
        return activation.reshape(len(activation), 1, -1)


class Tokens(Positions):
    """Positions first, as in a text or a series: (n_tokens, *features)."""

    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of features, one for each token.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, n_tokens, *features)

        Returns
        -------
        Tensor of shape (n_samples, n_tokens, n_features)
        """
        if activation.ndim == 2:
            return activation[:, None]
        return activation.flatten(2)


class Pixels(Positions):
    """Channels first, as in an image: (n_channels, *positions)."""

    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of channels, one for each pixel.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, n_channels, *positions)

        Returns
        -------
        Tensor of shape (n_samples, n_pixels, n_channels)
        """
        if activation.ndim == 2:
            return activation[:, None]
        return activation.flatten(2).transpose(1, 2)


class FeaturesLast(Positions):
    """Positions first, however many dimensions they have: (*positions, n_features)."""

    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of features, one for each position.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, *positions, n_features)

        Returns
        -------
        Tensor of shape (n_samples, n_positions, n_features)
        """
        return activation.reshape(len(activation), -1, activation.shape[-1])


class Kept(Positions):
    """One position only.

    Parameters
    ----------
    index : int or tuple of int
        A token, counted from the end if negative; or the row and column of a pixel.
    """

    def __init__(self, index: int | tuple[int, ...]) -> None:
        self.index = index

    def cut(self, activation: torch.Tensor) -> torch.Tensor:
        """Vectors of features at the position.

        Parameters
        ----------
        activation : Tensor of shape (n_samples, *shape)

        Returns
        -------
        Tensor of shape (n_samples, 1, n_features)
        """
        place: Any = (slice(None), self.index)
        if isinstance(self.index, tuple):
            place = (..., *self.index)
        try:
            return activation[place].flatten(1)[:, None]
        except IndexError:
            raise ValueError(
                f"positions={self.index!r} does not fit an activation of shape "
                f"{tuple(activation.shape[1:])}: an int keeps one entry of its first "
                "dimension (a token), a tuple one entry of each of its last ones (a "
                "pixel)."
            ) from None


_NAMED: dict[str, Positions] = {
    "flatten": Flatten(),
    "tokens": Tokens(),
    "pixels": Pixels(),
}


def check_positions(positions: Any, *, owner: str) -> None:
    """Raise unless `positions` is one that :func:`positions_at` knows.

    Parameters
    ----------
    positions : object
    owner : str
        Whose parameter it is, for the message.
    """
    index = positions if isinstance(positions, tuple) else (positions,)
    counts = [isinstance(i, Integral) and not isinstance(i, bool) for i in index]
    if positions in ("auto", *_NAMED) or (counts and all(counts)):
        return
    raise InvalidParameterError(
        f"The 'positions' parameter of {owner} must be one of {{'auto', "
        f"{', '.join(map(repr, _NAMED))}}}, an int (a token) or a tuple of int (a "
        f"pixel). Got {positions!r} instead."
    )


def positions_at(
    site: Site, module: nn.Module | None, shape: torch.Size, positions: Any
) -> Positions:
    """How the activation at a site is cut.

    Parameters
    ----------
    site : Site
    module : Module or None
        The layer; None for the input of the network.
    shape : Size
        Of the activation of one sample.
    positions : "auto", "flatten", "tokens", "pixels", int or tuple of int
        By default the input of the network is flattened, and layers give one vector
        for each token or pixel: activations of two dimensions are read as tokens
        unless a convolution or the like has made them, of three and more as pixels
        unless they come from a layer that works on the last dimension, or from a hook
        point of a transformer.

    Returns
    -------
    Positions
    """
    if site.part == "patch" and not isinstance(positions, (Integral, tuple)):
        return Pixels()
    if isinstance(positions, (Integral, tuple)):
        return Kept(positions)  # type: ignore[arg-type]  # numpy counts as int
    if positions != "auto":
        return _NAMED[positions]
    if site.is_network_input or len(shape) < 2:
        return Flatten()
    if isinstance(module, _FEATURES_LAST):
        return FeaturesLast()
    if isinstance(module, _CHANNELS_SECOND):
        return Pixels()
    hook_point = type(module).__name__ == "HookPoint"  # (token, head, feature)
    return Tokens() if len(shape) == 2 or hook_point else Pixels()
