"""Small detectors that are called as torchvision's are, and scenes whose objects are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, WINDOW, STRIDE = 48, 12, 4

Found = list[dict[str, Tensor]]


class Squares(nn.Module):
    """Finds bright squares of 12 pixels at multiples of 4: the logit of a place is ``20 (its mean - 0.6)``.

    With ``context`` all logits also fall by 120 times the mean squared difference of neighbours across the whole
    picture, so that fine upright stripes anywhere hide what lies elsewhere; without, a place sees its 12 pixels only.
    """

    def __init__(self, context: bool = True) -> None:
        super().__init__()
        grey = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(grey.weight, 1 / 3)
        self.cells = nn.Sequential(grey, nn.AvgPool2d(WINDOW, STRIDE))
        self.context = 120.0 if context else 0.0

    def forward(self, images: list[Tensor], targets: Found | None = None) -> dict[str, Tensor] | Found:
        pictures = torch.stack(list(images))
        stripes = self.cells[0](pictures).diff(dim=3).square().mean((2, 3))
        logits = 20 * (self.cells(pictures)[:, 0] - 0.6) - self.context * stripes[:, :, None]
        if not self.training:
            return [self.found(logit) for logit in logits]
        assert targets is not None
        wanted = torch.zeros_like(logits)
        for index, target in enumerate(targets):
            columns, rows = (target["boxes"][:, :2] / STRIDE).round().long().unbind(1)
            wanted[index, rows, columns] = 1
        return {"objectness": F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum((1, 2)).mean()}

    def found(self, logits: Tensor) -> dict[str, Tensor]:
        """Every place that is surer than its neighbours."""
        scores = logits.sigmoid()
        best = (scores == F.max_pool2d(scores[None], 5, 1, 2)[0]) & (scores > 0.05)
        rows, columns = STRIDE * best.nonzero().unbind(1)[0], STRIDE * best.nonzero().unbind(1)[1]
        boxes = torch.stack([columns, rows, columns + WINDOW, rows + WINDOW], 1).float()
        return {"boxes": boxes, "labels": torch.ones_like(rows), "scores": scores[best]}


class OneObject(nn.Module):
    """Always finds the same box, with a score that is any picture's; a tensor of pictures it gives logits."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.second = nn.BatchNorm2d(6)
            self.pool = nn.MaxPool2d(2)
            self.dropout = nn.Dropout(0.5)
            self.linear = nn.Linear(6, 1)

    def forward(self, images: list[Tensor], targets: Found | None = None) -> dict[str, Tensor] | Found | Tensor:
        maps = self.pool(self.second(self.first(torch.stack(list(images)))))
        logit = self.linear(self.dropout(maps).mean((2, 3)))
        if isinstance(images, Tensor):
            return logit
        logit = logit[0]
        if self.training:
            return {"loss": F.softplus(-logit) * torch.rand(1)}
        found = {"boxes": torch.tensor([[1.0, 2.0, 11.0, 12.0]]), "labels": torch.tensor([1])}
        return [found | {"scores": (5 + logit).sigmoid()}]


def scene(seed: int) -> tuple[Tensor, Tensor]:
    """A dim picture (1, 3, 48, 48) with two or three bright squares in corners of it; their boxes (N, 4)."""
    generator = torch.Generator().manual_seed(seed)
    picture = 0.2 + 0.15 * torch.rand(1, 3, SIDE, SIDE, generator=generator)
    boxes = []
    for corner in torch.randperm(4, generator=generator)[: 2 + seed % 2].tolist():
        down, across = torch.randint(3, (2,), generator=generator).tolist()
        top, left = 24 * (corner // 2) + STRIDE * down, 24 * (corner % 2) + STRIDE * across
        picture[0, :, top : top + WINDOW, left : left + WINDOW] = 0.8 + 0.2 * torch.rand(3, 1, 1, generator=generator)
        boxes.append((left, top, left + WINDOW, top + WINDOW))
    return picture, torch.tensor(boxes).float()
