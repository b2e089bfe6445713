"""What "looks alike" means: features of a network, losses on them, and the loop that optimises a picture."""

from impasto.losses.capture import capture
from impasto.losses.functional import CONVENTIONS, content_loss, gram_matrix, style_loss, total_variation
from impasto.losses.optimize import Step, adam, clip, lbfgs, optimize_image
from impasto.losses.perceptual import LossTerms, PerceptualLoss
from impasto.losses.vgg import VGGFeatures

__all__ = [
    "CONVENTIONS",
    "LossTerms",
    "PerceptualLoss",
    "Step",
    "VGGFeatures",
    "adam",
    "capture",
    "clip",
    "content_loss",
    "gram_matrix",
    "lbfgs",
    "optimize_image",
    "style_loss",
    "total_variation",
]
