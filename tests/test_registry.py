"""The registry: facts read from sources and from imported functions agree, and names, options and commands derive."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Literal

import pytest
import torch
from looking import photo, tiny_model, write_photos
from torch import Tensor

import impasto.visualization
from impasto.errors import PictureError, WrongCall
from impasto.visualization import Result, load_model, registry
from impasto.visualization import registry as exported
from impasto.visualization.inputs import Pictures, Whole
from impasto.visualization.model import Model
from impasto.visualization.options import argument_helps, options_of
from impasto.visualization.registry import FAMILIES, READS, Registry, technique


@technique("V99", "weights")
def looks(
    model: object,
    picture: Tensor,
    *,
    layer: str = "",
    kind: Literal["a", "b"] = "a",
    parts: tuple[int, ...] = (),
    sharp: bool = False,
    target: int | str | None = None,
    ratio: float = 0.5,
) -> Result:
    """Look at one picture.

    Args:
        layer: Where to look,
            in two lines.
        ratio: How much.

    Returns:
        What was given.
    """
    return Result({}, {"shape": list(picture.shape), "grad": torch.is_grad_enabled(), "kind": kind})


@technique("V98", "weights")
def reads_many(model: object, pictures: Pictures = Pictures(), *, count: int = 3) -> Result:  # noqa: B008
    """Look at many."""
    return Result({}, {"names": [path.name for path in pictures.paths]})


@technique("V97", "weights")
def looks_whole(
    model: Model, picture: Whole, *, guide: Tensor | None = None, judge: Model | None = None, count: int | None = None
) -> Result:
    """Look at a whole picture, a second one, and with a second network."""
    return Result(
        {},
        {
            "shape": list(picture.shape),
            "guide": None if guide is None else list(guide.shape),
            "judge": None if judge is None else judge.size,
            "count": count,
        },
    )


@technique("V96", "weights")
def looks_cropped(model: Model, picture: Tensor, *, guide: Tensor | None = None) -> Result:
    """Look at two cropped pictures."""
    return Result({}, {"shapes": [list(picture.shape), list(guide.shape) if guide is not None else []]})


class TestCards:
    def test_the_sources_say_what_the_functions_say(self):
        assert len(registry) >= 4
        for name in registry:
            found = registry[name]
            assert found.function.__name__ == found.card.name == name
            assert found.function.__module__ == found.card.module
            assert found.card.meaning == (inspect.getdoc(found.function) or "").splitlines()[0]
            places = [
                each
                for each in inspect.signature(found.function).parameters.values()
                if each.kind is not each.KEYWORD_ONLY
            ]
            annotation = places[1].annotation if len(places) > 1 else ""
            assert found.card.reads == READS[annotation]
            assert found.card.optional == (len(places) > 1 and places[1].default is not inspect.Parameter.empty)
            assert places[0].name == "model" and found.card.family in FAMILIES

    @pytest.mark.parametrize("name", list(registry))
    def test_every_option_has_a_default_a_type_and_a_help(self, name):
        for option in registry[name].options.values():
            assert option.help.endswith(".") and len(option.help) > 8, option.name
            assert option.kind in (bool, int, float, str)

    def test_every_technique_of_the_design_that_is_here_has_its_number(self):
        numbers = {
            "filters": "V01", "deep_filters": "V02", "patch_pca": "V03", "activation_maps": "V04", "top_patches": "V05",
            "receptive_field": "V06", "effective_receptive_field": "V06", "zeiler_sheet": "V07", "occlusion": "V12",
            "saliency": "V13", "grabcut": "V14", "cam": "V15", "gradcam": "V16", "neuron_gradient": "V17",
            "guided_backprop": "V18", "deconvnet": "V19", "faithfulness": "V20",
        }  # fmt: skip
        for name in registry:
            assert registry.cards[name].number == numbers.get(name, registry.cards[name].number)
        assert {"filters", "activation_maps", "receptive_field", "effective_receptive_field"} <= set(registry)

    def test_names_of_modules_and_techniques_differ(self):
        modules = {card.module.rpartition(".")[2] for card in registry.cards.values()}
        assert not modules & set(registry), "a module of this name would hide the function of the package"

    def test_listing_imports_no_torch(self):
        program = (
            "import sys; from impasto.visualization import registry; from impasto.visualization.see import see; "
            "assert len(registry.cards) >= 4; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
        )
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert finished.stdout.strip() == "[]", finished.stderr


class TestNames:
    def test_of_the_package(self):
        assert exported is registry and isinstance(registry, Registry)
        assert impasto.visualization.filters is registry["filters"].function
        assert {"filters", "paint", "load_model"} <= set(dir(impasto.visualization))
        with pytest.raises(AttributeError, match="no attribute 'filtres'"):
            _ = impasto.visualization.filtres

    def test_an_unknown_one(self):
        with pytest.raises(WrongCall, match=r"unknown technique 'fliters'\. Did you mean 'filters'\? Expected"):
            registry["fliters"]
        assert "fliters" not in registry and "filters" in registry

    def test_a_parameter_that_nothing_can_read(self):
        def odd(model: object, picture: bytes) -> Result:
            """Odd."""
            return Result({})

        with pytest.raises(TypeError, match="odd reads bytes: expected one of Tensor, Whole, Pictures, Masked, or no"):
            technique("V99", "weights")(odd)

    def test_an_unknown_family(self):
        with pytest.raises(WrongCall, match="unknown family 'art'"):
            technique("V99", "art")


class TestOptions:
    def test_of_every_kind(self):
        options = options_of(looks)
        assert {name: (option.flag, option.kind, option.many, option.choices) for name, option in options.items()} == {
            "layer": ("--layer", str, False, ()),
            "kind": ("--kind", str, False, ("a", "b")),
            "parts": ("--parts", int, True, ()),
            "sharp": ("--sharp/--no-sharp", bool, False, ()),
            "target": ("--target", str, False, ()),
            "ratio": ("--ratio", float, False, ()),
        }
        assert options["layer"].help == "Where to look, in two lines." and options["ratio"].help == "How much."
        assert options["parts"].parse("1,2") == (1, 2) and options["parts"].parse("") == ()
        with pytest.raises(WrongCall, match="--parts: got '1,x', expected ints such as 1,2"):
            options["parts"].parse("1,x")
        with pytest.raises(WrongCall, match="--ratio: got 'much', expected a value of type float"):
            options["ratio"].parse("much")

    def test_text_and_value_go_both_ways(self):
        options = options_of(looks)
        for name, value in [("layer", "a.b"), ("parts", (3, 4)), ("ratio", 0.1), ("kind", "b")]:
            flag, text = options[name].words(value)
            assert flag == f"--{name}" and options[name].parse(text) == value
            assert options[name].words(options[name].default) == []
        assert options["sharp"].words(True) == ["--sharp"] and options["target"].words(7) == ["--target", "7"]

    def test_what_the_command_line_cannot_give(self):
        def without(model, *, layer: str):
            """None."""

        def odd(model, *, layers: dict[str, int] | None = None):
            """None."""

        with pytest.raises(TypeError, match="layer needs a default"):
            options_of(without)
        with pytest.raises(TypeError, match="layers: .* cannot be given"):
            options_of(odd)

    def test_helps_end_with_their_section(self):
        text = "One.\n\nArgs:\n    a: First: of\n        two.\n    b: Second.\n\nReturns:\n    c: no.\n"
        assert argument_helps(text) == {"a": "First: of two.", "b": "Second."}
        assert argument_helps("Nothing.") == {}


class TestCalling:
    def test_reads_a_file_an_image_an_array_and_a_tensor(self, tmp_path):
        (path, *_) = write_photos(tmp_path)
        model = tiny_model()
        with torch.no_grad():
            for given in (path, str(path), model.read(path)):
                assert looks(model, given).data == {"shape": [1, 3, 32, 32], "grad": True, "kind": "a"}

    def test_the_command_that_makes_it_again(self, tmp_path):
        (path, *_) = write_photos(tmp_path / "a b")
        model = load_model("squeezenet1_1", weights=None, size=32)
        result = looks(model, path, kind="b", parts=(1, 2), sharp=True, ratio=0.5)
        assert result.command == (
            f"impasto see looks '{path}' --kind b --parts 1,2 --sharp --model squeezenet1_1 --weights none --size 32"
        )
        assert looks(model, photo()).command == "", "nobody knows where the picture comes from"
        assert looks(tiny_model(), path).command == "", "nor the network"
        many = reads_many(model, [tmp_path / "a b", path], count=4)
        assert many.command.startswith(f"impasto see reads-many '{tmp_path}/a b' '{path}' --count 4 --model")
        assert many.data == {"names": ["00.png", "01.png", "02.png", "00.png"]}
        assert reads_many(model).data == {"names": []}

    @pytest.mark.parametrize(
        "given",
        [torch.zeros(3, 32, 32), torch.zeros(2, 3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 9, 9).byte()],
    )
    def test_refuses_other_tensors(self, given):
        with pytest.raises(WrongCall, match=r"expected float RGB \(1, 3, H, W\) in \[0, 1\]"):
            looks(tiny_model(), given)

    def test_refuses_what_is_not_among_the_choices(self):
        with pytest.raises(WrongCall, match=r"unknown kind 'c'.*a, b"):
            looks(tiny_model(), photo(), kind="c")

    def test_pictures(self, tmp_path):
        write_photos(tmp_path / "in" / "deep")
        (tmp_path / "in" / "notes.txt").write_text("no picture")
        pictures = Pictures.of(tmp_path / "in")
        assert [path.name for path in pictures.paths] == ["00.png", "01.png", "02.png"]
        model = tiny_model()
        batches = list(pictures.batches(model, 2))
        assert [list(indices) for indices, _ in batches] == [[0, 1], [2]]
        assert torch.equal(torch.cat([images for _, images in batches])[1:2], model.read(pictures.paths[1]))
        for place in ("absent", "in/notes.txt"):
            with pytest.raises(PictureError, match=place):
                list(Pictures.of(tmp_path / place).batches(model))


class TestWhole:
    def test_the_longer_side_is_the_models_and_nothing_is_cut_off(self, tmp_path):
        (path, *_) = write_photos(tmp_path, width=96, height=64)
        model = tiny_model()
        assert looks_whole(model, path).data["shape"] == [1, 3, 21, 32]
        assert looks(model, path).data["shape"] == [1, 3, 32, 32]
        (high, *_) = write_photos(tmp_path / "high", width=40, height=80)
        assert looks_whole(model, high).data["shape"] == [1, 3, 32, 16]

    def test_a_tensor_stays_as_it_is(self):
        assert looks_whole(tiny_model(), torch.zeros(1, 3, 20, 50)).data["shape"] == [1, 3, 20, 50]
        with pytest.raises(WrongCall, match=r"expected float RGB \(1, 3, H, W\)"):
            looks_whole(tiny_model(), torch.zeros(3, 20, 50))


class TestOpenedOptions:
    def test_their_facts(self):
        options = options_of(looks_whole)
        assert {name: (option.flag, option.kind, option.opens) for name, option in options.items()} == {
            "guide": ("--guide", str, "picture"),
            "judge": ("--judge", str, "network"),
            "count": ("--count", int, ""),
        }
        assert options["guide"].parse("a.jpg") == "a.jpg" and options["judge"].parse("vgg19") == "vgg19"

    def test_none_stays_none(self):
        assert looks_whole(tiny_model(), photo(), guide=None, judge=None).data == {
            "shape": [1, 3, 32, 32], "guide": None, "judge": None, "count": None,
        }  # fmt: skip

    def test_a_second_picture_is_read_as_the_first_is(self, tmp_path):
        first, second, _ = write_photos(tmp_path, width=96, height=64)
        model = tiny_model()
        assert looks_whole(model, first, guide=second).data["guide"] == [1, 3, 21, 32]
        assert looks_whole(model, first, guide=torch.zeros(1, 3, 9, 7)).data["guide"] == [1, 3, 9, 7]
        assert looks_cropped(model, first, guide=str(second)).data["shapes"] == [[1, 3, 32, 32]] * 2

    def test_a_second_network_is_loaded_by_its_name_or_taken(self):
        pytest.importorskip("torchvision")
        model = tiny_model()
        assert looks_whole(model, photo(), judge=tiny_model(size=48)).data["judge"] == 48
        assert looks_whole(model, photo(), judge="vgg19").data["judge"] == 224

    def test_errors(self, tmp_path):
        model = tiny_model()
        with pytest.raises(PictureError, match=r"absent\.png"):
            looks_whole(model, photo(), guide=tmp_path / "absent.png")
        with pytest.raises(WrongCall, match=r"expected float RGB \(1, 3, H, W\)"):
            looks_whole(model, photo(), guide=torch.zeros(3, 8, 8))
        with pytest.raises(WrongCall, match="unknown network 'vgg20'"):
            looks_whole(model, photo(), judge="vgg20")

    def test_command(self, tmp_path):
        first, second, _ = write_photos(tmp_path / "a b")
        model = load_model("squeezenet1_1", weights=None, size=32)
        found = looks_whole(model, first, guide=second, judge="vgg19", count=0)
        assert found.command == (
            f"impasto see looks-whole '{first}' --guide '{second}' --judge vgg19 --count 0 --model squeezenet1_1 "
            "--weights none --size 32"
        )
        assert "--guide" not in looks_whole(model, first, guide=None).command
        assert looks_whole(model, first, guide=photo()).command == "", "nobody knows where this picture comes from"
        assert looks_whole(model, first, judge=tiny_model()).command == "", "nor this network"

    def test_what_cannot_be_opened(self):
        def needed(model, *, guide: Tensor = torch.zeros(1)):  # noqa: B008
            """None."""

        with pytest.raises(TypeError, match=r"guide: .* cannot be given"):
            options_of(needed)
