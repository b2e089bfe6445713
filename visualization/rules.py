"""Other rules for some operations of a network during one pass, by interception: no hooks, nothing to put back.

    with guided():
        logits = model(picture)
    (gradient,) = torch.autograd.grad(logits[0, 3], picture)

A rule sees every operation that is called in its ``with``, whether a module, a function or a method calls it, in place
or not. It counts them, and refuses at the end of the ``with`` if there was none: then its picture would be another one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from impasto.visualization.registry import Refused

RELUS = {"relu": math.inf, "relu_": math.inf, "relu6": 6.0, "hardtanh": 1.0, "hardtanh_": 1.0}
"""Functions that may cut off below 0, and where they cut off above if their arguments do not say it."""

OTHERS = {
    "silu",
    "silu_",
    "gelu",
    "hardswish",
    "hardswish_",
    "mish",
    "elu",
    "elu_",
    "leaky_relu",
    "leaky_relu_",
    "prelu",
}
"""Activation functions for which guided backpropagation is not defined."""

SQUASHING = {
    "sigmoid",
    "sigmoid_",
    "hardsigmoid",
    "hardsigmoid_",
    "tanh",
    "tanh_",
    "softplus",
    "threshold",
    "celu",
    "selu",
}

NORMALISING = {"batch_norm", "instance_norm", "group_norm", "layer_norm", "local_response_norm"}

DROPPING = {"dropout", "dropout_", "dropout2d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"}

ATTENTION = {"multi_head_attention_forward", "scaled_dot_product_attention", "_native_multi_head_attention"}


class Rule(TorchFunctionMode):
    """What a ``with`` puts in the place of some operations.

    Attributes:
        hits: operations that were replaced.
        others: activation functions seen that are not ReLUs, by name.

    Raises:
        Refused: at the end of a ``with`` in which nothing was replaced.
    """

    def __init__(self, purpose: str, replace: Callable[[Rule, str, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self.purpose = purpose
        self.replace = replace
        self.hits = 0
        self.others: Counter[str] = Counter()

    def __torch_function__(
        self, function: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operation."""
        named = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        self.others.update([name] if name in OTHERS else [])
        replaced = self.replace(self, name, args, named)
        if replaced is None:
            return function(*args, **named)
        self.hits += 1
        return replaced

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if kind is None and not self.hits:
            seen = ", ".join(f"{name} ({count} times)" for name, count in self.others.items())
            raise Refused(f"{self.purpose}: this network calls no such operation" + (f", but {seen}" if seen else ""))


def guided() -> Rule:
    """Guided backpropagation: a ReLU passes back what is positive, where it was positive itself.

    R_l = 1[0 < f < upper] 1[R_(l+1) > 0] R_(l+1). Source: Springenberg et al. 2015, section 3.4. Differs from it for
    ReLU6, which also stops above 6, as its gradient does.
    """
    return _relu_rule("guided backpropagation is defined by a network's ReLUs", _Guided)


def deconv() -> Rule:
    """The deconvolutional network: a ReLU passes back what is positive, wherever: R_l = 1[R_(l+1) > 0] R_(l+1).

    Source: Zeiler and Fergus 2014, section 2.1. Max-pooling goes back through its switches, as its gradient does.
    """
    return _relu_rule("the deconvolutional network is defined by a network's ReLUs", _Deconv)


def redirected() -> Rule:
    """A gradient also through ReLUs that are off, for something to be minimised from a dead start.

    Where nothing at all of a picture's gradient passes a ReLU, all of it does that does not push a value further out:
    R where not (f < 0 and R > 0) and not (f > upper and R < 0). Source: lucid, misc/redirected_relu_grad.py.
    """
    return _relu_rule("redirected gradients are for a network's ReLUs", _Redirected)


def woken(function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """What a function of pictures gives, with a gradient that also passes ReLUs that are off, if there are any."""
    with suppress(Refused):  # there is no ReLU, so none is off
        with redirected():
            found = function(pictures)
        return found
    return function(pictures)


def average_pooling() -> Rule:
    """Average pooling in the place of max-pooling, with the same windows (Gatys et al. 2016, section 2).

    Differs from `torch.nn.functional.avg_pool2d` where windows are dilated or reach past the edge: the mean is taken of
    the values that are there.
    """
    return Rule(
        "average pooling in the place of max-pooling", lambda rule, name, args, named: _pooled(name, args, named)
    )


def not_in_place() -> Rule:
    """ReLUs that write into nothing: what they took stays as it was.

    Differs from the network where a ReLU in place is called for its effect alone, which no network of torchvision does.
    """

    def replace(rule: Rule, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        upper = _upper(name, args, named)
        return None if upper is None else args[0].clamp(0, None if math.isinf(upper) else upper)

    return Rule("ReLUs that are not in place", replace)


def linearised() -> Rule:
    """The network whose gradient is not 0 exactly where a unit looks: its receptive field, for any graph of layers.

    Every weight of a convolution is 1 / (its channels and positions), without bias; normalisation, activation and
    dropout do nothing; max-pooling is the mean. Take pictures of ones in float64: then no value is negative, and
    nothing cancels.

    Raises:
        Refused: in the ``with``, for attention, which has no receptive field.
    """
    return Rule("a receptive field", lambda rule, name, args, named: _linear(name, args, named))


class _Relu(torch.autograd.Function):
    """max(0, min(upper, x)), with a gradient that sub-classes state."""

    @staticmethod
    def forward(context: Any, x: Tensor, upper: float) -> Tensor:
        context.save_for_backward(x)
        context.upper = upper
        return x.clamp(0, None if math.isinf(upper) else upper)

    @staticmethod
    def passed(x: Tensor, gradient: Tensor, upper: float) -> Tensor:
        raise NotImplementedError

    @classmethod
    def backward(cls, context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        return cls.passed(x, gradient, context.upper), None


class _Guided(_Relu):
    @staticmethod
    def passed(x: Tensor, gradient: Tensor, upper: float) -> Tensor:
        return gradient.clamp(min=0) * ((x > 0) & (x < upper))


class _Deconv(_Relu):
    @staticmethod
    def passed(x: Tensor, gradient: Tensor, upper: float) -> Tensor:
        return gradient.clamp(min=0)


class _Redirected(_Relu):
    @staticmethod
    def passed(x: Tensor, gradient: Tensor, upper: float) -> Tensor:
        plain = gradient * ((x > 0) & (x < upper))
        outwards = ((x < 0) & (gradient > 0)) | ((x > upper) & (gradient < 0))
        alive = plain.flatten(1).any(1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(alive, plain, gradient.masked_fill(outwards, 0))


def _relu_rule(purpose: str, kind: type[_Relu]) -> Rule:
    def replace(rule: Rule, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
        upper = _upper(name, args, named)
        if upper is None:
            return None
        x = args[0] if args else named["input"]
        if name.endswith("_") or named.get("inplace", False):
            changed: Tensor = x.copy_(kind.apply(x.clone(), upper))
            return changed
        passed: Tensor = kind.apply(x, upper)
        return passed

    return Rule(purpose, replace)


def _upper(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> float | None:
    """Where an operation that cuts off below 0 cuts off above; None for any other operation."""
    if name not in RELUS:
        return None
    if name.startswith("hardtanh"):
        given = dict(zip(("input", "min_val", "max_val"), args, strict=False)) | named
        return float(given.get("max_val", 1.0)) if given.get("min_val", -1.0) == 0 else None
    return RELUS[name]


_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


def _pooled(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """The mean in the place of the largest value; None for another operation."""
    base = name.removesuffix("_with_indices")
    if base.startswith("adaptive_max_pool"):
        adaptive: Tensor = getattr(F, base.replace("max", "avg"))(args[0], args[1])
        return adaptive
    if not base.startswith("max_pool"):
        return None
    given = dict(zip(_POOL, args, strict=False)) | named
    if base != name or given.pop("return_indices", False) or given.pop("dilation", 1) not in (1, (1, 1), [1, 1]):
        raise Refused("average pooling has no switches and no dilated windows, which this network's max-pooling needs")
    pooled: Tensor = getattr(F, base.replace("max", "avg"))(**given, count_include_pad=False)
    return pooled


def _linear(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """What an operation is in the linearised network; None if it is the same."""
    if name in ATTENTION:
        raise Refused("a receptive field: attention looks everywhere, so its layers have none")
    if name in RELUS or name in OTHERS | SQUASHING | NORMALISING | DROPPING:
        x: Tensor = args[0]
        return x if name.endswith("_") or named.get("inplace", False) else x.clone()
    if name == "linear":
        mean: Tensor = args[0].mean(-1, keepdim=True)
        return mean.expand(*mean.shape[:-1], len(args[1])).clone()
    if name.startswith("conv_transpose"):
        given = dict(zip(_TRANSPOSED, args, strict=False)) | named
        return _averaging(getattr(F, name), given, given["weight"].shape[1] * given.get("groups", 1))
    if name in ("conv1d", "conv2d", "conv3d"):
        given = dict(zip(_CONVOLUTION, args, strict=False)) | named
        return _averaging(getattr(F, name), given, len(given["weight"]))
    return _pooled(name, args, named)


def _averaging(convolve: Callable[..., Tensor], given: dict[str, Any], channels: int) -> Tensor:
    """A convolution whose weights are all 1 / their number, of which each group needs to be computed once only."""
    x, kernel, groups = given.pop("input"), given.pop("weight"), given.pop("groups", 1)
    given.pop("bias", None)
    means = x.unflatten(1, (groups, -1)).mean(2).flatten(0, 1).unsqueeze(1)
    weight = x.new_ones(1, 1, *kernel.shape[2:]).div_(math.prod(kernel.shape[2:]))
    maps = convolve(means, weight, **given)
    apart = maps.view(len(x), groups, 1, *maps.shape[2:])
    return apart.expand(-1, -1, channels // groups, *maps.shape[2:]).flatten(1, 2)
