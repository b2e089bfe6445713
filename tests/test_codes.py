"""Codes of many pictures: by hand, where they come from, and a cache that knows what changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from looking import SIDE, noise, photo, tiny_model, write_photos
from PIL import Image
from torch import nn

from impasto.errors import PictureError, WrongCall
from impasto.losses import capture
from impasto.visualization import codes, load_model
from impasto.visualization.codes import Codes, code_layer, encode, labels_of, read_codes
from impasto.visualization.inputs import Pictures
from impasto.visualization.registry import Refused
from impasto.visualization.remembering import fingerprint

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")


class TestEncode:
    def test_numbers_are_the_layers(self):
        model, images = tiny_model(), torch.cat([photo(0), photo(1)])
        expected = capture(model, ["linear"])(images)["linear"]
        assert torch.equal(encode(model, images, "linear").features, expected)

    def test_of_maps_the_mean_over_places(self):
        model, images = tiny_model(), torch.cat([photo(0), photo(1)])
        maps = capture(model, ["relu2"])(images)["relu2"].double().numpy()
        found = encode(model, images, "relu2").features
        assert found.shape == (2, 8) and found.numpy() == pytest.approx(maps.mean((2, 3)), abs=1e-6)

    def test_pixels_are_means_of_areas(self):
        """Of 96 pixels each of 32 is the mean of 3 x 3; taking every third pixel instead is 0.4 off."""
        images = noise(1, 3, 96, 96)
        found = encode(load_model(nn.Sequential(nn.Conv2d(3, 2, 1)), size=96), images, "0").pixels[0].numpy()
        by_hand = images[0].double().numpy().reshape(3, 32, 3, 32, 3).mean((2, 4))
        assert np.abs(found - by_hand).max() <= 1e-6 < 0.3 < np.abs(images[0, :, ::3, ::3].numpy() - by_hand).max()

    def test_digests_tell_a_single_changed_pixel(self):
        images = torch.cat([photo(0), photo(0), photo(0), photo(1)])
        images[2, 1, 5, 5] += 1 / 255
        digests = encode(tiny_model(), images, "linear").digests.tolist()
        assert digests[0] == digests[1] and len(set(digests)) == 3

    def test_refusals(self):
        odd = load_model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2)), size=SIDE)
        with pytest.raises(Refused, match=r"the layer 1 gives shape \(1, 2, 1024\), expected \(N, C, h, w\) or"):
            encode(odd, photo(), "1")
        with pytest.raises(WrongCall, match="unknown layer 'linaer'. Did you mean 'linear'"):
            encode(tiny_model(), photo(), "linaer")
        broken = tiny_model()
        broken.network.linear.bias.data.fill_(torch.nan)
        with pytest.raises(Refused, match="the layer linear gives numbers that are not finite"):
            encode(broken, photo(), "linear")


class TestVectors:
    FOUND = Codes(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), noise(2, 3, 32, 32), torch.tensor([1, 2]))

    def test_by_hand(self):
        assert self.FOUND.vectors("cosine").numpy() == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))
        assert self.FOUND.vectors("l2").tolist() == [[3, 4], [0, 0]]
        assert torch.equal(self.FOUND.vectors("pixels"), self.FOUND.pixels.view(2, 3072).double())

    def test_are_in_double_precision(self):
        assert all(self.FOUND.vectors(name).dtype == torch.float64 for name in ("cosine", "l2", "pixels"))


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.never = nn.Linear(3 * SIDE * SIDE, 7), nn.Linear(7, 4), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x.flatten(1)).relu())


class TestLayer:
    def test_is_what_the_last_linear_layer_takes(self):
        assert code_layer(tiny_model(), "") == "linear:in"
        assert code_layer(tiny_model(), "relu1") == "relu1"

    def test_of_a_network_with_several(self):
        """AlexNet's is fc7 after its ReLU; a linear layer that never runs does not count."""
        model = load_model(Several(), size=SIDE)
        assert code_layer(model, "") == "last:in"
        features = encode(model, photo(), "last:in").features
        assert features.shape == (1, 7) and features.min() == 0

    def test_without_one_the_last_maps(self):
        model = load_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2)), size=SIDE)
        assert code_layer(model, "") == "2" and encode(model, photo(), "2").features.shape == (1, 6)


class TestLabels:
    def test_are_folders_if_there_are_several(self, tmp_path):
        for name in ("cats", "dogs"):
            write_photos(tmp_path / name, 2)
        assert labels_of(Pictures.of(tmp_path)) == ("cats", "cats", "dogs", "dogs")
        assert labels_of(Pictures.of(tmp_path / "cats")) == ()
        assert labels_of(Pictures.of([tmp_path / "dogs", tmp_path / "cats" / "00.png"])) == ("dogs", "dogs", "cats")


class TestReadCodes:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_photos(tmp_path / "photos", 7)
        return tmp_path / "photos"

    def test_do_not_depend_on_the_batch(self, folder):
        model, pictures = tiny_model(), Pictures.of(folder)
        whole = read_codes(model, pictures, "linear:in")
        assert len(whole) == 7
        for batch in (1, 3):
            other = read_codes(model, pictures, "linear:in", batch=batch)
            assert torch.allclose(other.features, whole.features, atol=1e-6)
            assert torch.equal(other.pixels, whole.pixels) and torch.equal(other.digests, whole.digests)

    def test_remembers_and_tells_what_changed(self, folder, tmp_path, monkeypatch):
        cache, model = str(tmp_path / "cache"), tiny_model()
        reads: list[int] = []
        monkeypatch.setattr(codes, "encode", lambda *given: reads.append(1) or encode(*given))

        def read(model=model, layer="linear:in") -> Codes:
            return read_codes(model, Pictures.of(folder), layer, cache=cache)

        first, again = read(), read()
        assert len(reads) == 1 and all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
        changed = tiny_model()
        changed.network.second.bias.data[1] += 1
        for count, other in enumerate(({"layer": "relu2"}, {"model": changed}, {"model": tiny_model(mean=(0, 0, 0))})):
            read(**other)
            assert len(reads) == count + 2, other
        Image.new("RGB", (50, 50), "red").save(folder / "03.png")
        assert not torch.equal(read().features, first.features) and len(reads) == 5
        assert len(list(Path(cache).iterdir())) == 5

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"\x93NUMPY\x01\x00"])
    def test_a_broken_file_is_made_again(self, folder, tmp_path, content):
        model, pictures = tiny_model(), Pictures.of(folder)
        expected = read_codes(model, pictures, "linear:in", cache=str(tmp_path / "cache"))
        (file,) = (tmp_path / "cache").iterdir()
        file.write_bytes(content)
        found = read_codes(model, pictures, "linear:in", cache=str(tmp_path / "cache"))
        assert torch.equal(found.features, expected.features) and file.stat().st_size > 1000

    def test_a_fingerprint_has_every_fact(self, folder):
        model, pictures = tiny_model(), Pictures.of(folder)
        assert fingerprint(model, pictures, "a", 1) == fingerprint(tiny_model(), Pictures.of(folder), "a", 1)
        assert fingerprint(model, pictures, "a", 1) != fingerprint(model, pictures, "a", 2)

    def test_a_file_that_is_no_picture(self, folder):
        (folder / "99.png").write_bytes(b"no picture")
        with pytest.raises(PictureError, match=r"99\.png"):
            read_codes(tiny_model(), Pictures.of(folder), "linear:in")
