"""Whether a pack's controls do what they say: styles told apart, strength and mixtures that move a picture one way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.benchmarks.artefacts import Rgb
from impasto.benchmarks.curves import objective_settings
from impasto.benchmarks.judge import paintings_of, photos_to_judge
from impasto.benchmarks.quality import square
from impasto.benchmarks.ruler import Array, Ruler
from impasto.card import load_card, save_card
from impasto.errors import WrongCall
from impasto.images import read_rgb
from impasto.inference import Stylizer
from impasto.packs import find_pack
from impasto.sheets import sheet

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Strengths, and shares of the second style in a mixture, at which pictures are judged."""

TOLERANCE = 0.02
"""By how much, as a part of it, a loss may move the wrong way from one point to the next."""

FADES = np.linspace(0, 1, 11)[1:-1]
"""Shares of the painting in the pixel cross-fades that strength is compared with, beside photo and painting."""


def rises(values: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    """Whether no value is lower than the one before by more than ``tolerance`` of that, and the last is the higher."""
    return all(after >= before * (1 - tolerance) for before, after in pairwise(values)) and values[-1] > values[0]


def falls(values: Sequence[float], tolerance: float = TOLERANCE) -> bool:
    """Whether no value is higher than the one before by more than ``tolerance`` of that, and the last is the lower."""
    return all(after <= before * (1 + tolerance) for before, after in pairwise(values)) and values[-1] < values[0]


def decibels(picture: Rgb, other: Rgb) -> float:
    """Peak signal-to-noise ratio of two pictures (H, W, 3), in dB; at most 99, that of equal ones."""
    error = np.square(picture.astype(float) - other).mean() / 255**2
    return float(min(99.0, -10 * np.log10(max(error, 1e-10))))


@dataclass(frozen=True)
class Answer:
    """What was found. Arrays have a row for each style, or each mixture, and a column for each photo.

    Attributes:
        styles: names, in the pack's order.
        losses: style loss of style i's pictures for painting j, the mean over photos (S, S).
        told_apart: whether a picture's own painting has the lowest loss (S, P).
        content: content loss at each of `POINTS` of strength (S, P, 5).
        style: style loss for the own painting there (S, P, 5).
        photo_back: decibels between photo and the picture of strength 0 (S, P).
        below_fade: share of the inner points whose style loss is below that of the pixel cross-fade of photo and full
            painting with the same content loss (S, P).
        pairs: indices of the styles that were mixed.
        mixed: style loss for the first and the second painting at each of `POINTS` of a mixture (M, P, 2, 5).
    """

    styles: tuple[str, ...]
    losses: Array
    told_apart: npt.NDArray[np.bool_]
    content: Array
    style: Array
    photo_back: Array
    below_fade: Array
    pairs: tuple[tuple[int, int], ...]
    mixed: Array

    @property
    def entry(self) -> dict[str, Any]:
        """The answer for the card: shares of photo-style pairs, and the matrix of mean style losses."""
        steady = [
            rises(content) and falls(style)
            for content, style in zip(
                self.content.reshape(-1, 5).tolist(), self.style.reshape(-1, 5).tolist(), strict=True
            )
        ]
        mixed = [rises(first) and falls(second) for first, second in self.mixed.reshape(-1, 2, 5).tolist()]
        return {
            "photos": self.content.shape[1],
            "told_apart": float(self.told_apart.mean()),
            "told_apart_by_style": dict(zip(self.styles, self.told_apart.mean(1).round(3).tolist(), strict=True)),
            "confusion": {"styles": list(self.styles), "style_loss": self.losses.round(4).tolist()},
            "strength": {
                "points": list(POINTS),
                "monotone": float(np.mean(steady)),
                "content": self.content.mean((0, 1)).round(4).tolist(),
                "style": self.style.mean((0, 1)).round(4).tolist(),
                "photo_back_db": {"least": float(self.photo_back.min()), "mean": float(self.photo_back.mean())},
                "below_cross_fade": float(self.below_fade.mean()),
            },
            "mixing": {
                "pairs": len(self.pairs),
                "monotone": float(np.mean(mixed)) if mixed else None,
            },
        }


@dataclass(frozen=True)
class Controls:
    """A pack, and what its controls are tried on.

    Attributes:
        pack: name or folder.
        style_images: folder of paintings; a style's is the one with its name, and every style needs one.
        photos: folder of photos, those of `photos_to_judge`.
        size: height and width of the pictures, the middle squares of the photos, in pixels.
        count: number of photos.
        apart: mixtures are those of each style with the one so many places on, for each of these numbers.
        device: what computes the losses; the network paints on the CPU.
        threads: CPU threads of the network; None for all.
    """

    pack: str
    style_images: str
    photos: str
    size: int = 256
    count: int = 10
    apart: Sequence[int] = (1, 5)
    device: str = "cpu"
    threads: int | None = None

    @property
    def folder(self) -> Path:
        """The folder of the pack."""
        return find_pack(self.pack)[0].path

    def run(self, progress: Callable[[int, int], None] | None = None) -> Answer:
        """Try all of them.

        Args:
            progress: called with the pictures behind and in all.

        Raises:
            WrongCall: for a style without a painting, or fewer photos than asked for.
            PictureError, PackError: for a file that cannot be used.
        """
        pack = find_pack(self.pack)[0]
        paintings = paintings_of(pack.card.style_names, self.style_images)
        if missing := [style for style in pack.card.style_names if style not in paintings]:
            raise WrongCall(
                f"no painting in {self.style_images} for {', '.join(missing)}: expected a file of that name"
            )
        ruler = Ruler(objective_settings(pack.card), paintings, self.device)
        stylizer = Stylizer(pack.path, provider="cpu", threads=self.threads)
        styles = len(stylizer.styles)
        pairs = _pairs(styles, self.apart)
        photos = [square(read_rgb(path), self.size) for path in photos_to_judge(self.photos, self.count)]
        sweep, mixture = len(POINTS) + len(FADES), len(POINTS) - 2
        total = len(photos) * (styles * sweep + len(pairs) * mixture)
        done = 0

        def behind(pictures: int) -> None:
            nonlocal done
            done += pictures
            if progress is not None:
                progress(done, total)

        found: list[tuple[list[_Strengths], list[Array]]] = []
        for photo in photos:
            trial = _Trial(stylizer, ruler, photo)
            sweeps, mixtures = [], []
            for style in range(styles):
                sweeps.append(trial.strengths(style))
                behind(sweep)
            for pair in pairs:
                mixtures.append(trial.mixture(pair, [sweeps[style].losses for style in pair]))
                behind(mixture)
            found.append((sweeps, mixtures))
        return _answer(stylizer.styles, found, pairs)


def write_controls(folder: Path, answer: Answer, size: int) -> None:
    """Put an answer into a pack's card, under ``quality["controls"]``."""
    card = load_card(folder)
    save_card(replace(card, quality={**card.quality, "controls": {"size": size} | answer.entry}), folder)


@dataclass(frozen=True)
class _Strengths:
    """One style on one photo: the losses for all paintings at full strength, then what `Answer` has of it."""

    losses: Array
    content: list[float]
    style: list[float]
    photo_back: float
    below_fade: float


class _Trial:
    """The controls of a stylizer on one photo."""

    def __init__(self, stylizer: Stylizer, ruler: Ruler, photo: Rgb) -> None:
        self._stylizer, self._ruler, self._photo = stylizer, ruler, photo
        self._content = ruler.content(photo)
        self._unpainted = self._measure(photo)

    def _measure(self, picture: Rgb) -> tuple[float, Array]:
        return self._ruler.measure(picture, self._content)

    def _paint(self, shares: Mapping[int, float], strength: float) -> Rgb:
        return _painted(self._stylizer, self._photo, shares, strength)

    def strengths(self, style: int) -> _Strengths:
        """One style at all of `POINTS`, and the cross-fades from the photo to its full strength."""
        pictures = [self._paint({style: 1}, point) for point in POINTS]
        measured = [self._measure(picture) for picture in pictures]
        contents, own = [each[0] for each in measured], [float(each[1][style]) for each in measured]
        between = [self._measure(_fade(self._photo, pictures[-1], share)) for share in FADES]
        faded = [self._unpainted, *between, measured[-1]]
        along = np.maximum.accumulate([each[0] for each in faded])
        fade_style = np.interp(contents, along, [each[1][style] for each in faded])
        below = [own[index] < fade_style[index] for index in range(1, len(POINTS) - 1)]
        return _Strengths(measured[-1][1], contents, own, decibels(self._photo, pictures[0]), float(np.mean(below)))

    def mixture(self, pair: tuple[int, int], ends: Sequence[Array]) -> Array:
        """Style losses for the two paintings at the points of a mixture (2, 5); ``ends``: what each style alone has."""
        first, second = pair
        inner = [self._measure(self._paint({first: 1 - share, second: share}, 1))[1] for share in POINTS[1:-1]]
        return np.array([ends[0], *inner, ends[1]])[:, list(pair)].T


def _painted(stylizer: Stylizer, photo: Rgb, shares: Mapping[int, float], strength: float) -> Rgb:
    """A photo (H, W, 3) in a mixture, the shares by the styles' places."""
    weights = np.array([[shares.get(index, 0) for index in range(len(stylizer.styles))]], np.float32)
    painted: Rgb = stylizer.paint(photo[None], weights, np.array([strength], np.float32))[0]
    return painted


def _fade(photo: Rgb, painting: Rgb, share: float) -> Rgb:
    mixed = photo + share * (painting.astype(np.float64) - photo)
    return mixed.round().astype(np.uint8)


def _pairs(styles: int, apart: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Each style with those so many places on, each pair once."""

    def found() -> Iterator[tuple[int, int]]:
        for places in apart:
            for first in range(styles):
                second = (first + places) % styles
                if first != second:
                    yield min(first, second), max(first, second)

    return tuple(dict.fromkeys(found()))


def _answer(
    styles: tuple[str, ...],
    found: Sequence[tuple[Sequence[_Strengths], Sequence[Array]]],
    pairs: tuple[tuple[int, int], ...],
) -> Answer:
    by_style = [[sweeps[style] for sweeps, _ in found] for style in range(len(styles))]
    losses = np.array([[sweep.losses for sweep in row] for row in by_style])  # (S, P, S)
    mixed = np.array([mixtures for _, mixtures in found]).reshape(len(found), len(pairs), 2, len(POINTS))
    return Answer(
        styles=styles,
        losses=losses.mean(1),
        told_apart=losses.argmin(2) == np.arange(len(styles))[:, None],
        content=np.array([[sweep.content for sweep in row] for row in by_style]),
        style=np.array([[sweep.style for sweep in row] for row in by_style]),
        photo_back=np.array([[sweep.photo_back for sweep in row] for row in by_style]),
        below_fade=np.array([[sweep.below_fade for sweep in row] for row in by_style]),
        pairs=pairs,
        mixed=mixed.transpose(1, 0, 2, 3),
    )


def table(answer: Answer) -> str:
    """The answer as two Markdown tables: what holds in how many photo-style pairs, and a row for each style."""
    entry, strength = answer.entry, answer.entry["strength"]
    mixing = entry["mixing"]["monotone"]
    head = [
        ("own painting has the lowest style loss", f"{entry['told_apart']:.1%}"),
        ("content rises and style falls with strength", f"{strength['monotone']:.1%}"),
        ("style below a pixel cross-fade's of equal content", f"{strength['below_cross_fade']:.1%}"),
        ("strength 0 against the photo, least", f"{strength['photo_back_db']['least']:.1f} dB"),
        ("both style losses monotone along a mixture", "" if mixing is None else f"{mixing:.1%}"),
    ]
    lines = ["| | |", "| --- | --: |", *(f"| {what} | {share} |" for what, share in head), ""]
    lines += ["| style | told apart | style loss, own | nearest other | its loss | photo back, dB |"]
    lines += ["| --- | --: | --: | --- | --: | --: |"]
    for index, name in enumerate(answer.styles):
        others = [
            (loss, other) for other, loss in zip(answer.styles, answer.losses[index], strict=True) if other != name
        ]
        loss, other = min(others, default=(float("nan"), ""))
        lines.append(
            f"| {name} | {answer.told_apart[index].mean():.0%} | {answer.losses[index, index]:.3f} | {other} | "
            f"{loss:.3f} | {answer.photo_back[index].min():.1f} |"
        )
    return "\n".join(lines) + "\n"


def strips(pack: str | Path, photo: Path, size: int, pairs: Sequence[tuple[int, int]]) -> dict[str, Image.Image]:
    """Sheets of a photo: ``strength``, a row for each style, and ``mixing``, one for each pair; a column a point."""
    stylizer = Stylizer(pack, provider="cpu")
    names, seen = stylizer.styles, square(read_rgb(photo), size)

    def paint(weights: Mapping[int, float], strength: float) -> Image.Image:
        return Image.fromarray(_painted(stylizer, seen, weights, strength))

    strengths = [[paint({style: 1}, point) for point in POINTS] for style in range(len(names))]
    mixtures = [[paint({first: 1 - share, second: share}, 1) for share in POINTS] for first, second in pairs]
    titles = [f"{point:g}" for point in POINTS]
    found = {"strength": sheet(strengths, titles=titles, captions=names)}
    if pairs:
        captions = [f"{names[first]} to {names[second]}" for first, second in pairs]
        found["mixing"] = sheet(mixtures, titles=titles, captions=captions)
    return found
