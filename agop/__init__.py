"""What a trained model has learned, and learning the same way.

One formula does both: the average gradient outer product G = 1/n Σ J(x)ᵀJ(x) of a
predictor on data.
"""

from agop import datasets, inspection
from agop.concepts import (
    ConceptDirection,
    LogisticDirection,
    MeanDifferenceDirection,
    PCADirection,
    concept_auroc,
)
from agop.core.outer_product import average_gradient_outer_product
from agop.core.spectrum import Spectrum, subspace_overlap
from agop.core.version import __version__
from agop.inspection import (
    AnsatzDisplay,
    DirectionDisplay,
    ExamplesDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    LayersDisplay,
    OverlayDisplay,
    SpectrumDisplay,
    SteeringDisplay,
    VisualizationDisplay,
)
from agop.networks.activations import activations
from agop.networks.ansatz import AnsatzRecorder, neural_feature_ansatz
from agop.networks.effects import effect_curve
from agop.networks.estimator import NetworkAGOP
from agop.networks.projections import neural_feature_matrix
from agop.networks.steering import ablate, steer
from agop.networks.visualization import visualize_direction
from agop.rfm.estimators import RFMClassifier, RFMRegressor

__all__ = [  # noqa: RUF022 (grouped)
    # Trained networks
    "NetworkAGOP",
    "activations",
    "visualize_direction",
    # Weights beside gradients
    "AnsatzRecorder",
    "neural_feature_ansatz",
    "neural_feature_matrix",
    # Steering
    "ablate",
    "effect_curve",
    "steer",
    # Concepts
    "ConceptDirection",
    "LogisticDirection",
    "MeanDifferenceDirection",
    "PCADirection",
    "concept_auroc",
    # Recursive Feature Machines
    "RFMClassifier",
    "RFMRegressor",
    # The average gradient outer product
    "Spectrum",
    "__version__",
    "average_gradient_outer_product",
    "subspace_overlap",
    # Pictures
    "AnsatzDisplay",
    "DirectionDisplay",
    "ExamplesDisplay",
    "FeatureImportancesDisplay",
    "HistoryDisplay",
    "LayersDisplay",
    "OverlayDisplay",
    "SpectrumDisplay",
    "SteeringDisplay",
    "VisualizationDisplay",
    "inspection",
    # Data with a known answer
    "datasets",
]
