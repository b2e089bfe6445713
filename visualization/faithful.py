"""Are the maps any good? What attribution is worth, measured, beside maps that know nothing of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from impasto.errors import WrongCall, unknown_name
from impasto.visualization.answers import answer
from impasto.visualization.backprop import INDEPENDENT, deconvnet_map, guided_backprop_map, spearman
from impasto.visualization.cams import cam_map, gradcam_map, guided_gradcam_map
from impasto.visualization.cascade import forgetting, parts
from impasto.visualization.drawing import heat, overlay, panel, span
from impasto.visualization.evidence import (
    blurred,
    centre_map,
    deleted,
    edge_map,
    probability_of,
    random_map,
)
from impasto.visualization.gradients import saliency_map
from impasto.visualization.inputs import Pictures
from impasto.visualization.model import Model
from impasto.visualization.occlusions import occlusion_map
from impasto.visualization.plots import plot
from impasto.visualization.progress import track
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.scores import CONTROLS, Score, Subject, trusted
from impasto.visualization.windows import mean_colour


def _coarse_occlusion(model: Model, picture: Tensor, target: int) -> Tensor:
    """Occlusion with a square at every half of its side: a quarter of the work."""
    return occlusion_map(model, picture, target, stride=max(1, min(picture.shape[2:]) // 14))


METHODS: dict[str, Callable[[Model, Tensor, int], Tensor]] = {
    "cam": cam_map,
    "gradcam": gradcam_map,
    "occlusion": _coarse_occlusion,
    "saliency": saliency_map,
    "guided_backprop": guided_backprop_map,
    "guided_gradcam": guided_gradcam_map,
    "deconvnet": deconvnet_map,
}
"""A picture's map (H, W) for a class: what every technique of attribution that has one is compared by."""

COLUMNS = ("insertion", "deletion", "drop", "increase")
"""The measures of a map, as in data; good ones are high, low, low, high."""


@technique("V20", "attribution")
def faithfulness(
    model: Model,
    pictures: Pictures,
    *,
    target: int | str | None = None,
    methods: tuple[str, ...] = (),
    steps: int = 14,
    smoothing: float = 0.05,
    blur: float = 0.05,
    cascade: bool = True,
    seed: int = 0,
) -> Result:
    """Are the maps any good? Every method's, beside noise, edges and the centre, by what the network does without them.

    Insertion and deletion: the area under the class's probability while the most important pixels come back into a
    blurred picture (high is good), or are blurred (low). Drop and increase: what is lost when only what the map shows
    is left, and how often the probability rises. Maps are smoothed alike before: a blur cannot judge what is finer.
    Cascade: rank correlation (Spearman) of the map's magnitude with that after the layers from the last to the one
    named were re-initialised. A map that stays alike does not show what the network learned. On the first picture, and
    not of occlusion, which takes too long and looks at nothing but what the network computes.

    Source: Petsiuk et al. 2018 (RISE); Chattopadhyay et al. 2018 (Grad-CAM++); Adebayo et al. 2018.

    Args:
        pictures: Photos; the measures are means over them.
        target: The class in all of them: its index, its name or how its name begins; by default each one's highest.
        methods: Of cam, gradcam, occlusion, saliency, guided_backprop, guided_gradcam, deconvnet; none for all.
        steps: Equal parts of the pixels that are blurred or come back.
        smoothing: Standard deviation of the Gaussian over maps, as a part of the picture's side.
        blur: Of the Gaussian over the picture, likewise.
        cascade: Re-initialise layers too, which takes each map again some times.
        seed: Of the noise, the order of equal values, and new weights.

    Returns:
        A `Result` with the images ``table``, ``curves`` and ``maps`` (of the first picture), and frames of its deletion
        by the method with the highest insertion. ``data`` has for each method and control its four measures, its mean
        ``curves``, for methods its ``cascade`` (layer -> correlation); the methods ``refused`` by this network and why;
        the ``trusted``, which beat every control in insertion and deletion; and each picture's class with its
        probability as it is and ``blurred``, where curves end.

    Raises:
        Refused: a network without classes; one that all methods refuse.
        WrongCall: an unknown method or class; no step; a deviation below 0.
        PictureError: a file that cannot be read.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise unknown_name("method", unknown[0], METHODS)
    if steps < 1 or smoothing < 0 or blur <= 0:
        raise WrongCall(f"faithfulness: got steps {steps}, smoothing {smoothing}, blur {blur}; expected 1, 0, above 0")
    chosen, refused = list(dict.fromkeys(methods)) or list(METHODS), dict[str, str]()
    scores: dict[str, Score] = {}
    subjects: list[Subject] = []
    for (index,), picture in track(pictures.batches(model, 1), len(pictures), "photos"):
        subject, refused = _subject(model, picture, target, chosen, blur, smoothing, seed + index)
        for name, values in subject.smooth.items():
            scores.setdefault(name, Score()).add(subject, values, mean_colour(model, picture), steps, seed)
        subjects.append(subject if not subjects else replace(subject, maps={}, smooth={}))
    first = subjects[0]
    alike = _alike(model, first, seed) if cascade else {}
    data = {
        "pictures": [
            subject.found.data() | {"path": str(path), "blurred": float(subject.probability(subject.baseline))}
            for path, subject in zip(pictures.paths, subjects, strict=True)
        ],
        "steps": steps,
        "methods": {
            name: score.data() | {"control": name in CONTROLS} | ({"cascade": alike[name]} if name in alike else {})
            for name, score in scores.items()
        },
        "refused": refused,
        "trusted": trusted(scores),
    }
    best = max((name for name in scores if name not in CONTROLS), key=lambda name: scores[name].measures()["insertion"])
    images = {"table": _table(data), "curves": _curves(scores), "maps": _drawn(first)}
    return Result(images, data, _frames(first, best, steps, seed), _caption(data, best))


def _subject(
    model: Model,
    picture: Tensor,
    target: int | str | None,
    methods: Sequence[str],
    blur: float,
    smoothing: float,
    seed: int,
) -> tuple[Subject, dict[str, str]]:
    """A picture with the maps of the methods that the network does not refuse, and why it refuses the others."""
    found = answer(model, picture, target)
    maps, refused = dict[str, Tensor](), dict[str, str]()
    for name in track(methods, len(methods), "maps"):
        try:
            maps[name] = METHODS[name](model, picture, found.index).detach().float().cpu()
        except Refused as refusal:
            refused[name] = str(refusal)
    if not maps:
        raise Refused(f"faithfulness: no method works here: {'; '.join(refused.values())}")
    maps |= {"random": random_map(picture, seed), "edges": edge_map(picture), "centre": centre_map(picture)}
    smooth = {name: blurred(values[None, None], smoothing * model.size)[0, 0] for name, values in maps.items()}
    baseline = blurred(picture, blur * model.size)
    return Subject(picture, found, baseline, probability_of(model, found.index), maps, smooth), refused


def _alike(model: Model, subject: Subject, seed: int) -> dict[str, dict[str, float]]:
    """method -> layer down to which the network forgot -> rank correlation of the map's magnitude with what it was."""
    names = [name for name in subject.maps if name in METHODS and name != "occlusion"]
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for layer, forgetful in track(forgetting(model, seed), len(parts(model)), "networks that forget"):
        for name in names:
            again = METHODS[name](forgetful, subject.picture, subject.found.index).detach().float().cpu()
            found[name][layer] = spearman(subject.maps[name].abs(), again.abs())
    return found


def _drawn(subject: Subject) -> Image.Image:
    """The first picture's maps as they are judged, each from its least to its greatest value."""
    over = {name: overlay(subject.picture, heat(values), 0.7) for name, values in subject.smooth.items()}
    notes = {name: span(values) for name, values in subject.smooth.items()}
    photo = {"photo": to_image(subject.picture)}
    return panel(photo | over, {"photo": str(subject.found)} | notes, columns=4)


def _curves(scores: dict[str, Score]) -> Image.Image:
    """Mean insertion and deletion of every method and of noise, both from the blurred picture to the photo."""
    shown = [name for name in scores if name not in CONTROLS or name == "random"]
    points = {curve: {name: scores[name].mean(curve) for name in shown} for curve in ("insertion", "deletion")}
    points["deletion"] = {name: [(1 - part, p) for part, p in curve] for name, curve in points["deletion"].items()}
    return panel(
        {
            "insertion": plot(points["insertion"], x="part of the pixels, the first by the map", y="p"),
            "deletion": plot(points["deletion"], x="part of the pixels, the last by the map", y="p"),
        },
        {"insertion": "the higher, the better", "deletion": "the lower, the better"},
    )


def _table(data: dict[str, Any]) -> Image.Image:
    """Methods and controls by insertion, the best first, and what is left of each map by the cascade."""
    methods = sorted(data["methods"].items(), key=lambda each: -each[1]["insertion"])
    layers = next((list(facts["cascade"]) for _, facts in methods if "cascade" in facts), [])
    rows = [["", *COLUMNS, *("after\n" + layer.replace(".", ".\n") for layer in layers)]]
    for name, facts in methods:
        alike = facts.get("cascade", {})
        title = f"({name})" if facts["control"] else name
        cells = [f"{facts[measure]:.3f}" for measure in COLUMNS]
        rows.append([title, *cells, *(f"{alike[layer]:+.2f}" if layer in alike else "" for layer in layers)])
    return written(rows)


def written(rows: Sequence[Sequence[str]], line: int = 20) -> Image.Image:
    """A table as a picture: its first row the columns' names, its first column the rows', numbers to the right."""
    font = ImageFont.load_default(size=14)
    cells = [[cell.split("\n") for cell in row] for row in rows]
    heights = [line * max(map(len, row)) for row in cells]
    widths = [
        round(max(font.getlength(text) for cell in column for text in cell)) + 20 for column in zip(*cells, strict=True)
    ]
    image = Image.new("RGB", (sum(widths), sum(heights) + 8), "white")
    draw = ImageDraw.Draw(image)
    for row, texts in enumerate(cells):
        for column, cell in enumerate(texts):
            left, bottom = sum(widths[:column]), 2 + sum(heights[: row + 1])
            for index, text in enumerate(reversed(cell)):
                across, anchor = (left + 10, "ld") if column == 0 else (left + widths[column] - 10, "rd")
                draw.text((across, bottom - line * index), text, fill="black", font=font, anchor=anchor)
    draw.line((0, heights[0] + 3, image.width, heights[0] + 3), fill="#999999")
    return image


def _frames(subject: Subject, name: str, steps: int, seed: int) -> list[Image.Image]:
    """The picture while it is deleted by a method's map."""
    stages = deleted(subject.picture, subject.baseline, subject.smooth[name], steps=steps, seed=seed)
    return [to_image(each[None]) for each in stages]


def _caption(data: dict[str, Any], best: str) -> str:
    methods, count = data["methods"], len(data["pictures"])
    noise = methods["random"]["insertion"]
    said = [f"Insertion is highest with {best} ({methods[best]['insertion']:.3f}; noise {noise:.3f})"]
    better = ", ".join(data["trusted"]) or "none"
    said += [f"better than noise, edges and centre in insertion and deletion on {count} photos: {better}"]
    last = {name: next(iter(facts["cascade"].values())) for name, facts in methods.items() if "cascade" in facts}
    if kept := [name for name, rho in last.items() if rho > INDEPENDENT]:
        said += [f"hardly changed when the last layer forgets, so no evidence for a class: {', '.join(kept)}"]
    if data["refused"]:
        said += [f"refused by this network: {', '.join(data['refused'])}"]
    return f"{'; '.join(said)}."
