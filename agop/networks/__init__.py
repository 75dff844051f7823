"""Trained networks: what their output depends on, at the input and inside.

Here are the estimator and what functions return; the functions themselves are public
names of the library.
"""

from agop.networks.alignment import LayerAnsatz
from agop.networks.ansatz import AnsatzResult
from agop.networks.effects import EffectCurve
from agop.networks.estimator import NetworkAGOP
from agop.networks.visualization import Visualization

__all__ = [
    "AnsatzResult",
    "EffectCurve",
    "LayerAnsatz",
    "NetworkAGOP",
    "Visualization",
]
