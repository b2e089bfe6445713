"""ReLU with the gradients of guided backpropagation and of the deconvnet, as the papers write them."""

from __future__ import annotations

import torch


class HandMade(torch.autograd.Function):
    """The rule of guided backpropagation or of the deconvnet, for a cut from 0 to ``upper``."""

    @staticmethod
    def forward(context, x, upper, deconv):
        context.save_for_backward(x)
        context.upper, context.deconv = upper, deconv
        return x.clamp(0, upper)

    @staticmethod
    def backward(context, gradient):
        (f,) = context.saved_tensors
        passed = torch.where(gradient > 0, gradient, torch.zeros_like(gradient))
        if not context.deconv:
            passed = torch.where((f > 0) & (f < context.upper), passed, torch.zeros_like(passed))
        return passed, None, None
