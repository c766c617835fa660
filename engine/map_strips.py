"""Pictures of decomposed films, to look at: film, normal film, residue and saliency side by side, one PNG a film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engine import metrics
from engine.archive.reader import open_archive, read_values
from engine.errors import ArchiveError
from engine.reconstruct import colour_residual, safe_name, to_bytes
from engine.records import Status
from engine.replay import Replay, listed

RESIDUE_RANGE = 0.5  # of a residue in the unit of films, at which its colour is full: a quarter of the way from black to white

Image = np.ndarray[Any, Any]


def write_strips(
    archive: str | Path,
    source: str,
    out: Path,
    *,
    codec: str | None = None,
    id_from: str | None = None,
    limit: int | None = None,
    hash_key: bytes | None = None,
) -> int:
    """Writes `<sample_id>.png` for every film of the source with an ok row in an archive of `decompose`; returns how many."""
    replay = Replay(archive, codec=codec)
    maps = open_archive(archive)
    row_of = {name: row for name, row in replay.row_of.items() if replay.status[row] == Status.OK}
    written = 0
    with listed(source, id_from=id_from, limit=limit, hash_key=hash_key) as plan:
        for shard in plan.shards():
            for batch in replay.sources([ref for ref in shard.refs if ref.sample_id in row_of]):
                films = metrics.to_unit(batch.pixels).numpy()[:, 0]
                rows = [row_of[ref.sample_id] for ref in batch.refs]
                stored = [read_values(maps, name, rows) for name in ("normal", "residue", "saliency", "lung_box")]
                for ref, film, *parts in zip(batch.refs, films, *stored, strict=True):
                    _write(out / safe_name(ref.sample_id), draw_strip(to_bytes(film), *parts))
                    written += 1
    return written


def draw_strip(film: Image, normal: Image, residue: Image, salient: Image, box: Image) -> Image:
    """BGR u1 [R, 4 R, 3] of maps [R, R]: films u1, residue float as decoded (red where it is brighter, blue where darker), saliency u1.

    Saliency lies in red upon the film; the box of the lungs is drawn in green.
    """
    gray = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR) for image in (film, normal)]
    coloured = colour_residual(residue, full=RESIDUE_RANGE)
    share = (salient / 255.0)[..., None]
    heat = to_bytes(gray[0] / 255.0 * (1 - share) + np.array([0.0, 0.0, 1.0]) * share)
    x0, y0, x1, y1 = (int(edge) for edge in box)
    cv2.rectangle(heat, (x0, y0), (x1 - 1, y1 - 1), (0, 200, 0), 1)
    return np.concatenate([*gray, coloured, heat], axis=1)


def _write(path: Path, image: Image) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise ArchiveError(f"pictures cannot be written: {error.strerror}: {path.parent}") from None
