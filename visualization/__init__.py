"""What networks see: pictures made by optimising pixels, and looking inside."""

from impasto.visualization.painting import paint
from impasto.visualization.result import Result

__all__ = ["Result", "paint"]
