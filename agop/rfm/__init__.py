"""Recursive Feature Machines: kernel machines that learn their own metric."""

from agop.rfm.estimators import RFMClassifier, RFMRegressor

__all__ = ["RFMClassifier", "RFMRegressor"]
