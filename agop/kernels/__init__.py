"""Similarity of two points under a metric."""

from agop.kernels.geometry import (
    CosineKernel,
    InnerProductKernel,
    Kernel,
    PowerDistanceKernel,
    RadialKernel,
)
from agop.kernels.metric import DiagonalMetric, FullMetric, IdentityMetric, Metric
from agop.kernels.operator import KernelMatrix, KernelOperator
from agop.kernels.profiles import (
    Gaussian,
    GeneralizedExponential,
    Laplace,
    LpExponential,
    Matern32,
    Matern52,
    NeuralTangent,
    Polynomial,
    ProductLaplace,
)

#: The kernels that estimators know by name.
KERNELS: dict[str, type[Kernel]] = {
    "laplace": Laplace,
    "generalized_exponential": GeneralizedExponential,
    "gaussian": Gaussian,
    "matern32": Matern32,
    "matern52": Matern52,
    "product_laplace": ProductLaplace,
    "lp_exponential": LpExponential,
    "polynomial": Polynomial,
    "neural_tangent": NeuralTangent,
}

__all__ = [
    "KERNELS",
    "CosineKernel",
    "DiagonalMetric",
    "FullMetric",
    "Gaussian",
    "GeneralizedExponential",
    "IdentityMetric",
    "InnerProductKernel",
    "Kernel",
    "KernelMatrix",
    "KernelOperator",
    "Laplace",
    "LpExponential",
    "Matern32",
    "Matern52",
    "Metric",
    "NeuralTangent",
    "Polynomial",
    "PowerDistanceKernel",
    "ProductLaplace",
    "RadialKernel",
]
