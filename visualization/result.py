"""What every technique returns: pictures, numbers, perhaps an animation, and how to get them again."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.errors import WrongCall
from impasto.formats import write_atomically
from impasto.visualization.animation import encode_animation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

DATA, FRAMES = "data.json", "frames.webp"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MODES = ("L", "RGB", "RGBA")


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors of pictures, for TensorBoard's projector.

    Attributes:
        vectors: (N, D), float32.
        names: of each picture.
        pictures: (N, 3, h, w), float32 RGB in [0, 1], small: TensorBoard shows up to 8192 x 8192 pixels of them.
    """

    vectors: npt.NDArray[np.float32]
    names: tuple[str, ...]
    pictures: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """Pictures and numbers that belong together.

    Attributes:
        images: pictures by name, modes L, RGB or RGBA. A name is letters, digits, ``_``, ``-`` and ``.``, and becomes
            a file's.
        data: what JSON can hold: the numbers behind the pictures.
        frames: pictures of one size, to be shown one after the other.
        caption: what is to be seen, in a sentence or two.
        command: the command line that makes it again.
        embedding: vectors that `tensorboard` shows in the projector.

    Raises:
        WrongCall: a name that cannot be a file's, or is there twice but for case; a picture of another mode; data that
            JSON cannot hold (NaN and infinity included).
    """

    images: dict[str, Image.Image]
    data: dict[str, Any] = field(default_factory=dict)
    frames: list[Image.Image] = field(default_factory=list)
    caption: str = ""
    command: str = ""
    embedding: Embedding | None = None

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            if not _NAME.fullmatch(name):
                raise WrongCall(f"a picture's name: got {name!r}, expected letters, digits, '_', '-' and '.'")
            if image.mode not in _MODES:
                raise WrongCall(f"the picture {name}: got mode {image.mode}, expected one of {', '.join(_MODES)}")
        if len({name.lower() for name in self.images}) < len(self.images):
            raise WrongCall(f"pictures' names: got {', '.join(self.images)}, expected names that differ in any case")
        self._json()

    def save(self, folder: str | Path) -> list[Path]:
        """Write everything into a folder, which is made if need be; files of the same names are replaced.

        Each picture goes to its name with ``.png``, the frames to ``frames.webp``, then data, caption and command to
        ``data.json``. Each file is written whole or not at all, and none before all of them could be encoded.

        Returns:
            The files, in that order.

        Raises:
            WrongCall: as `encode_animation`, of the frames; or data that was changed and is no longer JSON.
            OSError: the folder or the disk does not take a file.
        """
        files = {f"{name}.png": _png(image) for name, image in self.images.items()}
        files |= {FRAMES: encode_animation(self.frames, "webp")} if self.frames else {}
        files |= {DATA: self._json().encode()}
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
        return [folder / name for name in files]

    def tensorboard(self, writer: SummaryWriter, step: int = 0) -> None:
        """Show the pictures under their names, caption and command as texts, and the embedding in the projector.

        There is no place for the frames.
        """
        for name, image in self.images.items():
            pixels = np.asarray(image if image.mode == "RGBA" else image.convert("RGB"))
            writer.add_image(name, pixels, step, dataformats="HWC")
        if self.caption:
            writer.add_text("caption", self.caption, step)
        if self.command:
            writer.add_text("command", textwrap.indent(self.command, "    "), step)
        if self.embedding is not None:
            _project(self.embedding, writer, step)

    def _repr_html_(self) -> str:
        """The pictures, the animation, the caption and the command, as a notebook shows them."""
        shown = [(name, "image/png", _png(image)) for name, image in self.images.items()]
        if self.frames:
            shown.append(("frames", "image/webp", encode_animation(self.frames, "webp")))
        figures = "".join(
            f'<figure style="display: inline-block; margin: 4px"><img alt="{html.escape(name)}" '
            f'src="data:{kind};base64,{base64.b64encode(content).decode()}">'
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
            for name, kind, content in shown
        )
        caption = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        command = f"<pre>{html.escape(self.command)}</pre>" if self.command else ""
        return f"<div>{figures}{caption}{command}</div>"

    def _json(self) -> str:
        content = {"caption": self.caption, "command": self.command, "data": self.data}
        try:
            return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise WrongCall(f"a result's data: JSON cannot hold it: {error}") from error


def _project(embedding: Embedding, writer: SummaryWriter, step: int) -> None:
    """Names go into a table of one column, in which a tab or a line's end would begin another."""
    from torch import from_numpy

    names = [" ".join(name.split()) for name in embedding.names]
    with contextlib.redirect_stdout(io.StringIO()):  # says on every second run that the folder is there
        writer.add_embedding(embedding.vectors, names, from_numpy(embedding.pictures), step, "features")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", dpi=image.info.get("dpi"))
    return buffer.getvalue()
