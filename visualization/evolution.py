"""Pictures that no one would take for anything, bred until a network is sure what they are."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.answers import answer
from impasto.visualization.champions import Archive, Encoding, illuminated, probabilities_of
from impasto.visualization.drawing import Grid, grid, panel
from impasto.visualization.genomes import Cppn, Direct
from impasto.visualization.judging import Verdict, verdicts
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.progress import tell
from impasto.visualization.registry import technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_tensor

FRAMES = 30
"""Pictures in the animation, at most."""

FRAMED = 9
"""Champions in a picture of the animation."""

COARSE = 1 / 8
"""Cycles a pixel below which a structure counts as coarse: a quarter of the finest that a picture can hold."""


@technique("V34", "fooling")
def evolve(
    model: Model,
    *,
    encoding: Literal["cppn", "direct"] = "cppn",
    evaluations: int = 1000,
    start: int = 64,
    mutation: float = 0.1,
    shown: int = 25,
    judge: Model | None = None,
    seed: int = 0,
) -> Result:
    """Fooling pictures by evolution: of each class the one, of all that were bred, that the network is surest of.

    MAP-Elites: every child of a champion is offered to all classes at once, and takes the place of each champion that
    the network gives a lower probability. No gradient is used, only what the network answers. Pictures from patterns
    (cppn) are abstract, regular and soon taken for something; pixels by themselves (direct) stay noise and need far
    more evaluations.
    The more evaluations, the surer; among the first few hundred, chance does as much as selection.

    Source: Nguyen et al. 2015, section 2.3; Mouret and Clune 2015. Differs from Nguyen et al. in that CPPNs have a
    fixed topology, in that the rate of mutation does not fall, and in batches of 16 instead of 400.

    Args:
        encoding: What is inherited: a cppn, from which hue, saturation and value of a place are computed, or these of
            every pixel (direct).
        evaluations: Pictures that the network is asked about.
        start: Random ones among them, the first; they are the control.
        mutation: The probability that a gene of a child is changed.
        shown: Champions on the page.
        judge: A second network that says what it sees in the champions, such as efficientnet_lite1.
        seed: Of all that is drawn.

    Returns:
        A `Result` with the images ``evolve`` (the page: the best champions, with what is said of each), ``champions``
        (the same without a word, to be cut out) and ``curves``; the frames are the nine best at the time. ``data`` has
        ``best``, ``median`` and ``above_half`` of all champions; the same of the ``random`` pictures alone; the
        ``history`` of these; and of each of ``champions`` the class, its probability, the evaluation that it was
        (``born``), its ``box`` in the image ``champions``, the part of its structure that is ``coarse`` and the judge's
        verdict. The network is only ever shown what a file of 8 bits holds, and ``png_error`` is how far the
        probabilities of the champions, read back from the image ``champions``, are from those found.

    Raises:
        Refused: a network without classes; a champion's class that the judge does not know.
        WrongCall: numbers that cannot be.
    """
    if not (1 <= start <= evaluations and 0 < mutation <= 1 and shown >= 1):
        raise WrongCall(
            f"evolve: got {evaluations} evaluations, {start} at the start, mutation {mutation} and {shown} shown; "
            "expected 1 or more shown, a start of 1 up to all evaluations, a probability of mutation above 0"
        )
    encoder = {"cppn": Cppn, "direct": Direct}[encoding](model.size)
    answer(model, torch.zeros(1, 3, model.size, model.size, device=model.device))
    history, frames = list[dict[str, float]](), list[Image.Image]()
    random: dict[str, float] = {}
    generator = torch.Generator().manual_seed(seed)
    asked = partial(probabilities_of, model)
    for done, archive in illuminated(
        asked, encoder, evaluations=evaluations, start=start, mutation=mutation, generator=generator
    ):
        history.append({"evaluations": done, **archive.summary()})
        random = {"pictures": done, **archive.summary()} if done <= start else random
        if done * FRAMES // evaluations > len(frames):
            frames.append(_drawn(encoder, archive, archive.best(FRAMED)).image)
        tell(done, evaluations, "pictures")
    best = archive.best(shown)
    page = _drawn(encoder, archive, best)
    champions = _champions(model, archive, page, best, judge)
    data: dict[str, Any] = {"encoding": encoding, "evaluations": evaluations, "mutation": mutation, "seed": seed}
    data |= {"classes": len(archive.probabilities), **archive.summary(), "random": random, "history": history}
    data |= {"champions": champions, "png_error": _png_error(model, page, champions)}
    judged = [each["judge"] for each in champions if each["judge"]]
    data["judge_top5"] = sum(each["rank"] <= 5 for each in judged) if judge else None
    images = {"evolve": _page(page, champions), "champions": page.image, "curves": _curves(history)}
    return Result(images, data, frames, _caption(data))


def _drawn(encoder: Encoding, archive: Archive, classes: list[int]) -> Grid:
    return grid(encoder.pictures(archive.genomes[classes]), side=1)


def _cut(page: Grid, number: int) -> Image.Image:
    return page.image.crop(page.box(number))


def _champions(
    model: Model, archive: Archive, page: Grid, classes: list[int], judge: Model | None
) -> list[dict[str, Any]]:
    """What is said of each champion on the page."""
    found = []
    for number, index in enumerate(classes):
        picture, name = to_tensor(_cut(page, number)), model.class_name(index)
        verdict: Verdict | None = verdicts(judge, picture, name)[0] if judge else None
        found.append(
            {
                "class": index,
                "name": name,
                "probability": float(archive.probabilities[index]),
                "born": int(archive.born[index]),
                "box": list(page.box(number)),
                "coarse": coarse_part(picture),
                "judge": verdict.data() if verdict else None,
            }
        )
    return found


def coarse_part(picture: Tensor) -> float:
    """The part of a picture's variance, (1, 3, H, W), in frequencies below `COARSE`; 1 for one of a single colour."""
    height, width = picture.shape[2:]
    power = torch.fft.fft2(picture.double() - picture.double().mean((2, 3), keepdim=True)).abs().square().sum((0, 1))
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    total = float(power.sum())
    return float(power[frequency < COARSE].sum()) / total if total > 1e-12 else 1.0


def _png_error(model: Model, page: Grid, champions: list[dict[str, Any]]) -> float:
    """The largest difference of a champion's probability from that of its picture on the page."""
    errors = list[float]()
    for number, each in enumerate(champions):
        found = probabilities_of(model, to_tensor(_cut(page, number)))[0, each["class"]]
        errors.append(abs(float(found) - each["probability"]))
    return max(errors)


def _page(page: Grid, champions: list[dict[str, Any]]) -> Image.Image:
    shown, notes = {}, {}
    for number, each in enumerate(champions):
        title = f"{number + 1}. {each['name']}"
        shown[title] = _cut(page, number)
        notes[title] = f"p {each['probability']:.2f}"
        if each["judge"]:
            notes[title] += f"; the judge: {each['judge']['top'][0]}"
    return panel(shown, notes, columns=math.ceil(math.sqrt(len(champions))))


def _curves(history: list[dict[str, float]]) -> Image.Image:
    curves = {
        name: [(each["evaluations"], math.log10(each[name])) for each in history if each[name] > 0]
        for name in ("best", "median")
    }
    return plot(curves, x="pictures that the network was asked about", y="log10 p")


def _caption(data: dict[str, Any]) -> str:
    random, found = data["random"], "{above_half} above 1/2, the best {best:.2f}, the median {median:.2g}"
    text = (
        f"{data['evaluations']} pictures ({data['encoding']}), champions of {data['classes']} classes: "
        f"{found.format_map(data)}; of the {random['pictures']} random ones among them {found.format_map(random)}. "
        f"Read back from 8 bits, a champion's probability is {data['png_error']:.1g} off"
    )
    if data["judge_top5"] is None:
        return f"{text}."
    return f"{text}; the judge has the class of {data['judge_top5']} of {len(data['champions'])} among its five best."
