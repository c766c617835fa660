"""The ways to keep films that `bench fidelity` sets side by side: each with its files, and one pass of a film there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median_low
from typing import Any, TypeVar

import numpy as np

from benchmarks.machine import cores
from benchmarks.rates.picture_codecs import Gray, PictureCodec
from benchmarks.rates.plain_codecs import plain_codecs, smallest
from engine.errors import LayerError
from engine.fidelity.choose import Effort, choose_way
from engine.fidelity.decode import decode_layer
from engine.fidelity.encode import encode_film
from engine.fidelity.target import Target
from engine.fidelity.way import Way
from engine.records import FilmSamples

PLAIN, FILM, RESIDUAL = "plain codec", "layer of the film", "layer of the residual"
NO_RESIDUAL = "what must be exact may not hang on how another machine rounds a generator"
Prediction = np.ndarray[Any, Any] | None  # gray [H, W] in [0, 1]: what the code of a film makes of it
Thing = TypeVar("Thing")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """Films by one method. `encode(at)` and `decode(at)`: one pass of the film at that place; `told_of`: its settings, in JSON."""

    name: str
    kind: str
    files: list[bytes]
    encode: Callable[[int], bytes]
    decode: Callable[[int], Gray]
    told_of: dict[str, Any]

    @property
    def mean_bytes(self) -> float:
        """Bytes a film."""
        return fmean(map(len, self.files))


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A method that cannot be measured: `failed` or `unavailable` says why, as in a row."""

    name: str
    kind: str
    failed: str = ""
    unavailable: str = ""


def reaches(target: Target, film: FilmSamples, back: Gray) -> bool:
    """Whether samples [H, W] that came back keep what is promised of a film; counted here, apart from a layer's own proof."""
    if back.shape != film.samples.shape or back.dtype != film.samples.dtype:
        return False
    error = np.abs(back.astype(np.int64) - film.samples)
    if target.kind == "psnr":
        return bool(np.square(error).sum() <= error.size * (2**film.bits - 1) ** 2 / 10 ** (target.value / 10))
    return int(error.max()) <= (target.value if target.kind == "max-error" else 0)


def in_threads(work: Callable[[Thing], Made], things: Iterable[Thing]) -> list[Made]:
    """What is made of each thing, on all cores; codecs let go of Python's lock."""
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(work, things))


def plain_methods(films: Sequence[FilmSamples], target: Target, effort: Effort) -> Iterator[Method | Missing]:
    """Each plain codec, with the smallest file of each film that reaches the target; one pass is at the median of their settings."""
    for name, codec in plain_codecs(target, effort=effort).items():
        if isinstance(codec, str):
            yield Missing(name=name, kind=PLAIN, unavailable=codec)
            continue
        found = in_threads(partial(_smallest, codec, target), films)
        fitted = [each for each in found if each is not None]
        if len(fitted) < len(films):
            yield Missing(name=name, kind=PLAIN, unavailable=f"no setting reaches it on {len(films) - len(fitted)} of {len(films)} films")
            continue
        files, usual = [file for file, _ in fitted], median_low([setting for _, setting in fitted])
        write, read = partial(_write, codec, films, usual), partial(_read, codec, files)
        yield Method(name=name, kind=PLAIN, files=files, encode=write, decode=read, told_of={"setting": usual})


def layer_methods(
    films: Sequence[FilmSamples], predictions: Sequence[Prediction], target: Target, *, first: int, effort: Effort
) -> Iterator[Method | Missing]:
    """The layer of the film, and of what its code misses, each in the way that is best for the `first` films, as an archive chooses it."""
    try:
        tried = choose_way(films[:first], predictions[:first], target, effort=effort).figures
    except LayerError as error:
        yield Missing(name=FILM, kind=FILM, failed=str(error))
        return
    for kind, is_residual in ((FILM, False), (RESIDUAL, True)):
        way = next((_way(figures) for figures in tried if figures["residual"] is is_residual), None)
        if way is None:
            yield Missing(name=kind, kind=kind, unavailable=NO_RESIDUAL)
            continue
        given = predictions if is_residual else [None] * len(films)
        encode = partial(_encode, films, given, target, way)
        try:
            files = in_threads(encode, range(len(films)))
        except LayerError as error:
            yield Missing(name=kind, kind=kind, failed=str(error))
            continue
        decode = partial(_decode, files, given)
        yield Method(name=kind, kind=kind, files=files, encode=encode, decode=decode, told_of={"way": way.to_json()})


def _way(figures: dict[str, Any]) -> Way:
    return Way.from_json({name: figures[name] for name in ("codec", "effort", "residual", "start")})


def _smallest(codec: PictureCodec, target: Target, film: FilmSamples) -> tuple[bytes, float] | None:
    return smallest(codec, film.samples, lambda back: reaches(target, film, back))


def _write(codec: PictureCodec, films: Sequence[FilmSamples], setting: float, at: int) -> bytes:
    return codec.write(films[at].samples, setting)


def _read(codec: PictureCodec, files: Sequence[bytes], at: int) -> Gray:
    return codec.read(files[at])


def _encode(films: Sequence[FilmSamples], predictions: Sequence[Prediction], target: Target, way: Way, at: int) -> bytes:
    return encode_film(films[at], target, way, prediction=predictions[at]).data


def _decode(files: Sequence[bytes], predictions: Sequence[Prediction], at: int) -> Gray:
    return decode_layer(files[at], predictions[at]).samples
