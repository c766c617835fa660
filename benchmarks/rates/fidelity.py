"""The layer of a film beside plain codecs of equal quality: bytes, what comes back, films a second, and whether residuals pay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from benchmarks.inputs import DEMO, QUICK_PHANTOMS, Options, film_files, say, spaced
from benchmarks.rates.fidelity_methods import (
    FILM,
    PLAIN,
    RESIDUAL,
    Method,
    Missing,
    Prediction,
    in_threads,
    layer_methods,
    plain_methods,
    reaches,
)
from benchmarks.rates.fidelity_words import told
from benchmarks.rates.picture_codecs import Gray
from benchmarks.rates.rated_films import FilmSet, code_films
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, take_turns
from engine import metrics
from engine.code_step import as_stored, default_step
from engine.config import DecodeConfig
from engine.decode.stored import SampleReader
from engine.encode.codec import Codec, load_codec
from engine.errors import ConfigError, DecodeError, LayerError
from engine.fidelity.choose import Effort
from engine.fidelity.target import Target, parse_target
from engine.film_layer import FILMS_TO_CHOOSE
from engine.prediction import film_of_code, predict
from engine.records import FilmSamples

__all__ = ["BAR", "QUESTION", "TIMED", "WARM_UP", "rows", "told"]

QUESTION = "What does a film cost that comes back exactly or to a stated error: as a layer, and as the smallest file of a plain codec?"
TIMED = (
    "Timed: batches on all cores, a film a thread, methods in turns; layers decode what they wrote and prove it, and find their quality;\n"
    "plain codecs take one pass at the median of the settings that a search found. Not timed: reading files, and a residual's network.\n"
    "Values: bytes of each film; of a plain codec its smallest file that reaches the target on that film. The code is not counted.\n"
    "ratio: of mean bytes; of speed where films/s is the unit."
)
BAR = "lossless: at most 1.02x the best plain codec; psnr=40: at most 64 bytes a film above it, at least 0.7 of its plain codec's speed"
WARM_UP = 1
NAME = "fidelity"
JUDGED = "psnr=40"
EXACT_BAR, BYTES_BAR, SPEED_BAR = Bar(bound=1.02, sense="at most"), Bar(bound=64, sense="at most"), Bar(bound=0.7, sense="at least")
TIMED_FILMS = 8
_PLAIN_OF = {"j2k": "JPEG 2000", "avif": "AVIF", "jxl": "JPEG XL"}  # as the names of plain codecs begin
_ENCODE, _DECODE = "encode ", "decode "


def rows(options: Options) -> Iterator[Row]:
    """Of each target in turn: a row a plain codec, the layer of the film, that of the residual, and what has to be reached."""
    asked = replace(options, films=options.films or QUICK_PHANTOMS) if options.quick else options
    files = spaced(film_files(asked), options.pick(quick=2, nightly=4, whole=16))
    films = _films(files)
    codec = load_codec(options.codec or DEMO)
    say(f"{NAME}: what codes make of {len(films)} films")
    predictions = _predictions(codec, files, films)
    first, turns = options.pick(quick=1, nightly=2, whole=FILMS_TO_CHOOSE), 1 if options.quick else 5
    few, all_of_them = ("lossless", JUDGED), ("lossless", "max-error=2", "psnr=30", "psnr=35", JUDGED)
    for text in options.pick(quick=few, nightly=few, whole=all_of_them):
        say(f"{NAME}: {text}")
        effort: Effort = "quick" if text == "lossless" and options.size != "whole" else "usual"
        repeats = turns if text == JUDGED else min(turns, 2)
        for row in compare(films, predictions, parse_target(text), first=first, effort=effort, repeats=repeats):
            yield replace(row, settings=row.settings | {"films": len(films), "effort": effort, "codec": codec.name, "digest": codec.digest})


def compare(
    films: Sequence[FilmSamples], predictions: Sequence[Prediction], target: Target, *, first: int, effort: Effort, repeats: int
) -> Iterator[Row]:
    """The rows of one target on films u1 [H, W]; layers are as they are best for the `first` films, speed is that of TIMED_FILMS.

    `predictions` [H, W]: gray in [0, 1], what the code of each film makes of it. What does not reach the target has no speed.
    """
    tried = [*plain_methods(films, target, effort), *layer_methods(films, predictions, target, first=first, effort=effort)]
    backs = {each.name: gate(each, films, target) for each in tried if isinstance(each, Method)}
    methods = {each.name: each for each in tried if isinstance(each, Method) and not isinstance(backs[each.name], str)}
    timed = min(TIMED_FILMS, len(films))
    rates = _rates(methods.values(), timed, repeats)
    best = min((each for each in methods.values() if each.kind == PLAIN), key=lambda each: each.mean_bytes, default=None)
    for each in tried:
        row = partial(Row, benchmark=NAME, step=f"{target}: {each.name}")
        settings = {"target": str(target), "kind": each.kind, "method": each.name}
        back = backs.get(each.name, "")
        if isinstance(each, Missing):
            yield row(settings=settings, failed=each.failed, unavailable=each.unavailable)
        elif isinstance(back, str):
            yield row(settings=settings | each.told_of, failed=back)
        else:
            other = methods.get(FILM) if each.kind == RESIDUAL else best
            yield row(
                unit="B",
                values=tuple(map(float, map(len, each.files))),
                value_of="film",
                ratio=each.mean_bytes / other.mean_bytes if other else None,
                ratio_to=other.name if other else "",
                bar=EXACT_BAR if each.kind == FILM and target.kind == "lossless" else None,
                quality=_quality(films, back),
                figures={"mean bytes": each.mean_bytes, **{f"{way}films/s": median(rates[way + each.name]) for way in (_ENCODE, _DECODE)}},
                settings=settings | each.told_of,
            )
    if best is not None and FILM in methods and str(target) == JUDGED:
        own = next((each for each in methods.values() if each.name.startswith(_PLAIN_OF[methods[FILM].told_of["way"]["codec"]])), None)
        yield from _must_reach(methods[FILM], best, own, _rates([own, methods[FILM]], timed, repeats) if own else {})


def gate(method: Method, films: Sequence[FilmSamples], target: Target) -> list[Gray] | str:
    """What comes back of every film [H, W]; where one misses the target or is damaged, the reason instead."""
    try:
        backs = in_threads(method.decode, range(len(films)))
    except LayerError as error:
        return str(error)
    wrong = sum(not reaches(target, film, back) for film, back in zip(films, backs, strict=True))
    return f"{wrong} of {len(films)} films do not come back to {target}" if wrong else backs


def _films(files: Sequence[Path]) -> list[FilmSamples]:
    """The stored samples of each file. Raises ConfigError for one that cannot be read, or has more than 8 bits."""
    films = []
    with SampleReader(DecodeConfig()) as reader:
        for file in files:
            try:
                films.append(reader.read(file.read_bytes()))
            except DecodeError as error:
                raise ConfigError(f"rows must be of the same films, so each must be readable: {file.name}") from error
            if films[-1].samples.dtype != np.uint8:
                raise ConfigError(f"plain codecs are compared on films of 8 bits, this has {films[-1].bits}: {file.name}")
    return films


def _predictions(codec: Codec, files: Sequence[Path], films: Sequence[FilmSamples]) -> list[Prediction]:
    """What the code of each film makes of it, at the film's own size; codes as an archive stores them."""
    size = codec.recipe.resolution
    found = code_films(codec, FilmSet(name=NAME, files=files, measured=len(files), size=size, marks={}, no_marks="none are asked for"))
    codes = as_stored(torch.from_numpy(found.codes), np.dtype(np.float32), default_step(codec, refined=False))
    made = film_of_code(codec, torch.from_numpy(codes))
    return [predict(one, film.samples.shape, codec.recipe.square) for one, film in zip(made, films, strict=True)]


def _rates(methods: Iterable[Method], num_films: int, repeats: int) -> dict[str, list[float]]:
    """Films/s of the first films, there and back, by way and name of the method."""

    def batch(work: Callable[[int], object]) -> Callable[[int], int]:
        return lambda _: len(in_threads(work, range(num_films)))

    steps = {f"{_ENCODE}{each.name}": batch(each.encode) for each in methods}
    steps |= {f"{_DECODE}{each.name}": batch(each.decode) for each in methods}
    return take_turns(steps, repeats=repeats)


def _quality(films: Sequence[FilmSamples], backs: Sequence[Gray]) -> dict[str, float]:
    """Means over films; MS-SSIM where all are large enough for it."""
    found: dict[str, list[float]] = {"mean PSNR dB": [], "MS-SSIM": []}
    for film, back in zip(films, backs, strict=True):
        wanted, got = (torch.from_numpy(each)[None, None].float() / (2**film.bits - 1) for each in (film.samples, back))
        found["mean PSNR dB"] += metrics.psnr(wanted, got).tolist()
        if min(film.samples.shape) >= metrics.MS_SSIM_LEAST_SIZE:
            found["MS-SSIM"] += metrics.ms_ssim(wanted, got).tolist()
    return {name: fmean(values) for name, values in found.items() if len(values) == len(films)}


def _must_reach(layer: Method, best: Method, own: Method | None, rates: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """Bytes above the best plain codec, and speed beside one pass of the plain codec that the layer is written with, turn by turn."""
    settings = {"target": JUDGED, "kind": "bar", "best": best.name, **layer.told_of}
    beyond = layer.mean_bytes - best.mean_bytes
    step = f"{JUDGED}: bytes above the best plain codec"
    yield Row(benchmark=NAME, step=step, unit="B", values=(beyond,), value_of="whole", bar=BYTES_BAR, settings=settings)
    if own is not None:
        values = rates[_ENCODE + layer.name]
        yield Row(
            benchmark=NAME,
            step=f"{JUDGED}: encode, {FILM}",
            unit="films/s",
            values=tuple(values),
            ratio=paired_ratio(values, rates[_ENCODE + own.name]),
            ratio_to=f"one pass of {own.name}",
            bar=SPEED_BAR,
            figures={"mean bytes": layer.mean_bytes},
            settings=settings,
        )
