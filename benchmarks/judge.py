"""What a painter is worth on photos: the objective it was trained for, at several sizes, and artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.benchmarks.artefacts import Paint, Rgb, blotch, checkerboard
from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.inference import Stylizer
from impasto.training import StyleTransfer
from impasto.training.module import MIRRORED, style_name
from impasto.training.photos import find_photos, to_tensor
from impasto.training.steadiness import look_through, steadiness

SIZES = (256, 720, 2000)
"""Long sides at which photos are painted, in pixels."""

STEADY_SIZE = 720
STEADY_WINDOW = (0.95, 0.013, 0.029)
"""The photo, and what of it is seen, when its painting is compared with its copy's: see `look_through`."""

WINDOW = 512
"""Height and width of the middle part of a painting that the loss network sees, at most, in pixels."""

ORDINARY = (
    "08_woman_portrait.jpg",
    "10_hibiscus.jpg",
    "11_tower_bridge.jpg",
    "15_sunset_sea.jpg",
    "18_colour_houses_4128px.jpg",
    "20_alps.jpg",
    "25_boston_5176px.jpg",
)
"""Portrait, flower, bridge, sea and sky, houses, mountains, skyline: judged on where a folder has them."""


def choose_photos(folder: str | Path) -> list[Path]:
    """The photos of a folder to judge on: those of `ORDINARY`, or the first seven if it has none of them.

    Raises:
        PictureError: if there is no photo.
    """
    found = find_photos([folder])
    return [path for path in found if path.name in ORDINARY] or found[: len(ORDINARY)]


def photos_to_judge(folder: str | Path, count: int) -> list[Path]:
    """So many photos of a folder: those of `choose_photos`, then the others.

    Raises:
        WrongCall: if there are fewer.
        PictureError: if there is none.
    """
    chosen = choose_photos(folder)
    found = [*chosen, *(path for path in find_photos([folder]) if path not in chosen)]
    if len(found) < count:
        raise WrongCall(f"count: got {count}, but {folder} has {len(found)} photos; ask for fewer")
    return found[:count]


def paintings_of(styles: Sequence[str], folder: str | Path) -> dict[str, Path]:
    """The painting of each style that has one of its name in a folder.

    Raises:
        WrongCall: if none has.
        PictureError: if there is no picture at all.
    """
    there = {style_name(path): path for path in find_photos([folder])}
    found = {style: there[style] for style in styles if style in there}
    if not found:
        raise WrongCall(f"no painting in {folder} for {', '.join(styles)}: expected a file of that name")
    return found


def at_size(photo: Rgb, size: int) -> Rgb:
    """A photo shrunk so that its long side has ``size`` pixels; a smaller one stays as it is."""
    image = Image.fromarray(photo)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def middle(picture: Rgb, side: int) -> Rgb:
    """The middle of a picture (H, W, 3), at most ``side`` pixels high and wide."""
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return picture[top : top + side, left : left + side]


def painter(pack: str | Path, threads: int | None = None, style: str | None = None) -> Paint:
    """One style of a pack, by default its first, as a function from picture to picture, on the CPU."""
    stylizer = Stylizer(pack, provider="cpu", threads=threads)
    weights = np.array([stylizer.mixture(style or stylizer.styles[0])], np.float32)
    return lambda rgb: stylizer.paint(rgb[None], weights, np.ones(1, np.float32))[0]


@dataclass(frozen=True)
class _Scene:
    """A photo at one size: what is painted, and what the painting's middle is compared with."""

    size: int
    photo: Rgb
    content: dict[str, Tensor]


class Judge:
    """Judges painters of one style by one objective, on the same photos.

    Photos are painted whole, with a long side of 256, 720 and 2000 pixels (or less where the photo is smaller); the
    objective is the training's (perceptual loss, in float32), of the painting's middle of at most 512 x 512 pixels.

    Args:
        model: arguments of `StyleTransfer`, such as a recipe's, with one painting under ``style_images``.
        photos: files to judge on.

    Raises:
        WrongCall: for other than one painting, or no photo.
        PictureError: for a file that cannot be read.
    """

    def __init__(self, model: Mapping[str, Any], photos: Sequence[str | Path]) -> None:
        if len(model["style_images"]) != 1 or not photos:
            raise WrongCall(
                f"Judge: got {len(model['style_images'])} paintings and {len(photos)} photos, "
                "expected one painting and one photo or more"
            )
        module = StyleTransfer(**model)
        module.setup("validate")
        assert module.loss is not None
        self._loss, self._goals = module.loss, module.goals
        self._scenes: list[_Scene] = []
        for photo in map(read_rgb, photos):
            for size in SIZES:
                small = at_size(photo, size)
                self._scenes.append(_Scene(size, small, self._loss.content_targets(_seen(small))))

    @torch.no_grad()
    def objective(self, paint: Paint) -> dict[str, dict[str, float]]:
        """Mean over the photos at each size, as text: ``objective``, and its weighted ``content`` and ``style``."""
        found: dict[str, list[dict[str, float]]] = {str(size): [] for size in SIZES}
        for scene in self._scenes:
            terms = self._loss(_seen(paint(scene.photo)), scene.content, self._goals)
            weighted = {name: float(value) for name, value in terms.weighted.items()}
            content, style = _sum(weighted, "content/"), _sum(weighted, "style/")
            row = {"objective": sum(weighted.values()), "content": content, "style": style}
            found[str(scene.size)].append(row)
        return {size: _mean(rows) for size, rows in found.items()}

    def __call__(self, paint: Paint, stride: int) -> dict[str, Any]:
        """All scores of a painter: ``sizes`` (`objective`), ``unsteady``, ``checkerboard``, ``blotch``."""
        return {
            "sizes": self.objective(paint),
            "unsteady": unsteadiness(paint, [scene.photo for scene in self._scenes if scene.size == STEADY_SIZE]),
            "checkerboard": asdict(checkerboard(paint, stride)),
            "blotch": blotch(paint),
        }


def unsteadiness(paint: Paint, photos: Sequence[Rgb]) -> float:
    """`steadiness` of the paintings of photos, the mean: 0 if the strokes move with the photo."""

    def square(picture: Rgb) -> Rgb:
        return middle(picture, min(picture.shape[:2]))

    found = []
    for photo in map(square, photos):
        copy = look_through(to_tensor(photo)[None], STEADY_WINDOW)[0].clamp(0, 1)
        again = paint(np.ascontiguousarray((copy.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()))
        found.append(float(steadiness(to_tensor(paint(photo))[None], to_tensor(again)[None], STEADY_WINDOW)))
    return float(np.mean(found))


def _seen(picture: Rgb) -> Tensor:
    """The middle of a picture as the loss network sees it, (1, 3, H, W), continued by reflection as in training."""
    return torch.nn.functional.pad(to_tensor(middle(picture, WINDOW))[None], [MIRRORED] * 4, mode="reflect")


def _sum(terms: Mapping[str, float], start: str) -> float:
    return sum(value for name, value in terms.items() if name.startswith(start))


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
