"""Named activations of any network."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from impasto.errors import WrongCall, unknown_name

_SUFFIX = re.compile(r"(@(?P<call>\d+))?(?P<entry>:in)?\Z")


@dataclass(frozen=True)
class _Address:
    layer: str
    module: str
    call: int
    entry: bool


class _AllFound(BaseException):
    """Ends a pass from inside a hook; not an Exception, which a model might catch."""


def capture(model: nn.Module, layers: Sequence[str], *, whole: bool = False) -> Callable[[Tensor], dict[str, Tensor]]:
    """A function that runs ``model`` and returns the activations of the layers asked for.

    A layer is the name of a module as ``model.named_modules()`` has it, with two additions: ``name@k`` is its k-th call
    in one pass, counted from 1 (a module used twice; without it the first), and ``name:in`` what goes into it;
    ``name@2:in`` is both. Activations are copies, so that an operation in place further on does not overwrite them;
    gradients flow through. The pass ends when all of them are there. Hooks exist only while the function runs, also
    when the model raises; nothing else of the model is touched.

    Args:
        model: any network of one tensor.
        layers: names, at least one.
        whole: run the model to its end in any case, for who watches what it does.

    Returns:
        ``features(images) -> dict``, name -> activation, in the order asked.

    Raises:
        ValueError: here for a module that the model does not have; when run, for a call that did not happen.

    Example:
        >>> body = nn.Sequential(nn.Identity(), nn.Flatten())
        >>> capture(body, ["1:in", "1"])(torch.zeros(2, 3, 4, 5))["1"].shape
        torch.Size([2, 60])
    """
    if isinstance(layers, str) or not layers:
        raise WrongCall(f"layers: got {layers!r}, expected a list of names such as ['layer1']")
    modules = dict(model.named_modules())
    wanted: dict[str, list[_Address]] = defaultdict(list)
    for layer in layers:
        address = _parse(layer)
        if address.module not in modules or not address.module:
            raise unknown_name("layer", address.module, [name for name in modules if name])
        wanted[address.module].append(address)

    total = None if whole else len(set(layers))

    def features(images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        calls: dict[str, int] = dict.fromkeys(wanted, 0)
        with ExitStack() as hooks:
            for name, addresses in wanted.items():
                entry = _entry_hook(name, addresses, found, calls, total)
                leave = _hook(name, addresses, found, calls, total)
                hooks.callback(modules[name].register_forward_pre_hook(entry).remove)
                hooks.callback(modules[name].register_forward_hook(leave, with_kwargs=True).remove)
            hooks.enter_context(suppress(_AllFound))
            model(images)
        for layer in layers:
            if layer not in found:
                name = _parse(layer).module
                raise WrongCall(f"layer {layer!r}: the module {name!r} was called {calls[name]} times in this pass")
        return {layer: found[layer] for layer in layers}

    return features


def _parse(layer: str) -> _Address:
    suffix = _SUFFIX.search(layer)
    call, entry = (suffix["call"], suffix["entry"]) if suffix else (None, None)
    return _Address(layer, layer[: suffix.start() if suffix else None], int(call or 1), entry is not None)


def _copy(layer: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise WrongCall(f"layer {layer!r} gives {type(value).__name__}, expected a tensor; choose a module inside it")
    return value.clone()


def _entry_hook(
    name: str, addresses: list[_Address], found: dict[str, Tensor], calls: dict[str, int], total: int | None
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[name] += 1
        for address in addresses:
            if address.entry and address.call == calls[name]:
                found[address.layer] = _copy(address.layer, inputs[0] if inputs else None)
        if len(found) == total:
            raise _AllFound

    return hook


def _hook(
    name: str, addresses: list[_Address], found: dict[str, Tensor], calls: dict[str, int], total: int | None
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        for address in addresses:
            if not address.entry and address.call == calls[name]:
                found[address.layer] = _copy(address.layer, output)
        if len(found) == total:
            raise _AllFound

    return hook
