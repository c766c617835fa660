"""How fast files become pixels: each decoder alone, by the size of the pixels asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, film_files, line_up, say
from benchmarks.machine import cores
from benchmarks.plots import bars
from benchmarks.report import Row
from benchmarks.timing import paired_ratio, take_turns
from engine.config import DecodeConfig
from engine.decode.choose import Decoder, build_decoder
from engine.errors import LatentrayError
from engine.recipe import PixelRecipe
from engine.records import ImageRef
from engine.source.opening import read_bytes
from engine.source.plan import make_plan

QUESTION = "How many films a second does each decoder turn into pixels, and how far are its pixels from the reference's?"
TIMED = "Timed: from opening the first file to the last batch of float pixels. Not timed: building a decoder, and a first turn of each."
NAME = "decode"
plot = bars
SEEDS: dict[str, int] = {}  # films are files, and nothing is drawn
WARM_UP = 1
REFERENCE = "cpu"
DECODERS = ("cpu", "dali")
SIZES = (256, 1024)
BATCH_SIZE = 16


def rows(options: Options) -> Iterator[Row]:
    """Every decoder at every size, each size in a process of its own."""
    repeats = options.pick(quick=2, nightly=4, whole=20)
    files = film_files(options)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        films = line_up(files, Path(scratch) / "films", count=len(files))
        for size in SIZES:
            say(f"decode: {repeats} turns at {size}x{size}")
            try:
                found = run_alone("benchmarks.job.decode:measure", source=str(films), size=size, repeats=repeats)
            except StepFailed as error:
                yield Row(benchmark=NAME, step=f"{size}x{size}", failed=str(error))
                continue
            yield from (_row(found, name, size, len(files)) for name in DECODERS)


def _row(found: dict[str, Any], name: str, size: int, films: int) -> Row:
    step = f"{name} {size}x{size}"
    if name in found["failed"]:
        return Row(benchmark=NAME, step=step, failed=found["failed"][name])
    return Row(
        benchmark=NAME,
        step=step,
        unit="films/s",
        values=tuple(found["rates"][name]),
        ratio=paired_ratio(found["rates"][name], found["rates"][REFERENCE]),
        ratio_to=REFERENCE,
        quality={"max difference": found["difference"][name]},
        settings={"threads": found["threads"], "films": films, "tolerance": found["tolerance"]},
    )


def measure(*, source: str, size: int, repeats: int) -> dict[str, Any]:
    """Films a second by decoder, in turns over the same files, and the largest difference of a pixel from what is expected, in [0, 1].

    A decoder that cannot be built, loses a film or differs by more than the recipe allows is not timed, and named with its reason.
    """
    recipe = PixelRecipe(resolution=size)
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        plan = make_plan(source, Path(scratch) / "plan.parquet", shard_rows=1024)
        refs = [ref for shard in plan.shards() for ref in shard.refs]
    decoders, difference, failed = {}, {}, {}
    for name in DECODERS:
        try:
            decoder = _build(name, recipe)
            difference[name] = _largest_difference(decoder, refs, recipe)
            decoders[name] = decoder
        except LatentrayError as error:
            failed[name] = str(error)
    steps: dict[str, Callable[[int], int]] = {name: partial(_decode_all, decoder, refs) for name, decoder in decoders.items()}
    rates = take_turns(steps, repeats=repeats)
    for decoder in decoders.values():
        decoder.close()
    return {"rates": rates, "difference": difference, "failed": failed, "threads": cores(), "tolerance": recipe.tolerance}


def _build(name: str, recipe: PixelRecipe) -> Decoder:
    cfg = DecodeConfig(decoder=name, threads=cores())  # type: ignore[arg-type]
    read = partial(read_bytes, max_bytes=cfg.max_bytes)
    return build_decoder(recipe, cfg, read=read, batch_size=BATCH_SIZE, film_size=None)


def _largest_difference(decoder: Decoder, refs: list[ImageRef], recipe: PixelRecipe) -> float:
    """From `expected_pixels` where those are known, from the other films' pixels as the thread pool decodes them elsewhere."""
    reference = _build(REFERENCE, recipe)
    largest = 0.0
    for ours, theirs in zip(decoder.batches(refs), reference.batches(refs), strict=True):
        if ours.failures:
            raise StepFailed(f"a film was not decoded: {ours.failures[0].reason}")
        for ref, pixels, others in zip(ours.refs, ours.pixels.cpu().numpy(), theirs.pixels.numpy(), strict=True):
            expected = expected_pixels(Path(ref.uri), recipe.resolution)
            largest = max(largest, float(np.abs(pixels[0] - (others[0] if expected is None else expected)).max()) / 2)
    reference.close()
    if largest > recipe.tolerance:
        raise StepFailed(f"pixels differ from the reference by more than the recipe allows, {recipe.tolerance:.4f}: {largest:.4f}")
    return largest


def expected_pixels(path: Path, size: int) -> np.ndarray[Any, Any] | None:
    """What the recipe makes of an 8-bit gray square film whose side is a multiple of `size`: plain averages of Pillow's samples.

    [size, size] float64 in [-1, 1]; None for any other film. Shares nothing with our decoders.
    """
    with Image.open(path) as film:
        side = film.width
        if film.mode != "L" or film.height != side or side % size or len(film.getexif()):
            return None
        samples = np.asarray(film, dtype=np.float64)
    block = side // size
    averages: np.ndarray[Any, Any] = samples.reshape(size, block, size, block).mean((1, 3))
    return averages / 255 * 2 - 1


def _decode_all(decoder: Decoder, refs: list[ImageRef], turn: int) -> int:
    return sum(len(batch.refs) for batch in decoder.batches(refs))
