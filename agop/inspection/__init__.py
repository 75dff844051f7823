"""What people look at: pictures of models and what they have learned."""

from agop.inspection.ansatz import AnsatzDisplay
from agop.inspection.displays import Display
from agop.inspection.examples import ExamplesDisplay
from agop.inspection.features import DirectionDisplay, FeatureImportancesDisplay
from agop.inspection.forms import Form, Table, Tokens
from agop.inspection.grids import Image, Series
from agop.inspection.history import HistoryDisplay
from agop.inspection.layers import LayersDisplay
from agop.inspection.overlays import OverlayDisplay
from agop.inspection.report import write_html
from agop.inspection.spectra import SpectrumDisplay
from agop.inspection.steering import SteeringDisplay
from agop.inspection.visualization import VisualizationDisplay

__all__ = [
    "AnsatzDisplay",
    "DirectionDisplay",
    "Display",
    "ExamplesDisplay",
    "FeatureImportancesDisplay",
    "Form",
    "HistoryDisplay",
    "Image",
    "LayersDisplay",
    "OverlayDisplay",
    "Series",
    "SpectrumDisplay",
    "SteeringDisplay",
    "Table",
    "Tokens",
    "VisualizationDisplay",
    "write_html",
]
