"""Photos in a plane in which those with near features are near: t-SNE."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from impasto.errors import WrongCall
from impasto.visualization.codes import Codes, code_layer, expect, labels_of, read_codes
from impasto.visualization.components import of_what, points, principal_components, trusts
from impasto.visualization.inputs import Pictures
from impasto.visualization.layouts import scattered, scientific
from impasto.visualization.model import Model
from impasto.visualization.registry import technique
from impasto.visualization.result import Embedding, Result

COMPONENTS = 50
"""Principal components that t-SNE starts from."""


def embed(vectors: Tensor, perplexity: float = 30) -> tuple[Tensor, float]:
    """t-SNE (Barnes-Hut) of the first 50 principal components, from the first two on: nothing in it is left to chance.

    Args:
        vectors: (N, D), float64, compared by L2; N at least 3.
        perplexity: how many neighbours of each picture count, about; at most (N - 1) / 3 is taken.

    Returns:
        Places (N, 2), float64, in no unit; and the Kullback-Leibler divergence that is left, in nats.

    Source: van der Maaten and Hinton 2008; van der Maaten 2014; the start as Kobak and Berens 2019.

    Raises:
        Refused: vectors that are all the same.
        MissingExtra: scikit-learn is missing.
    """
    manifold = scientific("sklearn.manifold", purpose="t-SNE")
    components = principal_components(vectors).places[:, :COMPONENTS]
    start = torch.nn.functional.pad(components, (0, 2))[:, :2] / components[:, 0].std(correction=0) * 1e-4
    method = manifold.TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
        init=start.float().numpy(),
        learning_rate="auto",
        max_iter=1000,
    )
    places = method.fit_transform(components.numpy())
    return torch.from_numpy(places).double(), float(method.kl_divergence_)


@technique("V10", "representations")
def tsne(
    model: Model,
    pictures: Pictures,
    *,
    layer: str = "",
    distance: Literal["cosine", "l2", "pixels"] = "cosine",
    perplexity: float = 30,
    side: int = 2000,
    thumbnail: int = 0,
    cache: str = "",
) -> Result:
    """Photos in a plane in which those with near features are near, by t-SNE.

    Who is whose neighbour can be read from it, and no more: axes, sizes of groups and distances between groups mean
    nothing. With ``--log-dir`` the features are in TensorBoard's projector too, to be turned and searched.

    Source: van der Maaten and Hinton 2008; the picture as Karpathy's t-SNE of ImageNet.

    Args:
        pictures: Photos; of several folders (up to 8) each has a colour.
        layer: As capture has it, of maps the means; empty for what the last linear layer takes.
        distance: What is near: features at length 1, features as they are, or 32 x 32 pixels.
        perplexity: How many neighbours of a photo count, about; at most a third of the photos.
        side: Longer side of the picture in pixels.
        thumbnail: Height and width of a photo in it; 0 for what leaves them room.
        cache: A folder that remembers the features, for the same photos and network.

    Returns:
        A `Result` with the image ``scatter``, each photo at its exact place, and the ``embedding`` for the projector.
        ``data`` has ``points`` (``path``, ``label``, ``x``, ``y``), the perplexity taken, the divergence left (``kl``)
        and the trustworthiness (10 neighbours) of this plane, of the first two principal components and of chance.

    Raises:
        Refused: a layer that gives neither maps nor numbers, or the same numbers for all pictures.
        WrongCall: fewer than 3 photos, an unknown layer, a perplexity that is not above 0, or sizes that cannot be.
        PictureError: a file that cannot be read.
        MissingExtra: scikit-learn is missing.
    """
    expect("tsne", pictures, 3)
    if not 0 < perplexity < float("inf") or side < 1 or thumbnail < 0:
        raise WrongCall(
            f"tsne: got perplexity {perplexity}, side {side} and thumbnail {thumbnail}, expected a number above 0, 1 "
            "or more and 0 or more"
        )
    layer, labels = code_layer(model, layer), labels_of(pictures)
    codes = read_codes(model, pictures, layer, cache=cache)
    vectors = codes.vectors(distance)
    places, divergence = embed(vectors, perplexity)
    data: dict[str, Any] = {
        "layer": layer,
        "distance": distance,
        "perplexity": min(perplexity, (len(vectors) - 1) / 3),
        "kl": divergence,
        "points": points(pictures, labels, places),
        "trustworthiness": trusts(vectors, tsne=places, pca=principal_components(vectors).places[:, :2]),
    }
    trust = data["trustworthiness"]
    caption = (
        f"t-SNE of {of_what(layer, distance)} of {len(pictures)} photos, each at its place (perplexity "
        f"{data['perplexity']:.3g}): neighbours are alike; axes, and distances between groups, mean nothing. "
        f"Trustworthiness {trust['tsne']:.2f} (two principal components {trust['pca']:.2f}, chance "
        f"{trust['chance']:.2f})."
    )
    drawn = scattered(model, pictures, places, labels=labels, side=side, thumbnail=thumbnail)
    return Result({"scatter": drawn}, data, caption=caption, embedding=_projected(codes, distance, pictures, labels))


def _projected(codes: Codes, distance: str, pictures: Pictures, labels: tuple[str, ...]) -> Embedding:
    names = [f"{labels[index]}/{path.name}" if labels else path.name for index, path in enumerate(pictures.paths)]
    return Embedding(codes.vectors(distance).float().numpy(), tuple(names), codes.pixels.numpy())
