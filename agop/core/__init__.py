"""The object of the library: the average gradient outer product and its spectrum.

Nothing here knows where gradients come from.
"""

from agop.core.arrays import InvalidParameterError, NumericalWarning
from agop.core.linear import LinearOuterProduct
from agop.core.outer_product import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    GradientOuterProduct,
    RowsOuterProduct,
    average_gradient_outer_product,
)
from agop.core.resampling import Bootstrap, BootstrapOuterProduct
from agop.core.sketch import LowRankOuterProduct, ProjectedOuterProduct
from agop.core.spectrum import Spectrum, subspace_overlap

__all__ = [
    "Bootstrap",
    "BootstrapOuterProduct",
    "DenseOuterProduct",
    "DiagonalOuterProduct",
    "GradientOuterProduct",
    "InvalidParameterError",
    "LinearOuterProduct",
    "LowRankOuterProduct",
    "NumericalWarning",
    "ProjectedOuterProduct",
    "RowsOuterProduct",
    "Spectrum",
    "average_gradient_outer_product",
    "subspace_overlap",
]
