"""The command ``impasto paint``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource
from PIL import Image

from impasto.errors import Interrupted, PictureError, WrongCall
from impasto.formats import WRITE_FORMATS, format_of
from impasto.images import Picture, encode_picture, read_picture, write_picture
from impasto.losses import CONVENTIONS, STATISTICS
from impasto.visualization.animation import animation_format, write_animation
from impasto.visualization.painting import (
    CONTENT,
    INITS,
    OPTIMIZERS,
    PRECISIONS,
    STYLE,
    PaintInterrupted,
    Progress,
    paint,
)
from impasto.visualization.result import Result
from impasto.visualization.scene import COLOURS
from impasto.visualization.sheets import layer_sheet, style_weight_sheet

FRAMES = 60
"""Pictures in an animation."""


def _layers(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, float]:
    """``relu1_1:1,relu2_1:0.5`` as layer -> weight; a name alone has weight 1."""
    found = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            found[name] = float(weight or 1)
        except ValueError:
            raise click.BadParameter(f"got {part!r}, expected such as relu2_1:0.5") from None
    return found


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"got {text!r}, expected numbers such as 1,0.5") from None


def _shown(layers: dict[str, float]) -> str:
    return ",".join(f"{name}:{weight:g}" for name, weight in layers.items())


@click.command("paint")
@click.argument("content")
@click.argument("styles", metavar="STYLE...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", required=True, help="The painted picture, or the sheet.")
@click.option("--weights", metavar="A,B", callback=_numbers, help="How much of each STYLE.  [default: the same]")
@click.option(
    "--mask",
    "masks",
    metavar="FILE",
    multiple=True,
    help="Where a STYLE goes (white); one for each, in order; '' for everywhere.",
)
@click.option("--size", type=int, default=512, show_default=True, help="Long side in pixels; 0: the photo's.")
@click.option("--style-scale", default=1.0, show_default=True, help="Long side of STYLE as a multiple of it.")
@click.option("--style-weight", default=1.0, show_default=True, help="More than 1: more style, less photo.")
@click.option("--content-layers", default=_shown(CONTENT), show_default=True, callback=_layers, help="Layer:weight,...")
@click.option("--style-layers", default=_shown(STYLE), show_default=True, callback=_layers, help="Layer:weight,...")
@click.option("--tv", default=0.0, show_default=True, help="Weight of the total variation.")
@click.option(
    "--convention", type=click.Choice(CONVENTIONS), default="relative", show_default=True, help="What weights mean."
)
@click.option("--statistic", type=click.Choice(STATISTICS), default="gram", show_default=True, help="What a style is.")
@click.option(
    "--network", type=click.Choice(["vgg19", "vgg16"]), default="vgg19", show_default=True, help="The loss network."
)
@click.option("--network-weights", default="embedded", show_default=True, help="embedded, torchvision, or a file.")
@click.option("--pooling", type=click.Choice(["max", "avg"]), default="max", show_default=True, help="In the network.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="lbfgs", show_default=True)
@click.option("--steps", type=int, default=100, show_default=True, help="At the full size; coarser ones come first.")
@click.option(
    "--smallest",
    type=int,
    default=96,
    show_default=True,
    help="No coarser size below this long side; less frees shapes.",
)
@click.option("--init", default="content", show_default=True, help=f"{', '.join(INITS)}, or a style pack to polish.")
@click.option("--color", type=click.Choice(COLOURS), default="style", show_default=True, help="Whose colours.")
@click.option("--average", default=0.0, show_default=True, help="Decay of an average of all steps' pictures.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True)
@click.option("--max-memory", type=float, metavar="GIB", help="Paint in parts where the whole takes more.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--animation", metavar="FILE", help="The way there, as .webp or .mp4.")
@click.option("--resume", is_flag=True, help="Go on with a painting that was stopped.")
@click.option("--log-dir", metavar="DIR", help="For TensorBoard.")
@click.option("--sweep", metavar="A,B,C", callback=_numbers, help="A sheet with these style weights instead.")
@click.option("--by-layer", is_flag=True, help="A sheet by content and style layers instead.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found for programs.")
@click.pass_context
def paint_command(
    context: click.Context,
    /,
    content: str,
    styles: tuple[str, ...],
    output: str,
    masks: tuple[str, ...],
    animation: str | None,
    resume: bool,
    sweep: list[float] | None,
    by_layer: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Paint the photo CONTENT in the style of one or several paintings, by optimising its pixels.

    Minutes a picture, and the best there is; `impasto stylize` takes milliseconds. Ctrl-C keeps what there is so far.
    """
    given = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    if (sweep is not None or by_layer) and (animation or resume or (sweep and by_layer)):
        raise click.UsageError("--sweep and --by-layer make a sheet, one of them, without --animation and --resume")
    if sweep is not None and "style_weight" in given:
        raise click.UsageError("--sweep lists the style weights; it goes without --style-weight")
    _check_outputs(output, animation, [content, *styles, *filter(None, masks)])
    options |= {"size": options["size"] or None, "masks": [mask or None for mask in masks] or None}
    if by_layer and "content_layers" not in given:
        del options["content_layers"]  # a sheet has other ones by default
    with _progress() as progress:
        options["progress"] = progress
        if sweep is not None:
            result = _drawn(output, lambda: style_weight_sheet(content, styles, sweep, **options))
        elif by_layer:
            result = _drawn(output, lambda: layer_sheet(content, styles, **options))
        else:
            result = _painted(content, styles, output, animation, resume, options)
    click.echo(json.dumps(result.data) if as_json else f"{output}: {result.caption}", err=not as_json)


def _check_outputs(output: str, animation: str | None, sources: Sequence[str]) -> None:
    """Refuse, before any work, what could not be written or would be written over; make the folders."""
    if format_of(output) not in WRITE_FORMATS:
        raise WrongCall(f"{output}: the suffix names no picture format; expected {', '.join(WRITE_FORMATS)}")
    if animation is not None:
        animation_format(animation)
    taken = {Path(source).resolve() for source in sources}
    for path in filter(None, (output, animation)):
        if Path(path).resolve() in taken or Path(path).is_dir():
            raise WrongCall(f"{path} is a folder, or read or written already by this call; choose another output")
        taken.add(Path(path).resolve())
        Path(path).parent.mkdir(parents=True, exist_ok=True)


def _drawn(output: str, draw: Callable[[], Result]) -> Result:
    """Draw a sheet and write it; after Ctrl-C with the pictures that there are."""
    try:
        result = draw()
    except PaintInterrupted as stopped:
        write_picture(Picture(np.asarray(stopped.result.images["sheet"])), output)
        raise Interrupted(f"{stopped}; {output} shows what there is so far") from None
    write_picture(Picture(np.asarray(result.images["sheet"])), output)
    return result


def _painted(
    photo: str, paintings: Sequence[str], output: str, animation: str | None, resume: bool, options: dict[str, Any]
) -> Result:
    """Paint one picture and write it; after Ctrl-C what there is of it."""
    state = Path(f"{output}.state")
    if resume and not state.exists():
        raise WrongCall(f"--resume: there is no {state}; without it the painting begins anew")
    picture = read_picture(photo)
    _try_to_encode(picture, output)
    try:
        frames = FRAMES if animation else 0
        result = paint(photo, paintings, state=state, resume=resume, frames=frames, **options)
    except PaintInterrupted as stopped:
        write_picture(_like(picture, stopped.result), output)
        raise Interrupted(
            f"{stopped}; {output} is what there is so far. Go on with the same call and --resume"
        ) from None
    write_picture(_like(picture, result), output)
    if animation is not None:
        write_animation(result.frames or [result.images["painted"]], animation)
    return result


def _try_to_encode(picture: Picture, output: str) -> None:
    """Fail now if the format cannot hold what the photo's file said, such as transparency in JPEG."""
    rgb = np.zeros((1, 1, 3), np.uint8)
    alpha = None if picture.alpha is None else np.full((1, 1), picture.alpha.min())
    try:
        encode_picture(replace(picture, rgb=rgb, alpha=alpha), format_of(output))
    except PictureError as error:
        raise PictureError(f"{output}: {error}") from error


def _like(picture: Picture, result: Result) -> Picture:
    """The painting with what the photo's file said beside its colours: transparency, profile, EXIF."""
    painted = result.images["painted"]
    alpha = picture.alpha
    if alpha is not None:
        alpha = np.asarray(Image.fromarray(alpha).resize(painted.size, Image.Resampling.LANCZOS))
    return replace(picture, rgb=np.asarray(painted), alpha=alpha)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar with the time left on standard error, if that is a terminal; else a line every half minute."""
    left = _time_left()
    if not sys.stderr.isatty():
        said = time.monotonic()

        def say(done: float, total: float, text: str) -> None:
            nonlocal said
            remaining = left(done, total)
            if time.monotonic() - said > 30:
                click.echo(f"{100 * done / total:.0f} %, {text}{remaining}", err=True)
                said = time.monotonic()

        yield say
        return

    def same(text: str | None) -> str | None:
        return text

    with click.progressbar(length=1000, label="Painting", file=sys.stderr, show_eta=False, item_show_func=same) as bar:

        def show(done: float, total: float, text: str) -> None:
            bar.update(round(1000 * done / total) - bar.pos, text + left(done, total))

        yield show


def _time_left() -> Callable[[float, float], str]:
    """Says how long the rest takes, going by the work since it was first asked: a resumed painting begins halfway."""
    first: tuple[float, float] | None = None

    def left(done: float, total: float) -> str:
        nonlocal first
        now = time.monotonic()
        began, before = first = first or (now, done)
        if done <= before:
            return ""
        return f", {timedelta(seconds=round((now - began) * (total - done) / (done - before)))} left"

    return left
