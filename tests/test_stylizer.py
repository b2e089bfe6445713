from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import MakePack, other_graph, write_pack
from PIL import Image

import impasto
from impasto.errors import PackError, PictureError, WrongCall
from impasto.inference import Stylizer


@pytest.fixture(scope="module")
def stylizer(tmp_path_factory: pytest.TempPathFactory) -> Stylizer:
    return Stylizer(write_pack(tmp_path_factory.mktemp("packs")), provider="cpu", threads=1)


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_front_door_leads_to_the_same_class() -> None:
    assert impasto.Stylizer is Stylizer
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        impasto.Nothing  # noqa: B018


def test_it_says_what_it_is(stylizer: Stylizer) -> None:
    assert stylizer.styles == ("invert", "red")
    assert stylizer.provider == "cpu"
    assert stylizer.card.name == "tiny"


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (255, 31)])
def test_a_picture_comes_back_painted_at_its_own_size(stylizer: Stylizer, size: tuple[int, int]) -> None:
    rgb = noise(*size)
    painted = stylizer.stylize(rgb, "invert")
    assert painted.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(painted), 255 - rgb)
    np.testing.assert_array_equal(np.asarray(stylizer.stylize(rgb, "invert", strength=0)), rgb)


def test_styles_mix_and_strength_goes_in_between(stylizer: Stylizer) -> None:
    grey = np.full((16, 16, 3), 100, np.uint8)
    # invert: 155; red: (255, 0, 0). Three parts invert, one part red: (180, 116.25, 116.25); half the way from 100:
    expected = (140, 108, 108)
    np.testing.assert_array_equal(np.asarray(stylizer.stylize(grey, "invert:3,red:1", 0.5))[0, 0], expected)


def test_file_pillow_image_and_array_are_one(stylizer: Stylizer, tmp_path: Path) -> None:
    image = Image.fromarray(noise())
    image.save(tmp_path / "a.png")
    for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), image, noise()):
        np.testing.assert_array_equal(np.asarray(stylizer.stylize(picture, "invert")), 255 - noise())


def test_alpha_is_kept(stylizer: Stylizer) -> None:
    image = Image.fromarray(noise())
    alpha = Image.fromarray(noise()[..., 0].clip(1))  # what is seen, if only just
    image.putalpha(alpha)
    painted = np.asarray(stylizer.stylize(image, "invert"))
    np.testing.assert_array_equal(painted[..., :3], 255 - noise())
    np.testing.assert_array_equal(painted[..., 3], np.asarray(alpha))


def test_a_batch_has_a_style_and_a_strength_each(stylizer: Stylizer) -> None:
    images = np.full((3, 16, 20, 3), 40, np.uint8)
    styles = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    painted = stylizer.paint(images, styles, np.array([1, 1, 0], np.float32))
    np.testing.assert_array_equal(painted[:, 0, 0], [(215, 215, 215), (255, 0, 0), (40, 40, 40)])


def test_several_styles_and_none_chosen(stylizer: Stylizer, tiny: Path) -> None:
    with pytest.raises(WrongCall, match="several styles; choose one of: invert, red"):
        stylizer.stylize(noise())
    np.testing.assert_array_equal(np.asarray(Stylizer("invert").stylize(noise())), 255 - noise())
    np.testing.assert_array_equal(np.asarray(Stylizer("tiny/invert").stylize(noise())), 255 - noise())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": np.zeros((1, 16, 15, 3), np.uint8)}, PictureError, "at least 16 pixels a side"),
        ({"images": np.zeros((1, 16, 16, 3), np.float32)}, PictureError, "expected uint8"),
        ({"images": np.zeros((16, 16, 3), np.uint8)}, PictureError, "expected uint8"),
        ({"styles": np.array([[1.0]], np.float32)}, WrongCall, r"style weights \(1, 2\)"),
        ({"styles": np.array([[2.0, -1.0]], np.float32)}, WrongCall, "not negative"),
        ({"styles": np.array([[0.5, 0.4]], np.float32)}, WrongCall, "sum 1"),
        ({"strengths": np.array([1.5], np.float32)}, WrongCall, "strengths from 0 to 1"),
        ({"strengths": np.array([np.nan], np.float32)}, WrongCall, "strengths from 0 to 1"),
    ],
)
def test_wrong_arrays_are_refused(
    stylizer: Stylizer, change: dict[str, np.ndarray], error: type[Exception], message: str
) -> None:
    arguments = {
        "images": np.zeros((1, 16, 16, 3), np.uint8),
        "styles": np.array([[1, 0]], np.float32),
        "strengths": np.ones(1, np.float32),
    }
    with pytest.raises(error, match=message):
        stylizer.paint(**{**arguments, **change})


def test_opening_a_session_leaves_the_caller_its_subnormal_numbers(make_pack: MakePack) -> None:
    Stylizer(make_pack(), provider="cpu", threads=1)
    assert np.array([1e-40], np.float32)[0] * np.float32(1) > 0


def test_a_provider_asked_for_runs_or_fails(make_pack: MakePack, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = make_pack()
    with pytest.raises(WrongCall, match="unknown provider 'gpu'"):
        Stylizer(pack, provider="gpu")
    with pytest.raises(WrongCall, match="at least 1"):
        Stylizer(pack, threads=0)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(WrongCall, match=r"'cuda' is not in this installation of onnxruntime; it has: cpu"):
        Stylizer(pack, provider="cuda")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA would start here")
def test_a_provider_that_is_listed_but_does_not_start(make_pack: MakePack, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    pack = make_pack()
    with pytest.raises(WrongCall, match="'cuda' is installed but does not start here"):
        Stylizer(pack, provider="cuda")
    assert Stylizer(pack).provider == "cpu"


def test_a_graph_that_does_not_paint_is_no_pack(make_pack: MakePack) -> None:
    with pytest.raises(
        PackError, match=r"paint\.onnx: not the paint graph of a style pack: inputs input tensor\(float\)"
    ):
        Stylizer(make_pack("other", model=other_graph().SerializeToString()))
    with pytest.raises(PackError, match=r"paint\.onnx: ONNX Runtime cannot open the graph"):
        Stylizer(make_pack("garbage", model=b"not an onnx file"))
    with pytest.raises(PackError, match="the graph has 2 styles, the card 3"):
        Stylizer(make_pack("three", styles=("a", "b", "c")))
    with pytest.raises(PackError, match=r"paint\.onnx: is a file; expected a style pack"):
        Stylizer(make_pack("file") / "paint.onnx")
