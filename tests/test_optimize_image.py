"""The loop that optimises a picture, on objectives whose minimum is known without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from impasto.losses import (
    NORMS,
    LossTerms,
    PerceptualLoss,
    adam,
    clip,
    gram_matrix,
    lbfgs,
    optimize_image,
    steepest,
    style_loss,
    total_variation,
)
from impasto.losses.optimize import normalised

RULES = {"lbfgs": lbfgs, "adam": adam}


def draw_picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Counted:
    """An objective that writes down every value it gives and every picture it sees."""

    def __init__(self, objective):
        self.objective = objective
        self.values: list[float] = []
        self.pictures: list[torch.Tensor] = []

    def __call__(self, picture):
        result = self.objective(picture)
        total = result.total if isinstance(result, LossTerms) else result
        self.values.append(total.item())
        self.pictures.append(picture.detach().clone())
        return result


def distance_to(target: torch.Tensor, weight: torch.Tensor | float = 1.0):
    return lambda picture: (weight * (picture - target).square()).sum()


class TestMinima:
    @pytest.mark.parametrize(
        ("step", "steps", "tolerance"), [(None, 20, 1e-6), (lbfgs(), 20, 1e-6), (adam(0.05), 400, 1e-2)]
    )
    def test_a_quadratic(self, step, steps, tolerance):
        target = draw_picture(2, 3, 4, 5, seed=1)
        got = optimize_image(draw_picture(2, 3, 4, 5), distance_to(target), step=step, steps=steps)
        torch.testing.assert_close(got, target, rtol=0, atol=tolerance)

    def test_a_badly_scaled_quadratic(self):
        # curvatures from 1 to 1000: more than 48 / 2 plain gradient steps would need, few for L-BFGS
        target, weight = (
            draw_picture(1, 3, 4, 4, seed=1),
            torch.logspace(0, 3, 48, dtype=torch.float64).reshape(1, 3, 4, 4),
        )
        got = optimize_image(draw_picture(1, 3, 4, 4), distance_to(target, weight), step=lbfgs(), steps=100)
        torch.testing.assert_close(got, target, rtol=0, atol=1e-5)

    def test_total_variation_denoising_is_a_linear_system(self):
        # minimise 1/2 |x - t|^2 + a sum of squared differences: (I + 2 a D'D) x = t, D the forward differences
        height, width, strength = 4, 5, 0.7
        target = draw_picture(1, 1, height, width)
        rows = []
        for y in range(height):
            for x in range(width):
                for to_y, to_x in ((y + 1, x), (y, x + 1)):
                    if to_y < height and to_x < width:
                        row = np.zeros((height, width))
                        row[to_y, to_x], row[y, x] = 1, -1
                        rows.append(row.reshape(-1))
        differences = np.array(rows)
        system = np.eye(height * width) + 2 * strength * differences.T @ differences
        expected = np.linalg.solve(system, target.numpy().reshape(-1)).reshape(1, 1, height, width)

        def objective(picture):
            variation = total_variation(picture, beta=2.0, convention="gatys")
            return (picture - target).square().sum() / 2 + strength * variation

        got = optimize_image(torch.zeros_like(target), objective, steps=60)
        torch.testing.assert_close(got, torch.from_numpy(expected), rtol=0, atol=1e-6)

    def test_adam_is_the_papers(self):
        # Kingma and Ba 2015, algorithm 1, on numbers
        start, target = draw_picture(1, 3, 2, 2), draw_picture(1, 3, 2, 2, seed=1)
        picture, goal = start.numpy().copy(), target.numpy()
        rate, first, second = 0.03, 0.8, 0.95
        mean, square = np.zeros_like(picture), np.zeros_like(picture)
        for t in range(1, 8):
            gradient = 2 * (picture - goal)
            mean = first * mean + (1 - first) * gradient
            square = second * square + (1 - second) * gradient**2
            picture -= rate * (mean / (1 - first**t)) / (np.sqrt(square / (1 - second**t)) + 1e-8)
        got = optimize_image(start, distance_to(target), step=adam(rate, betas=(first, second)), steps=7)
        torch.testing.assert_close(got, torch.from_numpy(picture), rtol=0, atol=1e-12)

    def test_adam_treats_the_items_of_a_batch_alone(self):
        start, target = draw_picture(2, 3, 4, 4), draw_picture(2, 3, 4, 4, seed=1)
        whole = optimize_image(start, distance_to(target), step=adam(), steps=5)
        for index in range(2):
            item = slice(index, index + 1)
            single = optimize_image(start[item], distance_to(target[item]), step=adam(), steps=5)
            torch.testing.assert_close(whole[item], single, rtol=0, atol=1e-12)


class TestTextureObjective:
    """A Gram matrix objective behind a small fixed network, the kind that the loop exists for."""

    @pytest.fixture
    def objective(self):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(8, 3, 3, 3, generator=generator) / 3, torch.randn(8, 8, 3, 3, generator=generator) / 6]

        def features(picture):
            maps = [torch.nn.functional.conv2d(picture, weights[0]).relu()]
            return [*maps, torch.nn.functional.conv2d(maps[0], weights[1], stride=2).relu()]

        painting = draw_picture(1, 3, 24, 24, seed=3, dtype=torch.float32).round()
        grams = [gram_matrix(maps) for maps in features(painting)]
        return lambda picture: sum(
            style_loss(maps, gram, convention="relative") for maps, gram in zip(features(picture), grams, strict=True)
        )

    def test_lbfgs_needs_fewer_evaluations_than_adam(self, objective):
        start = 0.5 + 0.05 * draw_picture(1, 3, 24, 24, dtype=torch.float32)
        budget = 80
        values = {}
        for name, step in {"lbfgs": lbfgs(), "adam": adam(), "fast adam": adam(0.05), "slow adam": adam(0.005)}.items():
            counted = Counted(objective)
            optimize_image(start, counted, step=step, steps=budget, stop=lambda step: step.evaluations >= budget)
            values[name] = min(counted.values[:budget])
        assert values["lbfgs"] < 0.5 * min(values["adam"], values["fast adam"], values["slow adam"])
        assert values["adam"] < 0.1 * objective(start).item()

    def test_lbfgs_keeps_up_with_scipys(self, objective):
        start = 0.5 + 0.05 * draw_picture(1, 3, 24, 24, dtype=torch.float32)
        budget = 60

        def evaluate(numbers):
            picture = torch.from_numpy(numbers).float().reshape(start.shape).requires_grad_()
            loss = objective(picture)
            return loss.item(), torch.autograd.grad(loss, picture)[0].double().numpy().reshape(-1)

        witness = minimize(
            evaluate,
            start.double().numpy().reshape(-1),
            jac=True,
            method="L-BFGS-B",
            options={"maxfun": budget, "maxcor": 100},
        )
        counted = Counted(objective)
        optimize_image(start, counted, step=lbfgs(), steps=budget, stop=lambda step: step.evaluations >= budget)
        assert min(counted.values[: witness.nfev]) < 5 * witness.fun

    def test_clip_costs_no_evaluations(self, objective):
        start, steps = 0.5 + 0.05 * draw_picture(1, 3, 24, 24, dtype=torch.float32), []
        free = optimize_image(start, objective, steps=40, on_step=steps.append)
        clipped = optimize_image(start, objective, steps=40, on_step=steps.append, project=clip)
        assert torch.isin(clipped, torch.tensor([0.0, 1.0])).any()
        assert free.min() < 0
        alone, held = np.diff([[0, *(step.evaluations for step in run)] for run in (steps[:40], steps[40:])])
        assert alone[10:].sum() <= 32  # one a step, but for a few that rounding may bring
        assert held[10:].sum() <= 32


class TestProjection:
    @pytest.mark.parametrize("rule", RULES)
    def test_clip_keeps_every_step_in_range(self, rule):
        target = 3 * draw_picture(1, 3, 4, 4, seed=1) - 1
        assert target.min() < 0 < 1 < target.max()
        ranges = []
        got = optimize_image(
            draw_picture(1, 3, 4, 4),
            distance_to(target),
            step=RULES[rule](),
            steps=15,
            project=clip,
            on_step=lambda step: ranges.append((step.image.min().item(), step.image.max().item())),
        )
        assert len(ranges) == 15
        assert all(low >= 0 and high <= 1 for low, high in ranges)
        assert got.min() >= 0
        assert got.max() <= 1

    @pytest.mark.parametrize(("step", "steps"), [(adam(0.05), 300), (lbfgs(), 30)])
    def test_clip_reaches_the_nearest_point_of_the_range(self, step, steps):
        target = 3 * draw_picture(1, 3, 4, 4, seed=1) - 1
        got = optimize_image(draw_picture(1, 3, 4, 4), distance_to(target), step=step, steps=steps, project=clip)
        torch.testing.assert_close(got, target.clamp(0, 1), rtol=0, atol=1e-2)

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize(("condition", "steps"), [(5, 60), (100, 200)])
    def test_the_optimum_of_a_quadratic_in_a_box_is_scipys(self, condition, steps, seed):
        random = np.random.default_rng(seed)
        basis, _ = np.linalg.qr(random.standard_normal((48, 48)))
        curvature = basis * np.geomspace(1, condition, 48) @ basis.T
        goal, start = random.uniform(-0.7, 1.7, 48), random.uniform(0, 1, 48)
        witness = minimize(
            lambda x: ((x - goal) @ curvature @ (x - goal) / 2, curvature @ (x - goal)),
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * 48,
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        assert 5 < np.isin(witness.x, (0, 1)).sum() < 43
        matrix, target = torch.from_numpy(curvature), torch.from_numpy(goal)

        def objective(picture):
            off = picture.flatten() - target
            return off @ matrix @ off / 2

        got = optimize_image(
            torch.from_numpy(start).reshape(1, 3, 4, 4),
            objective,
            steps=steps,
            project=clip,
            stop=lambda step: step.loss <= witness.fun + 1e-12,
        )
        np.testing.assert_allclose(got.flatten(), witness.x, rtol=0, atol=2e-5)

    @pytest.mark.parametrize("rule", RULES)
    def test_the_objective_is_asked_for_points_in_the_set_only(self, rule):
        counted = Counted(distance_to(3 * draw_picture(1, 3, 4, 4, seed=1) - 1))
        start = draw_picture(1, 3, 4, 4) * 1.5
        assert start.max() > 1
        optimize_image(start, counted, step=RULES[rule](), steps=10, project=clip)
        assert all(torch.equal(picture, clip(picture)) for picture in counted.pictures)
        assert torch.equal(counted.pictures[0], clip(start))

    def test_clip(self):
        values = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.7])
        assert clip(values).tolist() == pytest.approx([0.0, 0.0, 0.3, 1.0, 1.0])
        assert values[0] == -0.5

    def test_without_a_projection_nothing_is_clipped(self):
        target = 3 * draw_picture(1, 3, 4, 4, seed=1) - 1
        got = optimize_image(draw_picture(1, 3, 4, 4), distance_to(target), steps=20)
        torch.testing.assert_close(got, target, rtol=0, atol=1e-6)

    def test_any_projection(self):
        # onto grey pictures: the nearest grey one to the target is its mean over the colours
        target = draw_picture(1, 3, 4, 4, seed=1)
        got = optimize_image(
            torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64),
            distance_to(target),
            step=lbfgs(),
            steps=60,
            project=lambda picture: picture.mean(1, keepdim=True).expand(-1, 3, -1, -1),
        )
        expected = target.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-2)


class TestTransforms:
    @pytest.mark.parametrize("rule", RULES)
    def test_the_objective_sees_the_transformed_picture_and_the_gradient_passes_through(self, rule):
        target = draw_picture(1, 3, 4, 4, seed=1)
        start = draw_picture(1, 3, 4, 4)
        counted = Counted(distance_to(target))
        got = optimize_image(
            start, counted, step=RULES[rule](), steps=150, transforms=lambda picture: 2 * picture.flip(3) - 0.5
        )
        assert torch.equal(counted.pictures[0], 2 * start.flip(3) - 0.5)
        torch.testing.assert_close(got, (target.flip(3) + 0.5) / 2, rtol=0, atol=2e-2)

    def test_applied_once_to_each_evaluation(self):
        calls = []

        def transform(picture):
            calls.append(1)
            return picture

        counted = Counted(distance_to(draw_picture(1, 3, 4, 4, seed=1)))
        optimize_image(draw_picture(1, 3, 4, 4), counted, step=adam(), steps=6, transforms=transform)
        assert len(calls) == len(counted.values) == 6

    def test_a_transform_that_hides_the_picture_once_does_not_stop_adam(self):
        # as a random crop may: the first gradient is zero, the picture stays, and the next look must still be taken
        looks = []

        def transform(picture):
            looks.append(1)
            return picture * (len(looks) > 1)

        got = optimize_image(
            torch.zeros(1, 3, 4, 4),
            lambda picture: (picture - 1).square().sum(),
            step=adam(),
            steps=5,
            transforms=transform,
        )
        assert len(looks) == 5
        assert got.min() > 0.01

    def test_may_change_the_size(self):
        got = optimize_image(
            torch.zeros(1, 3, 6, 6),
            lambda picture: (picture - 1).square().sum(),
            steps=10,
            transforms=lambda picture: picture[:, :, 1:-1, 1:-1],
        )
        expected = torch.zeros(1, 3, 6, 6)
        expected[:, :, 1:-1, 1:-1] = 1
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


class TestSteps:
    @pytest.mark.parametrize("rule", RULES)
    def test_called_after_each_step_with_true_counts(self, rule):
        # a Rosenbrock valley, so that no rule is done before the last step and line searches have work to do
        def valley(picture):
            left, right = picture[..., :1], picture[..., 1:]
            return (100 * (right - left**2) ** 2 + (1 - left) ** 2).sum()

        counted, seen = Counted(valley), []
        start = torch.tensor([-1.2, 1.0], dtype=torch.float64).expand(1, 3, 1, 2)

        def note(step):
            seen.append((step.index, step.evaluations, len(counted.values), step.loss, counted.values[-1]))

        optimize_image(start, counted, step=RULES[rule](), steps=8, on_step=note)
        assert [index for index, *_ in seen] == list(range(1, 9))
        assert [told for _, told, *_ in seen] == [true for _, _, true, *_ in seen]
        if rule == "adam":
            assert [told for _, told, *_ in seen] == list(range(1, 9))
            assert [told for *_, told, _ in seen] == [last for *_, last in seen]

    def test_lbfgs_loss_is_one_it_evaluated_and_falls(self):
        counted, losses = (
            Counted(distance_to(draw_picture(1, 3, 4, 4, seed=1), torch.arange(1.0, 49).reshape(1, 3, 4, 4))),
            [],
        )
        optimize_image(
            draw_picture(1, 3, 4, 4), counted, step=lbfgs(), steps=10, on_step=lambda step: losses.append(step.loss)
        )
        assert set(losses) <= set(counted.values)
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 1e-3 * counted.values[0]

    def test_lbfgs_never_evaluates_one_point_twice_in_a_row(self):
        counted = Counted(distance_to(draw_picture(1, 3, 4, 4, seed=1), torch.arange(1.0, 49).reshape(1, 3, 4, 4)))
        optimize_image(draw_picture(1, 3, 4, 4), counted, step=lbfgs(), steps=6)
        for before, after in zip(counted.pictures, counted.pictures[1:], strict=False):
            assert not torch.equal(before, after)

    @pytest.mark.parametrize("rule", RULES)
    def test_the_last_picture_shown_is_the_one_returned(self, rule):
        shown = []

        def note(step):
            assert not step.image.requires_grad
            shown.append(step.image.clone())

        got = optimize_image(
            draw_picture(1, 3, 4, 4),
            distance_to(draw_picture(1, 3, 4, 4, seed=1)),
            step=RULES[rule](),
            steps=3,
            on_step=note,
            project=clip,
        )
        assert torch.equal(shown[-1], got)
        assert not torch.equal(shown[0], draw_picture(1, 3, 4, 4))

    def test_terms(self):
        def objective(picture):
            return LossTerms(
                raw={"tv": picture.square().sum(), "content/a": picture.sum()}, weights={"tv": 2.0, "content/a": 0.5}
            )

        seen = []
        counted = Counted(objective)
        start = draw_picture(1, 3, 4, 4)
        optimize_image(start, counted, step=adam(), steps=1, on_step=seen.append)
        (step,) = seen
        assert isinstance(step.terms, LossTerms)
        assert step.terms.raw["tv"].item() == pytest.approx(start.square().sum().item(), rel=1e-12)
        expected = 2 * start.square().sum().item() + 0.5 * start.sum().item()
        assert step.loss == pytest.approx(expected, rel=1e-12)
        assert isinstance(step.loss, float)

    def test_no_terms_for_a_plain_objective(self):
        seen = []
        optimize_image(
            torch.zeros(1, 3, 2, 2), lambda picture: picture.sum(), steps=1, step=adam(), on_step=seen.append
        )
        assert [step.terms for step in seen] == [None]

    @pytest.mark.parametrize("rule", RULES)
    def test_stop(self, rule):
        order = []

        def stop(step):
            order.append(("stop", step.index))
            return step.index == 3

        got = optimize_image(
            draw_picture(1, 3, 4, 4),
            distance_to(draw_picture(1, 3, 4, 4, seed=1), torch.arange(1.0, 49).reshape(1, 3, 4, 4)),
            step=RULES[rule](),
            steps=10,
            on_step=lambda step: order.append(("on_step", step.index)),
            stop=stop,
        )
        assert order == [(name, index) for index in (1, 2, 3) for name in ("on_step", "stop")]
        three = optimize_image(
            draw_picture(1, 3, 4, 4),
            distance_to(draw_picture(1, 3, 4, 4, seed=1), torch.arange(1.0, 49).reshape(1, 3, 4, 4)),
            step=RULES[rule](),
            steps=3,
        )
        assert torch.equal(got, three)

    def test_no_steps(self):
        start = draw_picture(1, 3, 4, 4)
        got = optimize_image(start, distance_to(torch.zeros_like(start)), steps=0)
        assert torch.equal(got, start)
        assert got.data_ptr() != start.data_ptr()

    @pytest.mark.parametrize("rule", RULES)
    def test_a_start_at_the_minimum_stays(self, rule):
        target = draw_picture(1, 3, 4, 4)
        seen = []
        got = optimize_image(target.clone(), distance_to(target), step=RULES[rule](), steps=4, on_step=seen.append)
        assert torch.equal(got, target)
        assert 1 <= len(seen) <= 4
        assert all(step.loss == 0 for step in seen)

    @pytest.mark.parametrize("rule", RULES)
    def test_one_rule_serves_two_runs(self, rule):
        step = RULES[rule]()
        start, objective = draw_picture(1, 3, 4, 4), distance_to(draw_picture(1, 3, 4, 4, seed=1))
        first, second = (optimize_image(start, objective, step=step, steps=3) for _ in range(2))
        assert torch.equal(first, second)


class TestManners:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_the_start_stays(self, rule, requires_grad):
        start = draw_picture(1, 3, 4, 4).requires_grad_(requires_grad)
        before = start.detach().clone()
        got = optimize_image(start, lambda picture: picture.square().sum(), step=RULES[rule](), steps=5, project=clip)
        assert torch.equal(start.detach(), before)
        assert start.grad is None
        assert start.requires_grad == requires_grad
        assert not got.requires_grad
        assert not torch.equal(got, before)

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("layout", ["transposed", "expanded", "channels_last", "strided"])
    def test_any_memory_layout(self, rule, layout):
        picture = draw_picture(2, 3, 4, 4)
        start = {
            "transposed": picture.transpose(2, 3),
            "expanded": picture[:1, :, :1, :].expand(2, 3, 4, 4),
            "channels_last": picture.contiguous(memory_format=torch.channels_last),
            "strided": picture.repeat_interleave(2, dim=3)[..., ::2],
        }[layout]
        assert not start.is_contiguous()
        objective = distance_to(draw_picture(2, 3, 4, 4, seed=1))
        got = optimize_image(start, objective, step=RULES[rule](), steps=5)
        expected = optimize_image(start.contiguous(), objective, step=RULES[rule](), steps=5)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
        assert not torch.equal(got, start)

    @pytest.mark.parametrize("rule", RULES)
    def test_parameters_of_the_objective_get_no_gradient(self, rule):
        network = torch.nn.Conv2d(3, 4, 3)
        weight = network.weight.detach().clone()
        optimize_image(
            torch.rand(1, 3, 6, 6), lambda picture: network(picture).square().sum(), step=RULES[rule](), steps=3
        )
        assert network.weight.grad is None
        assert network.weight.requires_grad
        assert torch.equal(network.weight.detach(), weight)

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_type_stays(self, rule, dtype):
        start = draw_picture(1, 3, 4, 4, dtype=dtype)
        assert optimize_image(start, lambda picture: picture.square().sum(), step=RULES[rule](), steps=2).dtype == dtype

    @pytest.mark.parametrize("rule", RULES)
    def test_works_where_gradients_are_off(self, rule):
        start, objective = draw_picture(1, 3, 4, 4), distance_to(draw_picture(1, 3, 4, 4, seed=1))
        expected = optimize_image(start, objective, step=RULES[rule](), steps=3)
        with torch.no_grad():
            got = optimize_image(start, objective, step=RULES[rule](), steps=3)
            assert not torch.is_grad_enabled()
        assert torch.equal(got, expected)

    def test_a_failing_objective_is_not_swallowed(self):
        def objective(picture):
            raise ArithmeticError("this objective breaks")

        with pytest.raises(ArithmeticError, match="this objective breaks"):
            optimize_image(torch.zeros(1, 3, 4, 4), objective)


class TestErrors:
    def test_integer_start(self):
        with pytest.raises(ValueError, match=r"(?s)(?=.*uint8)(?=.*float)"):
            optimize_image(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), lambda picture: picture.sum())

    def test_objective_that_is_no_scalar(self):
        with pytest.raises(ValueError, match=r"(?s)(?=.*scalar)(?=.*1\D{1,3}3\D{1,3}4\D{1,3}5)"):
            optimize_image(torch.zeros(1, 3, 4, 5), lambda picture: picture.square())

    def test_negative_steps(self):
        with pytest.raises(ValueError, match=r"(?s)(?=.*steps)(?=.*-1)"):
            optimize_image(torch.zeros(1, 3, 4, 4), lambda picture: picture.sum(), steps=-1)


def test_a_perceptual_loss_is_an_objective():
    def features(images, layers):
        looks = {"edges": images.diff(dim=3), "pixels": images}
        return {name: looks[name] for name in layers}

    loss = PerceptualLoss(features, content={"edges": 1.0}, style={"pixels": 2.0}, tv=1e-3)
    photo, painting = draw_picture(1, 3, 8, 8), draw_picture(1, 3, 8, 8, seed=1)
    content, style = loss.content_targets(photo), loss.style_targets(painting)
    losses, names = [], set()

    def note(step):
        losses.append(step.loss)
        names.update(step.terms.raw)

    start = torch.full_like(photo, 0.5) + 0.01 * draw_picture(1, 3, 8, 8, seed=2)
    got = optimize_image(start, lambda picture: loss(picture, content, style), steps=40, on_step=note)
    assert names == {"content/edges", "style/pixels", "tv"}
    before, after = (loss(picture, content, style).total.item() for picture in (start, got))
    assert after < 0.1 * before
    assert math.isclose(min(losses), losses[-1], rel_tol=1e-6)


class TestSteepest:
    """x - rate g / norm, with the norms by hand: of (3, -4, 0, 1) the mean magnitude 2, the mean square 6.5."""

    GRADIENT = torch.tensor([3.0, -4.0, 0.0, 1.0], dtype=torch.float64).view(1, 1, 2, 2)
    DIVIDED = {
        "none": [3.0, -4.0, 0.0, 1.0],
        "l1": [1.5, -2.0, 0.0, 0.5],
        "l2": [value / math.sqrt(6.5) for value in (3, -4, 0, 1)],
        "sign": [1.0, -1.0, 0.0, 1.0],
    }

    @pytest.mark.parametrize("norm", NORMS)
    def test_by_hand(self, norm):
        expected = torch.tensor(self.DIVIDED[norm], dtype=torch.float64).view(1, 1, 2, 2)
        torch.testing.assert_close(normalised(self.GRADIENT, norm), expected, rtol=1e-12, atol=0)
        start = draw_picture(1, 1, 2, 2)
        got = optimize_image(start, lambda x: (self.GRADIENT * x).sum(), step=steepest(0.25, norm), steps=3)
        torch.testing.assert_close(got, start - 0.75 * expected, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("norm", ["l1", "l2", "sign"])
    def test_the_scale_of_the_objective_does_not_matter(self, norm):
        objective = distance_to(draw_picture(1, 3, 4, 4, seed=1), draw_picture(1, 3, 4, 4, seed=2))
        start = draw_picture(1, 3, 4, 4)
        once, often = (
            optimize_image(start, lambda x, factor=factor: factor * objective(x), step=steepest(0.01, norm), steps=5)
            for factor in (1, 4096)
        )
        assert torch.equal(once, often) and not torch.equal(once, start)

    @pytest.mark.parametrize("norm", NORMS)
    def test_a_batch_is_its_pictures(self, norm):
        """Of very different gradients, each by its own norm."""
        target, weight = draw_picture(3, 3, 4, 4, seed=1), torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1).double()
        start = draw_picture(3, 3, 4, 4)
        rate = 1e-4
        together = optimize_image(start, distance_to(target, weight), step=steepest(rate, norm), steps=4)
        for index in range(3):
            here = slice(index, index + 1)
            alone = optimize_image(
                start[here], distance_to(target[here], weight[here]), step=steepest(rate, norm), steps=4
            )
            torch.testing.assert_close(together[here], alone, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("norm", NORMS)
    def test_no_gradient_no_step_and_of_any_shape(self, norm):
        assert not normalised(torch.zeros(2, 3, 4, 4), norm).any()
        coefficients = draw_picture(2, 3, 4, 3, 2)
        coefficients[1] = 0
        found = normalised(coefficients, norm)
        assert found.shape == coefficients.shape and found.isfinite().all() and not found[1].any()
        sizes = {"l1": found[0].abs().mean(), "l2": found[0].square().mean().sqrt(), "sign": found[0].abs().max()}
        assert sizes.get(norm, torch.tensor(1.0)).item() == pytest.approx(1)

    def test_a_rate_for_each_step(self):
        asked = []

        def rate(index):
            asked.append(index)
            return 1 / index

        start = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
        rule = steepest(rate)
        got = optimize_image(start, lambda x: (self.GRADIENT * x).sum(), step=rule, steps=3)
        assert asked == [1, 2, 3]
        torch.testing.assert_close(got, -(1 + 1 / 2 + 1 / 3) * self.GRADIENT, rtol=1e-12, atol=0)
        optimize_image(start, lambda x: x.sum(), step=rule, steps=1)
        assert asked == [1, 2, 3, 1], "another run of the same rule begins with its first step"

    def test_one_evaluation_a_step_and_projected(self):
        counted, seen = Counted(distance_to(3 * draw_picture(1, 3, 4, 4, seed=1) - 1)), []
        start = draw_picture(1, 3, 4, 4)
        got = optimize_image(start, counted, step=steepest(0.1), steps=60, project=clip, on_step=seen.append)
        assert [step.evaluations for step in seen] == list(range(1, len(seen) + 1)) and len(counted.values) == len(seen)
        torch.testing.assert_close(got, clip(3 * draw_picture(1, 3, 4, 4, seed=1) - 1), rtol=0, atol=1e-4)

    def test_an_unknown_norm(self):
        with pytest.raises(ValueError, match=r"unknown norm 'l3'.*l1, l2, none, sign"):
            steepest(0.1, "l3")


class TestOperators:
    @pytest.mark.parametrize("rule", [steepest(0.125), adam(0.125)])
    def test_run_in_order_after_each_step_before_the_projection(self, rule):
        """-0.125 a step against a gradient of 1 (Adam's first step is its rate): (x + 1) / 2 after it, then clipped."""
        seen = []

        def record(name, change):
            def operator(picture, gradient, index):
                seen.append((name, index, round(picture[0, 0, 0, 0].item(), 6), gradient.unique().tolist()))
                return change(picture)

            return operator

        got = optimize_image(
            torch.full((1, 3, 2, 2), 0.125),
            lambda x: x.sum(),
            step=rule,
            steps=1,
            operators=[record("add", lambda x: x + 3), record("halve", lambda x: x / 2)],
            project=clip,
        )
        assert seen == [("add", 1, 0.0, [1.0]), ("halve", 1, 3.0, [1.0])]
        assert torch.equal(got, torch.ones(1, 3, 2, 2))

    def test_every_step_has_its_number_and_its_gradient(self):
        """Of |x|^2 at 1, 0.8 + 1, ...: the gradient is that of the evaluated point, not of the point after the step."""
        seen = []

        def shift(picture, gradient, index):
            seen.append((index, gradient[0, 0, 0, 0].item(), picture[0, 0, 0, 0].item()))
            assert not picture.requires_grad
            return picture + 1

        start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        got = optimize_image(start, lambda x: x.square().sum(), step=steepest(0.1), steps=3, operators=[shift])
        expected, at = [], 1.0
        for index in (1, 2, 3):
            expected.append((index, pytest.approx(2 * at), pytest.approx(0.8 * at)))
            at = 0.8 * at + 1
        assert seen == expected and got.item() == pytest.approx(at)
        assert start.item() == 1

    def test_the_step_that_is_shown_has_gone_through_them(self):
        shown = []
        optimize_image(
            torch.ones(1, 3, 2, 2),
            lambda x: x.sum(),
            step=steepest(0.5),
            steps=2,
            operators=[lambda picture, gradient, index: picture * 0 + index],
            on_step=lambda step: shown.append(step.image.unique().tolist()),
        )
        assert shown == [[1.0], [2.0]]

    def test_decay_stands_still_where_step_and_decay_are_equal(self):
        slope = draw_picture(1, 3, 4, 4)
        got = optimize_image(
            torch.zeros_like(slope),
            lambda x: -(slope * x).sum(),
            step=steepest(0.1),
            steps=200,
            operators=[lambda picture, gradient, index: 0.8 * picture],
        )
        torch.testing.assert_close(got, 0.8 * 0.1 * slope / 0.2, rtol=1e-9, atol=0)

    def test_not_with_lbfgs(self):
        for rule in (None, lbfgs()):
            with pytest.raises(ValueError, match=r"operators: L-BFGS .*use steepest\(\) or adam\(\)"):
                optimize_image(
                    torch.zeros(1, 3, 2, 2), lambda x: x.sum(), step=rule, operators=[lambda x, gradient, index: x]
                )
