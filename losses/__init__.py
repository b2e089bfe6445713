"""What "looks alike" means: features of a network, losses on them, and the loop that optimises a picture."""

from impasto.losses.capture import capture
from impasto.losses.functional import CONVENTIONS, content_loss, gram_matrix, style_loss, total_variation
from impasto.losses.optimize import NORMS, Operator, Step, adam, clip, lbfgs, optimize_image, steepest
from impasto.losses.perceptual import LossTerms, PerceptualLoss
from impasto.losses.statistics import STATISTICS, Moments, moments, statistic_loss
from impasto.losses.vgg import VGGFeatures

__all__ = [
    "CONVENTIONS",
    "NORMS",
    "STATISTICS",
    "LossTerms",
    "Moments",
    "Operator",
    "PerceptualLoss",
    "Step",
    "VGGFeatures",
    "adam",
    "capture",
    "clip",
    "content_loss",
    "gram_matrix",
    "lbfgs",
    "moments",
    "optimize_image",
    "statistic_loss",
    "steepest",
    "style_loss",
    "total_variation",
]
