"""What a network is worth: the work that per-image optimisation has to do for a picture as good by the objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from impasto.benchmarks.artefacts import Paint, Rgb, blotch, checkerboard
from impasto.benchmarks.curves import SETTINGS, Curve, Yardstick, objective_settings, optimisation_curve
from impasto.benchmarks.judge import middle, painter, paintings_of, photos_to_judge
from impasto.benchmarks.levels import PARTS, Level, Result
from impasto.errors import Interrupted, WrongCall
from impasto.images import MIN_SIDE, read_rgb
from impasto.packs import Pack, find_pack, sha256_of
from impasto.training import TransformerNet
from impasto.training.export import load_network
from impasto.training.photos import to_tensor


@dataclass(frozen=True)
class Quality:
    """A pack, and what its quality is measured on.

    The pack's own training objective (see `Yardstick`) judges its 8-bit paintings of the middle squares of photos, and
    the pictures of L-BFGS from the same photos. The pack's *equivalent evaluations* are the evaluations of the
    objective that L-BFGS needs until its loss is at most the painting's: 0 for a network that gives the photo back.

    Attributes:
        pack: name or folder.
        style_images: folder of paintings; a style's is the one with its name.
        photos: folder of photos.
        output: folder of the results; what was computed is kept in ``curves/`` in it.
        sizes: heights and widths to paint at, in pixels.
        count: number of photos, see `photos_to_judge`.
        beside: other packs with styles of the same names; names or folders.
        max_evaluations: the cap, where an optimisation stops in any case.
        device: what computes the objective, "cpu" or "cuda"; the networks paint on the CPU.
        threads: CPU threads of the networks; None for all.
    """

    pack: str
    style_images: str
    photos: str
    output: Path
    sizes: Sequence[int] = (256,)
    count: int = 4
    beside: Sequence[str] = ()
    max_evaluations: int = 300
    device: str = "cpu"
    threads: int | None = None

    @property
    def folder(self) -> Path:
        """The folder of the pack."""
        return find_pack(self.pack)[0].path

    def check(self) -> list[str]:
        """What would be left out or differs, a line each; raises what `run` would before it computes anything."""
        if self.device not in ("cpu", "cuda") or (self.device == "cuda" and not torch.cuda.is_available()):
            raise WrongCall(f"device: got {self.device!r}, expected cpu, or cuda where torch sees a GPU")
        if min(self.sizes, default=0) < MIN_SIDE or self.count < 1 or self.max_evaluations < 1:
            raise WrongCall(
                f"quality: got sizes {list(self.sizes)}, {self.count} photos, {self.max_evaluations} evaluations; "
                f"expected sizes from {MIN_SIDE} up and 1 or more of the others"
            )
        packs = self._packs()
        pack = next(iter(packs.values()))
        settings, paintings = objective_settings(pack.card), paintings_of(pack.card.style_names, self.style_images)
        photos_to_judge(self.photos, self.count)
        missing = [style for style in pack.card.style_names if style not in paintings]
        lines = [f"left out, no painting in {self.style_images}: {', '.join(missing)}"] if missing else []
        trained = {painting.get("sha256") for painting in pack.card.training.get("paintings", [])}
        for style, path in paintings.items():
            if trained and sha256_of(path) not in trained:
                lines.append(f"{style}: {path.name} is not the file that the pack was trained on, by its SHA-256")
        return lines + _differences(packs, settings)

    def run(self, progress: Callable[[int, int], None] | None = None) -> list[Result]:
        """Measure every style of the pack whose painting is there, at every size; a curve that is there is not redone.

        Args:
            progress: called with the evaluations behind, and in total at most.

        Raises:
            WrongCall: for no painting, too few photos, a pack beside without a style of the pack's, or a number out of
                range.
            PictureError: for a file that cannot be read.
            PackError: for a pack that is damaged or does not say what it was trained for.
            Interrupted: at a Ctrl-C; the same call goes on.
        """
        self.check()
        packs = self._packs()
        pack = next(iter(packs.values()))
        settings, net = objective_settings(pack.card), load_network(pack).eval()
        paintings = paintings_of(pack.card.style_names, self.style_images)
        photos = photos_to_judge(self.photos, self.count)
        squares = {size: [square(read_rgb(photo), size) for photo in photos] for size in self.sizes}
        total = len(paintings) * len(self.sizes) * len(photos) * self.max_evaluations
        results: list[Result] = []

        def advance(curves: int, evaluations: int) -> None:
            if progress is not None:
                progress((len(results) * len(photos) + curves) * self.max_evaluations + evaluations, total)

        try:
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                for style, painting in paintings.items():
                    yardstick = Yardstick(settings, painting, torch.device(self.device))
                    having = {name: other for name, other in packs.items() if style in other.card.style_names}
                    paints = {name: painter(other.path, self.threads, style) for name, other in having.items()}
                    paint = next(iter(paints.values()))
                    flat = {"checkerboard": asdict(checkerboard(paint, net.painter.stride)), "blotch": blotch(paint)}
                    for size, seen in squares.items():
                        levels, curves = self._levels(having, paints, seen, yardstick, advance)
                        exact = exactness(
                            net, pack.card.style_names.index(style), seen, [paint(photo) for photo in seen]
                        )
                        names = [photo.name for photo in photos]
                        results.append(Result(style, size, names, levels[0], levels[1:], flat | exact, curves))
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped; finished curves are kept in {self.output}: run the same command again to go on"
            ) from error
        return results

    def _levels(
        self,
        packs: Mapping[str, Pack],
        paints: Mapping[str, Paint],
        photos: Sequence[Rgb],
        yardstick: Yardstick,
        advance: Callable[[int, int], None],
    ) -> tuple[list[Level], list[Curve]]:
        """The packs' levels on photos, and the photos' curves down to the lowest of them."""
        parts: dict[str, list[dict[str, float]]] = {name: [] for name in packs}
        curves = []
        for index, photo in enumerate(photos):
            content = yardstick.content(photo)
            for name, paint in paints.items():
                parts[name].append(_parts(yardstick, paint(photo), content))
            lowest = min(found[-1]["objective"] for found in parts.values())
            curves.append(self._curve(photo, yardstick, content, lowest, partial(advance, index)))
            advance(index + 1, 0)
        levels = []
        for name, pack in packs.items():
            pairs = zip(curves, parts[name], strict=True)
            crossings = [curve.crossing(found["objective"], self.max_evaluations) for curve, found in pairs]
            pictures = pack.card.training.get("pictures")
            levels.append(Level(name, pictures, parts[name], crossings, self.max_evaluations))
        return levels, curves

    def _curve(
        self,
        photo: Rgb,
        yardstick: Yardstick,
        content: Mapping[str, torch.Tensor],
        level: float,
        progress: Callable[[int], None],
    ) -> Curve:
        """The curve of a photo down to a level, from the folder if it is there and goes as far."""
        path = self.output / "curves" / f"{yardstick.key(photo)}.json"
        kept = Curve.read(path)
        if kept is not None and kept.suffices(level, self.max_evaluations):
            return kept

        def objective(picture: torch.Tensor) -> torch.Tensor:
            return yardstick.terms(picture, content).total

        curve = optimisation_curve(yardstick.tensor(photo), objective, level, self.max_evaluations, progress)
        curve.write(path)
        return curve

    def _packs(self) -> dict[str, Pack]:
        """All packs by the names of their folders, the measured one first."""
        first, *others = [find_pack(name)[0] for name in (self.pack, *self.beside)]
        packs = {first.path.resolve().name: first}
        for pack in others:
            if packs.setdefault(pack.path.resolve().name, pack) is not pack:
                raise WrongCall(f"beside: two packs are in folders named {pack.path.name!r}; rename one of them")
            if not set(pack.card.style_names) & set(first.card.style_names):
                raise WrongCall(
                    f"beside: {pack.path} has the styles {', '.join(pack.card.style_names)}, expected one of: "
                    f"{', '.join(first.card.style_names)}"
                )
        return packs


def _differences(packs: Mapping[str, Pack], settings: Mapping[str, Any]) -> list[str]:
    """A line for each pack that was trained for another objective than the first."""
    lines = []
    for name, pack in list(packs.items())[1:]:
        config = pack.card.training.get("config", {})
        differing = [f"{key} {config.get(key)}" for key in SETTINGS if config.get(key) != settings[key]]
        if differing:
            lines.append(f"{name} was trained for another objective ({'; '.join(differing)}); it is judged by this one")
    return lines


@torch.no_grad()
def _parts(yardstick: Yardstick, painting: Rgb, content: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The objective of a painting and its weighted parts."""
    terms = yardstick.terms(yardstick.tensor(painting), content)
    parts = dict.fromkeys(PARTS, 0.0)
    for name, value in terms.weighted.items():
        parts[name.partition("/")[0]] += float(value)
    return {"objective": float(terms.total)} | parts


def square(photo: Rgb, size: int) -> Rgb:
    """The middle square of a photo (H, W, 3), resized to (size, size, 3) by Lanczos; a small one is enlarged."""
    part = np.ascontiguousarray(middle(photo, min(photo.shape[:2])))
    return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.LANCZOS))


@torch.no_grad()
def exactness(net: TransformerNet, style: int, photos: Sequence[Rgb], paintings: Sequence[Rgb]) -> dict[str, Any]:
    """How clean a pack's paintings of photos are, and how near to those of the network it was exported from.

    Args:
        net: the trained network.
        style: index of the style.
        photos: uint8 (H, W, 3).
        paintings: what the exported network made of them.

    Returns:
        ``clipping``: share of values at 0 or 255 of the paintings and of the photos; ``non_finite``: number of values
        of the network's last convolution, before it is clipped, that are no numbers or infinite; ``parity``: largest
        difference between network and paintings in levels of 255, and share of values at most one level apart.
    """
    raw: list[torch.Tensor] = []
    weights = torch.eye(net.styles)[style : style + 1]
    hook = net.painter.output.register_forward_hook(lambda module, inputs, output: raw.append(output))
    try:
        expected = [net(to_tensor(photo)[None], weights)[0].permute(1, 2, 0) for photo in photos]
    finally:
        hook.remove()
    levels = np.stack([(painting * 255).round().nan_to_num(0.0).numpy() for painting in expected])
    apart = np.abs(np.stack(paintings) - levels)
    return {
        "clipping": {"painting": _clipped(paintings), "photo": _clipped(photos)},
        "non_finite": sum(int((~torch.isfinite(values)).sum()) for values in raw),
        "parity": {"largest_difference": int(apart.max()), "share_within_1_of_255": float((apart <= 1).mean())},
    }


def _clipped(pictures: Sequence[Rgb]) -> float:
    return float(np.mean([(picture == 0) | (picture == 255) for picture in pictures]))
