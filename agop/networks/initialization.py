"""Networks with the architecture of another, and weights drawn anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn


def reinitialized(
    network: nn.Module, seed: int, initialize: Callable[[nn.Module], Any] | None
) -> nn.Module:
    """A copy of a network with weights drawn anew.

    Every module draws its own as when it was made, innermost first, and then
    `initialize` goes over them; what is frozen is left. All is drawn on the CPU, so
    that the same seed gives the same on any device.

    Parameters
    ----------
    network : Module
    seed : int
    initialize : callable or None
        Called for every module.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        If there are parameters for which no rule is known, or nothing was drawn.
    """
    devices = {parameter.device for parameter in network.parameters()}
    drawn = copy.deepcopy(network).cpu()
    left = frozen(drawn)
    if initialize is None:
        _check_resettable(drawn, left)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for rule in (_reset, initialize):
            if rule is not None:
                drawn.apply(partial(_unless, left, rule))
    if _same_weights(network, drawn):
        raise ValueError(
            "No weights were drawn anew, so there is no baseline: initialize is called "
            "for each module and must change its parameters in place."
        )
    return drawn.to(devices.pop()) if len(devices) == 1 else drawn


def frozen(network: nn.Module) -> set[nn.Module]:
    """Modules that were not trained although others were.

    Such are the backbone under a head, and the steps of a Pipeline before its network.

    Parameters
    ----------
    network : Module

    Returns
    -------
    set of Module
        Those with parameters of which none requires a gradient; empty if that holds
        for all parameters of the network.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return set()
    return {
        module
        for module in network.modules()
        if (own := list(module.parameters(recurse=False)))
        and not any(parameter.requires_grad for parameter in own)
    }


def _unless(
    left: set[nn.Module], rule: Callable[[nn.Module], Any], module: nn.Module
) -> None:
    if module not in left:
        rule(module)


def _reset(module: nn.Module) -> None:
    rule = _rule(module)
    if rule is not None:
        rule()


def _rule(module: nn.Module) -> Callable[[], Any] | None:
    """How a module draws its own parameters."""
    names = ("reset_parameters", "_reset_parameters")
    return next((getattr(module, n) for n in names if hasattr(module, n)), None)


def _check_resettable(network: nn.Module, left: set[nn.Module]) -> None:
    stuck = [
        f"{name or 'the network itself'} ({type(module).__name__})"
        for name, module in network.named_modules()
        if _rule(module) is None
        and module not in left
        and next(module.parameters(recurse=False), None) is not None
    ]
    if stuck:
        more = ", …" if len(stuck) > 3 else ""
        raise ValueError(
            "The baseline needs weights drawn anew, and there are modules with "
            f"parameters but without reset_parameters: {', '.join(stuck[:3])}{more}. "
            "Pass initialize=, a function that draws those of one module, or "
            "n_baselines=0."
        )


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)
