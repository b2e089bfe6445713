"""What a pixel shows: eleven colours, seen without any label, and what masks say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ImageColor
from torch import Tensor

from impasto.visualization.inputs import Masked
from impasto.visualization.model import Model
from impasto.visualization.registry import Refused

COLOURS = {
    "black": "black",
    "blue": "midnightblue darkblue mediumblue blue royalblue steelblue dodgerblue deepskyblue cornflowerblue skyblue "
    "lightskyblue lightsteelblue lightblue powderblue",
    "brown": "saddlebrown sienna chocolate peru rosybrown sandybrown tan burlywood",
    "green": "darkgreen green darkolivegreen forestgreen seagreen olive olivedrab mediumseagreen limegreen lime "
    "springgreen darkseagreen yellowgreen lawngreen lightgreen palegreen greenyellow",
    "grey": "dimgrey grey slategrey lightslategrey darkgrey silver lightgrey gainsboro darkslategrey",
    "orange": "orangered tomato darkorange coral orange",
    "pink": "deeppink palevioletred hotpink lightpink pink",
    "purple": "indigo purple darkmagenta darkviolet rebeccapurple blueviolet darkorchid mediumorchid mediumpurple "
    "magenta orchid violet plum thistle",
    "red": "maroon darkred brown firebrick crimson red indianred",
    "white": "white snow ivory whitesmoke ghostwhite floralwhite mintcream azure seashell",
    "yellow": "gold yellow khaki palegoldenrod lemonchiffon lightyellow darkkhaki",
}
"""The eleven basic colour terms of Berlin and Kay 1969, and the colours of CSS that are called so; those on which
people do not agree, such as teal, are left out."""

COLOUR = "colour"
"""The category of the colours; that of a mask is the name of its folder's parent."""


def colour_names(images: Tensor) -> Tensor:
    """Which of `COLOURS` each pixel is called: that of the nearest colour of CSS, in CIELAB.

    Broden (Bau et al. 2017) has the eleven names of van de Weijer et al. 2009. Differs from it: no table learned from
    photos, which could not be shipped.

    Args:
        images: (N, 3, H, W), float RGB in [0, 1].

    Returns:
        (N, H, W), int64, places in `COLOURS`.
    """
    names, centres = _palette()
    pixels = lab(images.detach().cpu().double().permute(0, 2, 3, 1)).flatten(0, 2)
    nearest = (centres.square().sum(1) - 2 * pixels @ centres.T).argmin(1)
    return names[nearest].view(len(images), *images.shape[2:])


def lab(rgb: Tensor) -> Tensor:
    """CIELAB (..., 3) of sRGB (..., 3) in [0, 1], white D65; L from 0 to 100. Source: IEC 61966-2-1, CIE 15."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = linear.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / linear.new_tensor([0.95047, 1.0, 1.08883])
    x, y, z = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz * 841 / 108 + 4 / 29).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _palette() -> tuple[Tensor, Tensor]:
    """The place of each CSS colour's name in `COLOURS`, and its CIELAB."""
    named = [(place, css) for place, css_names in enumerate(COLOURS.values()) for css in css_names.split()]
    rgb = torch.tensor([ImageColor.getrgb(css) for _, css in named], dtype=torch.float64) / 255
    return torch.tensor([place for place, _ in named]), lab(rgb)


@dataclass(frozen=True)
class Concepts:
    """What the pixels of photos show, as numbers; each category of masks has one more, for what is none of its labels.

    Attributes:
        pictures: the photos and their masks.
        names: of each number; "" for the rest of a category.
        categories: of each number: `COLOUR`, or the name of the folder that the photos and masks are in.
        tables: folder -> what number a value of its masks is, (65536,).
    """

    pictures: Masked
    names: tuple[str, ...]
    categories: tuple[str, ...]
    tables: dict[Path, Tensor]

    @classmethod
    def of(cls, pictures: Masked, which: str = "all") -> Concepts:
        """The concepts of photos: ``which`` is "all", "masks" or "colours".

        Raises:
            Refused: masks alone are asked for, and there are none.
            PictureError: names of masks that cannot be read.
        """
        names = list(COLOURS) if which != "masks" else []
        categories = [COLOUR] * len(names)
        tables = {}
        folders = pictures.folders() if which != "colours" else []
        if not folders and not names:
            raise Refused("dissection: none of the photos has a mask; without masks there are the colours")
        for folder in folders:
            labels = pictures.labels(folder)
            tables[folder] = torch.full((65536,), len(names) + len(labels))
            tables[folder][list(labels)] = torch.arange(len(names), len(names) + len(labels))
            names += [*labels.values(), ""]
            same = sum(other.name == folder.name for other in folders) > 1
            categories += [str(folder) if same else folder.name] * (len(labels) + 1)
        return cls(pictures, tuple(names), tuple(categories), tables)

    def __len__(self) -> int:
        return len(self.names)

    def at(self, index: int, image: Tensor, model: Model) -> list[Tensor]:
        """The numbers of a photo's pixels as a model sees it, (size * size,) for each category it is labelled for.

        Args:
            index: of the photo.
            image: the photo, (3, size, size), as ``model`` read it.
            model: the network whose pixels are meant.

        Raises:
            PictureError: a mask that cannot be read, or is of another size than its photo.
        """
        found = [colour_names(image[None]).flatten()] if COLOUR in self.categories[:1] else []
        file = self.pictures.masks[index] if self.tables else None
        mask = self.pictures.mask(index, model)
        if file is not None and mask is not None:
            found.append(self.tables[file.parent.parent][mask.flatten()])
        return found
