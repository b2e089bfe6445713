"""Keeping colours as the paper has it, with loops over plain numbers in float64.

Gatys, Bethge, Hertzmann, Shechtman. Preserving Color in Neural Artistic Style Transfer. 2016. Section 3 (colour
matching, with the symmetric roots of "Image Analogies") and section 4 (luminance only; equation 10). A picture is an
array (3, H, W).
"""

from __future__ import annotations

import numpy as np

YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
"""From RGB, as the standard of 1953 (NTSC) rounds it."""


def pixels(picture) -> list[np.ndarray]:
    """The colours (3,) of a picture, row by row."""
    picture = np.asarray(picture, dtype=np.float64)
    return [picture[:, y, x] for y in range(picture.shape[1]) for x in range(picture.shape[2])]


def picture_of(colours, shape) -> np.ndarray:
    """The inverse of `pixels`."""
    return np.array(colours).reshape(shape[1], shape[2], -1).transpose(2, 0, 1)


def luma(picture) -> np.ndarray:
    """Y (H, W)."""
    return picture_of([[(YIQ @ colour)[0]] for colour in pixels(picture)], np.shape(picture))[0]


def keep_colours(painted, photo) -> np.ndarray:
    """Y of the painting, I and Q of the photo; where that is no colour, the largest share of I and Q that is one."""
    back = np.linalg.inv(YIQ)
    kept = []
    for ours, theirs in zip(pixels(painted), pixels(photo), strict=True):
        y, (_, i, q) = (YIQ @ ours)[0], YIQ @ theirs
        low, high = 0.0, 1.0
        for _ in range(60):
            share = high if _inside(back @ [y, i * high, q * high]) else (low + high) / 2
            low, high = (share, high) if _inside(back @ [y, i * share, q * share]) else (low, share)
        kept.append(back @ [y, i * low, q * low])
    return picture_of(kept, np.shape(painted))


def _inside(colour) -> bool:
    return bool(np.min(colour) >= -1e-12 and np.max(colour) <= 1 + 1e-12)


def mean_and_covariance(picture) -> tuple[np.ndarray, np.ndarray]:
    """mu = sum x_i / N; Sigma = sum (x_i - mu)(x_i - mu)^T / N."""
    colours = pixels(picture)
    mean = sum(colours) / len(colours)
    return mean, sum(np.outer(colour - mean, colour - mean) for colour in colours) / len(colours)


def match_statistics(style, photo) -> np.ndarray:
    """x <- A x + b, b = mu_C - A mu_S, A = Sigma_C^(1/2) Sigma_S^(-1/2); not clipped."""
    (mean, covariance), (goal, goal_covariance) = mean_and_covariance(style), mean_and_covariance(photo)
    a = _root(goal_covariance) @ np.linalg.inv(_root(covariance))
    b = goal - a @ mean
    return picture_of([a @ colour + b for colour in pixels(style)], np.shape(style))


def _root(covariance) -> np.ndarray:
    """The symmetric root by the iteration of Denman and Beavers, which needs no eigenvalues."""
    root, inverse = np.array(covariance, dtype=np.float64), np.eye(len(covariance))
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return root


def match_luminance(style, photo) -> np.ndarray:
    """L_S' = sigma_C / sigma_S (L_S - mu_S) + mu_C, (H, W); not clipped."""
    ours, theirs = luma(style), luma(photo)
    return theirs.std() / ours.std() * (ours - ours.mean()) + theirs.mean()
