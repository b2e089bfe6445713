"""Class activation maps: where in a network's last maps a class is, exactly or to first order."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from impasto.errors import WrongCall
from impasto.visualization.answers import Answer, answer, answers, last_maps, logits_and_maps
from impasto.visualization.class_maps import ClassMaps, class_maps
from impasto.visualization.colours import luminance
from impasto.visualization.drawing import boxed, heat, overlay, panel, signed_map, signed_rgb, span
from impasto.visualization.gradients import class_gradient
from impasto.visualization.model import Model
from impasto.visualization.regions import bounds, largest_component
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.rules import guided
from impasto.visualization.scene import to_image

FULL = 0.995
"""Quantile of a signed gradient's magnitudes from which on it is drawn full."""


@technique("V15", "attribution")
def cam(
    model: Model, picture: Tensor, *, target: int | str | None = None, top: int = 5, threshold: float = 0.2
) -> Result:
    """Where a class is in the last maps, exactly: the map's mean is the logit.

    M(x, y) = sum over k of w_k A_k(x, y), S = mean of M + b, for networks that end in global average pooling and a
    linear layer. For those that end in one map a class (SqueezeNet) that map, whose positive part has the mean S.
    Drawn from 0 (black) to the largest value among the classes shown (white), enlarged bilinearly.

    Source: Zhou et al. 2016, equations 1 and 2; the box: section 3.2.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the highest logit.
        top: So many classes side by side.
        threshold: The box is that of the largest part above this part of the map's maximum.

    Returns:
        A `Result` with the images ``cam`` (photo and map with the box) and ``top``. ``data`` has for each class shown
        its map, its box in pixels of the picture (None if the map is nowhere above 0), and ``logit_error``, which is
        |mean of M + b - S| and 0 only for the right layer.

    Raises:
        Refused: a network that ends otherwise, where a class has no such map.
        WrongCall: an unknown class; no class to show; a threshold that cannot be.
    """
    if top < 1 or not 0 <= threshold < 1:
        raise WrongCall(f"cam: got top {top}, threshold {threshold}; expected top >= 1 and 0 <= threshold < 1")
    found = answer(model, picture, target)
    known = class_maps(model, picture)
    others = [index for index in known.logits.argsort(descending=True).tolist() if index != found.index]
    shown = answers(model, known.logits[None], [found.index, *others[: top - 1]])
    large = {each.index: _enlarged(known.maps[each.index], picture) for each in shown}
    errors = known.errors()
    rows = [_row(each, known, errors, large[each.index], threshold) for each in shown]
    white = max(float(values.max()) for values in large.values())
    drawn = {each.index: _boxed(picture, large[each.index], white, row) for each, row in zip(shown, rows, strict=True)}
    names = {f"{rank}. {each.name}": each for rank, each in enumerate(shown, start=1)}
    strip = panel(
        {name: drawn[each.index] for name, each in names.items()},
        {name: f"p {each.probability:.3g}\n{span(large[each.index])}" for name, each in names.items()},
        columns=5,
    )
    pair = {"photo": to_image(picture), "CAM": drawn[found.index]}
    notes = {"photo": str(found), "CAM": f"{span(large[found.index])}\nblack 0, white {white:.3g}"}
    data = found.data() | {
        "layer": known.layer,
        "rectified": known.rectified,
        "white": white,
        "threshold": threshold,
        "logit_error": max(row["logit_error"] for row in rows),
        "classes": rows,
    }
    caption = (
        f"CAM of {found} from {known.layer}, {span(large[found.index])}; its mean and bias give the logit to "
        f"{data['logit_error']:.1g}."
    )
    return Result({"cam": panel(pair, notes), "top": strip}, data, caption=caption)


def _row(each: Answer, known: ClassMaps, errors: Tensor, large: Tensor, threshold: float) -> dict[str, Any]:
    return each.data() | {
        "bias": float(known.biases[each.index]),
        "map": known.maps[each.index].tolist(),
        "box": box_of(large, threshold),
        "logit_error": float(errors[each.index]),
    }


def _boxed(picture: Tensor, large: Tensor, white: float, row: dict[str, Any]) -> Image.Image:
    drawn = _over(picture, heat(large, 0, white))
    return boxed(drawn, [row["box"]]) if row["box"] else drawn


def box_of(values: Tensor, threshold: float = 0.2) -> list[int] | None:
    """Left, top, right, bottom of the largest part of a map (H, W) above a part of its maximum; None for no maximum."""
    highest = values.max()
    return list(bounds(largest_component(values > threshold * highest))) if highest > 0 else None


def cam_map(model: Model, picture: Tensor, target: int | str | None = None) -> Tensor:
    """The class's map, enlarged bilinearly to the picture; signed.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.

    Returns:
        (H, W).

    Raises:
        Refused: as `class_maps`.
        WrongCall: an unknown class.
    """
    known = class_maps(model, picture)
    return _enlarged(known.maps[model.class_index(target, known.logits[None])], picture)


@technique("V16", "attribution")
def gradcam(model: Model, picture: Tensor, *, target: int | str | None = None, layer: str = "") -> Result:
    """Where a class is in any layer's maps, to first order; and with guided backpropagation, in pixels.

    L = max(0, sum over k of a_k A_k), a_k = mean over positions of dS / dA_k, S before softmax. Behind global average
    pooling and a linear layer it is the positive part of CAM / (h w). Guided Grad-CAM is L, enlarged bilinearly, times
    the guided gradient; that gradient hardly depends on the class, the map L does.

    Source: Selvaraju et al. 2017, equations 1 and 2; section 3.1.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: The class: its index, its name or how its name begins; by default the one with the highest logit.
        layer: Its name, name@2 (its second call) or name:in (what goes into it); empty for the last with maps.

    Returns:
        A `Result` with the images ``gradcam`` (photo, map, signed map before the ReLU) and, where the network has
        ReLUs, ``guided`` (guided gradient, Guided Grad-CAM); where not, ``data`` says so in ``guided``. ``data`` also
        has the signed map, ``kept`` (the share of the gradient, squared, that is left by its mean over positions: 1
        behind global average pooling) and ``cam_error``, the largest |h w L - CAM| before the ReLU as a part of the
        largest |CAM|; None where the layer has no CAM.

    Raises:
        Refused: a network without classes, or a layer without maps.
        WrongCall: an unknown class or layer.
    """
    found = answer(model, picture, target)
    layer = layer or last_maps(model)
    signed, kept = weighted_maps(model, picture, found.index, layer)
    positive = _enlarged(signed.clamp(min=0), picture)
    whole = _enlarged(signed, picture)
    shown = {
        "photo": to_image(picture),
        "Grad-CAM": _over(picture, heat(positive, 0)),
        "before the ReLU": _over(picture, signed_map(whole)),
    }
    notes = {"photo": str(found), "Grad-CAM": f"{span(positive)}\n{layer}", "before the ReLU": span(whole)}
    images = {"gradcam": panel(shown, notes)}
    try:
        with guided() as rule:
            gradient = class_gradient(model, picture, found.index)
        images["guided"] = _guided_panel(gradient, positive)
        said = f"{rule.hits} ReLUs" + "".join(f", {count} {name} as they are" for name, count in rule.others.items())
    except Refused as refusal:
        said = f"refused: {refusal}"
    error = _cam_error(model, picture, found.index, layer, signed)
    data = found.data() | {
        "layer": layer,
        "map": signed.tolist(),
        "min": float(signed.min()),
        "max": float(signed.max()),
        "kept": kept,
        "cam_error": error,
        "guided": said,
    }
    check = f"equals CAM / (h w) to {error:.1g}" if error is not None else f"the mean keeps {kept:.1%} of the gradient"
    caption = f"Grad-CAM of {found} at {layer}, {span(positive)}; {check}. Guided Grad-CAM: {said}."
    return Result(images, data, caption=caption)


def gradcam_map(model: Model, picture: Tensor, target: int | str | None = None, *, layer: str = "") -> Tensor:
    """Grad-CAM after its ReLU, enlarged bilinearly to the picture.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.
        layer: as `impasto.losses.capture` reads it; empty for the last with maps.

    Returns:
        (H, W), at least 0.

    Raises:
        Refused: a network or a layer without maps.
        WrongCall: an unknown class or layer.
    """
    return _enlarged(weighted_maps(model, picture, target, layer or last_maps(model))[0].clamp(min=0), picture)


def guided_gradcam_map(model: Model, picture: Tensor, target: int | str | None = None, *, layer: str = "") -> Tensor:
    """The largest magnitude over the channels of Guided Grad-CAM; arguments as `gradcam_map`.

    Returns:
        (H, W), at least 0.

    Raises:
        Refused: also for a network that calls no ReLU.
        WrongCall: an unknown class or layer.
    """
    with guided():
        gradient = class_gradient(model, picture, target)
    return (gradcam_map(model, picture, target, layer=layer) * gradient)[0].abs().amax(0)


def weighted_maps(model: Model, picture: Tensor, target: int | str | None, layer: str) -> tuple[Tensor, float]:
    """A layer's maps weighed by the means of their gradients and summed; and how much of the gradient the means keep.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.
        layer: as `impasto.losses.capture` reads it.

    Returns:
        (h, w), signed; and sum of squared means / mean of sums of squares, from 0 to 1.

    Raises:
        Refused: a layer without maps, or one that the logit does not depend on.
        WrongCall: an unknown class or layer.
    """
    with torch.enable_grad():
        logits, maps = logits_and_maps(model, picture.detach().requires_grad_(), layer)
        (gradient,) = torch.autograd.grad(
            logits[0, model.class_index(target, logits)], [_original(maps)], allow_unused=True
        )
    if gradient is None:
        raise Refused(f"gradcam: the logit does not depend on {layer}")
    means = gradient[0].mean((1, 2))
    squares = float(gradient[0].square().mean((1, 2)).sum())
    kept = float(means.square().sum()) / squares if squares else 1.0
    return torch.einsum("c,chw->hw", means, maps[0].detach()), kept


def _original(copy: Tensor) -> GradientEdge:
    """What a captured activation is a copy of, the value that the network itself went on with."""
    node, output = copy.grad_fn.next_functions[0] if copy.grad_fn else (None, 0)
    assert node is not None
    return GradientEdge(node, output)


def _enlarged(values: Tensor, picture: Tensor) -> Tensor:
    """A map (h, w) at the picture's size."""
    return F.interpolate(values[None, None], picture.shape[2:], mode="bilinear")[0, 0]


def _over(picture: Tensor, drawn: Image.Image) -> Image.Image:
    """A map over the photo in grey, so that all colour is the map's."""
    return overlay(luminance(picture).expand_as(picture), drawn, 0.6)


def _guided_panel(gradient: Tensor, positive: Tensor) -> Image.Image:
    shown, notes = {}, {}
    for name, values in {"guided gradient": gradient, "Guided Grad-CAM": gradient * positive}.items():
        full = float(torch.quantile(values.abs().double(), FULL))
        shown[name] = signed_rgb(values, full)
        notes[name] = f"{span(values)}\ngrey 0, full from {full:.3g} on"
    return panel(shown, notes)


def _cam_error(model: Model, picture: Tensor, target: int, layer: str, signed: Tensor) -> float | None:
    """Largest |h w L - CAM| as a part of the largest |CAM|, where the layer is the one that CAM takes."""
    if model.head is None or model.head.features != layer:
        return None
    expected = class_maps(model, picture).maps[target]
    return float((signed * signed.numel() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
