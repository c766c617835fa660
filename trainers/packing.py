"""Reads every film of a SOURCE once, through the engine's own decode, and packs it as 8-bit gray for a training of any length."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from engine.config import DecodeConfig
from engine.errors import ConfigError, SettingsChanged, SourceError, TrainError
from engine.recipe import PixelRecipe
from engine.records import PixelBatch
from engine.source.listing import list_source
from trainers.films import Films
from trainers.packed_films import FILMS, INDEX, SIZES, PackedFilms, PackIndex, differences, npy_header, read_index


def pack_films(
    source: str,
    folder: Path,
    recipe: PixelRecipe,
    *,
    limit: int | None = None,
    decode: DecodeConfig | None = None,
    max_failed_fraction: float = 0.05,
    batch_size: int = 32,
    replace: bool = False,
) -> PackedFilms:
    """Packs the films of `source` into `folder`, or opens the pack that is there where it is of the same plan and recipe.

    Films that cannot be read are named on stderr (the first 20), counted and left out; where they are more than `max_failed_fraction` of
    all, or no film is left, SourceError ends it as soon as that is certain. A finished pack of other films is packed anew with `replace`,
    and refused with SettingsChanged without. Raises TrainError where the disk has no room. A file that changed under its old name goes
    unnoticed: delete the folder.
    """
    if not 0 <= max_failed_fraction <= 1:
        raise ConfigError(f"max-failed-fraction must be 0 to 1: {max_failed_fraction}")
    cfg = decode or DecodeConfig()
    with tempfile.TemporaryDirectory(prefix="latentray-pack-") as aside:  # the plan has paths, which the pack must not keep
        films = Films(source, Path(aside), recipe, limit=limit, batch_size=batch_size, decode=cfg, id_from=_id_from(source))
        index = read_index(folder)
        changed = [] if index is None else differences(index, {"plan_digest": films.plan.digest, "recipe": recipe.to_json()})
        if changed and not replace:
            what = f"films were packed from another source or with another recipe ({', '.join(changed)})"
            raise SettingsChanged(f"{what}; delete the folder to pack anew: {folder}")
        if index is None or changed:
            index = _pack(films, folder, recipe, max_failed_fraction)
        _check_failed(len(index.failed_rows), films.plan.num_rows, max_failed_fraction)
        return PackedFilms(folder, index, plan=films.plan.table(), root=films.plan.about.root)


def _id_from(source: str) -> str:
    """A manifest's own ids, so that lists of ids find their films; elsewhere the path, which is always unique."""
    with closing((listing := list_source(source)).entries):
        return "column" if listing.has_ids else "relpath"


def _check_failed(failed: int, films: int, max_failed_fraction: float) -> None:
    if failed > max_failed_fraction * films:
        advice = "mend them or allow more with --max-failed-fraction"
        raise SourceError(f"too many films cannot be read, at least {failed} of {films}; {advice}: {max_failed_fraction:g}")


def _pack(films: Films, folder: Path, recipe: PixelRecipe, max_failed_fraction: float) -> PackIndex:
    start, side, rows = perf_counter(), recipe.resolution, films.plan.num_rows
    needed = rows * side * side
    with _writing(folder, needed):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise TrainError(f"disk has no room for the packed films, {needed} bytes are needed and {free} are free: {folder}")
        print(f"packing {rows} films at {side}x{side}, {needed / 1e6:,.0f} MB: {folder}", file=sys.stderr, flush=True)
        aside = folder / f"{FILMS}.partial"
        try:
            failed_rows, digest, sizes = _write(films, aside, side, max_failed_fraction)
            np.save(folder / SIZES, sizes)
            aside.replace(folder / FILMS)
        finally:
            aside.unlink(missing_ok=True)
        index = PackIndex(
            films=films.num_films,
            resolution=side,
            recipe=recipe.to_json(),
            kind=films.plan.about.kind,
            plan_digest=films.plan.digest,
            plan_rows=rows,
            failed_rows=tuple(failed_rows),
            failed_by_reason=dict(films.failed_by_reason),
            pixels_sha256=digest,
        )
        index.write(folder)
    seconds = perf_counter() - start
    rate = f"{rows / seconds:.1f} films/s, left out because they could not be read: {films.num_failed}"
    print(f"packed {films.num_films} films in {seconds:.1f} s, {rate}", file=sys.stderr, flush=True)
    return index


def _write(films: Films, path: Path, side: int, max_failed_fraction: float) -> tuple[list[int], str, np.ndarray[Any, np.dtype[np.int32]]]:
    """Writes header and films; gives the rows that failed, the sha256 of the pixels, and height and width of the files [films, 2]."""
    failed_rows: list[int] = []
    sizes: list[tuple[int, int]] = []
    digest = hashlib.sha256()
    with open(path, "wb") as file, closing(_with_bar(films)) as batches:
        file.write(npy_header(films.plan.num_rows, side))
        for batch in batches:
            failed_rows += [failure.row for failure in batch.failures]
            sizes += [(info.height, info.width) for info in batch.infos]
            _check_failed(len(failed_rows), films.plan.num_rows, max_failed_fraction)
            data = to_gray_levels(batch.pixels).data
            digest.update(data)
            file.write(data)
        file.seek(0)
        file.write(npy_header(films.num_films, side))
        file.flush()
        os.fsync(file.fileno())
    return failed_rows, digest.hexdigest(), np.array(sizes, dtype=np.int32).reshape(-1, 2)


def to_gray_levels(pixels: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pixels [n, 1, R, R] in [-1, 1] -> u1 [n, R, R], by at most half a gray level of 256 from what they were; overwrites `pixels`."""
    levels = pixels.add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.cpu().numpy()[:, 0])


def _with_bar(films: Films) -> Generator[PixelBatch, None, None]:
    from tqdm import tqdm

    bar = tqdm(total=films.plan.num_rows, unit="film", file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with bar, closing(films.pixel_batches()) as batches:
        for batch in batches:
            yield batch
            bar.set_postfix(failed=films.num_failed, refresh=False)
            bar.update(len(batch.refs) + len(batch.failures))


@contextmanager
def _writing(folder: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainError(f"films cannot be packed ({error.strerror}), {needed} bytes are needed there: {folder}") from None
