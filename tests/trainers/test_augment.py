"""Variations of films: what each setting does, that nothing does nothing, and that a film is varied by its number alone."""

import pytest
import torch

from engine.errors import ConfigError
from trainers.augment import augment
from trainers.presets.films import AugmentConfig, augment_preset

ALL = AugmentConfig(flip=0.5, rotation=10, scale=0.1, shift=0.1, gamma=0.3, gain=0.2, offset=0.1)


def films(n, r=16):
    """Smooth films with room at their edges."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, r), torch.linspace(-1, 1, r), indexing="ij")
    centres = torch.linspace(-0.3, 0.3, n).view(n, 1, 1)
    return (2 * torch.exp(-((x - centres) ** 2 * 4 + (y - centres / 2) ** 2 * 9)) - 1)[:, None]


def centre(film):
    """Centre of mass (x, y) in [-1, 1] of one film."""
    mass = (film[0] + 1) / 2
    places = torch.linspace(-1, 1, film.shape[-1])
    return torch.stack([(mass.sum(0) * places).sum(), (mass.sum(1) * places).sum()]) / mass.sum()


def test_nothing_to_vary_returns_the_films_themselves():
    x = films(3)
    assert augment(x, 0, range(3), AugmentConfig()) is x
    assert augment_preset("none").is_identity
    assert not augment_preset("light").is_identity


@pytest.mark.parametrize("r", [4, 8, 16, 64])
def test_a_film_is_varied_by_its_number_alone(r):
    x = films(8, r)
    whole = augment(x, 5, range(100, 108), ALL)
    assert whole.shape == x.shape
    assert whole.is_contiguous(memory_format=torch.channels_last)
    for start, stop in [(0, 3), (3, 8), (6, 7)]:
        assert torch.equal(augment(x[start:stop], 5, range(100 + start, 100 + stop), ALL), whole[start:stop])
    assert not torch.equal(augment(x, 6, range(100, 108), ALL), whole)
    assert not torch.equal(augment(x, 5, range(108, 116), ALL), whole)


def test_films_stay_in_range_and_the_input_as_it_was():
    x = films(64)
    before = x.clone()
    for name in ("flip", "rotation", "scale", "shift", "gamma", "gain", "offset"):
        varied = augment(x, 0, range(64), AugmentConfig(**{name: 0.5}))
        assert varied.isfinite().all()
        assert varied.min() >= -1
        assert varied.max() <= 1
        assert not torch.equal(varied, x), name
    assert torch.equal(x, before)


def test_flip_is_a_mirror_image_as_often_as_asked():
    x = films(400)
    varied = augment(x, 0, range(400), AugmentConfig(flip=0.3))
    mirrored = [torch.equal(got, film.flip(-1)) for got, film in zip(varied, x, strict=True)]
    kept = [torch.equal(got, film) for got, film in zip(varied, x, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 90 < sum(mirrored) < 150
    assert torch.equal(augment(x, 0, range(400), AugmentConfig(flip=1)), x.flip(-1))


def test_shift_moves_as_far_as_allowed():
    x = films(1, 32).expand(100, -1, -1, -1)
    moved = torch.stack([centre(film) for film in augment(x, 0, range(100), AugmentConfig(shift=0.1))]) - centre(x[0])
    assert moved.abs().max() < 0.21  # a tenth of the side is 0.2 of [-1, 1]
    assert (moved.max(0).values > 0.12).all()
    assert (moved.min(0).values < -0.12).all()


def test_rotation_turns_about_the_middle():
    r = 33
    y, x = torch.meshgrid(torch.linspace(-1, 1, r), torch.linspace(-1, 1, r), indexing="ij")
    spot = (2 * torch.exp(-((x - 0.5) ** 2 + y**2) * 40) - 1).expand(100, 1, r, r)
    places = torch.stack([centre(film) for film in augment(spot, 0, range(100), AugmentConfig(rotation=30))])
    torch.testing.assert_close(places.norm(dim=1), centre(spot[0]).norm().expand(100), atol=0.01, rtol=0)
    angles = torch.rad2deg(torch.atan2(places[:, 1], places[:, 0]))
    assert 24 < angles.max() < 31
    assert -31 < angles.min() < -24


def test_scale_enlarges_and_reduces():
    x = films(1, 64).expand(100, -1, -1, -1)
    mass = ((augment(x, 0, range(100), AugmentConfig(scale=0.2)) + 1) / 2).sum((1, 2, 3)) / ((x[0] + 1) / 2).sum()
    assert 1.3 < mass.max() < 1.45  # 1.2 squared is 1.44
    assert 0.69 < mass.min() < 0.76


def test_gray_is_varied_as_written():
    x = torch.full((200, 1, 4, 4), 0.0)  # gray 0.5
    gray = {name: (augment(x, 0, range(200), AugmentConfig(**{name: 0.2}))[:, 0, 0, 0] + 1) / 2 for name in ("gamma", "gain", "offset")}
    for name, (least, most) in {"gamma": (0.5**1.2, 0.5 ** (1 / 1.2)), "gain": (0.4, 0.6), "offset": (0.3, 0.7)}.items():
        assert least - 1e-6 <= gray[name].min() < least + 0.02, name
        assert most - 0.02 < gray[name].max() <= most + 1e-6, name


def test_what_comes_into_view_repeats_the_edge():
    x = torch.full((20, 1, 8, 8), 0.25)
    torch.testing.assert_close(augment(x, 0, range(20), AugmentConfig(rotation=90, scale=0.5, shift=0.4)), x, atol=1e-6, rtol=0)


def test_no_films():
    assert augment(films(4)[:0], 0, range(0), ALL).shape == (0, 1, 16, 16)
    with pytest.raises(ValueError, match="4 and 3"):
        augment(films(4), 0, range(3), ALL)


@pytest.mark.parametrize(("name", "value"), [("flip", 1.1), ("rotation", -1), ("scale", float("nan")), ("shift", 0.6), ("gain", 2)])
def test_settings_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"augment.{name} must be 0 to"):
        AugmentConfig(**{name: value})
    with pytest.raises(ConfigError, match="none, light, flip, mirror, segal2021: strong"):
        augment_preset("strong")
