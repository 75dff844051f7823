"""Concept directions: where in the activations of a layer a concept is written.

Each estimator is fitted to activations with two labels: the concept is there, or not.
It gives a direction of unit norm, to be added to the layer when the network is steered,
and it is a probe: a classifier that says from an activation whether the concept is
there.
"""

from agop.concepts.baselines import (
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
)
from agop.concepts.comparison import concept_auroc
from agop.concepts.direction import ConceptDirection

__all__ = [
    "ConceptDirection",
    "LogisticDirection",
    "MeanDifferenceDirection",
    "PCADirection",
    "concept_auroc",
]
