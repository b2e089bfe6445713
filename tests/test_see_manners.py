"""Every technique leaves model, pictures, generators and switches as they were, also when it breaks in the middle."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detecting import OneObject
from looking import SIDE, photo, tiny_model, write_photos
from torch import nn

from impasto.visualization import Model, Result, load_model, registry

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

QUICK: dict[str, dict[str, Any]] = {
    "patch_pca": {"count": 500, "patch": 5},
    "effective_receptive_field": {"count": 2},
    "tsne_grid": {"side": 100},
    "tsne": {"side": 100},
    "pca": {"side": 100},
    "class_image": {"target": 1, "steps": 4, "seeds": 2},
    "detector_patch": {"steps": 4, "goal": "confuse"},
    "patch": {"target": 1, "steps": 4, "centimetres": 0.5},
    "universal": {"passes": 2},
    "fool": {"steps": 3},
    "evolve": {"evaluations": 32, "start": 16, "shown": 4},
    "linear_toy": {"weak": 1e-2, "strong": 1.0},
    "adversarial_training": {"epochs": 1, "steps": 2, "width": 2},
    "dream_zoom": {"count": 2},
    "guided_dream": {"guide": photo(1)},
    "hog_preimage": {"steps": 2},
    "neuron_image": {"steps": 4},
    "invert": {"steps": 2},
    "texture": {"steps": 2},
    "texture_by_layer": {"steps": 2},
    "efros_leung": {"side": 16, "window": 5},
    "wei_levoy": {"side": 16, "window": 5, "levels": 2},
    "dissect": {"least": 1, "layer": "second", "side": 16},
    "compare_dissections": {"least": 1, "layer": "second"},
    "unit_transitions": {"least": 1, "layer": "second", "side": 16},
}
"""Options that make a technique quick on the tiny network, where its own are not."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, tuple[Any, ...]]:
    write_photos(tmp_path / "photos", width=SIDE, height=SIDE)
    one, many = (photo(),), (tmp_path / "photos",)
    return {"nothing": (), "one picture": one, "whole picture": one, "pictures": many, "pictures, masks": many}


def state_of(model: Model) -> dict[str, Any]:
    """All that a technique could leave behind."""
    modules = list(model.named_modules())
    own = (*model.parameters(), *model.network.buffers(), *model.buffers())
    return {
        "tree": [(name, id(module), type(module)) for name, module in modules],
        "attributes": [sorted(set(vars(module)) - {"_probe"}) for module in (model, *model.modules())],
        "forwards": [module.forward.__func__ for _, module in modules],  # type: ignore[union-attr]
        "hooks": [len(getattr(module, kind)) for _, module in modules for kind in HOOKS],
        "modes": [module.training for module in (model, *model.modules())],
        "requires_grad": [tensor.requires_grad for tensor in own],
        "gradients": [tensor.grad is None for tensor in own],
        "versions": [tensor._version for tensor in own],
        "values": [tensor.double().sum().item() for tensor in own],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled),
        "modules hooks": len(torch.nn.modules.module._global_forward_hooks),
        "function modes": torch._C._len_torch_function_stack(),
    }


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name, value in before.items() if after[name] != value]
    assert not changed, changed


def model_for(name: str) -> Model:
    return load_model(OneObject(), size=SIDE) if name == "detector_patch" else tiny_model()


def run(name: str, model: Model, inputs: dict[str, tuple[Any, ...]]) -> Result:
    found = registry[name]
    return found.function(model, *inputs[found.card.reads], **QUICK.get(name, {}))


@pytest.mark.parametrize("name", list(registry))
class TestEveryTechnique:
    def test_leaves_everything_as_it_was(self, name, inputs, capfd):
        model = model_for(name)
        before, picture = state_of(model), photo()
        result = run(name, model, inputs)
        same(before, state_of(model))
        assert torch.equal(inputs["one picture"][0], picture) and not inputs["one picture"][0].requires_grad
        assert capfd.readouterr() == ("", ""), "a library does not print"
        assert isinstance(result, Result) and result.images and result.caption.endswith(".")
        assert all(image.mode in ("L", "RGB", "RGBA") for image in result.images.values())

    def test_also_when_the_network_breaks_in_the_middle(self, name, inputs, monkeypatch):
        """In its third layer, and again later, so that whatever was set up first has to be taken down."""
        model = model_for(name)
        model.layers()
        before = state_of(model)
        for allowed in (0, 1, 2):
            with monkeypatch.context() as patch:
                left = iter([None] * allowed)
                patch.setattr(nn.MaxPool2d, "forward", breaking(nn.MaxPool2d.forward, left))
                try:
                    run(name, model, inputs)
                except ArithmeticError as error:
                    assert str(error) == "this network breaks"
            same(before, state_of(model))

    def test_gives_the_same_twice_and_without_gradients(self, name, inputs):
        model = model_for(name)
        first = run(name, model, inputs)
        torch.manual_seed(99)
        with torch.no_grad():
            second = run(name, model, inputs)
        assert first.data == second.data
        for picture in first.images:
            assert np.array_equal(np.asarray(first.images[picture]), np.asarray(second.images[picture])), picture

    def test_takes_a_picture_that_needs_a_gradient(self, name, inputs):
        if registry[name].card.reads != "one picture":
            pytest.skip("reads no single picture")
        picture = photo().requires_grad_()
        run(name, model_for(name), inputs | {"one picture": (picture,)})
        assert picture.grad is None and picture.requires_grad


def breaking(forward: Any, left: Iterator[None]) -> Any:
    def broken(module: nn.Module, *inputs: Any) -> Any:
        if next(left, "none") == "none":
            raise ArithmeticError("this network breaks")
        return forward(module, *inputs)

    return broken


class TestTheseTests:
    """Each thing that a technique could leave behind is seen."""

    @pytest.mark.parametrize(
        ("name", "do"),
        [
            ("hooks", lambda model: model.network.first.register_forward_hook(lambda *call: None)),
            ("modes", lambda model: model.network.second.train()),
            ("requires_grad", lambda model: model.network.linear.requires_grad_(True)),
            ("tree", lambda model: setattr(model.network, "relu1", nn.ReLU())),
            ("attributes", lambda model: setattr(model.network, "left", 1)),
            ("values", lambda model: model.network.linear.bias.data.add_(1)),
            ("torch", lambda model: torch.rand(1)),
            ("python", lambda model: random.random()),
            ("numpy", lambda model: np.random.rand()),
        ],
    )
    def test_sees(self, name, do):
        model = tiny_model()
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        before = state_of(model)
        do(model)
        changed = [key for key, value in state_of(model).items() if value != before[key]]
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        assert name in changed
        assert copy.deepcopy(model).size == SIDE
