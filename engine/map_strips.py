"""Pictures of decomposed films, to look at: film, normal film, residue and saliency side by side under their names, one PNG a film."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engine import metrics
from engine.archive.reader import open_archive, read_values
from engine.lung_box import whole
from engine.pictures import Image, colour_residual, named, safe_name, side_by_side, to_bytes, write_png
from engine.records import Status
from engine.replay import Replay, listed

RESIDUE_RANGE = 0.2  # of a residue in the unit of films, 2 from black to white, at which its colour is full; the same for every film
LEAST_SIDE = 256  # pixels of a panel: smaller films are enlarged by a whole number
TINT = 0.6  # of red upon the film where it is most salient, so that what lies beneath is still seen
GAP = 4 / 256  # between panels, as a share of their side

GREEN = (0, 200, 0)


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
                    write_png(out / safe_name(ref.sample_id), draw_strip(to_bytes(film), *parts))
                    written += 1
    return written


def draw_strip(film: Image, normal: Image, residue: Image, salient: Image, box: Image) -> Image:
    """BGR u1 of four panels of maps [R, R]: films u1, residue float as decoded (red where it is brighter, blue where darker), saliency u1.

    Saliency is a tint of red upon the film; the box of the lungs is drawn in green. Panels have sides of `times * R` pixels, `times` the
    least that gives LEAST_SIDE; above each is its name.
    """
    found = panels(film, normal, residue, salient, box)
    gap = max(1, round(GAP * len(found["film"])))
    return side_by_side([named(panel, name) for name, panel in found.items()], gap=gap)


def panels(film: Image, normal: Image, residue: Image, salient: Image, box: Image) -> dict[str, Image]:
    """The panels of `draw_strip` by their names, each BGR u1 [times * R, times * R, 3]."""
    times = -(-LEAST_SIDE // film.shape[0])
    share, is_found = (salient > 0).mean(), tuple(box) != whole(film)
    return {
        "film": _gray(_enlarged(film, times)),
        "normal film": _gray(_enlarged(normal, times)),
        f"residue: red brighter, blue darker, to {RESIDUE_RANGE:g}": colour_residual(_enlarged(residue, times), full=RESIDUE_RANGE),
        f"salient: {share:.1%}, {'box: lungs' if is_found else 'lungs not found'}": _tinted(film, salient, box, times),
    }


def _tinted(film: Image, salient: Image, box: Image, times: int) -> Image:
    share = TINT * _enlarged(salient, times)[..., None] / 255.0
    panel = to_bytes(_gray(_enlarged(film, times)) / 255.0 * (1 - share) + np.array([0.0, 0.0, 1.0]) * share)
    x0, y0, x1, y1 = (int(edge) * times for edge in box)
    cv2.rectangle(panel, (x0, y0), (x1 - 1, y1 - 1), GREEN, max(1, round(len(panel) / LEAST_SIDE)))
    return panel


def _enlarged(image: Image, times: int) -> Image:
    return image if times == 1 else cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)


def _gray(image: Image) -> Image:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
