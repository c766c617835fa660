"""How good the codes of an archive are: source film against reconstruction, with the floors that any codec must beat beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import metrics
from engine.errors import SourceError
from engine.realism import Realism
from engine.records import ImageRef, PixelBatch
from engine.replay import Replay, listed

STORED, ENCODER, THUMBNAIL, GRAY = "as stored", "encoder alone", "thumbnail", "one gray"


@dataclass(frozen=True, slots=True)
class FilmQuality:
    """One film by one method: `method` is one of the names above; PSNR in dB, data range 1, at the archive's film size.

    `ms_ssim` is NaN where films are too small for its five scales.
    """

    sample_id: str
    method: str
    psnr: float
    ssim: float
    ms_ssim: float


def measure(
    archive: str | Path,
    source: str,
    *,
    codec: str | None = None,
    id_from: str | None = None,
    limit: int | None = None,
    hash_key: bytes | None = None,
    thumbnails: Sequence[int] = (),
    realism: Realism | None = None,
    batch_size: int = 8,
) -> Iterator[FilmQuality]:
    """Compares every film of `source` that the archive has a code for, in plan order, a row a method.

    Methods: the code as stored; the encoder's own code, computed again from the film (where the codec has an encoder), which is
    what refinement started from; an 8-bit thumbnail of as many bytes as the code; one gray, the film's mean; and thumbnails of as many
    bytes as `thumbnails` says, by names such as "thumbnail of 1024". `realism` is shown all films beside their codes as stored.
    Raises SourceError when source and archive have no film in common.
    """
    replay = Replay(archive, codec=codec)
    row_of = replay.row_of
    found = 0
    with listed(source, id_from=id_from, limit=limit, hash_key=hash_key) as plan:
        for shard in plan.shards():
            refs = [ref for ref in shard.refs if ref.sample_id in row_of]
            for pixels in replay.sources(refs, batch_size=batch_size):
                found += len(pixels.refs)
                yield from _compare(replay, pixels, [row_of[ref.sample_id] for ref in pixels.refs], thumbnails, realism)
    if not found:
        raise SourceError(f"no film of the source has a code in the archive; were ids made another way (--id)? {source}")


def mean_by_method(films: Iterable[FilmQuality]) -> dict[str, dict[str, float]]:
    """Number of films and mean `psnr`, `ssim`, `ms_ssim` by method, in the order in which methods are met."""
    rows: dict[str, list[FilmQuality]] = {}
    for film in films:
        rows.setdefault(film.method, []).append(film)
    return {
        method: {"films": len(found), **{name: fmean(getattr(film, name) for film in found) for name in ("psnr", "ssim", "ms_ssim")}}
        for method, found in rows.items()
    }


def quality_lines(means: dict[str, dict[str, float]]) -> list[str]:
    """The means as lines of a table."""
    head = f"{'':<14} {'films':>7} {'PSNR dB':>8} {'SSIM':>7} {'MS-SSIM':>8}"
    return [head] + [
        f"{method:<14} {mean['films']:>7,} {mean['psnr']:>8.2f} {mean['ssim']:>7.3f} {mean['ms_ssim']:>8.3f}"
        for method, mean in means.items()
    ]


def thumbnail(films: Tensor, num_bytes: int) -> Tensor:
    """Films [N, 1, S, S] in [0, 1] as they come back from a square 8-bit thumbnail of at most `num_bytes` pixels."""
    side = max(1, math.isqrt(num_bytes))
    small = torch.round(F.adaptive_avg_pool2d(films, side) * 255) / 255
    return metrics.resize_film(small, films.shape[-1]).clamp(0, 1)


def _compare(
    replay: Replay, pixels: PixelBatch, rows: list[int], thumbnails: Sequence[int], realism: Realism | None
) -> Iterator[FilmQuality]:
    if not rows or pixels.films is None:
        return
    films = metrics.to_unit(pixels.films).cpu()
    stored = replay.latents(rows)
    code_bytes = stored[0].numel() * replay.dtype.itemsize
    candidates = {STORED: replay.films(stored, replay.film_size)}
    if realism is not None:
        realism.add(films, candidates[STORED])
    if replay.codec.has_encoder:
        encoded = replay.as_stored(replay.codec.encode(pixels.pixels.to(replay.device)))
        candidates[ENCODER] = replay.films(encoded, replay.film_size)
    candidates[THUMBNAIL] = thumbnail(films, code_bytes)
    candidates |= {f"{THUMBNAIL} of {num_bytes}": thumbnail(films, num_bytes) for num_bytes in thumbnails}
    candidates[GRAY] = films.mean((1, 2, 3), keepdim=True).expand_as(films).contiguous()
    for method, rebuilt in candidates.items():
        yield from _rows(pixels.refs, method, rebuilt, films)


def _rows(refs: list[ImageRef], method: str, rebuilt: Tensor, films: Tensor) -> Iterator[FilmQuality]:
    big_enough = films.shape[-1] >= metrics.MS_SSIM_LEAST_SIZE
    ms = metrics.ms_ssim(rebuilt, films) if big_enough else torch.full((len(refs),), torch.nan)
    figures = zip(metrics.psnr(rebuilt, films), metrics.ssim(rebuilt, films), ms, strict=True)
    for ref, (psnr, ssim, ms_ssim) in zip(refs, figures, strict=True):
        yield FilmQuality(ref.sample_id, method, float(psnr), float(ssim), float(ms_ssim))
