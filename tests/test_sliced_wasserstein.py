"""Sliced Wasserstein distance: Karras's procedure written again in NumPy, and what the figures do on films that differ in a known way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.sliced_wasserstein import SlicedWasserstein, doubled, halved, laplacian_pyramid, swd

Array = NDArray[np.float64]


def films(count: int, side: int, seed: int) -> Tensor:
    """Smooth blobs with some noise, each film another."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 8, 8, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic", align_corners=False)
    return (0.4 * smooth + 0.1 * torch.randn(count, 1, side, side, generator=draw)).clamp(-1, 1)


def wave(side: int, period: int) -> Tensor:
    """A wave [side, side] of this period along one axis."""
    return torch.cos(2 * torch.pi * torch.arange(side) / period).expand(side, side)


# --- Karras et al. 2018 again, a film and a patch at a time -------------------------------------------------------------------------------


def filtered(image: Array) -> Array:
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    padded = np.pad(image, 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    return np.einsum("yxij,ij->yx", windows, kernel)


def pyramid_of(image: Array, least: int = 16) -> list[Array]:
    levels = [image]
    while len(levels[-1]) // 2 >= least:
        small = filtered(levels[-1])[::2, ::2]
        sparse = np.zeros_like(levels[-1])
        sparse[::2, ::2] = small
        levels[-1] = levels[-1] - 4 * filtered(sparse)
        levels.append(small)
    return levels


def stream(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


def vectors_of(images: Tensor, seed: int, which: int, per_film: int) -> list[Array]:
    pyramids = [pyramid_of(image[0].double().numpy()) for image in images]
    result = []
    for level, side in enumerate(len(map_) for map_ in pyramids[0]):
        corners = torch.randint(side - 6, (len(images), per_film, 2), generator=stream(seed, which, level)).tolist()
        patches = [
            pyramid[level][y : y + 7, x : x + 7].ravel() for pyramid, places in zip(pyramids, corners, strict=True) for y, x in places
        ]
        stacked = np.stack(patches)
        result.append((stacked - stacked.mean()) / stacked.std())
    return result


def again(real: Tensor, fake: Tensor, seed: int, per_film: int) -> list[float]:
    values = []
    for level, (a, b) in enumerate(zip(vectors_of(real, seed, 0, per_film), vectors_of(fake, seed, 1, per_film), strict=True)):
        draw, repeats = stream(seed, 2, level), []
        for _ in range(4):
            directions = torch.randn(128, 49, generator=draw, dtype=torch.float64).numpy().T
            directions = directions / np.sqrt((directions**2).sum(0))
            repeats.append(np.mean(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0))))
        values.append(1000 * float(np.mean(repeats)))
    return values


# ------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [16, 32, 64])
def test_equals_the_procedure_written_again(side: int) -> None:
    real, fake = films(6, side, 1), films(6, side, 2) * 0.8
    got = swd(real, fake, seed=3, descriptors=16)
    expected = again(real, fake, 3, 16)
    sides = [level for level in (64, 32, 16) if level <= side]
    assert list(got) == [*(f"swd_{level}" for level in sides), "swd_mean"]
    assert list(got.values())[:-1] == pytest.approx(expected, rel=1e-4)
    assert got["swd_mean"] == pytest.approx(np.mean(expected), rel=1e-4)


def test_pyramid_steps_are_those_of_opencv() -> None:
    image = films(1, 32, 0)
    array = image[0, 0].numpy()
    small = cv2.pyrDown(array)
    np.testing.assert_allclose(halved(image)[0, 0].numpy(), small, atol=1e-6)
    np.testing.assert_allclose(doubled(torch.from_numpy(small)[None, None])[0, 0].numpy(), cv2.pyrUp(small), atol=1e-6)


def test_pyramid_adds_up_to_the_films() -> None:
    image = films(2, 64, 0)
    *details, rest = laplacian_pyramid(image, 3)
    for detail in reversed(details):
        rest = doubled(rest) + detail
    torch.testing.assert_close(rest, image)


def test_equal_sets_are_near_and_others_far() -> None:
    """The places differ between the sets, so the same films on both sides leave what chance makes of as many patches."""
    real = films(32, 32, 1)
    near, floor, far = swd(real, real), swd(real, films(32, 32, 2)), swd(real, torch.rand(32, 1, 32, 32, generator=stream(0)) * 2 - 1)
    for name in near:
        assert near[name] < 40
        assert near[name] < 1.2 * floor[name]
        assert far[name] > 3 * near[name]


def test_grows_with_what_is_wrong() -> None:
    """A wave that no real film has, stronger and stronger."""
    real, fake = films(32, 32, 1), films(32, 32, 2)
    figures = [swd(real, fake + strength * wave(32, 2)) for strength in (0, 0.05, 0.1, 0.2, 0.4)]
    for name in ("swd_32", "swd_mean"):
        values = [figure[name] for figure in figures]
        assert values == sorted(values)
        assert values[-1] > 5 * values[0]


@pytest.mark.parametrize(("period", "level"), [(2, "swd_64"), (64, "swd_16")])
def test_what_is_wrong_at_one_scale_shows_at_that_level_only(period: int, level: str) -> None:
    """The finest wave is all in the finest level; a slow one passes the filters down to the coarsest."""
    real, fake = films(24, 64, 1), films(24, 64, 2)
    before, after = swd(real, fake), swd(real, fake + wave(64, period))
    for name in ("swd_64", "swd_32", "swd_16"):
        if name == level:
            assert after[name] > 5 * before[name]
        else:
            assert after[name] == pytest.approx(before[name], abs=0.1 * after[level])


def test_is_decided_by_the_seed_and_not_by_portions() -> None:
    real, fake = films(10, 32, 1), films(10, 32, 2)
    state = torch.random.get_rng_state()
    whole = swd(real, fake, seed=5)
    assert torch.equal(state, torch.random.get_rng_state())
    assert whole == swd(real, fake, seed=5)
    assert whole != swd(real, fake, seed=6)
    parts = SlicedWasserstein(32, 5)
    for part in torch.split(real, 3):
        parts.add_real(part)
    for part in torch.split(fake, 4):
        parts.add_fake(part)
    assert parts.compute() == whole
    parts.clear_fake()
    with pytest.raises(ValueError, match="films of both sets, none were added: fake"):
        parts.compute()
    parts.add_fake(fake)
    assert parts.compute() == whole


def test_large_films_go_through_in_parts() -> None:
    """A film of 1024x1024 fills a part; with others it gives what it gives alone."""
    large = films(2, 1024, 1)
    figures = swd(large, large.flip(0), descriptors=4)
    assert list(figures) == [*(f"swd_{2**power}" for power in range(10, 3, -1)), "swd_mean"]
    assert all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize("copies", [2, 3])
def test_sets_of_different_size_are_compared_as_distributions(copies: int) -> None:
    """A film repeated is the same distribution; SciPy agrees on sets that share no divisor."""
    from scipy.stats import wasserstein_distance

    from engine.sliced_wasserstein import sliced_wasserstein

    draw = torch.Generator().manual_seed(0)
    a = torch.randn(7, 49, generator=draw, dtype=torch.float64)
    b = torch.randn(5 + copies, 49, generator=draw, dtype=torch.float64) + 1
    once = sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
    directions = torch.randn(128, 49, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    directions = directions / directions.norm(dim=1, keepdim=True)
    expected = np.mean([wasserstein_distance((a @ d).numpy(), (b @ d).numpy()) for d in directions])
    assert once == pytest.approx(expected, rel=1e-5)
    repeated = sliced_wasserstein(a.repeat(copies, 1), b, torch.Generator().manual_seed(1))
    assert repeated == pytest.approx(once, rel=1e-6)


def test_films_of_one_gray_have_a_distance_and_no_nan() -> None:
    flat = torch.full((4, 1, 32, 32), 0.3)
    assert swd(flat, flat) == {"swd_32": 0.0, "swd_16": 0.0, "swd_mean": 0.0}
    assert 300 < swd(films(4, 32, 1), flat)["swd_mean"] < 1500


def test_small_films_have_one_level() -> None:
    assert list(swd(films(4, 8, 1), films(4, 8, 2))) == ["swd_8", "swd_mean"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 4, 4), "films of 8 pixels or more: 4"),
        ((2, 1, 50, 50), None),
        ((2, 1, 66, 66), "which an odd side prevents: 66"),
        ((2, 3, 32, 32), r"takes films \[n, 1, 32, 32\]: \(2, 3, 32, 32\)"),
        ((2, 1, 16, 32), r"takes films \[n, 1, 32, 32\]: \(2, 1, 16, 32\)"),
        ((0, 1, 32, 32), "none were added: real"),
    ],
)
def test_films_that_cannot_be_compared(shape: tuple[int, ...], message: str | None) -> None:
    images = torch.rand(shape)
    if message is None:
        assert list(swd(images, images)) == ["swd_50", "swd_25", "swd_mean"]
        return
    with pytest.raises(ValueError, match=message):
        swd(images, images)


def test_values_that_are_no_numbers_are_refused() -> None:
    images = films(2, 32, 1)
    images[1, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="no numbers, among those from film 0 on"):
        swd(films(2, 32, 2), images)
    with pytest.raises(ValueError, match="a descriptor a film or more: 0"):
        SlicedWasserstein(32, descriptors=0)
