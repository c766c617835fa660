"""Refinement against the published loop: steps a second at full size technique by technique, then time to the same loss."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import FILMS_VARIABLE, Options, film_files, line_up, say, spaced
from benchmarks.plots import bars
from benchmarks.refinement import to_quality, waterfall
from benchmarks.refinement.random_codec import SEGAL
from benchmarks.refinement.refine_rows import quality_rows, step_rows
from benchmarks.report import Bar, Row
from engine.encode.codec import load_codec
from engine.errors import LatentrayError
from engine.recipe import PixelRecipe

QUESTION = "How much faster are our steps than those of the published loop, and how much sooner are films where it leaves them?"
TIMED = (
    "Timed: steps of one batch in turns, MSE alone; then whole refinements until each film is at the last loss of the published loop. "
    "Not timed, and in a column: tracing, compiling, the parity gate (ready s). Loss: mean over films, in float32."
)
NAME = "refine"
plot = bars
STEPS_BAR, TIME_BAR = Bar(bound=4.0, sense="at least"), Bar(bound=15.0, sense="at least")
BAR = f"steps {STEPS_BAR}, time {TIME_BAR}; on a GPU 5 and 25 (benchmarks.gpu)"
SEEDS, WARM_UP = {"weights": 0, "starts": 3, "films": 4, "phantoms": 13}, 1
BATCH = 4
PHANTOMS, REAL_FILMS, ONLY_PHANTOMS = 16, 8, 24
PUBLISHED_STEPS = 60
QUICK_CHANNELS = [32, 32, 16, 8]
NIGHTLY_LEVELS = 5  # 64x64


def rows(options: Options) -> Iterator[Row]:
    """Both questions, each in a process of its own."""
    yield from steps(options)
    yield from time_to_quality(options)


def steps(options: Options) -> Iterator[Row]:
    """Image-steps a second with Segal's generator."""
    settings: dict[str, Any] = {"channels": list(SEGAL), "batch": BATCH, "repeats": 12, "names": list(waterfall.ON_CPU), "device": "cpu"}
    smaller = {"channels": list(SEGAL[:NIGHTLY_LEVELS]), "repeats": 4}
    settings |= options.pick(quick={"channels": QUICK_CHANNELS, "batch": 2, "repeats": 2}, nightly=smaller, whole={})
    side = 4 * 2 ** (len(settings["channels"]) - 1)
    say(f"refine: {settings['repeats']} steps of {settings['batch']} films of {side}x{side}, technique by technique")
    try:
        found = run_alone("benchmarks.refinement.waterfall:measure", **settings)
    except StepFailed as error:
        yield Row(benchmark=NAME, step="image-steps", failed=str(error))
        return
    yield from step_rows(found, settings, bars={waterfall.ON_CPU[-1]: STEPS_BAR}, prefix=f"{side}x{side} ")


def time_to_quality(options: Options) -> Iterator[Row]:
    """Until each film is at the loss at which the published loop left it; needs a codec that has learnt something."""
    step = "time to the same loss"
    settings: dict[str, Any] = {"steps": PUBLISHED_STEPS, "batch": BATCH, "repeats": 2, "names": list(to_quality.ON_CPU), "device": "cpu"}
    if options.quick:
        settings |= {"steps": 12, "repeats": 2}
    try:
        channels = QUICK_CHANNELS if options.quick and not options.codec else None
        recipe = PixelRecipe(resolution=32) if channels else _trained(options)
        with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
            films, counts = _film_pixels(options, recipe, Path(scratch))
            say(f"refine: {settings['steps']} steps of the published loop on {counts}, then our engine")
            found = run_alone(
                "benchmarks.refinement.to_quality:measure", codec=options.codec or "", channels=channels, films=str(films), **settings
            )
    except _NoCodec as error:
        yield Row(benchmark=NAME, step=step, unavailable=str(error))
        return
    except LatentrayError as error:
        yield Row(benchmark=NAME, step=step, failed=str(error))
        return
    yield from quality_rows(found, settings | counts, bar=TIME_BAR)


class _NoCodec(LatentrayError):
    """There is nothing to refine with, which is no failure."""


def _trained(options: Options) -> PixelRecipe:
    """The recipe of the codec that was asked for, where it is a progressive GAN's."""
    if not options.codec:
        raise _NoCodec("needs a trained codec with a progressive GAN's generator: --codec DIR")
    codec = load_codec(options.codec)
    if not codec.has_frozen_generator:
        raise _NoCodec(f"needs a codec with a progressive GAN's generator, not: {codec.spec.generator.network}")
    return codec.recipe


def _film_pixels(options: Options, recipe: PixelRecipe, scratch: Path) -> tuple[Path, dict[str, int]]:
    """A file of pixels [n, R, R]: phantoms, and real films where there are some; and how many of each."""
    real = [] if options.quick or not (options.films or os.environ.get(FILMS_VARIABLE)) else film_files(options)
    real = spaced(real, REAL_FILMS)
    count = 4 if options.quick else PHANTOMS if real else ONLY_PHANTOMS
    phantoms = film_files(replace(options, films=f"phantom:{count}?seed=13&size={max(recipe.resolution, 256)}", quick=False))
    pixels = _decode([*phantoms, *real], recipe, scratch)
    np.save(scratch / "films.npy", pixels)
    return scratch / "films.npy", {"phantoms": len(phantoms), "real_films": len(real)}


def _decode(files: Sequence[Path], recipe: PixelRecipe, scratch: Path) -> np.ndarray[Any, Any]:
    from functools import partial

    from engine.config import DecodeConfig
    from engine.decode.choose import build_decoder
    from engine.source.opening import read_bytes
    from engine.source.plan import make_plan

    plan = make_plan(str(line_up(files, scratch / "films", count=len(files))), scratch / "plan.parquet", shard_rows=1024)
    cfg = DecodeConfig(decoder="cpu")
    decoder = build_decoder(recipe, cfg, read=partial(read_bytes, max_bytes=cfg.max_bytes), batch_size=8, film_size=None)
    try:
        batches = list(decoder.batches([ref for shard in plan.shards() for ref in shard.refs]))
    finally:
        decoder.close()
    failures = [failure for batch in batches for failure in batch.failures]
    if failures:
        raise StepFailed(f"a film was not decoded: {failures[0].reason}")
    return np.concatenate([batch.pixels.numpy()[:, 0] for batch in batches])
