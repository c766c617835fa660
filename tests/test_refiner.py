"""Refinement is made ready level by level, and no gradient works before the gate has let it through."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from engine.code_gradient import judge_gradient
from engine.config import RefineConfig
from engine.encode.codec import Codec
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.encode.compile import Prepared, prepare
from engine.encode.parity import GRADIENT_LIMITS, LIMITS
from engine.encode.precision import without_gradients
from engine.errors import BackendError, ConfigError
from engine.networks.coarse import fit_heads, shrink
from engine.networks.pca import PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.recipe import PixelRecipe
from engine.refine.build_objective import WeightSource, build_objective
from engine.refine.descent import Film
from engine.refine.gradient_step import Found, GradientStep, by_autograd
from engine.refine.schedule import RATE_AFTER_COARSE
from engine.refiner import build_refiner, criterion_of, levels_of, weight_source

SIZE = 32
CODE = (1, 16)
CFG = RefineConfig(steps=20)


def make_codec(generator: nn.Module, *, size: int = SIZE) -> Codec:
    spec = CodecSpec(
        name="tiny",
        encoder=None,
        generator=NetworkSpec(weights="g.safetensors", network="pggan", settings={}),
        code=CodeSpec(dims=("layer", "channel"), shape=CODE, gauge="none"),
        recipe=PixelRecipe(resolution=size),
    )
    return Codec(spec, encoder=None, generator=generator, mean=torch.ones(CODE), digest="0" * 64)


def pggan(*, size: int = SIZE) -> Codec:
    """A progressive generator with a head for each level."""
    torch.manual_seed(0)
    widths = (16, 16, 16, 8) if size == SIZE else (16, 16, 16, 8, 8)
    network = PgganGenerator(PgganSettings(channels=widths, code_size=CODE[1]))
    codec = make_codec(network, size=size)
    draw = torch.Generator().manual_seed(1)
    codec.coarse = fit_heads(network.coarse_activations, codec.generate, iter(torch.randn(2, 16, *CODE, generator=draw)))
    return codec


def linear(*, shift: float = 0) -> Codec:
    torch.manual_seed(0)
    network = PcaGenerator(PcaSettings(resolution=SIZE, components=CODE[1]))
    network.components.copy_(torch.linalg.qr(torch.randn(SIZE**2, CODE[1]))[0].T)
    network.scale.add_(1 + shift)
    return make_codec(network)


def ready(codec: Codec, *, precision: str = "fp32", batch_size: int = 4) -> Prepared:
    return prepare(codec, backend="eager", precision=precision, batch_size=batch_size, device="cpu")  # type: ignore[arg-type]


def films_of(codec: Codec, count: int) -> list[Film]:
    """Films that the codec can make, with codes at some distance from theirs."""
    draw = torch.Generator().manual_seed(2)
    truth = torch.randn(count, *CODE, generator=draw)
    start = truth + 0.7 * torch.randn(count, *CODE, generator=draw)
    pixels = codec.generate(truth)
    return [Film(key=at, pixels=pixels[at], start=start[at], code=start[at]) for at in range(count)]


def gains(refined: list[Film]) -> Tensor:
    return torch.tensor([film.loss / film.loss_initial for film in refined])


def test_a_codec_with_heads_is_refined_coarse_to_fine() -> None:
    codec = pggan()
    refiner = build_refiner(ready(codec), CFG)
    assert [(stage.level.resolution, stage.level.steps) for stage in refiner.stages] == [(16, 16), (32, 4)]
    assert set(refiner.parity) == {"16", "32"}
    for figures in refiner.parity.values():
        assert (figures["backend"], figures["precision"]) == ("eager", "fp32")
        assert 0 <= figures["gradient"]["eager"]["relative"] <= figures["gradient"]["limit"] == GRADIENT_LIMITS["fp32"]
        assert 0 <= figures["loss_relative"] <= LIMITS["fp32"]
    refined = list(refiner.run(films_of(codec, 7)))
    assert sorted(film.key for film in refined) == list(range(7))
    assert gains(refined).max() < 0.7
    assert all(film.steps > 4 for film in refined)
    objective = build_objective(CFG.loss, resolution=SIZE)
    for film in refined:
        loss, _ = objective(codec.generate(film.code[None]), objective.features(film.pixels[None]))
        assert film.loss == pytest.approx(loss.item(), rel=1e-4)


def test_a_few_films_get_no_more_slots_than_they_fill() -> None:
    codec = linear()
    refiner, rows = build_refiner(ready(codec), CFG), []

    def counted(latents: Tensor, features: tuple[Tensor, ...]) -> Found:
        rows.append(len(latents))
        return refiner.stages[0].gradient(latents, features)

    watched = replace(refiner, stages=(replace(refiner.stages[0], gradient=counted),))
    for count, at_most, slots in ((2, 2, 2), (2, None, 4), (6, 6, 4)):
        rows.clear()
        assert len(list(watched.run(films_of(codec, count), at_most=at_most))) == count
        assert set(rows) == {slots}
    assert list(watched.run([], at_most=0)) == []


def test_heads_are_not_used_where_they_are_not_wanted_or_do_not_pay() -> None:
    prepared = ready(pggan())
    for cfg in (replace(CFG, coarse=False), replace(CFG, steps=8)):
        assert [stage.level.resolution for stage in build_refiner(prepared, cfg).stages] == [32]


def test_a_film_that_diverges_at_a_coarse_level_ends_so() -> None:
    codec = pggan()
    films, refiner = films_of(codec, 6), build_refiner(ready(codec), CFG)
    coarse = refiner.stages[0]
    marked = coarse.features(shrink(films[2].pixels[None], coarse.level.resolution))[0]

    def breaks(latents: Tensor, features: tuple[Tensor, ...]) -> Found:
        loss, mse, gradient = coarse.gradient(latents, features)
        is_marked = (features[0] == marked).flatten(1).all(1)
        return loss, mse, torch.where(is_marked.reshape(-1, 1, 1), torch.nan, gradient)

    broken = replace(refiner, stages=(replace(coarse, gradient=breaks), *refiner.stages[1:]))
    expected = {film.key: film for film in refiner.run(films)}
    for film in broken.run(films):
        if film.key == 2:
            assert (film.stop, film.steps) == ("diverged", 0)
            assert torch.equal(film.code, film.start)
            assert film.loss == film.loss_initial == expected[2].loss_initial
        else:
            assert torch.equal(film.code, expected[film.key].code)


def test_a_level_where_no_term_of_the_loss_works_is_left_out() -> None:
    codec = pggan()
    assert [level.resolution for level in levels_of(codec, replace(CFG, loss=(("mse", 1.0), ("moco", 0.1))))] == [16, 32]
    assert [level.resolution for level in levels_of(codec, replace(CFG, loss=(("moco", 1.0),)))] == [32]


def test_a_head_that_is_wrong_costs_no_quality() -> None:
    codec = pggan()
    films = films_of(codec, 5)
    fine = build_refiner(ready(codec), replace(CFG, coarse=False, steps=4, lr=CFG.lr * RATE_AFTER_COARSE))
    expected = {film.key: film for film in fine.run(films)}
    codec.coarse = {16: replace(codec.coarse[16], weight=-codec.coarse[16].weight, bias=-codec.coarse[16].bias)}
    for film in build_refiner(ready(codec), CFG).run(films):  # which has four fine steps as well
        assert film.loss <= film.loss_initial
        assert torch.equal(film.code, expected[film.key].code)
        assert film.steps == expected[film.key].steps


def test_eager_float32_of_a_plain_network_is_its_own_reference() -> None:
    codec = linear()
    refiner = build_refiner(ready(codec), CFG)
    assert refiner.parity == {"32": {"backend": "eager", "precision": "fp32", "skipped": "eager fp32 is what the others are compared with"}}
    assert gains(list(refiner.run(films_of(codec, 3)))).max() < 0.1


@pytest.mark.parametrize("make", [pggan, linear])
def test_half_precision_passes_the_gate_and_improves_codes(make: Callable[[], Codec]) -> None:
    codec = make()
    refiner = build_refiner(ready(codec, precision="bf16"), CFG)
    assert {figures["precision"] for figures in refiner.parity.values()} == {"bf16"}
    assert all(1e-4 < figures["gradient"]["eager"]["relative"] <= GRADIENT_LIMITS["bf16"] for figures in refiner.parity.values())
    refined = list(refiner.run(films_of(codec, 5)))
    assert gains(refined).max() < 0.8
    assert all(film.code.dtype == torch.float32 for film in refined)


def test_works_in_inference_mode_and_leaves_it_as_it_was() -> None:
    codec = linear()
    refiner = build_refiner(ready(codec), CFG)
    films = films_of(codec, 6)
    with torch.inference_mode():
        for film in refiner.run(films):
            assert torch.is_inference_mode_enabled()
            assert not film.code.is_inference()


def test_films_are_not_mixed_up_with_perceptual_terms_on_top() -> None:
    codec = pggan(size=64)
    codec.coarse = {16: codec.coarse[16]}
    cfg = replace(CFG, loss=(("mse", 1.0), ("lpips", 0.8)), perceptual_weights="random")
    refiner = build_refiner(ready(codec), cfg)
    assert [stage.level.resolution for stage in refiner.stages] == [16, 64]  # alex has nothing left at 16: mse alone
    films = films_of(codec, 6)
    together = {film.key: film for film in refiner.run(films)}
    assert gains(list(together.values())).max() < 0.9
    for film in refiner.run([films[4]]):
        assert torch.equal(film.code, together[4].code)


class Bends(nn.Module):
    """Films as they should be. But in half precision, where `gradient` changes what flows back to the codes."""

    def __init__(self, gradient: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.gradient = linear().generator.network, gradient

    def forward(self, latents: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu") and latents.requires_grad:
            bent = self.gradient(latents)
            latents = latents.detach() + bent - bent.detach()
        films: Tensor = self.inner(latents)
        return films


WRONG = {
    "turned": lambda latents: -latents,
    "half as long": lambda latents: 0.5 * latents,
    "of another film": lambda latents: latents.roll(1, 0),
    "of all films": lambda latents: latents.mean(0, keepdim=True).expand_as(latents),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_gradient_that_was_asked_for_is_refused_with_its_figures(wrong: str) -> None:
    prepared = ready(make_codec(Bends(WRONG[wrong])), precision="bf16")  # its films are right, so they pass
    with pytest.raises(BackendError, match=r"eager bf16 fails the parity gate.*gradient stage: eager \d\S* \(limit 0.2\)") as caught:
        build_refiner(prepared, CFG)
    assert "\n" not in str(caught.value)


def test_a_wrong_gradient_is_logged_and_the_next_choice_taken(caplog: pytest.LogCaptureFixture) -> None:
    codec = make_codec(Bends(WRONG["turned"]))
    prepared = replace(ready(codec, precision="bf16"), fallbacks=(("eager", "fp32"),))
    with caplog.at_level(logging.WARNING):
        refiner = build_refiner(prepared, CFG)
    assert "gradient stage: eager 2 (limit 0.2)" in caplog.text
    assert "taking eager fp32 for it instead" in caplog.text
    assert [(figures["backend"], figures["precision"]) for figures in refiner.parity.values()] == [("eager", "fp32")]
    assert gains(list(refiner.run(films_of(codec, 3)))).max() < 0.1


@pytest.mark.parametrize(("factor", "says"), [(1.01, "of the loss"), (float("nan"), "of the loss")])
def test_a_wrong_loss_is_refused_though_its_gradient_is_right(factor: float, says: str) -> None:
    prepared = ready(pggan())
    objective = build_objective(CFG.loss, resolution=SIZE)
    right = by_autograd(prepared.codec.generator, objective)

    def wrong(latents: Tensor, features: tuple[Tensor, ...]) -> Found:
        loss, mse, gradient = right(latents, features)
        return loss * factor, mse, gradient

    def judge(step: GradientStep) -> object:
        checked = without_gradients(step, prepared.device)
        criterion = criterion_of(prepared.codec, objective, None, weights={})
        return judge_gradient(prepared.codec, checked, criterion, backend="inductor", precision="fp32", batch_size=prepared.batch_size)

    assert judge(right)
    with pytest.raises(BackendError, match=rf"inductor fp32 fails the parity gate.*{says}.*\(limit 0.001\)"):
        judge(wrong)


class Sorts(nn.Module):
    """A network whose gradient has no forward form."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear().generator.network

    def forward(self, latents: Tensor) -> Tensor:
        film: Tensor = self.inner(latents)
        grid = torch.zeros(film.shape[0], SIZE, SIZE, 2)
        return film + nn.functional.grid_sample(film, grid, align_corners=False)


def test_a_gradient_that_cannot_be_traced_falls_back_or_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    asked = replace(ready(make_codec(Sorts())), backend="inductor")
    with pytest.raises(BackendError, match="backend inductor cannot trace the gradient: ") as caught:
        build_refiner(asked, CFG)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        refiner = build_refiner(replace(asked, fallbacks=(("eager", "fp32"),)), CFG)
    assert "taking eager fp32 for it instead" in caplog.text
    assert refiner.parity["32"]["backend"] == "eager"


def test_where_perceptual_weights_come_from() -> None:
    assert weight_source(CFG) == WeightSource()
    assert weight_source(replace(CFG, perceptual_weights="a folder")) == WeightSource(mode="files", folder="a folder")
    for mode in ("download", "random"):
        assert weight_source(replace(CFG, perceptual_weights=mode)) == WeightSource(mode=mode)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="alexnet"):
        build_refiner(ready(linear()), replace(CFG, loss=(("lpips", 1.0),), perceptual_weights="no such folder"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.parametrize(("precision", "coarse"), [("fp32", True), ("bf16", False)])
def test_inductor_refines_as_eager_does(precision: Literal["fp32", "bf16"], coarse: bool) -> None:
    codec, cfg = pggan(), replace(CFG, coarse=coarse)
    draw = torch.Generator().manual_seed(3)  # noise that no code makes: without it only rounding would be left to compare
    films = [replace(film, pixels=film.pixels + 0.1 * torch.randn(film.pixels.shape, generator=draw)) for film in films_of(codec, 6)]
    compiled = build_refiner(prepare(codec, backend="inductor", precision=precision, batch_size=4, device="cpu"), cfg)
    for figures in compiled.parity.values():
        assert (figures["backend"], figures["precision"]) == ("inductor", precision)
        assert figures["gradient"]["eager"]["relative"] <= GRADIENT_LIMITS[precision]
        assert figures["loss_relative"] <= LIMITS[precision]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found = {film.key: film for film in compiled.run(films)}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs  # one shape, whatever the number of films
    expected = {film.key: film for film in build_refiner(ready(codec), cfg).run(films)}
    for key, film in found.items():
        assert film.loss_initial == pytest.approx(expected[key].loss_initial, rel=LIMITS[precision])
        assert film.loss <= film.loss_initial
    ratio = gains([found[key] for key in sorted(found)]) / gains([expected[key] for key in sorted(found)])
    assert 0.5 < ratio.log().mean().exp() < 2  # a descent makes much of a rounding, but is no worse for it
