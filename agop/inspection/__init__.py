"""What people look at: pictures of models and what they have learned."""

from agop.inspection.displays import HistoryDisplay, SpectrumDisplay
from agop.inspection.features import DirectionDisplay, FeatureImportancesDisplay

__all__ = [
    "DirectionDisplay",
    "FeatureImportancesDisplay",
    "HistoryDisplay",
    "SpectrumDisplay",
]
