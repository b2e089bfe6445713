"""A zoom into a picture that never ends, as every frame is dreamt anew."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.losses import clip
from impasto.visualization.drawing import panel
from impasto.visualization.dreaming import Plan, dream_of, energy, layer_of, norm_of
from impasto.visualization.inputs import Whole
from impasto.visualization.model import Model
from impasto.visualization.progress import track
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image, to_tensor


@technique("V27", "synthesis")
def dream_zoom(
    model: Model,
    picture: Whole,
    *,
    layer: tuple[str, ...] = (),
    unit: int | None = None,
    count: int = 60,
    zoom: float = 0.05,
    octaves: int = 3,
    octave_scale: float = 1.4,
    steps: int = 2,
    rate: float = 1.5,
    jitter: int = 32,
    seed: int = 0,
) -> Result:
    """A film that goes ever deeper into a dream: each frame is enlarged about its centre, and dreamt of again.

    Source: Mordvintsev, Olah and Tyka 2015, the DeepDream notebook. Differs in fewer octaves and steps a frame, by
    default, and in the enlargement, bicubic instead of bilinear.

    A film may be made in parts. A frame depends on the one before, rounded to 8 bits, and on the seed plus its number
    only: 60 frames with seed 0, and 60 of the picture ``last`` with seed 60, are 120 frames with seed 0 (the
    second part begins with the frame that the first ends with). The frames are saved as WebP;
    ``impasto.visualization.animation.write_animation(result.frames, "film.mp4")`` makes an MP4.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layer: Names as capture has them; by default one in the middle whose dreams are worth seeing.
        unit: Channel of them; none for the whole layer.
        count: Frames after the first, which is the photo.
        zoom: Part of the width and height that leaves the frame each time.
        octaves: Sizes of a frame.
        octave_scale: Each is so many times the one before.
        steps: At each size.
        rate: Mean change of a pixel's value in a step, in 1/255.
        jitter: Pixels that a frame is rolled by at most before each step.
        seed: Of the jitter; that of a frame is the seed plus its number.

    Returns:
        A `Result` with the images ``dream_zoom`` (some of the frames) and ``last``; the frames begin with the photo.
        ``data`` has the ``magnification`` of the whole film, (1 / (1 - zoom))^count, and for each layer its L2 norm in
        the photo and in the last frame, and, as a control, at the end of the same zoom without dreams
        (``norm_undreamt``).

    Raises:
        WrongCall: an unknown layer or unit, or a number that cannot be.
    """
    plan, layers = Plan(octaves, octave_scale, steps, rate, jitter), layer or (layer_of(model),)
    if count < 1 or not 0 <= zoom < 1:
        raise WrongCall(f"dream zoom: got count {count} and zoom {zoom}, expected 1 or more, and from 0 to below 1")
    value = energy(model, layers, unit)
    frames, frame, undreamt = [to_image(picture)], picture, picture
    for number in track(range(1, count + 1), count, "frames"):
        generator = torch.Generator().manual_seed(seed + number)
        frames.append(to_image(dream_of(zoomed(frame, zoom), value, plan, generator).picture))
        frame = to_tensor(frames[-1]).to(picture)
        undreamt = zoomed(undreamt, zoom)
    facts = [
        {"layer": name}
        | {
            kind: norm_of(model, name, unit, each)
            for kind, each in (("norm_before", picture), ("norm_after", frame), ("norm_undreamt", undreamt))
        }
        for name in layers
    ]
    shown = sorted({round(part * count / 5) for part in range(6)})
    magnification = (1 / (1 - zoom)) ** count
    data = {"count": count, "zoom": zoom, "magnification": magnification, "unit": unit, "layers": facts, "seed": seed}
    what = " and ".join(layers) if unit is None else f"unit {unit} of {' and '.join(layers)}"
    caption = (
        f"{count} frames into a dream of {what}, x{magnification:.3g} in all; at the end its norm is "
        + ", ".join(f"{each['norm_after']:.3g} ({each['norm_undreamt']:.3g} without dreaming)" for each in facts)
        + "."
    )
    images = {"dream_zoom": panel({f"frame {index}": frames[index] for index in shown}, columns=3), "last": frames[-1]}
    return Result(images, data, frames, caption)


def zoomed(picture: Tensor, part: float) -> Tensor:
    """A picture (1, 3, H, W) in [0, 1] enlarged about its centre, bicubic, so that a part of its sides leaves it."""
    if part == 0:
        return picture
    matrix = picture.new_tensor([[1 - part, 0, 0], [0, 1 - part, 0]])
    grid = F.affine_grid(matrix.expand(len(picture), 2, 3), list(picture.shape), align_corners=False)
    return clip(F.grid_sample(picture, grid, mode="bicubic", padding_mode="border", align_corners=False))
