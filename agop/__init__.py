"""What a trained model has learned, and learning the same way.

One formula does both: the average gradient outer product G = 1/n Σ J(x)ᵀJ(x) of a
predictor on data.
"""

from agop import datasets
from agop.core.outer_product import average_gradient_outer_product
from agop.core.spectrum import Spectrum, subspace_overlap
from agop.core.version import __version__
from agop.inspection import (
    DirectionDisplay,
    FeatureImportancesDisplay,
    HistoryDisplay,
    SpectrumDisplay,
)
from agop.rfm.estimators import RFMClassifier, RFMRegressor

__all__ = [  # noqa: RUF022 (grouped)
    # Recursive Feature Machines
    "RFMClassifier",
    "RFMRegressor",
    # The average gradient outer product
    "Spectrum",
    "__version__",
    "average_gradient_outer_product",
    "subspace_overlap",
    # Pictures
    "DirectionDisplay",
    "FeatureImportancesDisplay",
    "HistoryDisplay",
    "SpectrumDisplay",
    # Data with a known answer
    "datasets",
]
