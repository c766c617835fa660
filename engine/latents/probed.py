"""What `latentray probe` compares: the codes of an archive, those of others of the same films, and thumbnails of as many bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from engine.archive.root import AnyPath, plan_beside, read_root
from engine.errors import ArchiveError
from engine.labels import LabelSpec
from engine.latents.codes import Codes, read_codes
from engine.latents.directions import Array, Marks
from engine.latents.film_labels import mark, read_table
from engine.latents.film_pairs import FilmsOfArchive, Missing
from engine.latents.probe import ProbeFigures, compare


def probe_archives(
    archive: AnyPath,
    attributes: Sequence[str],
    *,
    labels: str | None = None,
    against: Sequence[AnyPath] = (),
    thumbnail: bool = True,
    codec: str | None = None,
    hash_key: bytes | None = None,
    seed: int = 0,
) -> tuple[list[ProbeFigures], int]:
    """Figures of each attribute and representation, all on the same films: those that every archive has a code of; and how many these are.

    `thumbnail`: also gray pictures of as many bytes as a code of `archive`, made of the films that its plan lists.
    Raises ArchiveError where archives share no film, or films are needed and not there.
    """
    every = {_name(path): read_codes(path) for path in (archive, *against)}
    codes, *others = every.values()
    shared = [name for name in codes.ids if all(name in other.place_of for other in others)]
    if not shared:
        raise ArchiveError(f"archives that are compared must share ids, these share none: {', '.join(every)}")
    aligned = {name: each.take([each.place(sample_id) for sample_id in shared]) for name, each in every.items()}
    representations: dict[str, Array] = {f"codes of {name}": each.values for name, each in aligned.items()}
    first = next(iter(aligned.values()))
    if thumbnail:
        num_bytes = first.space.size * np.dtype(read_root(archive).parts["latent"]["dtype"]).itemsize
        side = max(1, math.isqrt(num_bytes))
        representations[f"thumbnail of {side}x{side}"] = thumbnails(archive, first, side, codec=codec)
    asked: dict[str, tuple[Sequence[int], Marks]] = {}
    table = read_table(labels, archive, [column for text in attributes for column in LabelSpec.parse(text).columns], hash_key=hash_key)
    for text in attributes:
        marked = mark(first, table, text)
        asked[LabelSpec.parse(text).name] = (marked.places.tolist(), marked.marks)
    return compare(representations, asked, seed=seed), len(shared)


def thumbnails(archive: AnyPath, codes: Codes, side: int, *, codec: str | None = None) -> Array:
    """Gray pictures [n, side * side] of the films of these codes, in [-1, 1], of 8 bits. Raises ArchiveError for films not to be had."""
    path = plan_beside(archive)
    if "made" in read_root(archive).parts or not path.exists():
        raise ArchiveError(f"thumbnails need the films, and no plan lists them; leave them out with --no-thumbnail: {path}")
    films_of = FilmsOfArchive(str(archive), side=side, codec=codec)
    found = np.full((len(codes), side * side), np.nan, dtype=np.float32)
    for batch in films_of.batches(set(codes.ids), Missing()):
        small = F.adaptive_avg_pool2d(batch.pixels.float(), side)
        levels = ((small + 1) * 127.5).round() / 127.5 - 1
        for ref, picture in zip(batch.refs, levels.flatten(1).numpy(), strict=True):
            found[codes.place(ref.sample_id)] = picture
    missing = np.flatnonzero(np.isnan(found).any(axis=1))
    if len(missing):
        raise ArchiveError(
            f"{len(missing)} films cannot be read again, for example {codes.ids[missing[0]]}; leave them out with --no-thumbnail"
        )
    return found


def _name(path: AnyPath) -> str:
    return Path(path).name.removesuffix(".zarr")
