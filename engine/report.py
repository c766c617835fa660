"""One self-contained page about an archive: its figures, films beside reconstructions and residuals, and a map of all codes."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F

from engine import metrics
from engine.archive.commits import read_receipts
from engine.archive.reader import archive_status, mean_quality
from engine.errors import SourceError
from engine.pictures import colour_residual, to_bytes
from engine.quality import mean_by_method, measure
from engine.replay import Replay, listed

TILE = 256  # side of a film on the page, pixels
MAP_FILMS = 400  # most films on the map
RESIDUAL_RANGE = 0.25  # of gray, at which the residual's colour is full

Image = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Triple:
    """A film, its reconstruction and their difference, as the page shows them. 8-bit, gray and BGR."""

    sample_id: str
    film: Image
    rebuilt: Image
    residual: Image
    psnr: float


def write_report(
    archive: str | Path,
    source: str,
    out: Path,
    *,
    films: int = 12,
    id_from: str | None = None,
    hash_key: bytes | None = None,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Writes the page to `out` and returns its table: images, ok, failed, PSNR, SSIM, images a second, bytes an image.

    `films` are shown beside their reconstructions; `picture` gets the same as one PNG, or JPEG by its name.

    `images_per_second` counts the seconds that workers report in their commit records, so it is one worker's rate; `bytes_per_image`
    counts the shards' objects (code, id, digest, quality) without the codec, which every film shares.
    """
    replay = Replay(archive)
    table = figures(archive)
    shown = triples(replay, source, count=films, id_from=id_from, hash_key=hash_key)
    if picture is not None and shown:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(draw_picture(shown, picture.suffix))
    body = [
        _table(table),
        f"<h2>Beside the floors</h2><p>Means over the first {len(shown)} films; a thumbnail has as many bytes as a code.</p>",
        _floors(archive, source, count=films, id_from=id_from, hash_key=hash_key),
        "<h2>Films, reconstructions, residuals</h2>",
        f"<p>Residual: film minus reconstruction; red where the film is brighter, blue where it is darker, full colour at "
        f"{RESIDUAL_RANGE:g} of the gray range.</p>",
        *map(_figure, shown),
        "<h2>Map</h2>",
        "<p>Every reconstruction at its first two principal components: neighbours look alike.</p>",
        draw_map(replay),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_PAGE.format(title=html.escape(Path(archive).name), body="\n".join(body)))
    return table


def figures(archive: str | Path) -> dict[str, Any]:
    """The table of one archive, from its commit records and quality columns."""
    status = archive_status(archive)
    receipts = list(read_receipts(archive))
    seconds = sum(sum(receipt.seconds.values()) for receipt in receipts)
    shard_bytes = sum(entry["bytes"] for receipt in receipts for entry in receipt.objects.values() if entry)
    quality = mean_quality(archive)
    done = status["ok"] + status["failed"]
    return {
        "images": status["rows"],
        "ok": status["ok"],
        "failed": status["failed"],
        "psnr": quality.get("psnr"),
        "ssim": quality.get("ssim"),
        "images_per_second": done / seconds if seconds else None,
        "bytes_per_image": shard_bytes / max(done, 1),
        "codec": status["codec"],
    }


def triples(replay: Replay, source: str, *, count: int, id_from: str | None = None, hash_key: bytes | None = None) -> list[Triple]:
    """The first `count` films of the source that have a code, with what comes back; raises SourceError when there is none."""
    row_of = replay.row_of
    found: list[Triple] = []
    with listed(source, id_from=id_from, hash_key=hash_key) as plan:
        with_code = (ref for shard in plan.shards() for ref in shard.refs if ref.sample_id in row_of)
        refs = list(islice(with_code, count))
    if count and not refs:
        raise SourceError(f"no film of the source has a code in the archive; were ids made another way (--id)? {source}")
    for batch in replay.sources(refs):
        if batch.films is None or not batch.refs:
            continue
        films = metrics.to_unit(batch.films).cpu()
        rebuilt = replay.films(replay.latents([row_of[ref.sample_id] for ref in batch.refs]), replay.film_size)
        psnr = metrics.psnr(rebuilt, films)
        small = [F.interpolate(x, (TILE, TILE), mode="area").numpy()[:, 0] for x in (films, rebuilt)]
        for ref, film, again, value in zip(batch.refs, *small, psnr, strict=True):
            found.append(
                Triple(ref.sample_id, to_bytes(film), to_bytes(again), colour_residual(film - again, full=RESIDUAL_RANGE), float(value))
            )
    return found


def draw_picture(shown: list[Triple], suffix: str = ".png") -> bytes:
    """A PNG or JPEG with films in the first row, reconstructions in the second and residuals in the third."""
    gray = [[cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in (triple.film, triple.rebuilt)] for triple in shown]
    columns = [np.concatenate([*pair, triple.residual]) for pair, triple in zip(gray, shown, strict=True)]
    return bytes(cv2.imencode(".png" if suffix == ".png" else ".jpg", np.concatenate(columns, axis=1))[1])


def draw_map(replay: Replay, *, side: int = 900, thumb: int = 56) -> str:
    """An SVG of up to 400 reconstructions, spread over the dataset, at the first two principal components of their 32x32 versions."""
    rows = [row for row in range(len(replay.status)) if replay.has_code(row)]
    rows = [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAP_FILMS)).astype(int))] if rows else []
    if len(rows) < 3:
        return "<p>Too few films for a map.</p>"
    tiles = np.concatenate([F.interpolate(films, (thumb, thumb), mode="area").numpy()[:, 0] for _, films in replay.batches(rows)])
    flat = tiles.reshape(len(tiles), -1)
    left, scale, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    place = left[:, :2] * scale[:2]
    place = (place - place.min(0)) / np.maximum(np.ptp(place, axis=0), 1e-9) * (side - thumb)
    ids = replay.sample_ids
    images = [
        f'<image x="{x:.1f}" y="{y:.1f}" width="{thumb}" height="{thumb}" href="{_jpeg(to_bytes(tile), 80)}">'
        f"<title>{html.escape(ids[row])}</title></image>"
        for row, tile, (x, y) in zip(rows, tiles, place, strict=True)
    ]
    return f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="map of codes">{"".join(images)}</svg>'


def _floors(archive: str | Path, source: str, *, count: int, id_from: str | None, hash_key: bytes | None) -> str:
    means = mean_by_method(measure(archive, source, id_from=id_from, hash_key=hash_key, limit=count)) if count else {}
    rows = "".join(
        f"<tr><th>{html.escape(method)}</th><td>{mean['psnr']:.2f} dB</td><td>SSIM {mean['ssim']:.3f}</td>"
        f"<td>MS-SSIM {mean['ms_ssim']:.3f}</td></tr>"
        for method, mean in means.items()
    )
    return f"<table>{rows}</table>"


def _figure(triple: Triple) -> str:
    names = ("film", "reconstruction", "residual")
    pictures = "".join(
        f'<img src="{_jpeg(image, 88)}" width="{TILE}" height="{TILE}" alt="{name} of {html.escape(triple.sample_id)}">'
        for name, image in zip(names, (triple.film, triple.rebuilt, triple.residual), strict=True)
    )
    return f"<figure>{pictures}<figcaption>{html.escape(triple.sample_id)} · {triple.psnr:.1f} dB</figcaption></figure>"


def _table(table: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in readable(table).items())
    return f"<table>{rows}</table>"


def readable(table: dict[str, Any]) -> dict[str, str]:
    """The table with units, ready to be printed; figures that were not measured say so."""
    formats = {
        "images": ("images", "{:,}"),
        "ok": ("ok", "{:,}"),
        "failed": ("failed", "{:,}"),
        "psnr": ("PSNR", "{:.2f} dB"),
        "ssim": ("SSIM", "{:.3f}"),
        "images_per_second": ("images/s", "{:.1f}"),
        "bytes_per_image": ("bytes/image", "{:,.0f}"),
        "codec": ("codec", "{}"),
    }
    return {label: "not measured" if table[name] is None else form.format(table[name]) for name, (label, form) in formats.items()}


def _jpeg(image: Image, quality: int) -> str:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: dark; }}
body {{ margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: #14171a; color: #e4e7ea; font: 16px/1.5 system-ui, sans-serif; }}
h1, h2 {{ font-weight: 600; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; font-weight: 400; padding: .15rem 2rem .15rem 0; }}
th {{ color: #9aa4ae; }}
figure {{ display: inline-block; margin: 0 1rem 1.2rem 0; }}
figure img {{ width: 9rem; height: 9rem; margin-right: 2px; }}
figcaption {{ color: #9aa4ae; font-size: .85rem; }}
svg {{ width: 100%; background: #0c0e10; border-radius: 6px; }}
</style></head>
<body><h1>{title}</h1>
{body}
<p>Codes are no substitute for the films, and not for diagnosis.</p>
</body></html>
"""
