"""The films of `bench rate-distortion`: which are measured, which tables and steps are fitted on, and what is known of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.commands import StepFailed
from benchmarks.inputs import FILMS_VARIABLE, QUICK_UNSEEN, UNSEEN, Options, film_sets, spaced
from engine import metrics
from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.encode.codec import Codec
from engine.errors import LatentrayError
from engine.labels import LabelSpec
from engine.latents.film_labels import Marked, Table, mark_ids, read_table
from engine.recipe import PixelRecipe
from engine.records import ImageRef
from engine.source.opening import read_bytes

ATTRIBUTES = ("cardiomegaly", "effusion: effusion_left, effusion_right", "no finding: finding=No Finding")
LEAST_OF_A_CLASS = 10
_BATCH = 8

Codes = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmSet:
    """`files`, of which the first `measured` are measured for quality; on the others, of all sets, tables and steps are fitted.

    `marks`: attributes that enough films have and enough have not, by name; `no_marks`: why there are none, else "".
    """

    name: str
    files: Sequence[Path]
    measured: int
    size: int
    marks: Mapping[str, Marked]
    no_marks: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedFilms:
    """A codec's codes [n, *shape] of all films of a set, the measured `films` [m, 1, S, S] in [0, 1], and some `pixels` of others."""

    codes: Codes
    films: Tensor
    pixels: Tensor


def rated_films(options: Options, *, measured: int, size: int) -> list[FilmSet]:
    """The sets of `inputs.film_sets`, each with at most half of its films to be measured, at `size` pixels a side."""
    found = []
    for name, files in film_sets(options).items():
        first = spaced(files, min(measured, max(1, len(files) // 2)))
        ordered = [*first, *(file for file in files if file not in set(first))]
        marks, reason = _marks([file.stem for file in ordered], _labels_of(name, options))
        found.append(FilmSet(name=name, files=ordered, measured=len(first), size=size, marks=marks, no_marks=reason))
    return found


def code_films(codec: Codec, films: FilmSet) -> CodedFilms:
    """Every film of a set through a codec's encoder, as its recipe has them. Raises StepFailed where a film cannot be read."""
    codes: list[Tensor] = []
    shown: list[Tensor] = []
    others: list[Tensor] = []
    with torch.inference_mode():
        for pixels, whole in _decoded(codec.recipe, films.files[: films.measured], films.size):
            codes.append(codec.encode(pixels).cpu())
            shown.append(metrics.to_unit(whole))
        for pixels, _ in _decoded(codec.recipe, films.files[films.measured :], None):
            codes.append(codec.encode(pixels).cpu())
            others.append(pixels[: max(0, _BATCH - sum(map(len, others)))])
    return CodedFilms(codes=torch.cat(codes).numpy(), films=torch.cat(shown), pixels=torch.cat(others) if others else torch.empty(0))


def gray_films(films: FilmSet) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """All films of a set as pictures u1 [S, S], squared as codecs do by default."""
    recipe = PixelRecipe(resolution=films.size)
    decoded = _decoded(recipe, films.files, films.size)
    return [(film * 255).round().to(torch.uint8).numpy() for _, whole in decoded for film in metrics.to_unit(whole).squeeze(1)]


def _decoded(recipe: PixelRecipe, files: Sequence[Path], film_size: int | None) -> Iterable[tuple[Tensor, Tensor]]:
    limits = DecodeConfig()
    read = partial(read_bytes, max_bytes=limits.max_bytes)
    decoder = build_decoder(recipe, limits, read=read, batch_size=_BATCH, film_size=film_size)
    try:
        for batch in decoder.batches([ImageRef(row, path.stem, str(path.absolute())) for row, path in enumerate(files)]):
            if batch.failures:
                raise StepFailed(f"rows must be of the same films, so each must be readable: {batch.failures[0].sample_id}")
            yield batch.pixels, batch.pixels if batch.films is None else batch.films
    finally:
        decoder.close()


def _labels_of(name: str, options: Options) -> str | None:
    """Where the labels of a set of films stand, as `read_table` takes it."""
    if options.films:
        return options.films if options.films.startswith("phantom:") or options.films.endswith((".csv", ".parquet")) else None
    if name == "phantoms":
        return QUICK_UNSEEN if options.quick else UNSEEN
    return str(Path(os.environ[FILMS_VARIABLE]) / "manifest.csv")


def _marks(ids: Sequence[str], labels: str | None) -> tuple[dict[str, Marked], str]:
    """The ATTRIBUTES that the labels tell of enough of these films; without any, why."""
    if labels is None:
        return {}, "films without labels"
    found = {}
    with tempfile.TemporaryDirectory(prefix="latentray-") as nowhere:
        for text in ATTRIBUTES:
            spec = LabelSpec.parse(text)
            try:
                table: Table = read_table(labels, nowhere, spec.columns)
                marked = mark_ids(ids, table, text)
            except LatentrayError:
                continue  # these labels have no such column
            if min(marked.marks.sum(), (~marked.marks).sum()) >= LEAST_OF_A_CLASS:
                found[spec.name] = marked
    return found, "" if found else f"no attribute that {LEAST_OF_A_CLASS} films have and {LEAST_OF_A_CLASS} have not, of {len(ids)}"
