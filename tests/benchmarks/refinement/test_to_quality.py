"""Films that stop at losses of their own, and the time that is taken of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.refinement.random_codec import random_codec, random_codes
from benchmarks.refinement.to_quality import PUBLISHED, REACHED, OwnTargets, measure
from engine.config import RefineConfig
from engine.refine.descent import Film, Stage, refine
from engine.refine.gradient_step import by_autograd
from engine.refine.objective import Objective
from engine.refine.schedule import Level

CODEC = random_codec((16, 8, 8))


def test_each_film_stops_at_its_own_target_whoever_is_beside_it() -> None:
    objective, codes = Objective((("mse", 1.0),)), random_codes(CODEC, 5, seed=0)
    with torch.no_grad():
        pixels = CODEC.generate(random_codes(CODEC, 5, seed=1))
        begins = objective(CODEC.generate(codes), objective.features(pixels))[0]
    shares = torch.tensor([0.9, 0.3, 0.8, 0.5, 2.0])
    stage = Stage(level=Level(resolution=16, steps=200), features=objective.features, gradient=by_autograd(CODEC.generator, objective))
    own = OwnTargets(stage, dict(enumerate((begins * shares).tolist())))
    films = [Film(key=at, pixels=pixels[at], start=codes[at], code=codes[at]) for at in range(5)]
    found = {film.key: film for film in refine(own.watch(films), [own.stage()], CODEC.project, RefineConfig(target_mse=1.0), slots=2)}
    assert {film.stop for film in found.values()} == {"target"}
    assert all(found[at].loss <= float(begins[at] * shares[at]) for at in range(5))
    assert found[4].steps == 0
    assert found[1].steps > found[0].steps > 0


def test_time_is_taken_until_each_film_is_where_the_published_loop_left_it(tmp_path: Path) -> None:
    channels = [16, 16, 8, 8]
    codec = random_codec(tuple(channels))
    with torch.no_grad():
        np.save(tmp_path / "films.npy", codec.generate(random_codes(codec, 4, seed=3))[:, 0].numpy())
    names = ["own stops, eager fp32", "+ coarse", "or CUDA graphs"]
    found = measure(codec="", channels=channels, films=str(tmp_path / "films.npy"), steps=12, batch=2, repeats=1, names=names, device="cpu")
    assert set(found["rates"]) == {PUBLISHED, *names[:2]}
    assert "needs a CUDA device" in found["unavailable"]["or CUDA graphs"]
    for name in names[:2]:
        assert all(ours <= REACHED * theirs for ours, theirs in zip(found["loss"][name], found["loss"][PUBLISHED], strict=True))
        assert len(found["steps"][name]) == 4
