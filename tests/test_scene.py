"""What a painting is made of, by hand: sizes, names, weights, regions and colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.colours import YIQ

from impasto.errors import PictureError
from impasto.losses import LossTerms
from impasto.visualization.scene import Scene, fit_within, open_picture, read_scene, to_image, to_tensor

GREY = np.full((24, 32, 3), 128, np.uint8)
CPU = torch.device("cpu")


def draw(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def mask(height: int, width: int, columns: slice, value: int = 255) -> np.ndarray:
    """White in some columns, black elsewhere."""
    found = np.zeros((height, width, 3), np.uint8)
    found[:, columns] = value
    return found


def read(content: Any = GREY, styles: Any = (GREY,), **options: Any) -> Scene:
    settings = {"weights": None, "masks": None, "size": None, "style_scale": 1.0, "color": "style", "device": CPU}
    return read_scene(content, styles, **settings | options)


class TestPictures:
    def test_there_and_back(self):
        rgb = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
        tensor = to_tensor(rgb)
        assert tensor.shape == (1, 3, 17, 23) and tensor.dtype == torch.float32
        assert tensor[0, 2, 5, 7].item() == pytest.approx(rgb[5, 7, 2] / 255)
        assert np.array_equal(to_image(tensor), rgb)
        assert np.array_equal(to_image(torch.full((1, 3, 16, 16), 1.5)), np.full((16, 16, 3), 255))
        assert np.array_equal(to_image(torch.full((1, 3, 16, 16), 0.5)), np.full((16, 16, 3), 128))  # of 127.5

    def test_file_image_and_array_are_one_picture(self, tmp_path: Path):
        rgb = draw(20, 30)
        Image.fromarray(rgb).save(tmp_path / "a.png")
        for source in (rgb, Image.fromarray(rgb), tmp_path / "a.png", str(tmp_path / "a.png")):
            assert np.array_equal(open_picture(source).rgb, rgb)

    def test_fit_within(self):
        assert fit_within(300, 400, 200) == (150, 200)
        assert fit_within(400, 300, 200) == (200, 150)
        assert fit_within(20, 2000, 500) == (16, 500)  # no side below what the networks paint


class TestSizes:
    def test_of_the_photo(self):
        assert read(draw(24, 32)).size == (24, 32)
        assert read(draw(24, 32), size=48).size == (36, 48)
        assert read(draw(32, 24), size=16).size == (16, 16)

    def test_of_the_paintings(self):
        painting = draw(60, 80)
        for scale, expected in ((1.0, (24, 32)), (0.5, (16, 16)), (2.0, (48, 64)), (8.0, (60, 80))):
            (found,) = read(draw(24, 32), [painting], style_scale=scale).paintings
            assert found.shape[2:] == expected, "never enlarged"

    def test_nothing_is_done_to_pictures_that_fit(self):
        photo, painting = draw(24, 32), draw(30, 20, 1)
        scene = read(photo, [painting])
        assert torch.equal(scene.photo, to_tensor(photo)) and torch.equal(scene.paintings[0], to_tensor(painting))
        assert torch.equal(scene.subject((24, 32)), scene.photo)

    def test_targets_are_of_the_size_painted(self):
        """At half the size the photo, the paintings and their regions are half as large."""
        seen: dict[str, list[tuple[int, ...]]] = {"content": [], "style": [], "goals": []}

        class Objective:
            convention = "relative"

            def content_targets(self, photo: torch.Tensor) -> str:
                seen["content"].append(tuple(photo.shape))
                return "content"

            def style_targets(self, painting: torch.Tensor) -> dict[str, Any]:
                seen["style"].append(tuple(painting.shape))
                return {}

            def __call__(self, image: torch.Tensor, content: str, goals: Any) -> LossTerms:
                assert content == "content"
                seen["goals"] += [(goal.name, goal.weight, goal.region.shape) for goal in goals]
                return LossTerms({"tv": image.sum()}, {"tv": 1.0})

        left, right = mask(48, 64, slice(0, 32)), mask(48, 64, slice(32, 64))
        scene = read(draw(48, 64), [draw(40, 60, 1), draw(80, 100, 2)], masks=[left, right], size=64)
        objective: Any = Objective()
        assert scene.at((24, 32), objective)(torch.ones(1, 3, 24, 32)).total == 3 * 24 * 32
        assert seen["content"] == [(1, 3, 24, 32)]
        assert seen["style"] == [(1, 3, 20, 30), (1, 3, 26, 32)]
        assert seen["goals"] == [("style_1", 0.5, (1, 1, 24, 32)), ("style_2", 0.5, (1, 1, 24, 32))]

    def test_sums_of_content_are_raised_where_positions_are_fewer(self):
        """In the convention gatys; the others are means, and style always is."""
        weights = {"content/relu1_1": 3.0, "style/relu1_1": 5.0, "tv": 7.0}

        class Objective:
            content_targets = style_targets = staticmethod(lambda picture: {})

            def __init__(self, convention: str) -> None:
                self.convention = convention

            def __call__(self, image: torch.Tensor, content: Any, goals: Any) -> LossTerms:
                return LossTerms({name: image.mean() for name in weights}, weights)

        scene = read(draw(48, 64), [draw(40, 60)], size=64)
        for convention, content in (("gatys", 3.0 * 4), ("relative", 3.0), ("johnson", 3.0)):
            objective: Any = Objective(convention)
            assert scene.at((24, 32), objective)(torch.ones(1, 3, 24, 32)).weights == weights | {
                "content/relu1_1": content
            }
            assert scene.at((48, 64), objective)(torch.ones(1, 3, 48, 64)).weights == weights


class TestNames:
    def test_of_files_and_numbers_all_different(self, tmp_path: Path):
        paths = [tmp_path / name for name in ("sea.png", "deep/sea.png", "Le soir.v2.png")]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(GREY).save(path)
        names = read(GREY, [paths[0], str(paths[1]), GREY, paths[2], Image.fromarray(GREY)]).names
        assert names == ("sea", "sea_2", "style_3", "Le soir.v2", "style_5")


class TestWeights:
    @pytest.mark.parametrize(
        ("weights", "expected"),
        [(None, (0.5, 0.5)), ([1, 3], (0.25, 0.75)), ([20, 60], (0.25, 0.75)), ([0, 2], (0, 1))],
    )
    def test_only_their_proportion_counts(self, weights, expected):
        assert read(styles=[GREY, GREY], weights=weights).weights == pytest.approx(expected)

    def test_times_the_share_of_the_region(self):
        """A quarter and three quarters of the picture, weights 2 and 1: 2/4 to 3/4; they cover all of it."""
        quarter, rest = mask(24, 32, slice(0, 8)), mask(24, 32, slice(8, 32))
        found = read(styles=[GREY, GREY], weights=[2, 1], masks=[quarter, rest]).weights
        assert found == pytest.approx((0.4, 0.6))

    def test_sum_to_what_is_covered(self):
        quarter, half = mask(24, 32, slice(0, 8)), mask(24, 32, slice(0, 16))
        assert read(masks=[quarter]).weights == pytest.approx((0.25,))
        assert read(styles=[GREY, GREY], masks=[quarter, half]).weights == pytest.approx((0.5 / 3, 1 / 3))
        assert read(styles=[GREY, GREY], masks=[quarter, None]).weights == pytest.approx((0.2, 0.8))


class TestRegions:
    def test_is_the_masks_luma_at_the_pictures_size(self):
        scene = read(draw(24, 32), masks=[mask(48, 64, slice(0, 64), value=51)])
        assert scene.regions[0] is not None and scene.regions[0].shape == (1, 1, 24, 32)
        torch.testing.assert_close(scene.regions[0], torch.full((1, 1, 24, 32), 0.2))

    @pytest.mark.parametrize("color", ["style", "luminance", "match"])
    def test_where_none_is_white_the_photo_stays_to_the_bit(self, color):
        masks = [mask(24, 32, slice(0, 8)), mask(24, 32, slice(4, 16))]
        scene = read(draw(24, 32), [GREY, draw(24, 32, 1)], masks=masks, color=color)
        painted = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
        seen = scene.finished(painted)
        assert torch.equal(seen[..., 16:], scene.photo[..., 16:])
        assert torch.isclose(seen[..., :16], scene.photo[..., :16], atol=1e-3).all(1).float().mean() < 0.02
        held = scene.within((24, 32))(painted)
        assert torch.equal(held[..., 16:], scene.subject((24, 32))[..., 16:])
        assert torch.equal(held[..., :16], painted[..., :16].clamp(0, 1))

    def test_at_a_coarser_size(self):
        scene = read(draw(24, 32), masks=[mask(24, 32, slice(0, 16))])
        held = scene.within((12, 16))(torch.zeros(1, 3, 12, 16))
        assert torch.equal(held[..., 10:], scene.subject((12, 16))[..., 10:]) and (held[..., :6] == 0).all()

    @pytest.mark.parametrize("masks", [None, [None, mask(24, 32, slice(0, 16))]])
    def test_a_style_everywhere_leaves_no_photo(self, masks):
        scene = read(draw(24, 32), [GREY, GREY], masks=masks)
        painted = torch.linspace(-1, 2, 3 * 24 * 32).view(1, 3, 24, 32)
        assert torch.equal(scene.finished(painted), painted.clamp(0, 1))
        assert torch.equal(scene.within((24, 32))(painted), painted.clamp(0, 1))


class TestColours:
    def test_luminance_paints_in_grey(self):
        """Photo and painting are grey, the painting with the photo's mean and deviation of luma."""
        photo, painting = (60 + draw(24, 32) * 0.4).astype(np.uint8), draw(24, 32, 1)  # room for the deviation
        scene = read(photo, [painting], color="luminance")
        subject, (grey,) = scene.subject((24, 32)), scene.paintings
        assert torch.equal(subject[:, 0], subject[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
        luma = (photo / 255) @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(subject[0, 0].numpy(), luma, atol=1e-6)
        assert grey[0, 0].mean().item() == pytest.approx(luma.mean(), abs=2e-3)
        assert grey[0, 0].std(correction=0).item() == pytest.approx(luma.std(), abs=2e-3)

    def test_luminance_brings_the_colours_back(self):
        photo = (100 + draw(24, 32) * 0.2).astype(np.uint8)
        scene = read(photo, color="luminance")
        grey = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
        seen = scene.finished(grey.expand(1, 3, 24, 32))[0].permute(1, 2, 0).double().numpy()
        found, before = seen @ YIQ.T, photo / 255 @ YIQ.T
        np.testing.assert_allclose(found[..., 0], grey[0, 0], atol=1e-6)
        np.testing.assert_allclose(found[..., 1:], before[..., 1:], atol=2e-6)

    def test_match_recolours_the_painting_only(self):
        photo, painting = (100 + draw(24, 32) * 0.15).astype(np.uint8), draw(24, 32, 1)
        scene = read(photo, [painting], color="match")
        values = scene.paintings[0][0].flatten(1).double()
        goal = torch.from_numpy(photo / 255).flatten(0, 1).T
        torch.testing.assert_close(values.mean(1), goal.mean(1), atol=1e-4, rtol=0)
        torch.testing.assert_close(values.cov(correction=0), goal.cov(correction=0), atol=1e-5, rtol=0)
        assert torch.equal(scene.subject((24, 32)), to_tensor(photo))
        assert torch.equal(scene.finished(scene.photo), scene.photo)


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"color": "photo"}, "unknown color 'photo'.* Expected one of: luminance, match, style"),
            ({"styles": []}, "got 0 paintings"),
            ({"masks": [None, None]}, "got 1 paintings and 2 masks"),
            ({"masks": "left.png"}, "masks: got str, expected a list with a mask, or None, for each painting"),
            ({"masks": GREY}, "masks: got ndarray"),
            ({"styles": [None]}, "a picture: got NoneType, expected a file, a Pillow image or a uint8 RGB array"),
            ({"content": 3}, "a picture: got int"),
            ({"size": 15}, "got size 15, .* expected size >= 16"),
            ({"size": -1}, "got size -1"),
            ({"style_scale": 0.0}, "style_scale 0.0; expected .* 0 < scale <= 8"),
            ({"style_scale": float("nan")}, "style_scale nan"),
            ({"weights": [1.0, 2.0]}, r"got weights \[1.0, 2.0\] for 1 paintings"),
            ({"weights": [0.0]}, r"got weights \[0.0\]"),
            ({"weights": [float("inf")]}, r"got weights \[inf\]"),
            ({"masks": [np.zeros((16, 16, 3), np.uint8)]}, "a mask that is black everywhere, expected white"),
        ],
    )
    def test_say_what_was_expected(self, options, message):
        with pytest.raises(ValueError, match=message):
            read(**options)

    def test_pictures_that_are_none(self, tmp_path: Path):
        with pytest.raises(PictureError, match=r"nothing.png: cannot be read: No such file"):
            read(tmp_path / "nothing.png")
        with pytest.raises(PictureError, match=r"expected a uint8 array \(H, W, 3\)"):
            read(styles=[GREY.astype(np.float32)])
        with pytest.raises(PictureError, match="8 x 8 pixels; expected at least 16 x 16"):
            read(masks=[GREY[:8, :8]])
