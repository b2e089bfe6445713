"""What a video's frames look like: their size, turn and colours, and how they become arrays and frames again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideData

from impasto.images import Array
from impasto.inference.video_track import THUMBNAIL

UNSPECIFIED = 2
"""What FFmpeg's enumerations of matrices, primaries and transfer curves call unknown."""

FULL = 2
"""FFmpeg's name of the range 0 to 255."""

EXACT = 0x00004 | 0x40000 | 0x02000
"""How chroma is brought to another size: FFmpeg's SWS_BICUBIC, SWS_ACCURATE_RND and SWS_FULL_CHR_H_INT. Without the
last two its converter darkens by 1 to 2 levels of 255."""

_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Of a stream's matrix, the name that the converter has for it."""


@dataclass(frozen=True)
class Colours:
    """What a stream says about its colours, in FFmpeg's numbers (ITU-T H.273).

    Attributes:
        range: 1 for 16 to 235, 2 for 0 to 255.
        matrix: from RGB to luma and chroma; `UNSPECIFIED` is taken for BT.709 from 720 lines on, for BT.601 below.
        primaries: carried over, not converted.
        transfer: the same.
    """

    range: int
    matrix: int
    primaries: int
    transfer: int

    def used(self, height: int) -> int:
        """The matrix that is computed with."""
        return _MATRICES.get(self.matrix, 1 if height >= 720 else 5)


@dataclass(frozen=True)
class Looks:
    """What every frame of a video shares.

    Attributes:
        height: pixels, upright.
        width: pixels, upright.
        bits: a channel.
        matrix: nine numbers, how the file asks that its frames be turned or mirrored; None as they are.
        colours: what the file says about them.
        aspect: width of a pixel by its height, upright.
        rate: frames a second, on average.
        time_base: seconds, the unit of times.
        interlaced: whether the first frame is two half pictures.
    """

    height: int
    width: int
    bits: int
    matrix: tuple[int, ...] | None
    colours: Colours
    aspect: Fraction
    rate: Fraction
    time_base: Fraction
    interlaced: bool


def looks_of(stream: Any, first: av.VideoFrame) -> Looks:
    """What a stream and its first frame say of all frames."""
    matrix = _display_matrix(first)
    height, width = turned_size(first, matrix)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if (height, width) != (first.height, first.width):
        aspect = 1 / aspect
    context = stream.codec_context
    full = int(first.color_range) == FULL or first.format.name.startswith("yuvj")
    matrix_name = int(first.colorspace)
    if _is_rgb(first):
        full, matrix_name = False, 1 if height >= 720 else 6
    colours = Colours(FULL if full else 1, matrix_name, int(context.color_primaries), int(context.color_trc))
    bits = max(component.bits for component in first.format.components)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return Looks(
        height, width, 8 if bits <= 8 else 16, matrix, colours, aspect, rate, stream.time_base, first.interlaced_frame
    )


def to_rgb(frame: av.VideoFrame, looks: Looks) -> Any:
    """An upright frame, RGB (H, W, 3): uint8, or uint16 if the video has more than 8 bits a channel."""
    kind = "rgb24" if looks.bits == 8 else "rgb48le"
    if not _is_rgb(frame):
        source = {"src_colorspace": looks.colours.used(looks.height), "src_color_range": looks.colours.range}
        frame = frame.reformat(format=kind, dst_color_range=FULL, interpolation=EXACT, **source)
    return upright(frame.to_ndarray(format=kind), looks.matrix)


def to_frame(rgb: npt.NDArray[Any], format: str, looks: Looks) -> av.VideoFrame:
    """The frame of a pixel format that holds a picture (H, W, 3) as the colours of the video say."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
    if format.startswith("yuv"):
        target = {"dst_colorspace": looks.colours.used(looks.height), "dst_color_range": looks.colours.range}
        return frame.reformat(format=format, src_color_range=FULL, interpolation=EXACT, **target)
    return frame.reformat(format=format)


def to_gray(frame: av.VideoFrame, looks: Looks) -> Array:
    """An upright frame's luma, uint8 (H, W)."""
    return upright(frame.to_ndarray(format="gray"), looks.matrix)


def to_thumbnail(frame: av.VideoFrame) -> Array:
    """A frame as `impasto.inference.video_track.find_cuts` wants it."""
    seen: Any = frame.to_ndarray(format="rgb24", width=THUMBNAIL, height=THUMBNAIL, interpolation="AREA")
    small: Array = seen
    return small


def upright(picture: npt.NDArray[Any], matrix: Sequence[int] | None) -> npt.NDArray[Any]:
    """Turn or mirror an array (H, W, ...) as a display matrix says: x' = a x + c y, y' = b x + d y, by quarter turns.

    Args:
        matrix: its nine numbers a b u, c d v, x y w, in FFmpeg's fixed point; None for as it is.
    """
    if matrix is None:
        return picture
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):
        picture = picture.swapaxes(0, 1)
        return picture[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def turned_size(frame: av.VideoFrame, matrix: Sequence[int] | None) -> tuple[int, int]:
    """Height and width of a frame that is turned as a display matrix says."""
    if matrix is not None and abs(matrix[1]) > abs(matrix[0]):
        return frame.width, frame.height
    return frame.height, frame.width


def _is_rgb(frame: av.VideoFrame) -> bool:
    return frame.format.is_rgb or frame.format.name.startswith("pal")


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data: Any
    for data in frame.side_data:
        if data.type == SideData.DISPLAYMATRIX:
            return tuple(int(number) for number in np.frombuffer(bytes(data), np.int32))
    return None
