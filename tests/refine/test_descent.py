"""Refinement keeps the best code of each image, stops each on its own, and never lets one image touch another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from engine import metrics
from engine.config import RefineConfig
from engine.errors import ConfigError
from engine.records import LatentBatch, PixelBatch
from engine.refine.descent import LEAST_GAIN, refine

CODE = (2, 6)
SIDE = 16


class Generator(nn.Module):
    """Codes [n, 2, 6] -> films [n, 1, 16, 16]: smooth, not linear, and of course without any mixing of images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(CODE), 8 * 16)
        self.conv = nn.Conv2d(8, 4, 3, padding=1)
        self.gray = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = torch.tanh(self.linear(latents.flatten(1))).reshape(-1, 8, 4, 4)
        x = torch.tanh(self.conv(nn.functional.interpolate(x, scale_factor=2)))
        return torch.tanh(self.gray(nn.functional.interpolate(x, scale_factor=2)))


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator().requires_grad_(False).eval()


def sphere(latents: Tensor) -> Tensor:
    return latents * math.sqrt(latents.shape[-1]) / latents.norm(dim=-1, keepdim=True)


def free(latents: Tensor) -> Tensor:
    return latents


def films(pixels: Tensor) -> PixelBatch:
    return PixelBatch(refs=[], pixels=pixels, films=None, infos=[])


def codes(latents: Tensor) -> LatentBatch:
    return LatentBatch(latents=latents, steps=torch.zeros(len(latents), dtype=torch.int32))


@pytest.fixture
def problem(generator: Generator) -> tuple[LatentBatch, PixelBatch]:
    """Six films that the generator can nearly make, and codes at some distance from theirs."""
    draw = torch.Generator().manual_seed(1)
    truth = sphere(torch.randn(6, *CODE, generator=draw))
    pixels = (generator(truth) + 0.05 * torch.randn(6, 1, SIDE, SIDE, generator=draw)).clamp(-1, 1)
    return codes(sphere(truth + 0.8 * torch.randn(6, *CODE, generator=draw))), films(pixels)


def take(batch: LatentBatch, images: PixelBatch, index: list[int]) -> tuple[LatentBatch, PixelBatch]:
    return codes(batch.latents[index]), films(images.pixels[index])


def loss_of(generate: Callable[[Tensor], Tensor], latents: Tensor, images: PixelBatch) -> Tensor:
    with torch.no_grad():
        return metrics.mse(metrics.to_unit(generate(latents)), metrics.to_unit(images.pixels))


def replay(
    generate: Callable[[Tensor], Tensor], project: Callable[[Tensor], Tensor], start: Tensor, film: Tensor, cfg: RefineConfig
) -> list[tuple[float, Tensor]]:
    """Every code of one image and its loss, by torch.optim.Adam on that image alone."""
    code = start[None].clone().requires_grad_(True)
    optimiser = torch.optim.Adam([code], lr=cfg.lr)
    visited = []
    for _ in range(cfg.steps + 1):
        loss = ((generate(code) - film[None]) / 2).square().mean()
        visited.append((loss.item(), code[0].detach().clone()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            code.copy_(project(code))
    return visited


@pytest.mark.parametrize("project", [free, sphere])
@pytest.mark.parametrize("lr", [0.05, 1.5])  # the second overshoots, so that the best code is not the last
def test_equals_adam_on_each_image_alone_and_keeps_its_best(
    generator: Generator, problem: tuple[LatentBatch, PixelBatch], project: Callable[[Tensor], Tensor], lr: float
) -> None:
    start, images = problem
    cfg = RefineConfig(steps=25, lr=lr)
    result = refine(generator, project, start, images, cfg)
    assert result.loss is not None
    assert result.loss_initial is not None
    best_steps = []
    for row in range(6):
        visited = replay(generator, project, start.latents[row], images.pixels[row], cfg)
        best = min(range(len(visited)), key=lambda step: visited[step][0])
        best_steps.append(best)
        assert result.loss_initial[row].item() == pytest.approx(visited[0][0], rel=1e-5)
        assert result.loss[row].item() == pytest.approx(visited[best][0], rel=1e-4)
        assert result.steps[row].item() == best
        torch.testing.assert_close(result.latents[row], visited[best][1], rtol=1e-3, atol=1e-4)
    assert result.stop == ["budget"] * 6
    if lr > 1:
        assert min(best_steps) < 25


def test_loss_is_that_of_exactly_the_kept_code(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    result = refine(generator, sphere, start, images, RefineConfig(steps=15, lr=1.0))
    torch.testing.assert_close(result.loss, loss_of(generator, result.latents, images), rtol=1e-6, atol=0)
    torch.testing.assert_close(result.loss_initial, loss_of(generator, start.latents, images), rtol=1e-6, atol=0)


@pytest.mark.parametrize("lr", [1e-3, 0.1, 30.0, 1e20])
def test_never_worse_than_the_start(generator: Generator, problem: tuple[LatentBatch, PixelBatch], lr: float) -> None:
    start, images = problem
    before = start.latents.clone()
    result = refine(generator, free, start, images, RefineConfig(steps=8, lr=lr))
    assert result.loss is not None
    assert result.loss_initial is not None
    assert (result.loss <= result.loss_initial).all()
    assert torch.equal(start.latents, before)
    unmoved = result.steps == 0
    assert torch.equal(result.latents[unmoved], start.latents[unmoved])


def test_codes_stay_on_the_gauge(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    result = refine(generator, sphere, *problem, RefineConfig(steps=10))
    assert (result.steps > 0).all()
    torch.testing.assert_close(result.latents.norm(dim=-1), torch.full((6, 2), math.sqrt(6)))


def test_neighbours_do_not_matter(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    cfg = RefineConfig(steps=12, target_mse=9e-4)  # some images stop early, so the batch shrinks
    together = refine(generator, sphere, *problem, cfg)
    assert set(together.stop) == {"target", "budget"}
    order = [4, 2, 0, 5, 1, 3]
    shuffled = refine(generator, sphere, *take(*problem, order), cfg)
    torch.testing.assert_close(shuffled.latents, together.latents[order], rtol=1e-4, atol=1e-5)
    assert torch.equal(shuffled.steps, together.steps[order])
    for row in range(6):
        alone = refine(generator, sphere, *take(*problem, [row]), cfg)
        torch.testing.assert_close(alone.latents, together.latents[row : row + 1], rtol=1e-4, atol=1e-5)
        assert (alone.steps.item(), alone.stop[0]) == (together.steps[row].item(), together.stop[row])


def test_is_deterministic(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    cfg = RefineConfig(steps=10, patience=3)
    first, second = (refine(generator, sphere, *problem, cfg) for _ in range(2))
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.loss, second.loss)


def test_bad_films_and_codes_end_as_diverged_among_good_ones(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    latents, pixels = start.latents.clone(), images.pixels.clone()
    pixels[1, 0, 3, 3] = torch.nan
    pixels[2] = torch.inf
    latents[4, 0, 0] = torch.inf
    result = refine(generator, sphere, codes(latents), films(pixels), RefineConfig(steps=10))
    assert [word == "diverged" for word in result.stop] == [False, True, True, False, True, False]
    assert result.steps[[1, 2, 4]].tolist() == [0, 0, 0]
    assert torch.equal(result.latents[[1, 2, 4]], latents[[1, 2, 4]])
    assert result.loss is not None
    assert not result.loss[[1, 2]].isfinite().any()
    good = [0, 3, 5]
    alone = refine(generator, sphere, *take(*problem, good), RefineConfig(steps=10))
    torch.testing.assert_close(result.latents[good], alone.latents, rtol=1e-4, atol=1e-5)


def test_an_image_that_diverges_later_keeps_its_best_finite_code(problem: tuple[LatentBatch, PixelBatch]) -> None:
    def brittle(latents: Tensor) -> Tensor:
        """A square root: past zero, where the target pulls image 0, loss and gradient are NaN."""
        return latents[:, 0, 0].sqrt().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    latents = torch.full((2, 1, 1), 0.5)
    targets = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    result = refine(brittle, free, codes(latents), films(targets), RefineConfig(steps=30, lr=0.2))
    assert result.stop == ["diverged", "budget"]
    assert result.steps.tolist()[0] == 2  # 0.5, 0.3, 0.1, then below zero
    assert result.latents.isfinite().all()
    assert result.loss is not None
    torch.testing.assert_close(result.loss, loss_of(brittle, result.latents, films(targets)))
    assert result.latents[1].item() == pytest.approx(1, abs=0.05)


def test_a_gradient_that_is_not_finite_freezes_a_good_code() -> None:
    def masked(latents: Tensor) -> Tensor:
        """The root is never taken, but its infinite slope times 0 makes the gradient of the second number NaN."""
        first, second = latents[:, 0, 0], latents[:, 0, 1]
        return torch.where(first < 9, first, second.sqrt()).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    result = refine(masked, free, codes(torch.zeros(1, 1, 2)), films(torch.ones(1, 1, 4, 4)), RefineConfig(steps=3))
    assert (result.stop, result.steps.tolist(), result.latents.tolist()) == (["diverged"], [0], [[[0.0, 0.0]]])
    assert result.loss is not None
    assert result.loss.item() == 0.25


def test_a_code_that_is_not_finite_is_no_candidate_even_with_a_finite_film() -> None:
    def bounded(latents: Tensor) -> Tensor:
        return torch.tanh(latents).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    result = refine(bounded, free, codes(torch.full((1, 1, 1), torch.inf)), films(torch.zeros(1, 1, 4, 4)), RefineConfig(steps=3))
    assert (result.stop, result.steps.tolist()) == (["diverged"], [0])


def test_target_stops_at_the_first_code_that_reaches_it(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    cfg = RefineConfig(steps=12, target_mse=9e-4)
    result = refine(generator, sphere, start, images, cfg)
    assert set(result.stop) == {"target", "budget"}
    for row, word in enumerate(result.stop):
        losses = [loss for loss, _ in replay(generator, sphere, start.latents[row], images.pixels[row], cfg)]
        reached = [step for step, loss in enumerate(losses) if loss <= cfg.target_mse]
        assert (word == "target") == bool(reached)
        if reached:
            assert result.steps[row].item() == reached[0]


def test_target_is_of_the_error_whatever_its_weight(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    cfg = RefineConfig(steps=12, target_mse=9e-4)
    once = refine(generator, sphere, *problem, cfg)
    tenfold = refine(generator, sphere, *problem, replace(cfg, loss=(("mse", 10.0),)))
    assert tenfold.stop == once.stop
    torch.testing.assert_close(tenfold.loss, 10 * once.loss, rtol=1e-3, atol=0)


def test_plateau_counts_steps_without_a_gain(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    cfg = RefineConfig(steps=60, lr=1.0, patience=4)
    result = refine(generator, sphere, start, images, cfg)
    assert "plateau" in result.stop
    for row in range(6):
        losses = [loss for loss, _ in replay(generator, sphere, start.latents[row], images.pixels[row], cfg)]
        milestone, end = 0, cfg.steps
        for step, loss in enumerate(losses):
            if loss < losses[milestone] * (1 - LEAST_GAIN):
                milestone = step
            elif step - milestone >= cfg.patience:
                end = step
                break
        assert result.stop[row] == ("plateau" if end < cfg.steps else "budget")
        assert result.steps[row].item() == min(range(end + 1), key=losses.__getitem__)


def test_reaches_the_known_optimum_of_least_squares() -> None:
    draw = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(64, 5, generator=draw))[0].T  # [5, 64], orthonormal rows
    target = torch.rand(3, 1, 8, 8, generator=draw) * 2 - 1
    optimum = target.flatten(1) @ basis.T

    def linear(latents: Tensor) -> Tensor:
        return (latents.flatten(1) @ basis).reshape(-1, 1, 8, 8)

    result = refine(linear, free, codes(torch.zeros(3, 1, 5)), films(target), RefineConfig(steps=600, lr=0.05))
    torch.testing.assert_close(result.latents.flatten(1), optimum, rtol=0, atol=2e-3)


def test_no_steps_return_the_start(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    assert refine(generator, sphere, start, images, RefineConfig(steps=0)) is start
    assert start.loss is None


def test_empty_batch(generator: Generator) -> None:
    result = refine(generator, sphere, codes(torch.zeros(0, *CODE)), films(torch.zeros(0, 1, SIDE, SIDE)), RefineConfig(steps=3))
    assert (result.latents.shape, result.steps.shape, result.stop) == ((0, *CODE), (0,), [])
    assert result.loss is not None
    assert result.loss.shape == (0,)


def test_works_on_what_inference_mode_left_behind(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    start, images = problem
    expected = refine(generator, sphere, start, images, RefineConfig(steps=3))
    with torch.inference_mode():
        result = refine(generator, sphere, codes(start.latents * 1), films(images.pixels * 1), RefineConfig(steps=3))
    assert not result.latents.is_inference()
    assert torch.equal(result.latents, expected.latents)


def test_codes_stay_float32_under_a_half_precision_generator(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    def half(latents: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return generator(latents)

    result = refine(half, sphere, *problem, RefineConfig(steps=5))
    assert result.loss is not None
    assert result.latents.dtype == result.loss.dtype == torch.float32
    assert result.loss_initial is not None
    assert (result.loss < result.loss_initial).all()


def test_weights_that_ask_for_gradients_get_none(problem: tuple[LatentBatch, PixelBatch]) -> None:
    trained = Generator()
    refine(trained, sphere, *problem, RefineConfig(steps=2))
    assert all(weight.grad is None for weight in trained.parameters())


def test_unknown_loss_is_refused_even_without_steps(generator: Generator, problem: tuple[LatentBatch, PixelBatch]) -> None:
    with pytest.raises(ConfigError, match="lpips"):
        refine(generator, sphere, *problem, RefineConfig(steps=0, loss=(("lpips", 1.0),)))
