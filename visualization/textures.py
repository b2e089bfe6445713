"""Pictures with the texture of another one, made from noise: they have its Gram matrices in the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from torch import Tensor

from impasto.errors import WrongCall
from impasto.sheets import sheet
from impasto.visualization.correlations import autocorrelation, best_shift, correlation_length, radial
from impasto.visualization.drawing import panel, signed_map
from impasto.visualization.inputs import Whole
from impasto.visualization.model import Model
from impasto.visualization.plots import plot
from impasto.visualization.registry import Refused, technique
from impasto.visualization.result import Result
from impasto.visualization.scene import to_image
from impasto.visualization.synthesis import VGG19, Plan, match_histogram, synthesise


@technique("V29", "synthesis")
def texture(
    model: Model,
    picture: Whole,
    *,
    layers: tuple[str, ...] = (),
    layer_weights: tuple[float, ...] = (),
    side: int = 0,
    steps: int = 100,
    smallest: int = 32,
    pooling: Literal["avg", "max"] = "avg",
    convention: Literal["relative", "gatys"] = "relative",
    match: bool = False,
    frames: int = 24,
    seed: int = 0,
) -> Result:
    """A new picture with the texture of this one: noise, until its Gram matrices are the same; best with vgg19.

    L-BFGS with the strong Wolfe line search minimises sum_l w_l E_l over the pixels, kept in [0, 1], where E_l is the
    distance of the Gram matrices (G = F F^T by the number of positions) in layer l: `paint` without content. So with
    vgg19 it is, bit for bit, ``paint(..., content_layers={}, style_layers={layer: weight}, init="noise", pooling="avg",
    precision="float32")`` with the same size, steps, smallest and seed.

    Source: Gatys et al. 2015. Differs from it by default in relative distances (a convention "gatys" is theirs, for
    VGG's weights as they were released, not rescaled to a mean activation of 1), in beginning at a small size, which
    gives large structures their place (--smallest as large as the texture: at once, as they do), in the picture's range
    and in fewer steps.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layers: Whose Gram matrices; empty for relu1_1 and pool1 to pool4 of vgg19, the stages of another network.
        layer_weights: Of each; empty for 1.
        side: Height and width of the texture in pixels; 0 for the picture's.
        steps: At the full size; each coarser one has a tenth of its work, and at most as many steps.
        smallest: Long side in pixels below which no coarser size is begun with.
        pooling: Average pooling in the place of the network's max-pooling, or not.
        convention: Of the distances: relative to the source's Gram matrix, or the paper's.
        match: Give the texture the source's histogram in the end, channel by channel.
        frames: Pictures of the way to keep.
        seed: Of the noise.

    Returns:
        A `Result` with the images ``texture_sheet`` (source and texture) and ``texture``. ``data`` has for each layer
        the distance (``raw``), and how many times less it is than noise's (``drop``, also of their weighted sum
        ``objective``); and the self-checks ``of_shuffled``, the objective as a part of that of the source with its
        pixels shuffled (it is not just the colours), ``ncc``, the largest correlation with the source over all shifts,
        and ``mse``, the mean square difference of their pixels (it is no copy, unless the source is periodic).

    Raises:
        Refused: a layer without maps, a network that takes no pictures of this size.
        WrongCall: an unknown layer, not as many weights as layers, or a number that cannot be.
    """
    source, size = picture.detach(), _size(picture, side)
    chosen = _weighted(model, layers, layer_weights)
    made = synthesise(model, source, size, Plan(chosen, steps, smallest, pooling, convention, frames, seed))
    final = match_histogram(made.picture, source) if match else made.picture
    ncc, shift = best_shift(final, source)
    drawn = {"source": to_image(source), "texture": to_image(final)}
    data = made.data() | {
        "layers": chosen,
        "pooling": pooling,
        "convention": convention,
        "seed": seed,
        "size": list(size),
        "source_size": list(source.shape[2:]),
        "histogram_matched": match,
        "ncc": ncc,
        "shift": list(shift),
        "mse": _mean_square(final, source),
    }
    note = f"{made.shuffled:.2%} of shuffled pixels' distance\nlargest correlation {ncc:.2f}"
    caption = (
        f"The texture of {', '.join(chosen)}: {made.drop:.3g} times nearer than noise, at {made.shuffled:.2%} of the "
        f"distance of the source's own pixels shuffled; its largest correlation with the source over all shifts is "
        f"{ncc:.2f}."
    )
    images = {"texture_sheet": panel(drawn, {"texture": note}), "texture": drawn["texture"]}
    return Result(images, data, made.frames, caption)


@technique("V30", "synthesis")
def texture_by_layer(
    model: Model,
    picture: Whole,
    *,
    layers: tuple[str, ...] = (),
    side: int = 0,
    steps: int = 60,
    pooling: Literal["avg", "max"] = "avg",
    seed: int = 0,
) -> Result:
    """Textures from the first layer, the first two, and so on: the deeper, the larger what they share with the picture.

    Each is made as `texture` makes one, all from the same noise, at the full size at once: a coarser beginning would
    show even the first layer what is large. How large a texture's structure is says its autocorrelation.

    Source: Gatys et al. 2015, figure 2.

    Args:
        picture: (1, 3, H, W), float RGB in [0, 1].
        layers: In the network's order; empty for relu1_1 and pool1 to pool4 of vgg19, the stages of another network.
        side: Height and width of the textures in pixels; 0 for the picture's.
        steps: For each.
        pooling: Average pooling in the place of the network's max-pooling, or not.
        seed: Of the noise.

    Returns:
        A `Result` with the images ``texture_by_layer`` (a row for the source and for each set: the texture and its
        autocorrelation, red above 0, blue below) and ``correlation`` (averaged over directions, against distance).
        ``data`` has, by the last layer of each set, ``distances``, the root mean square difference of that curve from
        the source's, ``lengths`` in pixels at which it falls below 1/e, and ``sets``, what `texture` has.

    Raises:
        Refused, WrongCall: as `texture`.
    """
    source, size = picture.detach(), _size(picture, side)
    chosen = _weighted(model, layers, ())
    plan = Plan(chosen, steps, max(size), pooling, seed=seed)
    sets = [list(chosen)[: count + 1] for count in range(len(chosen))]
    pictures, found = {"source": source}, {}
    for done, names in enumerate(sets):
        part = replace(plan, layers={name: chosen[name] for name in names})
        made = synthesise(model, source, size, part, done, len(sets))
        pictures[names[-1]], found[names[-1]] = made.picture, made.data()
    correlations = {name: autocorrelation(each) for name, each in pictures.items()}
    lengths = {name: correlation_length(each) for name, each in pictures.items()}
    rows = [[to_image(each), signed_map(correlations[name], 1.0)] for name, each in pictures.items()]
    labels = [[name if name == "source" else f"to {name}", f"{lengths[name]:.1f} px to 1/e"] for name in pictures]
    means = {name: radial(each) for name, each in correlations.items()}
    distances = {name: _distance(means[name], means["source"]) for name in found}
    curves = {name: list(enumerate(mean)) for name, mean in means.items()}
    images = {
        "texture_by_layer": sheet(rows, labels=labels),
        "correlation": plot(curves, x="distance in pixels", y="autocorrelation"),
    }
    sizes = {"size": list(size), "source_size": list(source.shape[2:])}
    data = {"lengths": lengths, "distances": distances, "sets": found, "seed": seed} | sizes
    missed = ", ".join(f"{distance:.2f} ({name})" for name, distance in distances.items())
    caption = f"By so much the textures' autocorrelation misses the source's, each with the layers before it: {missed}."
    return Result(images, data, caption=caption)


def _size(picture: Tensor, side: int) -> tuple[int, int]:
    return (side, side) if side else (picture.shape[2], picture.shape[3])


def _weighted(model: Model, layers: tuple[str, ...], weights: tuple[float, ...]) -> dict[str, float]:
    """The layers that are wanted, or those that a network's textures are made of, with their weights."""
    known = model.layers()
    names = layers or (VGG19 if set(VGG19) <= set(known) else tuple(model.stages()))
    if not names:
        raise Refused("texture: this network has no stages of maps; name layers, or use --model vgg19")
    for name in names:
        if len(known.get(name, (0, 0, 0))) != 3:
            raise Refused(f"texture: the layer {name} gives no maps (C, h, w); choose an earlier layer")
    if weights and len(weights) != len(names):
        raise WrongCall(f"texture: got {len(weights)} weights for {len(names)} layers, expected one each")
    return dict(zip(names, weights or [1.0] * len(names), strict=True))


def _distance(curve: Sequence[float], other: Sequence[float]) -> float:
    """The root mean square difference of two curves as far as both go."""
    return math.sqrt(fmean((a - b) ** 2 for a, b in zip(curve, other, strict=False)))


def _mean_square(picture: Tensor, other: Tensor) -> float:
    """Of the difference of two pictures, of the rectangle at the top left that both have."""
    height, width = (min(sides) for sides in zip(picture.shape[2:], other.shape[2:], strict=True))
    return float((picture[..., :height, :width] - other[..., :height, :width]).square().mean())
