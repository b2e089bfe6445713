"""Parts of a picture that hang together."""

from __future__ import annotations

import torch
from torch import Tensor

from impasto.errors import require


def largest_component(mask: Tensor) -> Tensor:
    """The largest part of a mask (H, W), bool, whose pixels touch at an edge or a corner; an empty one stays empty."""
    ndimage = require("scipy.ndimage", purpose="the largest part of a mask", extra="see")
    numbered, count = ndimage.label(mask.cpu().numpy(), structure=[[1, 1, 1]] * 3)
    parts = torch.from_numpy(numbered)
    if count < 2:
        return parts > 0
    return parts == int(torch.bincount(parts.flatten().long())[1:].argmax()) + 1


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the set pixels of a mask (H, W) with at least one."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
