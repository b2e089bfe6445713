"""Per-image optimisation: the slow, best answer."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import impasto
from impasto.errors import Interrupted, WrongCall, unknown_name
from impasto.images import MIN_SIDE
from impasto.losses import VGGFeatures, adam, lbfgs
from impasto.visualization.brush import Brush, Stage, Watch
from impasto.visualization.colours import style_noise
from impasto.visualization.objective import PaintObjective
from impasto.visualization.pyramid import sizes
from impasto.visualization.result import Result
from impasto.visualization.scene import Scene, Source, read_scene, to_image, to_tensor
from impasto.visualization.tiles import fitting_tile, smallest_memory

CONTENT = {"relu4_2": 1.0}
STYLE = {"relu1_1": 2.0, "relu2_1": 2.0, "relu3_1": 2.0, "relu4_1": 2.0, "relu5_1": 2.0}

OPTIMIZERS = ("lbfgs", "adam")
INITS = ("content", "noise", "style")
PRECISIONS = ("auto", "bf16", "float32")

COARSE = 0.1
"""Work at each coarser size as a share of the work at the full one."""

HISTORY = 20
"""Steps that L-BFGS remembers."""

VECTORS = 10
"""Pictures that are held beside L-BFGS's memory: the photo, the gradient, the direction and so on."""

PROCESS = 1000 * 2**20
"""Bytes of main memory that Python, torch and the loss network take before anything is painted."""

MIRRORED = 8
"""Pixels by which pictures are continued before the loss network sees them, in the convention ``relative``."""

Progress = Callable[[float, float, str], None]
"""Is told of the work done, the work in total, and what there is to say."""

_PLACES = {"max_memory", "device", "frames", "state", "resume", "log_dir", "progress"}
_RUN = {"content", "styles", "weights", "masks"} | _PLACES
"""Arguments that are no settings: what goes in is told apart by its pixels, and the rest makes no other picture."""


def paint(
    content: Source,
    styles: Source | Sequence[Source],
    *,
    weights: Sequence[float] | None = None,
    masks: Sequence[Source | None] | None = None,
    size: int | None = 512,
    style_scale: float = 1.0,
    content_layers: Mapping[str, float] = CONTENT,
    style_layers: Mapping[str, float] = STYLE,
    style_weight: float = 1.0,
    tv: float = 0.0,
    convention: str = "relative",
    statistic: str = "gram",
    network: str = "vgg19",
    network_weights: str | Path = "embedded",
    pooling: str = "max",
    optimizer: str = "lbfgs",
    steps: int = 100,
    smallest: int = 96,
    init: str = "content",
    color: str = "style",
    average: float = 0.0,
    precision: str = "auto",
    max_memory: float | None = None,
    seed: int = 0,
    device: str = "auto",
    frames: int = 0,
    state: str | Path | None = None,
    resume: bool = True,
    log_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Paint a photo in the style of one or several paintings by optimising its pixels.

    Gatys et al. 2016, equation 7, from coarse to fine. Differs from them by default in the convention ``relative``
    (weights mean the same for every picture and layer), in the start from the photo, and in L-BFGS with the strong
    Wolfe line search, projected on [0, 1]. ``convention="gatys"`` is theirs, to the letter.

    Args:
        content: the photo: a file, a Pillow image or a uint8 RGB array (H, W, 3).
        styles: the painting, or several.
        weights: how much of each painting; only their proportion counts.
        masks: for each painting a picture that is white where its style is wanted, or None for everywhere. Where no
            mask is white the photo stays.
        size: long side of the result in pixels; None for the photo's own.
        style_scale: the paintings' long side as a multiple of the result's; a painting is never enlarged.
        content_layers: weight of each content layer.
        style_layers: weight of each style layer.
        style_weight: factor on all of them.
        tv: weight of the total variation.
        convention: what the weights mean; one of `impasto.losses.CONVENTIONS`.
        statistic: what is a style; one of `impasto.losses.STATISTICS`.
        network: "vgg19" or "vgg16".
        network_weights: as `VGGFeatures`.
        pooling: "max" or "avg".
        optimizer: "lbfgs" or "adam".
        steps: at the full size. Each coarser one, a root of 2 smaller than the next, is given a tenth of the full
            one's work, and at most as many steps.
        smallest: long side in pixels below which no coarser size is painted first; ``size`` or more for none.
        init: what to begin with: "content", "noise", "style" (noise of its colours), or a style pack, by name or
            folder, whose picture is polished, at the full size only.
        color: "style"; "luminance" or "match" for the photo's colours, see `impasto.visualization.scene.COLOURS`.
        average: decay of an average of the pictures of all steps, which is the result; 0 for the last picture.
        precision: "bf16", "float32", or "auto": bf16 where the processor computes in it. Losses are float32 always.
        max_memory: GiB that painting may take; a picture for which that is too little is computed in parts.
        seed: of the noise.
        device: "cpu", "cuda" or "auto".
        frames: how many pictures of the way to keep for an animation, one a step at most; those from before a painting
            was stopped are not kept.
        state: file in which the painting is kept when it is stopped by Ctrl-C, and every minute. Gone when the painting
            is done.
        resume: go on from the state if it is there, with the same pictures and settings; else it is replaced.
        log_dir: folder for TensorBoard: every term, and the picture as it grows.
        progress: called after each step with the work done, the work in total and what there is to say.

    Returns:
        A `Result` with the image ``painted``.

    Raises:
        WrongCall: for an argument that cannot be right.
        PictureError: for a picture that cannot be read.
        CheckpointError: for a state that cannot be used.
        PaintInterrupted: if stopped by Ctrl-C; what there is so far is in its attribute ``result``.
    """
    settings = {name: value for name, value in locals().items() if name not in _RUN}
    began = time.perf_counter()
    sources: Sequence[Source] = styles if isinstance(styles, list | tuple) else [styles]  # type: ignore[list-item]
    _check(optimizer, precision, steps, smallest, average, frames)
    _check_weights(content_layers, style_layers, style_weight, tv)
    where = _device(device)
    scene = read_scene(
        content,
        sources,
        weights=weights,
        masks=masks,
        size=size,
        style_scale=style_scale,
        color=color,
        device=where,
    )
    features = VGGFeatures(network, weights=network_weights, pooling=pooling).to(where)
    half = precision == "bf16" or (precision == "auto" and _has_bf16(where))
    objective = PaintObjective(
        features,
        content=content_layers,
        style={layer: style_weight * weight for layer, weight in style_layers.items()},
        tv=tv,
        convention=convention,
        statistic=statistic,
        mirrored=MIRRORED if convention == "relative" else 0,
        dtype=torch.bfloat16 if half else None,
        tile=_tile(max_memory, scene, features, content_layers, style_layers, half),
    )
    path = None if state is None else Path(state)
    log = None if log_dir is None else Path(log_dir)
    digest = _digest(settings, scene)
    watch = Watch(frames=frames, state=path, resume=resume, digest=digest, log_dir=log, progress=progress)
    brush = Brush(scene, objective, lbfgs(HISTORY) if optimizer == "lbfgs" else adam(), average, watch, began)
    stages = stages_of(scene.size, steps, smallest if init in INITS else max(scene.size))
    painted = brush.paint(start_picture(init, scene, stages[0].size, seed), stages)
    result = _result(painted, brush, settings)
    if brush.interrupted:
        high, wide = painted.shape[2:]
        raise PaintInterrupted(f"stopped after {len(brush.trace)} steps, at {wide} x {high} pixels", result)
    return result


class PaintInterrupted(Interrupted):
    """A painting that was stopped by Ctrl-C; ``result`` is what there is so far."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def _check(optimizer: str, precision: str, steps: int, smallest: int, average: float, frames: int) -> None:
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if steps < 1 or smallest < MIN_SIDE or not 0 <= average < 1 or frames < 0:
        raise WrongCall(
            f"paint: got steps {steps}, smallest {smallest}, average {average}, frames {frames}; "
            f"expected steps >= 1, smallest >= {MIN_SIDE}, 0 <= average < 1, frames >= 0"
        )


def _check_weights(content: Mapping[str, float], style: Mapping[str, float], style_weight: float, tv: float) -> None:
    if not all(0 <= weight < math.inf for weight in (*content.values(), *style.values(), style_weight, tv)):
        raise WrongCall(
            f"paint: got content layers {dict(content)}, style layers {dict(style)}, style weight {style_weight}, "
            f"tv {tv}; expected finite weights from 0 up"
        )


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise WrongCall(f"device: got {name!r}, expected auto or cpu, or cuda where torch sees a GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _has_bf16(device: torch.device) -> bool:
    """Whether the processor has instructions for bf16, and torch is of a version that can say so."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _tile(
    gibibytes: float | None,
    scene: Scene,
    features: VGGFeatures,
    content: Mapping[str, float],
    style: Mapping[str, float],
    half: bool,
) -> int | None:
    """The side of the parts with which painting takes no more than this; None for the whole picture at once."""
    layers = [layer for layer in (*content, *style) if layer in features.layers]  # the objective refuses the others
    if gibibytes is None or not layers:
        return None
    high, wide = scene.size
    targets = sum(
        features.channels[layer] / features.stride[layer] ** 2 for layer in content if layer in features.layers
    )
    process = PROCESS if scene.photo.device.type == "cpu" else 0
    kept = process + 4.0 * high * wide * (2 * targets + 3 * (2 * HISTORY + VECTORS))
    dtype = torch.bfloat16 if half else None
    least = kept + smallest_memory(high, wide, features, layers, dtype)
    if not gibibytes * 2**30 > least:
        raise WrongCall(
            f"max_memory: got {gibibytes:g} GiB, expected at least {math.ceil(10 * least / 2**30) / 10:.1f} for "
            f"{wide} x {high} pixels; or paint smaller"
        )
    return fitting_tile(high, wide, features, layers, dtype, gibibytes * 2**30 - kept)


def stages_of(size: tuple[int, int], steps: int, smallest: int) -> list[Stage]:
    """Steps at each size: where they are cheap there are more of them."""
    high, wide = size
    *coarse, full = sizes(high, wide, smallest)
    tenths = [math.ceil(COARSE * steps * high * wide / (h * w)) for h, w in coarse]
    return [*(Stage(at, min(steps, tenth)) for at, tenth in zip(coarse, tenths, strict=True)), Stage(full, steps)]


def start_picture(init: str, scene: Scene, size: tuple[int, int], seed: int) -> Tensor:
    """The picture to begin with, (1, 3, *size)."""
    if init == "content":
        return scene.subject(size)
    draw = torch.Generator().manual_seed(seed)
    if init == "noise":
        return torch.rand(1, 3, *size, generator=draw).to(scene.photo)
    if init == "style":
        return style_noise(scene.paintings[0].cpu(), *size, draw).to(scene.photo)
    try:
        stylizer = impasto.Stylizer(init)
    except WrongCall as error:
        raise WrongCall(f"init: {error}; or one of: {', '.join(INITS)}") from error
    return to_tensor(stylizer.stylize(to_image(scene.photo))).to(scene.photo)


def _digest(settings: Mapping[str, Any], scene: Scene) -> str:
    """Of the settings and every pixel that goes in."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for picture in (scene.photo, *scene.paintings, *(region for region in scene.regions if region is not None)):
        found.update(picture.cpu().numpy().tobytes())
    found.update(json.dumps(scene.weights).encode())
    return found.hexdigest()


def _result(painted: Tensor, brush: Brush, settings: dict[str, Any]) -> Result:
    seconds, evaluations, _, _ = brush.trace[-1]
    objective = sum(brush.terms.values())
    high, wide = painted.shape[2:]
    names = ", ".join(brush.scene.names)
    data = {
        "settings": json.loads(json.dumps(settings, default=str)),
        "size": [high, wide],
        "seconds": seconds,
        "evaluations": evaluations,
        "objective": objective,
        "terms": brush.terms,
        "raw": brush.raw,
        "trace": [list(row) for row in brush.trace],
        "frame_steps": brush.frame_steps,
    }
    caption = (
        f"{wide} x {high} pixels in the style of {names}: objective {objective:.4g} after {evaluations} evaluations"
    )
    return Result({"painted": to_image(brush.scene.finished(painted))}, data, brush.frames, caption)
