"""The objective of painting: what `PerceptualLoss` says, in regions, and in parts as for the whole."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from impasto.losses import CONVENTIONS, STATISTICS, PerceptualLoss, VGGFeatures, moments, statistic_loss
from impasto.visualization.objective import PaintObjective, StyleGoal
from impasto.visualization.tiles import bytes_per_pixel, halo, split

SHALLOW = {"content": {"relu2_2": 1.0}, "style": {"relu1_1": 1.0, "relu2_1": 2.0}}
CLOSE = {"rtol": 1e-10, "atol": 1e-16}


@pytest.fixture(scope="module")
def vgg() -> VGGFeatures:
    return VGGFeatures(pooling="avg").double()


@pytest.fixture(scope="module")
def max_vgg() -> VGGFeatures:
    return VGGFeatures().double()


def draw(height: int, width: int, seed: int = 0, channels: int = 3, batch: int = 1) -> torch.Tensor:
    """A picture with structure at several sizes."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [
        torch.nn.functional.interpolate(
            torch.rand(batch, channels, -(-height // k), -(-width // k), generator=generator, dtype=torch.float64),
            size=(height, width),
        )
        for k in (1, 5, 17)
    ]
    return torch.stack(pictures).mean(0)


def evaluate(objective: PaintObjective, image: torch.Tensor, photo: torch.Tensor, goals: list[StyleGoal]):
    image = image.clone().requires_grad_()
    terms = objective(image, objective.content_targets(photo), goals)
    return terms, torch.autograd.grad(terms.total, image)[0]


class TestWhole:
    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_is_the_perceptual_loss(self, vgg, convention):
        image, photo, painting = draw(40, 52, batch=2), draw(40, 52, 1, batch=2), draw(36, 30, 2)
        settings = {**SHALLOW, "tv": 0.3, "convention": convention}
        loss, objective = PerceptualLoss(vgg, **settings), PaintObjective(vgg, **settings)
        targets = objective.style_targets(painting)
        found, gradient = evaluate(objective, image, photo, [StyleGoal("sea", 1.0, targets)])
        image.requires_grad_()
        expected = loss(image, loss.content_targets(photo), loss.style_targets(painting))
        assert list(found.raw) == ["content/relu2_2", "style/relu1_1", "style/relu2_1", "tv"] == list(expected.raw)
        assert found.weights == expected.weights
        torch.testing.assert_close(dict(found.raw), dict(expected.raw), **CLOSE)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.total, image)[0], **CLOSE)
        for layer, gram in loss.style_targets(painting).items():
            torch.testing.assert_close(targets[layer].gram, gram, **CLOSE)

    def test_millions_of_values_in_float32(self):
        features = VGGFeatures()
        image, photo = draw(256, 256).float(), draw(256, 256, 1).float()
        objective = PaintObjective(features, content={"relu1_1": 1.0}, style={})
        found, goal = (features(picture, ["relu1_1"])["relu1_1"].double() for picture in (image, photo))
        expected = (found - goal).square().sum() / goal.square().sum()
        loss = objective(image, objective.content_targets(photo), []).total
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)

    def test_content_that_is_black_has_no_scale(self, vgg):
        objective = PaintObjective(vgg, **SHALLOW | {"style": {}})
        image = draw(16, 16)
        target = torch.zeros_like(objective.content_targets(image)["relu2_2"])
        found = objective(image, {"relu2_2": target}, []).total
        features = vgg(image, ["relu2_2"])["relu2_2"]
        torch.testing.assert_close(found, features.square().sum(), **CLOSE)

    def test_wasserstein_is_of_the_features(self, vgg):
        image, painting = draw(40, 52), draw(36, 30, 2)
        objective = PaintObjective(vgg, content={}, style={"relu2_1": 1.0}, statistic="wasserstein")
        found = objective(image, {}, [StyleGoal("sea", 1.0, objective.style_targets(painting))]).total
        ours, theirs = (
            moments(vgg(picture, ["relu2_1"])["relu2_1"], None, "wasserstein") for picture in (image, painting)
        )
        torch.testing.assert_close(found, statistic_loss(ours, theirs, "wasserstein"), **CLOSE)

    def test_mirrored_continues_picture_photo_and_painting(self, vgg):
        def mirror(picture: torch.Tensor) -> torch.Tensor:
            rows = [*range(8, 0, -1), *range(picture.shape[2]), *range(picture.shape[2] - 2, picture.shape[2] - 10, -1)]
            columns = [
                *range(8, 0, -1),
                *range(picture.shape[3]),
                *range(picture.shape[3] - 2, picture.shape[3] - 10, -1),
            ]
            return picture[:, :, rows][:, :, :, columns]

        image, photo, painting = draw(40, 52), draw(40, 52, 1), draw(36, 30, 2)
        region = draw(40, 52, 3, channels=1)
        plain, mirrored = PaintObjective(vgg, **SHALLOW), PaintObjective(vgg, **SHALLOW, mirrored=8)
        targets = plain.style_targets(mirror(painting))
        expected, _ = evaluate(plain, mirror(image), mirror(photo), [StyleGoal("sea", 1.0, targets, mirror(region))])
        targets = mirrored.style_targets(painting)
        found, _ = evaluate(mirrored, image, photo, [StyleGoal("sea", 1.0, targets, region)])
        torch.testing.assert_close(dict(found.raw), dict(expected.raw), **CLOSE)

    def test_total_variation_is_of_the_picture_alone(self, vgg):
        image = torch.tensor([[[[0.0, 1.0, 0.0]] * 3] * 3])
        objective = PaintObjective(vgg, content={}, style={}, tv=2.0, mirrored=2)
        terms = objective(image, {}, [])
        assert dict(terms.weights) == {"tv": 2.0}
        assert terms.raw["tv"].item() == pytest.approx(18 / 27)  # two differences of 1 in each of nine rows

    def test_half_precision_is_of_the_features_only(self):
        features = VGGFeatures()
        image, photo, painting = (draw(40, 52, seed).float() for seed in range(3))
        results = []
        for dtype in (None, torch.bfloat16):
            objective = PaintObjective(features, **SHALLOW, dtype=dtype)
            assert objective.content_targets(photo)["relu2_2"].dtype == (dtype or torch.float32)
            goals = [StyleGoal("sea", 1.0, objective.style_targets(painting))]
            results.append(evaluate(objective, image, photo, goals))
        (plain, plain_gradient), (half, half_gradient) = results
        assert {term.dtype for term in half.raw.values()} == {torch.float32} == {half_gradient.dtype}
        for name, term in plain.raw.items():
            assert half.raw[name].item() == pytest.approx(term.item(), rel=0.05)
            assert half.raw[name].item() != term.item()
        similarity = torch.nn.functional.cosine_similarity(plain_gradient.flatten(), half_gradient.flatten(), dim=0)
        assert similarity > 0.99


class TestRegions:
    def test_everywhere_is_no_region(self, vgg):
        image, photo = draw(40, 52), draw(40, 52, 1)
        objective = PaintObjective(vgg, **SHALLOW)
        targets = objective.style_targets(draw(36, 30, 2))
        plain, everywhere = (
            evaluate(objective, image, photo, [StyleGoal("sea", 1.0, targets, region)])
            for region in (None, torch.ones(1, 1, 40, 52))
        )
        torch.testing.assert_close(dict(plain[0].raw), dict(everywhere[0].raw), **CLOSE)
        torch.testing.assert_close(plain[1], everywhere[1], rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("statistic", STATISTICS)
    def test_each_style_sees_its_half(self, vgg, statistic):
        image = draw(32, 64)
        objective = PaintObjective(vgg, content={}, style=SHALLOW["style"], statistic=statistic)
        left = torch.zeros(1, 1, 32, 64)
        left[..., :32] = 1
        goals = [
            StyleGoal("sea", 3.0, objective.style_targets(draw(36, 30, 2)), left),
            StyleGoal("sky", 0.5, objective.style_targets(draw(30, 36, 3)), 1 - left),
        ]
        image.requires_grad_()
        terms = objective(image, {}, goals)
        assert terms.weights == {
            "style/sea/relu1_1": 3.0,
            "style/sea/relu2_1": 6.0,
            "style/sky/relu1_1": 0.5,
            "style/sky/relu2_1": 1.0,
        }
        maps = vgg(image, ["relu2_1"])["relu2_1"]
        for goal, half in zip(goals, (maps[..., :16], maps[..., 16:]), strict=True):
            found = terms.raw[f"style/{goal.name}/relu2_1"]
            expected = statistic_loss(moments(half, None, statistic), goal.targets["relu2_1"], statistic)
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)
        (gradient,) = torch.autograd.grad(terms.raw["style/sea/relu1_1"], image)
        assert gradient[..., :33].any()  # a convolution sees one pixel further
        assert not gradient[..., 33:].any()

    def test_region_is_averaged_to_the_grid(self, vgg):
        """A pixel in four of the first position and all of the second: weights 1/4 and 1."""
        image, region = draw(2, 4), torch.tensor([[[[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]]])
        objective = PaintObjective(vgg, content={}, style={"relu2_1": 1.0})
        targets = objective.style_targets(draw(16, 16, 2))
        found = objective(image, {}, [StyleGoal("sea", 1.0, targets, region)]).total
        maps = vgg(image, ["relu2_1"])["relu2_1"]
        first, second = (maps[0, :, 0, k, None] @ maps[0, :, 0, k, None].T for k in (0, 1))
        gram = (first / 4 + second) / (1.25 * 128)
        expected = (gram - targets["relu2_1"].gram[0]).square().sum() / targets["relu2_1"].gram.square().sum()
        torch.testing.assert_close(found, expected, **CLOSE)

    def test_empty_region_adds_nothing(self, vgg):
        objective = PaintObjective(vgg, **SHALLOW)
        targets = objective.style_targets(draw(36, 30, 2))
        terms, gradient = evaluate(
            objective, draw(32, 32), draw(32, 32, 1), [StyleGoal("sea", 1.0, targets, torch.zeros(1, 1, 32, 32))]
        )
        assert terms.raw["style/relu1_1"].item() == 0 == terms.raw["style/relu2_1"].item()
        assert gradient.isfinite().all()


class TestTiles:
    @pytest.mark.parametrize(
        ("height", "width", "tile", "mirrored", "statistic"),
        [
            (48, 32, 16, 0, "gram"),
            (45, 51, 24, 0, "wasserstein"),
            (33, 47, 32, 3, "gram"),
            (27, 30, 16, 8, "wasserstein"),
            (31, 61, 30, 1, "gram"),
            (20, 20, 400, 0, "gram"),
        ],
    )
    def test_parts_are_the_whole(self, vgg, height, width, tile, mirrored, statistic):
        image, photo, painting = draw(height, width), draw(height, width, 1), draw(33, 26, 2)
        settings = {**SHALLOW, "tv": 0.3, "statistic": statistic, "mirrored": mirrored}
        self._compare(vgg, settings, tile, image, photo, painting, [None, draw(height, width, 3, channels=1)])

    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_batch_in_each_convention(self, vgg, convention):
        image, photo, painting = draw(29, 19, batch=2), draw(29, 19, 1, batch=2), draw(33, 26, 2)
        self._compare(vgg, {**SHALLOW, "convention": convention}, 16, image, photo, painting, [None])

    def test_deep_layers_with_maxima(self, max_vgg):
        settings = {"content": {"relu4_2": 1.0}, "style": {"relu1_1": 1.0, "conv3_1": 1.0}}
        image, photo, painting = draw(43, 117), draw(43, 117, 1), draw(35, 30, 2)
        self._compare(max_vgg, settings, 40, image, photo, painting, [draw(43, 117, 3, channels=1)])

    @staticmethod
    def _compare(vgg, settings, tile, image, photo, painting, regions):
        results = []
        for side in (None, tile):
            objective = PaintObjective(vgg, **settings, tile=side)
            targets = objective.style_targets(painting)
            goals = [StyleGoal(f"style{k}", 1.0 + k, targets, region) for k, region in enumerate(regions)]
            content = objective.content_targets(photo)
            results.append((content, targets, *evaluate(objective, image, photo, goals)))
        (content, targets, terms, gradient), (tiled_content, tiled_targets, tiled_terms, tiled_gradient) = results
        torch.testing.assert_close(tiled_content, content, rtol=1e-10, atol=1e-10)
        for layer, sums in targets.items():
            for field in dataclasses.fields(sums):
                torch.testing.assert_close(
                    getattr(tiled_targets[layer], field.name), getattr(sums, field.name), **CLOSE
                )
        assert tiled_terms.weights == terms.weights
        torch.testing.assert_close(dict(tiled_terms.raw), dict(terms.raw), rtol=1e-8, atol=0)
        assert gradient.abs().max() > 0
        assert (tiled_gradient - gradient).abs().max() < 1e-8 * gradient.abs().max()

    @pytest.mark.parametrize("layer", ["relu1_1", "conv1_2", "pool1", "relu2_2", "pool3", "relu4_1"])
    def test_halo_is_as_wide_as_the_features_see(self, vgg, layer):
        """Of a position's gradient by the picture, everything lies within the halo, and not within less."""
        stride = vgg.stride[layer]
        side = 2 * halo(vgg, [layer]) + 3 * stride
        side += -side % stride
        picture = draw(side, side).requires_grad_()
        k = side // stride // 2
        (gradient,) = torch.autograd.grad(vgg(picture, [layer])[layer][..., k, k].abs().sum(), picture)
        seen = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        before, after = k * stride - seen[0].item(), seen[-1].item() - ((k + 1) * stride - 1)
        assert before == after
        assert halo(vgg, [layer]) == -(-before // stride) * stride

    def test_halo_by_hand(self, vgg):
        assert halo(vgg, ["relu1_1"]) == 1
        assert halo(vgg, ["relu2_1"]) == 4  # 1 + 1 + 2
        assert halo(vgg, ["relu1_1", "relu4_2"]) == 40  # 2 * 1 + 2 * 2 + 4 * 4 + 2 * 8 = 38
        assert halo(vgg, ["relu5_1"]) == 80  # 2 + 4 + 16 + 4 * 8 + 16 = 70

    def test_parts_cover_a_picture_once(self, vgg):
        count = torch.zeros(1, 1, 101, 150)
        parts = split(101, 150, vgg, ["relu3_1"], 48)
        for part in parts:
            part.own(count, 1).add_(1)
            assert part.seen(count)[..., part.rows.inside(1), part.columns.inside(1)].shape == part.own(count, 1).shape
            assert max(part.own(count, 1).shape) <= 48
        assert (count == 1).all()
        assert len(parts) == 3 * 4

    def test_no_graph_is_kept_between_the_passes(self, vgg):
        """What an untiled evaluation keeps for its gradient grows with the picture, a tiled one keeps the picture."""

        def kept(tile: int | None) -> int:
            objective = PaintObjective(vgg, **SHALLOW, tile=tile)
            goals = [StyleGoal("sea", 1.0, objective.style_targets(draw(16, 16, 2)))]
            image, sizes = draw(64, 48).requires_grad_(), {}

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                if tensor.shape[-2:] != tensor.shape[-1:] * 2:  # not a Gram matrix
                    sizes[tensor.data_ptr()] = tensor.numel()
                return tensor

            content = objective.content_targets(image)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                objective(image, content, goals)
            return sum(sizes.values())

        assert 3 * 64 * 48 <= kept(16) <= 4 * 64 * 48
        assert kept(None) > 50 * 64 * 48

    def test_bytes_per_pixel_by_hand(self):
        max_vgg, avg_vgg = VGGFeatures(), VGGFeatures(pooling="avg")
        # the picture 4 channels, conv1_1 64; five maps of 64 under way
        assert bytes_per_pixel(max_vgg, ["relu1_1"]) == 4 * (4 + 64 + 5 * 64)
        # conv1_1 seen before its relu: kept twice
        assert bytes_per_pixel(max_vgg, ["conv1_1", "relu1_1"]) == 4 * (4 + 2 * 64 + 5 * 64)
        # conv1_1, conv1_2, pool1 64 / 4, conv2_1 128 / 4; in avg no indices
        assert bytes_per_pixel(avg_vgg, ["relu2_1"]) == 4 * (4 + 64 + 64 + 16 + 32 + 5 * 64)
        assert bytes_per_pixel(max_vgg, ["relu2_1"]) == 4 * (4 + 64 + 64 + 16 + 32 + 5 * 64) + 8 * 16
        assert bytes_per_pixel(max_vgg, ["relu2_1"], torch.bfloat16) == 16 + 2 * 176 + 8 * 16 + 4 * 5 * 64


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"content": {"relu2_9": 1.0}}, r"unknown vgg19 layer 'relu2_9'"),
            ({"convention": "gatis"}, "unknown convention 'gatis'"),
            ({"statistic": "grams"}, "unknown statistic 'grams'"),
            ({"statistic": "wasserstein", "convention": "gatys"}, "use 'relative'"),
            ({"mirrored": -1}, "mirrored: got -1"),
            ({"dtype": torch.int32}, "dtype: got torch.int32"),
            ({"tile": 15}, "tile: got 15 pixels, expected a multiple of 2, the stride of relu2_2"),
            ({"tile": 0}, "tile: got 0"),
            ({"content": {}, "style": {}}, "got no term"),
        ],
    )
    def test_settings(self, vgg, settings, message):
        with pytest.raises(ValueError, match=message):
            PaintObjective(vgg, **SHALLOW | settings)

    def test_targets_and_goals(self, vgg):
        objective = PaintObjective(vgg, **SHALLOW)
        image = draw(32, 32)
        content, goal = objective.content_targets(image), StyleGoal("sea", 1.0, objective.style_targets(image))
        with pytest.raises(ValueError, match="no content target for relu2_2"):
            objective(image, {}, [goal])
        with pytest.raises(ValueError, match=r"target \(1, 128, 16, 16\) for relu2_2, expected \(1, 128, 16, 20\)"):
            objective(draw(32, 40), content, [goal])
        with pytest.raises(ValueError, match=r"goals named \[\]"):
            objective(image, content, [])
        with pytest.raises(ValueError, match=r"goals named \['sea', 'sea'\]"):
            objective(image, content, [goal, goal])
        with pytest.raises(ValueError, match="style 'sky': no target for relu1_1, relu2_1"):
            objective(image, content, [StyleGoal("sky", 1.0, {})])
        with pytest.raises(ValueError, match=r"region of 'sea': got \(32, 40\) pixels, expected the picture's"):
            objective(image, content, [dataclasses.replace(goal, region=torch.ones(1, 1, 32, 40))])
        with pytest.raises(ValueError, match=r"mirrored=40: got a tensor of shape \(1, 3, 32, 32\)"):
            PaintObjective(vgg, **SHALLOW, mirrored=40).content_targets(image)

    @pytest.mark.parametrize(
        ("region", "message"),
        [
            (torch.ones(32, 32), r"got torch.float32 of shape \(32, 32\)"),
            (torch.ones(1, 1, 32, 32, dtype=torch.uint8), "got torch.uint8"),
            (torch.full((1, 1, 8, 8), 1.5), "got values from 1.5 to 1.5, expected 0 to 1"),
            (torch.full((1, 1, 8, 8), float("nan")), "got values from nan"),
        ],
    )
    def test_regions(self, region, message):
        with pytest.raises(ValueError, match=message):
            StyleGoal("sea", 1.0, {}, region)
