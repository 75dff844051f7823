"""What ``python -m agop demo`` shows: models that found out where to look.

A demonstration is an object with `lines`, which does the work and yields what is to be
printed, and `draw`, which returns a figure.
"""

from agop.demonstration.digits import DigitsDemonstration
from agop.demonstration.faces import FacesDemonstration

__all__ = ["DigitsDemonstration", "FacesDemonstration"]
