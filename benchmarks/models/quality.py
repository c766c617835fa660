"""What a codec's codes are worth on films that it never saw: as the encoder makes them, after refinement, and beside the floors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.commands import StepFailed, run_latentray
from benchmarks.inputs import Options, codec_directory, film_files, line_up, say, spaced
from benchmarks.report import Bar, Row
from engine.archive.reader import open_archive
from engine.encode.codec import load_codec
from engine.quality import ENCODER, GRAY, STORED, THUMBNAIL, FilmQuality, measure

QUESTION = "How good are a codec's codes on these films, from the encoder alone and refined, beside thumbnails and one gray?"
TIMED = (
    "Values: PSNR of each film at 1024x1024, gray in [0, 1]. Improved, worse: shares of films whose mean squared error refinement lowered, "
    "raised. films/s: the whole command with start, compiling and full metrics. A thumbnail is 8-bit gray, of as many bytes as the code."
)
NAME = "quality"
STEPS, NIGHTLY_STEPS, QUICK_STEPS = 100, 20, 4
NIGHTLY_FILMS = 24
SMALL_FILM = 1024  # bytes: 32x32
IMPROVED_BAR = Bar(bound=0.95, sense="at least")
WORSE_BAR = Bar(bound=0, sense="at most")
BAR = f"films that refinement improves {IMPROVED_BAR}, films that it makes worse {WORSE_BAR}"


def rows(options: Options) -> Iterator[Row]:
    """A row a method, all on the same films, the codec's from one archive."""
    files, codec = film_files(options), codec_directory(options)
    files = options.pick(quick=files, nightly=spaced(files, NIGHTLY_FILMS), whole=files)
    steps = options.pick(quick=QUICK_STEPS, nightly=NIGHTLY_STEPS, whole=STEPS)
    say(f"quality: {len(files)} films, {steps} steps each")
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        manifest, archive = line_up(files, Path(folder) / "films", count=len(files)), Path(folder) / "films.zarr"
        words = ("encode", str(manifest), "--archive", str(archive), "--codec", codec, "--refine-steps", str(steps))
        try:
            seconds = run_latentray(*words).seconds
        except StepFailed as error:
            yield Row(benchmark=NAME, step=STORED, failed=str(error))
            return
        named = load_codec(codec)
        settings = {"codec": named.name, "digest": named.digest, "steps": steps, "films": len(files)}
        by_method: dict[str, list[FilmQuality]] = {}
        for film in measure(archive, str(manifest), thumbnails=(SMALL_FILM,)):
            by_method.setdefault(film.method, []).append(film)
        yield from _refined(by_method.pop(STORED), archive, f"{named.name}, {steps} steps", settings | {"seconds": seconds})
        names = {ENCODER: f"{named.name}, encoder alone", GRAY: GRAY, THUMBNAIL: f"{THUMBNAIL} of as many bytes"}
        for method, films in by_method.items():
            yield _row(films, names.get(method, f"{method} bytes"), settings)


def _refined(films: list[FilmQuality], archive: Path, step: str, settings: dict[str, Any]) -> Iterator[Row]:
    """What is stored, with the share of films that are better for it; then that of films which are worse, of which there must be none."""
    stored = open_archive(archive)
    before, after = stored.mse_initial.values[stored.status.values == 1], stored.mse.values[stored.status.values == 1]
    figures = {"films/s": len(films) / settings["seconds"]}
    yield _row(films, step, settings, ratio=float((after < before).mean()), ratio_to="films improved", bar=IMPROVED_BAR, figures=figures)
    worse = float((after > before).mean())
    yield Row(
        benchmark=NAME, step="films made worse by these", unit="share", values=(worse,), value_of="whole", settings=settings, bar=WORSE_BAR
    )


def _row(films: list[FilmQuality], step: str, settings: dict[str, Any], **more: Any) -> Row:
    psnr = tuple(film.psnr for film in films)
    means = {"mean PSNR dB": fmean(psnr), "SSIM": fmean(film.ssim for film in films), "MS-SSIM": fmean(film.ms_ssim for film in films)}
    return Row(benchmark=NAME, step=step, unit="dB", values=psnr, value_of="film", quality=means, settings=settings, **more)
