"""The object of the library: the average gradient outer product and its spectrum.

Nothing here knows where gradients come from.
"""

from agop.core.arrays import InvalidParameterError, NumericalWarning
from agop.core.outer_product import (
    DenseOuterProduct,
    DiagonalOuterProduct,
    GradientOuterProduct,
    RowsOuterProduct,
    average_gradient_outer_product,
)
from agop.core.spectrum import Spectrum, subspace_overlap

__all__ = [
    "DenseOuterProduct",
    "DiagonalOuterProduct",
    "GradientOuterProduct",
    "InvalidParameterError",
    "NumericalWarning",
    "RowsOuterProduct",
    "Spectrum",
    "average_gradient_outer_product",
    "subspace_overlap",
]
