"""Colours by their names, and masks that are framed as the network sees their photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from looking import noise, tiny_model, write_photos
from PIL import Image
from skimage.color import rgb2lab

from impasto.errors import PictureError
from impasto.visualization import load_model
from impasto.visualization.concepts import COLOURS, Concepts, colour_names, lab
from impasto.visualization.inputs import Masked, Pictures
from impasto.visualization.registry import Refused

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

CALLED = {
    (255, 0, 0): "red", (180, 30, 40): "red", (0, 0, 0): "black", (20, 20, 22): "black", (255, 255, 255): "white",
    (128, 128, 128): "grey", (90, 92, 95): "grey", (60, 120, 40): "green", (30, 70, 200): "blue",
    (150, 190, 225): "blue", (250, 220, 40): "yellow", (250, 140, 10): "orange", (110, 60, 20): "brown",
    (210, 160, 125): "brown", (250, 150, 190): "pink", (120, 40, 150): "purple",
}  # fmt: skip
"""Colours nobody argues about: of a pillar box, a lawn, a sky, a lemon, wood, skin."""


def folder_of(root: Path, photo: Image.Image, mask: Image.Image, **labels: object) -> Path:
    """A folder with one photo and its mask."""
    for name, image in (("images", photo), ("masks", mask)):
        (root / name).mkdir(parents=True)
        image.save(root / name / "a.png")
    if labels:
        (root / "labels.json").write_text(json.dumps(labels))
    return root


class TestColours:
    def test_are_what_people_call_them(self):
        pixels = torch.tensor(list(CALLED)).T.reshape(1, 3, 1, -1) / 255
        found = [list(COLOURS)[place] for place in colour_names(pixels)[0, 0].tolist()]
        assert found == list(CALLED.values())

    def test_eleven_of_them(self):
        assert len(COLOURS) == 11 and list(COLOURS) == sorted(COLOURS)
        names = [name for each in COLOURS.values() for name in each.split()]
        assert len(names) == len(set(names)) == 96

    def test_lab_is_that_of_scikit_image(self):
        """Measured 1.2e-3 of 100."""
        rgb = noise(200, 3).double()
        assert np.allclose(lab(rgb).numpy(), rgb2lab(rgb.numpy()), atol=5e-3)
        assert lab(torch.ones(3).double()).numpy() == pytest.approx([100, 0, 0], abs=0.02)

    def test_is_the_nearest_of_all(self):
        from PIL import ImageColor

        named = [(name, css) for name, each in COLOURS.items() for css in each.split()]
        centres = rgb2lab(np.array([[ImageColor.getrgb(css) for _, css in named]]) / 255)[0]
        image = noise(1, 3, 6, 7)
        pixels = rgb2lab(image[0].permute(1, 2, 0).double().numpy())
        for row in range(6):
            for column in range(7):
                nearest = np.linalg.norm(centres - pixels[row, column], axis=1).argmin()
                assert list(COLOURS)[colour_names(image)[0, row, column]] == named[nearest][0]


class TestMasked:
    def test_photos_and_their_masks(self, tmp_path):
        photo, mask = Image.new("RGB", (40, 40)), Image.new("L", (40, 40), 3)
        root = folder_of(tmp_path / "set", photo, mask)
        photo.save(root / "images" / "b.jpg")
        write_photos(tmp_path / "others", 1)
        found = Masked.of(tmp_path)
        assert [path.name for path in found.paths] == ["00.png", "a.png", "b.jpg"]
        assert found.masks == (None, root / "masks" / "a.png", None) and found.folders() == [root]
        assert Masked.of(root / "images").masks == found.masks[1:], "the folder of the photos is enough"
        assert len(Pictures.of(tmp_path)) == 4 and found.given == (str(tmp_path),)
        assert Masked.of(found) is found

    def test_names_of_numbers(self, tmp_path):
        photo, mask = Image.new("RGB", (40, 40)), Image.new("L", (40, 40), 3)
        bare = Masked.of(folder_of(tmp_path / "bare", photo, mask))
        assert bare.labels(tmp_path / "bare")[3] == "label 3" and 0 not in bare.labels(tmp_path / "bare")
        named = folder_of(tmp_path / "named", photo, mask, labels={"0": "sky", "3": "tree", "9": "void"}, ignore=9)
        assert Masked.of(named).labels(named) == {0: "sky", 3: "tree"}
        for content in ("no json", "[]", '{"labels": 3}', '{"labels": {"sky": "1"}}'):
            (named / "labels.json").write_text(content)
            with pytest.raises(PictureError, match=r'labels\.json: expected \{"labels": \{"1": "sky"'):
                Masked.of(named).labels(named)

    @pytest.mark.parametrize(("width", "height"), [(64, 48), (45, 90), (32, 32), (97, 61)])
    def test_a_mask_is_framed_as_its_photo(self, tmp_path, width, height):
        """A photo whose red is its mask's number, read by a network that resizes it without mixing pixels."""
        rng = np.random.default_rng(width)
        numbers = rng.integers(0, 8, (-(-height // 9), -(-width // 9)), dtype=np.uint8)
        numbers = numbers.repeat(9, 0).repeat(9, 1)[:height, :width]
        photo = np.stack([numbers * 30, numbers * 0, numbers * 0], 2)
        model = load_model(tiny_model().network, size=32, mean=(0, 0, 0), std=(1, 1, 1))
        object.__setattr__(model.preprocessing, "interpolation", "nearest")
        found = Masked.of(folder_of(tmp_path / "set", Image.fromarray(photo), Image.fromarray(numbers)))
        seen = model.read(found.paths[0])[0, 0].mul(255 / 30).round().long()
        mask = found.mask(0, model)
        assert mask is not None and mask.shape == (32, 32) and mask.dtype == torch.int64
        assert (mask == seen).float().mean() > 0.95, "measured 0.98 to 1: half pixels are rounded to either side"

    def test_palettes_sixteen_bits_and_turned_photos(self, tmp_path):
        numbers = np.repeat(np.arange(4, dtype=np.uint8), 10)[:, None].repeat(24, 1)
        palette = Image.fromarray(numbers)
        palette.putpalette([200, 10, 10] * 256)
        wide = Image.fromarray(numbers.astype(np.uint16) * 300)
        for name, mask, values in (("p", palette, [0, 1, 2, 3]), ("w", wide, [0, 300, 600, 900])):
            found = Masked.of(folder_of(tmp_path / name, Image.new("RGB", (24, 40)), mask))
            framed = found.mask(0, tiny_model())
            assert framed is not None and sorted(set(framed.flatten().tolist())) == values
        root = folder_of(tmp_path / "turned", Image.new("RGB", (40, 24)), palette)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (40, 24)).save(root / "images" / "a.png", exif=exif)
        assert Masked.of(root).mask(0, tiny_model()) is not None, "40 x 24, shown as 24 x 40"

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (Image.new("L", (39, 40)), r"got 39 x 40, expected one channel of 40 x 40, as the photo"),
            (Image.new("RGB", (40, 40)), r"got 40 x 40 x 3, expected one channel of 40 x 40"),
        ],
    )
    def test_masks_that_do_not_fit(self, tmp_path, mask, message):
        found = Masked.of(folder_of(tmp_path / "set", Image.new("RGB", (40, 40)), mask))
        with pytest.raises(PictureError, match=r"masks/a\.png: " + message):
            found.mask(0, tiny_model())

    def test_a_mask_that_is_none(self, tmp_path):
        root = folder_of(tmp_path / "set", Image.new("RGB", (40, 40)), Image.new("L", (40, 40)))
        (root / "masks" / "a.png").write_bytes(b"no picture")
        with pytest.raises(PictureError, match=r"masks/a\.png: cannot identify"):
            Masked.of(root).mask(0, tiny_model())


class TestConcepts:
    def test_numbers_of_a_photo(self, tmp_path):
        photo, mask = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("L", (40, 40), 3)
        one = folder_of(tmp_path / "one", photo, mask, labels={"0": "sky", "3": "tree"})
        two = folder_of(tmp_path / "two", photo, Image.new("L", (40, 40), 7), labels={"1": "car"})
        found = Concepts.of(Masked.of([one, two]))
        assert found.names == (*COLOURS, "sky", "tree", "", "car", "")
        assert found.categories == ("colour",) * 11 + ("one",) * 3 + ("two",) * 2
        model = tiny_model()
        for index, number in ((0, 12), (1, 15)):
            image = model.read(found.pictures.paths[index])[0]
            colours, labels = found.at(index, image, model)
            assert colours.unique().tolist() == [list(COLOURS).index("red")] and labels.unique().tolist() == [number]
        assert Concepts.of(Masked.of(one), "masks").names == ("sky", "tree", "")
        assert Concepts.of(Masked.of(one), "colours").names == tuple(COLOURS)
        assert len(Concepts.of(Masked.of(one), "colours").at(0, image, model)) == 1

    def test_folders_of_one_name(self, tmp_path):
        photo, mask = Image.new("RGB", (40, 40)), Image.new("L", (40, 40))
        roots = [folder_of(tmp_path / name / "set", photo, mask, labels={"0": "sky"}) for name in "ab"]
        assert Concepts.of(Masked.of(roots), "masks").categories[::2] == tuple(map(str, roots))

    def test_no_masks(self, tmp_path):
        write_photos(tmp_path)
        assert Concepts.of(Masked.of(tmp_path)).names == tuple(COLOURS)
        with pytest.raises(Refused, match="none of the photos has a mask; without masks there are the colours"):
            Concepts.of(Masked.of(tmp_path), "masks")
