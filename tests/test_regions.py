"""A style for each region: the half of the network that blends them, its graph, and what masks are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from click.testing import CliRunner
from halves import add_halves
from PIL import Image
from reference import regions as reference
from tiny import SIZES, network, photo

from impasto.card import load_card, save_card
from impasto.cli import main
from impasto.errors import PackError, PictureError, WrongCall
from impasto.inference import Stylizer, stylize_files
from impasto.inference.regions import Mask, masks_of, regions
from impasto.inference.split import Split
from impasto.packs import REGIONS
from impasto.training import TransformerNet
from impasto.training.regions import ApplyRegions
from impasto.training.split import Apply, Measure, affine_length
from impasto.training.split_graph import SPLIT_FILES, export_split

pytestmark = pytest.mark.usefixtures("one_thread_one_seed")

ONE, OTHER = ([0.2, 0.5, 0.3], 0.8), ([1.0, 0.0, 0.0], 0.3)
KINDS = pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("fast", SIZES),
        ("fast", SIZES | {"stride": 8}),
        ("fast", SIZES | {"stem": 2}),
        ("fast", SIZES | {"head": 0, "separable": 1}),
        ("johnson", {}),
    ],
)


@torch.no_grad()
def measured(net: TransformerNet, image: torch.Tensor, *manners) -> torch.Tensor:
    """The rows (1, R, K) of styles and strengths, each over the whole picture."""
    nothing = torch.zeros(1, affine_length(net)), torch.tensor([0]), torch.zeros(1, 4, dtype=torch.long)
    rows = [Measure(net)(image, torch.tensor([style]), torch.tensor([s]), *nothing)[0] for style, s in manners]
    return torch.stack(rows, 1)


def two_masks(height: int, width: int) -> torch.Tensor:
    soft = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(2))
    return torch.cat([soft, 1 - soft], 1)


class TestModule:
    @KINDS
    @pytest.mark.parametrize("size", [(33, 70), (16, 19), (57, 66)])
    def test_one_region_or_one_style_is_apply(self, name, sizes, size):
        net, image = network(name, **sizes), photo(1, *size)
        affine = measured(net, image, ONE)
        with torch.no_grad():
            expected = Apply(net)(image, affine[:, 0])
            alone = ApplyRegions(net)(image, affine, torch.ones(1, 1, *size))
            both = ApplyRegions(net)(image, affine.expand(-1, 2, -1), two_masks(*size))
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(both, expected, rtol=0, atol=1e-4)
        assert expected.std() > 0.05

    @KINDS
    def test_far_from_the_border_a_region_is_as_if_it_were_everywhere(self, name, sizes):
        """Further than the network sees; and the border is in the middle of what it changes."""
        net, image = network(name, **sizes), photo(1, 32, 400)
        affine = measured(net, image, ONE, OTHER)
        mask = torch.zeros(1, 2, 32, 400)
        mask[:, 0, :, :200] = mask[:, 1, :, 200:] = 1
        with torch.no_grad():
            parted = ApplyRegions(net)(image, affine, mask)
            left, right = (Apply(net)(image, affine[:, region]) for region in (0, 1))
        changed = [(parted - whole).abs().amax((0, 1, 3)) > 1e-5 for whole in (left, right)]
        first, last = int(changed[0].nonzero().min()), int(changed[1].nonzero().max())
        assert 140 < first < 200 <= last < 260 and abs((200 - first) - (last - 199)) <= 6
        assert (left - right).abs().max() > 0.1

    @pytest.mark.parametrize(("sizes", "size"), [({}, (16, 19)), ({"stride": 8}, (16, 19)), ({"stem": 2}, (17, 21))])
    def test_it_is_what_the_reference_says(self, sizes, size):
        net, image = network(**(SIZES | sizes)).double(), photo(1, *size).double()
        affine = measured(network(**(SIZES | sizes)), image.float(), ONE, OTHER).double()
        mask = two_masks(*size).double()
        with torch.no_grad():
            found = ApplyRegions(net)(image, affine, mask)[0]
        expected = reference.paint(net, image[0], affine[0], mask[0])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)

    def test_what_two_paintings_laid_over_each_other_would_be_is_something_else(self):
        net, image, mask = network(**SIZES), photo(1, 48, 48), torch.full((1, 2, 48, 48), 0.5)
        affine = measured(net, image, ONE, OTHER)
        with torch.no_grad():
            found = ApplyRegions(net)(image, affine, mask)
            pixels = (Apply(net)(image, affine[:, 0]) + Apply(net)(image, affine[:, 1])) / 2
            rows = Apply(net)(image, affine.mean(1))
        torch.testing.assert_close(found, rows, rtol=0, atol=1e-5)
        assert (found - pixels).abs().max() > 0.01


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("regions")
    export_split(network(**SIZES), folder)
    return {name: (folder / name).read_bytes() for name in SPLIT_FILES}


class TestGraph:
    def test_it_paints_a_batch_with_any_number_of_regions(self, files):
        split, net = Split.of_files(files, provider="cpu", threads=1), network(**SIZES)
        images = photo(2, 37, 50)
        rows = [measured(net, image[None], ONE, OTHER, ([0.0, 1.0, 0.0], 1.0)) for image in images]
        affine, mask = torch.cat(rows), torch.rand(2, 3, 37, 50, generator=torch.Generator().manual_seed(3))
        mask /= mask.sum(1, keepdim=True)
        with torch.no_grad():
            expected = ApplyRegions(net)(images, affine, mask).numpy()
        np.testing.assert_allclose(split.apply(images.numpy(), affine.numpy(), mask.numpy()), expected, atol=1e-4)

    def test_the_plain_path_has_nothing_of_it(self, files):
        without = {name: data for name, data in files.items() if name != REGIONS}
        split = Split.of_files(without, provider="cpu", threads=1)
        image = photo(1, 20, 24).numpy()
        affine = split.measure(image, np.array(ONE[0]), ONE[1]).affine
        assert split.apply(image, affine[None]).shape == image.shape
        with pytest.raises(PackError, match=r"no apply_regions.onnx, which masks need; .*impasto export the pack -o"):
            split.apply(image, affine[None, None], np.ones((1, 1, 20, 24), np.float32))


class TestMasks:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("sky.png=wave", ("sky.png", "wave", 1.0)),
            ("sky.png=wave@0.25", ("sky.png", "wave", 0.25)),
            ("sky.png=@0.3", ("sky.png", None, 0.3)),
            ("a=b/sky.png=wave:0.6,sea:0.4@0", ("a=b/sky.png", "wave:0.6,sea:0.4", 0.0)),
        ],
    )
    def test_the_form(self, text, expected):
        mask = Mask.parse(text)
        assert (mask.where, mask.style, mask.strength) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sky.png", r"mask 'sky.png': expected FILE=STYLE, FILE=STYLE@STRENGTH or FILE=@STRENGTH, such as"),
            ("sky.png=", r"mask 'sky.png=': expected FILE=STYLE"),
            ("=wave", r"mask '=wave': expected FILE=STYLE"),
            ("sky.png=wave@much", r"the strength 'much' is no number"),
            ("sky.png=wave@2", r"mask sky.png: expected a strength from 0 to 1; got 2"),
            ("sky.png=wave@nan", r"expected a strength from 0 to 1; got nan"),
        ],
    )
    def test_another_form(self, text, message):
        with pytest.raises(WrongCall, match=message):
            Mask.parse(text)

    def test_text_is_no_list(self):
        with pytest.raises(WrongCall, match=r"expected a list such as \['a.png=b'\]"):
            masks_of("a.png=b")

    def test_arrays(self):
        assert Mask(np.array([[0, 51], [255, 0]], np.uint8)).read().tolist() == [[0, pytest.approx(0.2)], [1, 0]]
        assert Mask(np.array([[0, 0.5]])).read().tolist() == [[0, 0.5]]
        assert Mask(np.array([[False, True]])).read().tolist() == [[0, 1]]
        for wrong in (np.zeros((2, 2, 3), np.uint8), np.array([[0, 1.5]]), np.array([[0, np.nan]]), np.array([[1]])):
            with pytest.raises(WrongCall, match=r"got an array .*; expected \(H, W\), uint8, or float from 0 to 1"):
                Mask(wrong).read()
        with pytest.raises(WrongCall, match="black everywhere; expected white where its style goes"):
            Mask(np.zeros((2, 2))).read()

    def test_regions_share_what_they_ask_for(self):
        """The rest is what they leave; where they ask for more than there is, each gets its share of it."""
        first, second = np.array([[0, 1, 0.5, 1]], np.float32), np.array([[0, 0, 0.25, 1]], np.float32)
        found = regions([("a", first), ("b", second)], 1, 4)
        np.testing.assert_allclose(found[:, 0], [[1, 0, 0.25, 0], [0, 1, 0.5, 0.5], [0, 0, 0.25, 0.5]], atol=1e-7)
        assert found.dtype == np.float32

    def test_a_mask_is_stretched_to_the_photo(self):
        half = np.repeat(np.array([[0.0] * 20 + [1.0] * 20], np.float32), 30, 0)
        for height, width in ((60, 80), (15, 20), (300, 401)):
            rest, found = regions([("a", half)], height, width)
            assert found.shape == (height, width)
            assert found.mean() == pytest.approx(0.5, abs=0.01)
            assert found[:, : int(0.45 * width)].max() == 0 and found[:, int(0.55 * width) :].min() == 1
            np.testing.assert_allclose(rest + found, 1, atol=1e-6)
        with pytest.raises(PictureError, match=r"mask a: 40 x 30 pixels for a photo of 30 x 40 \(as displayed\)"):
            regions([("a", half)], 40, 30)


class TestFiles:
    """With the tiny pack's halves: every pixel goes towards the picture's mean by the strength that is wanted there."""

    @pytest.fixture
    def photo(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
        add_halves(tiny)
        monkeypatch.chdir(tmp_path)
        photo = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(photo).save("photo.png")
        mask = np.zeros((24, 40), np.uint8)
        mask[:, 20:], mask[:12] = 255, 51
        Image.fromarray(mask).save("mask.png")
        return photo

    @staticmethod
    def expected(photo: np.ndarray, strength: np.ndarray) -> np.ndarray:
        image = photo.astype(np.float64)
        return image + strength[..., None] * (image.mean((0, 1)) - image)

    @staticmethod
    def strengths(rest: float, inside: float) -> np.ndarray:
        share = np.zeros((24, 40))
        share[:, 20:], share[:12] = 1, 0.2
        return rest + share * (inside - rest)

    def test_the_command_and_python(self, photo):
        mask = "mask.png=red@0.9"
        arguments = ["stylize", "photo.png", "-s", "invert", "--strength", "0.2", "--mask", mask, "-o", "out.png"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        found = np.asarray(Image.open("out.png"))
        np.testing.assert_allclose(found, self.expected(photo, self.strengths(0.2, 0.9)), atol=0.51)
        by_python = Stylizer("tiny").stylize(photo, "invert", 0.2, masks=[Mask("mask.png", "red", 0.9)])
        np.testing.assert_array_equal(np.asarray(by_python), found)

    def test_the_style_of_the_rest_and_several_masks(self, photo):
        whole = np.full((24, 40), 255, np.uint8)
        masks = [Mask(whole, None, 0.8), "mask.png=invert:0.5,red:0.5@0.3"]
        found = Stylizer("tiny").stylize(photo, "red", 0.1, masks=masks)
        share = self.strengths(0, 1)
        expected = self.expected(photo, (0.8 + share * 0.3) / (1 + share))
        np.testing.assert_allclose(np.asarray(found), expected, atol=0.51)

    def test_a_turned_photo_has_its_mask_as_it_is_displayed(self, photo):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(photo).rotate(90, expand=True).save("turned.png", exif=exif)
        stylize_files("turned.png", "out.png", style="red", strength=0.1, masks=["mask.png=red"])
        expected = self.expected(photo, self.strengths(0.1, 1))
        np.testing.assert_allclose(np.asarray(Image.open("out.png")), expected, atol=0.51)

    def test_16_bits_and_colours(self, photo):
        from impasto.images import Picture, encode_picture, read_picture
        from impasto.palette import Colour

        deep = photo.astype(np.uint16) * 257
        Path("deep.png").write_bytes(encode_picture(Picture(photo, deep=deep), "png"))
        mask = ["mask.png=red"]
        stylize_files("deep.png", "out.png", style="red", strength=0.1, masks=mask)
        painted = read_picture("out.png", deep=True).deep
        np.testing.assert_allclose(painted, self.expected(deep, self.strengths(0.1, 1)), atol=1)
        stylize_files("deep.png", "kept.png", style="red", strength=0.1, masks=mask, color="luminance")
        kept = read_picture("kept.png", deep=True).deep
        np.testing.assert_array_equal(kept, Colour("luminance").recolour(painted, deep))

    def test_frames_have_one_mask(self, photo):
        frames = [Image.fromarray(photo), Image.fromarray(photo[::-1])]
        frames[0].save("moving.png", save_all=True, append_images=frames[1:], duration=100)
        stylize_files("moving.png", "out.png", style="red", strength=0, masks=["mask.png=red"])
        with Image.open("out.png") as out:
            for index, frame in enumerate((photo, photo[::-1])):
                out.seek(index)
                expected = self.expected(frame, self.strengths(0, 1))
                np.testing.assert_allclose(np.asarray(out.convert("RGB")), expected, atol=0.51)

    def test_a_folder_of_one_resumes_with_its_masks(self, photo):
        def run(mask: str, strength: float = 0.2):
            return stylize_files("photo.png", "out/", style="red", strength=strength, masks=[mask], resume=True)

        assert not run("mask.png=red@0.5").skipped
        (row,) = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
        digest, _, about = row["masks"].partition("=")
        assert len(digest) == 64 and about == "red:1@0.5"
        Path("mask.png").rename("moved.png")
        assert run("moved.png=@0.5").skipped, "the same values, style and strength"
        assert not run("moved.png=@0.6").skipped
        Image.fromarray(np.full((24, 40), 9, np.uint8)).save("moved.png")
        assert not run("moved.png=@0.6").skipped

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["photo.png", "second.png"], 2, "a mask belongs to one picture; got 2 pictures: call it for each"),
            (["photo.png", "--engine", "ray"], 2, "a mask belongs to one picture; got Ray"),
            (["photo.png", "--mask", "mask.png"], 2, "mask 'mask.png': expected FILE=STYLE"),
            (["photo.png", "--mask", "none.png=red"], 1, "none.png: cannot be read: No such file"),
            (["photo.png", "--mask", "mask.png=rde"], 2, "unknown style 'rde'. Did you mean 'red'?"),
            (
                ["turned.png"],
                1,
                "mask mask.png: 40 x 24 pixels for a photo of 24 x 40 (as displayed); expected the same",
            ),
        ],
    )
    def test_wrong_calls_are_one_line(self, photo, arguments, code, message):
        Image.fromarray(photo).save("second.png")
        Image.fromarray(photo.transpose(1, 0, 2)).save("turned.png")
        command = ["stylize", *arguments, "-s", "red", "--mask", "mask.png=red", "-o", "out/"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == code and message in done.output, done.output
        assert not list(Path().glob("out/*.png"))

    def test_an_older_pack_says_what_to_do(self, photo, tiny):
        card = load_card(tiny)
        files = {name: digest for name, digest in card.files.items() if name != REGIONS}
        save_card(dataclasses.replace(card, files=files), tiny)
        done = CliRunner().invoke(main, ["stylize", "photo.png", "-s", "red", "--mask", "mask.png=red", "-o", "a.png"])
        assert done.exit_code == 1 and not Path("a.png").exists()
        assert (
            f"{tiny}: the pack has no apply_regions.onnx, which masks need; write it anew: impasto export"
            in done.output
        )
        assert CliRunner().invoke(main, ["stylize", "photo.png", "-s", "red", "-o", "a.png"]).exit_code == 0
