"""A pack whose paintings a run copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from impasto.errors import unknown_name
from impasto.packs import find_pack
from impasto.training.export import WEIGHTS, load_network, select_styles


class Teacher:
    """Paints photos as a pack does, in the styles of a run.

    It is no module: what belongs to a run's state is the student alone.

    Args:
        pack: name or folder.
        styles: names of the run's styles, all of which the pack has.

    Attributes:
        net: the pack's network, with one row for each of the run's styles.
        record: what a card says of it: the pack's name and the hash of its weights.

    Raises:
        ValueError: for a style that the pack lacks.
        PackError: for no pack, or a damaged one.
    """

    def __init__(self, pack: str, styles: Sequence[str]) -> None:
        found, _ = find_pack(pack)
        known = found.card.style_names
        for style in styles:
            if style not in known:
                raise unknown_name(f"style of the teacher {found.card.name}", style, known)
        rows = torch.eye(len(known))[[known.index(style) for style in styles]]
        self.net = select_styles(load_network(found), rows).requires_grad_(False).eval()
        self.record = {"pack": found.card.name, "weights": found.card.files[WEIGHTS]}

    def difference(self, painted: Tensor, photos: Tensor, weights: Tensor, strength: Tensor) -> Tensor:
        """Mean absolute difference between paintings of photos, (N, 3, H, W) both, and the teacher's.

        Args:
            painted: the student's.
            photos: what was painted.
            weights: of the run's styles, (N, styles).
            strength: (N,).
        """
        with torch.no_grad():
            goal: Tensor = self.net.to(photos.device)(photos, weights, strength)
        return (painted - goal).abs().mean()
