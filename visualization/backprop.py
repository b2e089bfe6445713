"""Guided backpropagation and the deconvnet, from a class or any neuron, and how little they depend on the class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from impasto.errors import WrongCall
from impasto.visualization.answers import answer
from impasto.visualization.drawing import span
from impasto.visualization.model import Model
from impasto.visualization.neurons import drawn
from impasto.visualization.projections import (
    Neurons,
    Place,
    box_of,
    neuron_text,
    neurons_of,
    place_data,
    place_in,
    project,
    seen_text,
    stopped_text,
)
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result

INDEPENDENT = 0.7
"""A map whose rank correlation with the re-initialised network's is above this says next to nothing of the class."""

SAME_FOR_ANY = "nothing on the way back depends on the picture (no max-pooling), so that any picture gives the same"
"""What a caption says of a network whose deconvnet has no switches."""


@technique("V18", "attribution")
def guided_backprop(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    layer: str = "",
    unit: int | None = None,
    position: tuple[int, ...] = (),
    scale: Literal["max", "std"] = "std",
) -> Result:
    """What a class or a neuron sends back when a ReLU passes only what is positive both ways: sharp, hardly specific.

    R_l = 1[f_l > 0] 1[R_(l+1) > 0] R_(l+1) at every ReLU, wherever it is called. Source: Springenberg et al. 2015.
    Differs from it for ReLU6, which also stops above 6, as its gradient does. Check and caveat: Adebayo et al. 2018.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: Class: index, name or the start of a name; none for the highest logit.
        layer: From a neuron of this layer in the place of a class: its name, name@2 or name:in.
        unit: The neuron's channel; none for the one with the highest value.
        position: The neuron's row and column; none for where the unit is highest.
        scale: Drawn full: the largest magnitude, or 5 standard deviations of what it sees.

    Returns:
        A `Result` with the images ``guided_backprop``, ``signed`` (RGB around mid-grey, which is 0) and
        ``magnitude`` (the largest of the three channels). ``data`` has the class or the neuron and its value, the least
        and the greatest value, what is drawn full (``limit``), ``others``: activation functions that the rule does not
        reach; and the check. For a class: ``reinitialised``, Spearman's rho of the magnitude with the one after the
        ``last_layer`` is re-initialised, beside the same of the ``plain`` gradient. For a neuron: the largest magnitude
        ``outside`` its receptive field, which is 0.

    Raises:
        Refused: a network without ReLUs, or without classes if no layer is named; a neuron or a class that nothing
            comes back from.
        WrongCall: an unknown class or layer, or a unit or a position that the layer does not have.
    """
    images, data, caption = _sent_back("guided", model, picture, target, layer, unit, position, scale)
    return Result({"guided_backprop": images.pop("sheet")} | images, data, caption=caption)


@technique("V19", "attribution")
def deconvnet(
    model: Model,
    picture: Tensor,
    *,
    target: int | str | None = None,
    layer: str = "",
    unit: int | None = None,
    position: tuple[int, ...] = (),
    scale: Literal["max", "std"] = "std",
) -> Result:
    """What a class or a neuron sends back through the deconvolutional network, which ignores which ReLUs were on.

    R_l = 1[R_(l+1) > 0] R_(l+1) at every ReLU, max-pooling back through its switches, convolutions transposed. Source:
    Zeiler and Fergus 2014. Differs from it in that 1 is sent back from the neuron in the place of its activation, which
    is a factor for the whole picture.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: Class: index, name or the start of a name; none for the highest logit.
        layer: From a neuron of this layer in the place of a class: its name, name@2 or name:in.
        unit: The neuron's channel; none for the one with the highest value.
        position: The neuron's row and column; none for where the unit is highest.
        scale: Drawn full: the largest magnitude, or 5 standard deviations of what it sees.

    Returns:
        As `guided_backprop`, with the image ``deconvnet`` in the place of its first.

    Raises:
        Refused: as `guided_backprop`.
        WrongCall: as `guided_backprop`.
    """
    images, data, caption = _sent_back("deconv", model, picture, target, layer, unit, position, scale)
    return Result({"deconvnet": images.pop("sheet")} | images, data, caption=caption)


def guided_backprop_map(model: Model, picture: Tensor, target: int | str | None = None) -> Tensor:
    """The magnitude of guided backpropagation from a class, the largest of the three channels.

    Args:
        model: a classifier.
        picture: (1, 3, H, W), float RGB in [0, 1].
        target: as `Model.class_index`: None for the class with the highest logit.

    Returns:
        (H, W), at least 0.

    Raises:
        Refused: a network without classes, or without ReLUs.
        WrongCall: an unknown class.
    """
    return _class_map("guided", model, picture, target)


def deconvnet_map(model: Model, picture: Tensor, target: int | str | None = None) -> Tensor:
    """The magnitude of the deconvnet from a class, the largest of the three channels; as `guided_backprop_map`."""
    return _class_map("deconv", model, picture, target)


def _class_map(rule: str, model: Model, picture: Tensor, target: int | str | None) -> Tensor:
    place = (answer(model, picture, target).index,)
    return project(model, picture, [place], rule).pixels.abs().amax(1)[0]


_NAMES = {"guided": "guided backpropagation", "deconv": "the deconvolutional network"}


def _sent_back(
    rule: str,
    model: Model,
    picture: Tensor,
    target: int | str | None,
    layer: str,
    unit: int | None,
    position: tuple[int, ...],
    scale: str,
) -> tuple[dict[str, Image.Image], dict[str, Any], str]:
    """Images, data and caption of both techniques."""
    if layer and target is not None:
        raise WrongCall(f"{_NAMES[rule]}: got the class {target} and the layer {layer}, expected one of them")
    if not layer and (unit is not None or position):
        raise WrongCall(f"{_NAMES[rule]}: got a neuron's unit or position without its layer; name the layer")
    if layer:
        place = place_in(model, picture, layer, unit, position)
        name, data = neuron_text(layer, place), {"layer": layer, **place_data(place)}
    else:
        found = answer(model, picture, target)
        place, name, data = (found.index,), str(found), found.data()
    neurons = neurons_of(model, layer)
    sent = project(neurons, picture, [place], rule)
    if not sent.pixels.any():
        reason = stopped_text(layer) if layer else "all of it is negative or stopped on the way"
        raise Refused(f"{_NAMES[rule]}: nothing comes back from {name}: {reason}")
    images, numbers = drawn(picture, sent.pixels, scale, box_of(model, layer, place))
    data |= numbers | {"value": float(sent.values), "others": sent.others}
    data["same_for_any"] = same_for_any(rule, neurons, picture, [place])
    data |= {} if layer else _check(rule, model, picture, place)
    return images, data, f"{_NAMES[rule].capitalize()} from {name}, {span(sent.pixels)}; {_caveats(data)}."


def same_for_any(rule: str, neurons: Neurons, pictures: Tensor, places: Sequence[Place]) -> bool:
    """Whether the pictures' negatives give the same: then nothing on the way back depends on them."""
    one, other = (project(neurons, each, places, rule).pixels for each in (pictures, 1 - pictures))
    return bool((one - other).abs().max() <= 1e-4 * one.abs().max())


def _caveats(data: dict[str, Any]) -> str:
    """What a caption says against reading too much into the picture, with the numbers."""
    if "layer" in data:
        said = [seen_text(data), "it shows what lies there and could excite the neuron, rarely what tells it apart"]
    else:
        rho, plain = data["reinitialised"], data["plain"]
        hardly = "so it hardly depends on the class and is no evidence for it"
        said = [
            f"after {data['last_layer']} is re-initialised the pixels rank alike with rho {rho:.3f} (plain gradient "
            f"{plain:.2f})" + (f", {hardly}" if rho > INDEPENDENT else "")
        ]
    if data["same_for_any"]:
        said.append(SAME_FOR_ANY)
    if data["others"]:
        others = ", ".join(f"{name} ({count} times)" for name, count in data["others"].items())
        said.append(f"the rule does not reach {others}")
    return "; ".join(said)


def _check(rule: str, model: Model, picture: Tensor, place: Place) -> dict[str, Any]:
    """How alike a class's map and the one after re-initialising the last layer are: by the rule and plainly."""
    layer = last_layer(model)
    again = reinitialised(model, layer)
    rho = {}
    for name in (rule, "plain"):
        before, after = (project(each, picture, [place], name).pixels.abs().amax(1) for each in (model, again))
        rho[name] = spearman(before, after)
    return {"last_layer": layer, "reinitialised": rho[rule], "plain": rho["plain"]}


def last_layer(model: Model) -> str:
    """The linear layer or convolution that ran last: the one that makes the logits. Raises Refused if there is none."""
    modules = dict(model.named_modules())
    for name in reversed([name.partition("@")[0] for name in model.layers()]):
        if isinstance(modules[name], nn.Linear | nn.Conv2d):
            return name
    raise Refused("the check of a map: this network has no linear layer or convolution to re-initialise")


def reinitialised(model: Model, layer: str, seed: int = 0) -> Neurons:
    """The logits after one layer's weights are drawn anew, uniformly within 1 / sqrt(inputs of a unit), as torch does.

    The model itself stays as it is.
    """
    module = model.get_submodule(f"network.{layer}")
    bound = 1 / math.sqrt(module.get_parameter("weight")[0].numel())
    generator = torch.Generator().manual_seed(seed)
    anew = {
        f"network.{layer}.{name}": torch.empty(each.shape).uniform_(-bound, bound, generator=generator).to(each)
        for name, each in module.named_parameters()
    }
    return lambda pictures: functional_call(model, anew, (pictures,), tie_weights=False)


def spearman(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two tensors' values, equal values sharing their mean rank; 0 for a constant."""
    one, other = (ranks - ranks.mean() for ranks in map(_ranks, (first, second)))
    return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12))


def _ranks(values: Tensor) -> Tensor:
    _, place, counts = torch.unique(values.flatten(), return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[place]
    return ranks
