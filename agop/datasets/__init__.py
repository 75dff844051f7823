"""Data whose answer is known, for examples and tests: generated, drawn or read.

Every function that draws numbers has its own generator: the same `random_state` gives
the same data, and nothing global is touched.
"""

from agop.datasets.drawn import make_glasses_faces
from agop.datasets.generated import (
    make_digit_grids,
    make_hypercube,
    make_modular_addition,
    make_multi_index,
    make_striped_images,
)
from agop.datasets.photographs import load_cmu_faces

__all__ = [
    "load_cmu_faces",
    "make_digit_grids",
    "make_glasses_faces",
    "make_hypercube",
    "make_modular_addition",
    "make_multi_index",
    "make_striped_images",
]
