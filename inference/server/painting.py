"""From the bytes of a picture to the bytes of a painting, on a thread."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from impasto.errors import PictureError, TooManyPixels
from impasto.images import Picture, encode_picture, read_picture
from impasto.inference.server.house import House
from impasto.inference.server.problems import Problem
from impasto.inference.server.shelf import Served
from impasto.inference.server.visits import Visit
from impasto.inference.server.workers import Run, Stopped
from impasto.palette import Colour

FORMATS = ("jpeg", "png", "webp")
MAX_SCANS = 100
"""Scans of a JPEG: an ordinary progressive one has about ten; a hostile one has thousands, and each costs a pass."""


class Wish(BaseModel):
    """How a picture is to be painted: query parameters, or fields of a form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: str | None = Field(
        None,
        max_length=2000,
        description="A style's name, `PACK/STYLE`, or a mixture such as `a:0.6,b:0.4`; needed if there are several.",
        examples=["starry_night"],
    )
    strength: float = Field(1.0, ge=0, le=1, allow_inf_nan=False, description="0 gives the photo back.")
    color: str = Field(
        "style",
        max_length=40,
        description="Whose colours: `style`, `luminance` or `match`; with a share if wanted, `match:0.5`.",
        examples=["luminance"],
    )
    pack: str | None = Field(
        None,
        max_length=200,
        description="A pack's name; may be left out where the style says it.",
        examples=["starry_night"],
    )
    format: Literal["jpeg", "png", "webp"] | None = Field(
        None, description="Format of the answer; that of the picture if left out."
    )

    def with_fields(self, fields: dict[str, str]) -> Wish:
        """The same, with what the fields of a form say instead. Raises `Problem`."""
        try:
            return Wish.model_validate(self.model_dump(exclude_unset=True) | fields)
        except ValidationError as error:
            raise wrong_parameter(error.errors()[0]) from error


def wrong_parameter(error: object) -> Problem:
    """The problem of the first thing that pydantic has found."""
    entries = dict(error)  # type: ignore[call-overload]
    place = ".".join(str(part) for part in entries["loc"] if part != "query") or "the parameters"
    if entries["type"] == "extra_forbidden":
        return Problem("wrong-parameter", f"unknown parameter {place[:100]!r}; expected {', '.join(Wish.model_fields)}")
    return Problem("wrong-parameter", f"{place}: {entries['msg']}; got {str(entries.get('input'))[:100]!r}")


@dataclass(frozen=True)
class Painted:
    """A painting as a file, and its size in pixels."""

    data: bytes
    format: str
    width: int
    height: int


@dataclass(frozen=True)
class Order:
    """A wish that can be fulfilled: the pack, its styles' weights ``(1, S)``, strength ``(1,)``, format, colours."""

    served: Served
    weights: npt.NDArray[np.float32]
    strength: npt.NDArray[np.float32]
    format: str | None
    colour: Colour

    @classmethod
    def of(cls, wish: Wish, house: House) -> Order:
        """The order of a wish. Raises `WrongCall` for an unknown style, pack or colour."""
        served, weights = house.shelf.choose(wish.pack, wish.style)
        return cls(served, weights, np.array([wish.strength], np.float32), wish.format, Colour.parse(wish.color))


async def paint_file(house: House, order: Order, data: bytes, visit: Visit) -> Painted:
    """Paint one picture when its turn comes. Raises `Problem`: the picture cannot be used, or the time is over."""
    limit = house.settings.max_pixels

    def work(run: Run) -> Painted:
        with visit.stage("decode"):
            picture = decode(data, limit)
        run.check()
        with visit.stage("paint"):
            seen = picture.seen()
            rgb = paint(order.served, seen[None], order.weights, order.strength, run)[0]
            rgb = order.colour.recolour(rgb, seen)
        run.check()
        with visit.stage("encode"):
            return encode(replace(picture, rgb=rgb), order.format)

    painted = await house.workers.run(work, visit)
    house.note_painted(order.served, painted.width * painted.height, visit)
    return painted


def decode(data: bytes, max_pixels: int) -> Picture:
    """The picture in a JPEG, PNG or WebP file. Raises `Problem`."""
    if sniff(data) is None:
        raise Problem("not-a-picture", f"the bytes are not those of a picture; expected {', '.join(FORMATS)}")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise Problem("damaged-picture", f"a JPEG of more than {MAX_SCANS} scans")
    try:
        return read_picture(io.BytesIO(data), max_pixels=max_pixels)
    except TooManyPixels as error:
        raise Problem("too-many-pixels", str(error)) from error
    except PictureError as error:
        raise Problem("damaged-picture", str(error)) from error


def sniff(data: bytes) -> str | None:
    """One of `FORMATS` by a file's first bytes, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def paint(
    served: Served,
    images: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32],
    strengths: npt.NDArray[np.float32],
    run: Run,
) -> npt.NDArray[np.uint8]:
    """As `impasto.Stylizer.paint`. Raises `Stopped`, `Problem`, or `WrongCall` for wrong weights or strengths."""
    try:
        return served.stylizer.paint(images, weights, strengths, run_options=run.options)
    except PictureError as error:
        if run.options.terminate:
            raise Stopped from error
        raise Problem("too-many-pixels", str(error)) from error


def encode(picture: Picture, format: str | None) -> Painted:
    """The painting as a file. Raises `Problem`."""
    format = format or picture.format
    try:
        data = encode_picture(picture, format)
    except PictureError as error:
        raise Problem("wrong-parameter", f"format: {error}") from error
    height, width = picture.rgb.shape[:2]
    return Painted(data, format, width, height)
