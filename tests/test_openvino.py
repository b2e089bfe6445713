"""OpenVINO's own package in the place of ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import MakePack
from PIL import Image

from impasto.errors import MissingExtra, PackError
from impasto.inference import Stylizer
from impasto.inference.sessions import open_session
from impasto.packs import PAINT, find_pack

SHIPPED = find_pack("starry_night")[0]
FIRST = {"style": np.eye(1, len(SHIPPED.card.styles), dtype=np.float32), "strength": np.ones(1, np.float32)}


def photo(height: int, width: int) -> np.ndarray:
    """Smooth colours with a little noise on them."""
    random = np.random.default_rng(3)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse) + random.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-9)))


def test_without_the_package_it_says_what_to_install(make_pack: MakePack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"impasto\[openvino\]"):
        Stylizer(make_pack(), provider="openvino")


class TestOpenVino:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("openvino")

    def test_the_pack_of_known_painting(self, make_pack: MakePack) -> None:
        stylizer = Stylizer(make_pack(), provider="openvino", threads=1)
        rgb = photo(20, 30)
        assert stylizer.provider == "openvino"
        painted = np.asarray(stylizer.stylize(rgb, "invert"))
        assert np.abs(painted - (255.0 - rgb)).max() <= 1  # bfloat16 has 8 bits
        batch = np.stack([rgb, rgb])
        both = stylizer.paint(batch, np.eye(2, dtype=np.float32), np.array([1, 0.5], np.float32))
        assert np.abs(both[1] - (rgb + 0.5 * ([255.0, 0, 0] - rgb))).max() <= 2

    def test_the_shipped_pack_is_the_same_picture(self) -> None:
        rgb = photo(90, 123)
        one, other = (
            np.asarray(Stylizer("starry_night", provider=name, threads=1).stylize(rgb)) for name in ("openvino", "cpu")
        )
        assert one.shape == (90, 123, 3)
        assert decibels(one, other) >= 38  # measured 49.6 dB in bfloat16
        assert decibels(one, rgb) < 25  # and painted

    def test_a_graph_that_it_cannot_read(self, tmp_path: Path) -> None:
        with pytest.raises(PackError, match="OpenVINO cannot open the graph"):
            open_session(b"not a graph", provider="openvino")

    def test_work_that_is_stopped(self, make_pack: MakePack) -> None:
        session, _ = open_session((SHIPPED.path / PAINT).read_bytes(), provider="openvino", threads=1)
        options = onnxruntime.RunOptions()
        options.terminate = True
        with pytest.raises(InterruptedError):
            session.run(["painted"], FIRST | {"image": photo(1200, 1200)[None]}, options)
        assert session.run(["painted"], FIRST | {"image": photo(32, 32)[None]})[0].shape == (1, 32, 32, 3)

    def test_a_size_after_another(self) -> None:
        session, name = open_session((SHIPPED.path / PAINT).read_bytes(), provider="openvino", threads=1)
        assert name == "openvino"
        assert [value.name for value in session.get_inputs()] == ["image", "style", "strength"]
        painted = [session.run(["painted"], FIRST | {"image": photo(*size)[None]})[0] for size in ((32, 48), (64, 16))]
        assert [each.shape for each in painted] == [(1, 32, 48, 3), (1, 64, 16, 3)]

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_shape_that_comes_again_is_compiled_for_and_no_bit_changes(self, threads: int) -> None:
        session, _ = open_session((SHIPPED.path / PAINT).read_bytes(), provider="openvino", threads=threads)
        sizes = [(240, 320), (240, 320), (240, 320), (64, 16), (240, 320), (64, 16), (64, 16), (64, 16)]
        painted = [session.run(["painted"], FIRST | {"image": photo(*size)[None]})[0] for size in sizes]
        assert [dict(shapes)["image"][1:3] for shapes in session._fixed] == [(240, 320), (64, 16)]
        for size, each in zip(sizes, painted, strict=True):
            assert np.array_equal(each, painted[sizes.index(size)])

    def test_the_graphs_used_last_are_kept(self) -> None:
        session, _ = open_session((SHIPPED.path / PAINT).read_bytes(), provider="openvino", threads=1)
        for width in (16, 16, 17, 17, 16, 18, 18):
            session.run(["painted"], FIRST | {"image": photo(16, width)[None]})
        assert [dict(shapes)["image"][2] for shapes in session._fixed] == [16, 18]
