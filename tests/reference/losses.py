"""The losses of the style-transfer papers as loops over plain numbers, in float64.

Written from the papers, slowly and literally, so that each line can be compared with its equation:

* Gatys, Ecker, Bethge. Image Style Transfer Using Convolutional Neural Networks. CVPR 2016. Equations 1, 3, 4, 5.
* Johnson, Alahi, Fei-Fei. Perceptual Losses for Real-Time Style Transfer and Super-Resolution. ECCV 2016. Section 3.2.
* Mahendran, Vedaldi. Understanding Deep Image Representations by Inverting Them. CVPR 2015. Section 2, the regulariser
  R_{V^beta}.

Everything here takes one item, (C, H, W); `mean_over_batch` makes a batch of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def as_float64(values) -> np.ndarray:
    """A float64 array of a tensor or of anything numpy reads; bfloat16 goes through the exact cast to float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values, dtype=np.float64)


def inner_products(features) -> np.ndarray:
    """Gatys 2016, equation 3: G_ij = sum_k F_ik F_jk, maps as vectors over the positions k. (C, H, W) -> (C, C)."""
    features = as_float64(features)
    channels, height, width = features.shape
    gram = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for y in range(height):
                for x in range(width):
                    gram[i, j] += features[i, y, x] * features[j, y, x]
    return gram


def gram_matrix(features) -> np.ndarray:
    """Johnson 2016, section 3.2, style: G_cc' = 1/(C H W) sum_h sum_w phi_hwc phi_hwc'."""
    channels, height, width = as_float64(features).shape
    return inner_products(features) / (channels * height * width)


def squared_distance(left, right) -> float:
    """The sum of squared differences of two arrays of one shape."""
    left, right = as_float64(left), as_float64(right)
    assert left.shape == right.shape
    total = 0.0
    for a, b in zip(left.reshape(-1), right.reshape(-1), strict=True):
        total += (float(a) - float(b)) ** 2
    return total


def content_gatys(features, target) -> float:
    """Gatys 2016, equation 1: L_content = 1/2 sum_ij (F_ij - P_ij)^2."""
    return squared_distance(features, target) / 2


def content_johnson(features, target) -> float:
    """Johnson 2016, section 3.2, feature reconstruction: 1/(C H W) ||phi(y_hat) - phi(y)||_2^2."""
    channels, height, width = as_float64(features).shape
    return squared_distance(features, target) / (channels * height * width)


def content_relative(features, target) -> float:
    """||F - P||^2 / ||P||^2: the squared error as a share of the target's own energy."""
    return squared_distance(features, target) / squared_distance(target, np.zeros_like(as_float64(target)))


def style_gatys(features, target) -> float:
    """Gatys 2016, equation 4: E_l = 1/(4 N_l^2 M_l^2) sum_ij (G_ij - A_ij)^2, G and A plain inner products.

    ``target`` are the style picture's features. The equation has one M, so both pictures have the same size.
    """
    features, target = as_float64(features), as_float64(target)
    assert features.shape == target.shape
    maps, positions = features.shape[0], features.shape[1] * features.shape[2]
    return squared_distance(inner_products(features), inner_products(target)) / (4 * maps**2 * positions**2)


def style_johnson(features, target) -> float:
    """Johnson 2016, section 3.2, style reconstruction: ||G(y_hat) - G(y)||_F^2, for pictures of any two sizes."""
    return squared_distance(gram_matrix(features), gram_matrix(target))


def style_relative(features, target) -> float:
    """||G - G0||_F^2 / ||G0||_F^2."""
    gram = gram_matrix(target)
    return style_johnson(features, target) / squared_distance(gram, np.zeros_like(gram))


def style_total_gatys(layers: list[tuple[float, object, object]]) -> float:
    """Gatys 2016, equation 5: L_style = sum_l w_l E_l, over (w_l, features, style features)."""
    return sum(weight * style_gatys(features, target) for weight, features, target in layers)


def total_variation(picture, beta: float = 2.0) -> float:
    """Mahendran 2015: sum_ij ((x_{i,j+1} - x_ij)^2 + (x_{i+1,j} - x_ij)^2)^(beta/2), summed over the channels.

    A difference that would leave the picture counts as 0.
    """
    picture = as_float64(picture)
    channels, height, width = picture.shape
    total = 0.0
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                across = picture[c, i, j + 1] - picture[c, i, j] if j + 1 < width else 0.0
                down = picture[c, i + 1, j] - picture[c, i, j] if i + 1 < height else 0.0
                total += math.pow(across**2 + down**2, beta / 2)
    return total


def total_variation_relative(picture, beta: float = 2.0) -> float:
    """`total_variation` per channel and pixel."""
    channels, height, width = as_float64(picture).shape
    return total_variation(picture, beta) / (channels * height * width)


CONTENT: dict[str, Callable[..., float]] = {
    "relative": content_relative,
    "gatys": content_gatys,
    "johnson": content_johnson,
}
STYLE: dict[str, Callable[..., float]] = {
    "relative": style_relative,
    "gatys": style_gatys,
    "johnson": style_johnson,
}
TOTAL_VARIATION: dict[str, Callable[..., float]] = {
    "relative": total_variation_relative,
    "gatys": total_variation,
    "johnson": total_variation,
}


def mean_over_batch(per_item: Callable[..., float], batch, *targets, **settings) -> float:
    """The mean of ``per_item`` over a batch; a target with one item serves every item of the batch."""
    values = [
        per_item(item, *(target[index if len(target) > 1 else 0] for target in targets), **settings)
        for index, item in enumerate(batch)
    ]
    return sum(values) / len(values)
