"""Statistics of feature maps as loops in float64, and the distance of two Gaussians by scipy's matrix square root.

* Dowson, Landau. The Frechet Distance between Multivariate Normal Distributions. J. Multivariate Analysis 12, 1982.

Everything here takes one item, (C, H, W), and a region (H, W).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import inv, sqrtm

from reference.losses import as_float64


def sums(features, region=None) -> tuple[float, np.ndarray, np.ndarray]:
    """sum r, sum r F and sum r F F^T over the positions."""
    features = as_float64(features)
    channels, height, width = features.shape
    region = np.ones((height, width)) if region is None else as_float64(region)
    weight, first, second = 0.0, np.zeros(channels), np.zeros((channels, channels))
    for y in range(height):
        for x in range(width):
            weight += region[y, x]
            first += region[y, x] * features[:, y, x]
            second += region[y, x] * np.outer(features[:, y, x], features[:, y, x])
    return weight, first, second


def mean_and_covariance(features, region=None) -> tuple[np.ndarray, np.ndarray]:
    """E F and E (F - E F)(F - E F)^T, in that order: the covariance is not from the second moments."""
    features = as_float64(features)
    weight, first, _ = sums(features, region)
    mean = first / weight
    return mean, sums(features - mean[:, None, None], region)[2] / weight


def wasserstein(features, target, region=None) -> float:
    """Dowson and Landau 1982: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2)."""
    (m1, s1), (m2, s2) = mean_and_covariance(features, region), mean_and_covariance(target)
    return float(np.square(m1 - m2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real))


def wasserstein_relative(features, target, region=None) -> float:
    """Divided by the distance of the target from maps of zeros."""
    mean, covariance = mean_and_covariance(target)
    return wasserstein(features, target, region) / float(np.square(mean).sum() + np.trace(covariance))


def wasserstein_relative_gradient(features, target) -> np.ndarray:
    """Each position's way from where optimal transport takes it, twice, over the number of positions.

    The map from one Gaussian to the other is x -> m2 + T (x - m1), T = S1^-1/2 (S1^1/2 S2 S1^1/2)^1/2 S1^-1/2.
    """
    (m1, s1), (m2, s2) = mean_and_covariance(features), mean_and_covariance(target)
    root = sqrtm(s1).real
    transport = inv(root) @ sqrtm(root @ s2 @ root).real @ inv(root)
    points = as_float64(features).reshape(len(m1), -1)
    moved = m2[:, None] + transport @ (points - m1[:, None])
    scale = np.square(m2).sum() + np.trace(s2)
    return (2 * (points - moved) / points.shape[1] / scale).reshape(as_float64(features).shape)
