"""Style packs run by ONNX Runtime: one picture, or files and folders. No torch.

Importing this package imports neither numpy nor onnxruntime; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impasto.inference.files import Report, stylize_files
    from impasto.inference.manifest import Row
    from impasto.inference.regions import Mask
    from impasto.inference.styles import list_styles, style_sheet
    from impasto.inference.stylizer import Stylizer
    from impasto.inference.video import VideoReport, stylize_video

__all__ = [
    "Mask",
    "Report",
    "Row",
    "Stylizer",
    "VideoReport",
    "list_styles",
    "style_sheet",
    "stylize_files",
    "stylize_video",
]

_MODULES = {
    "Mask": "regions",
    "Report": "files",
    "Row": "manifest",
    "Stylizer": "stylizer",
    "VideoReport": "video",
    "list_styles": "styles",
    "style_sheet": "styles",
    "stylize_files": "files",
    "stylize_video": "video",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'impasto.inference' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"impasto.inference.{_MODULES[name]}"), name)
