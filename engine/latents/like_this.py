"""What `latentray neighbours` tells of one film: the nearest of its archive, codes drawn around it, and a picture of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.archive.root import AnyPath
from engine.latents.codes import Codes, Values
from engine.latents.codes_archive import write_codes
from engine.latents.faiss_search import nearest_by_faiss
from engine.latents.neighbours import around, nearest
from engine.pictures import Image, named, to_bytes, write_png
from engine.replay import Replay

GAP = 1 / 64  # between panels, as a share of their side


@dataclass(frozen=True, kw_only=True, eq=False)
class LikeThis:
    """Films like `sample_id`: (id, cosine) of the nearest, and codes `drawn` [count, d] around its own."""

    sample_id: str
    nearest: list[tuple[str, float]]
    drawn: Values


def like_this(codes: Codes, sample_id: str, *, count: int, sigma: float, seed: int, faiss: bool = False) -> LikeThis:
    """Finds, on request by FAISS, and draws `count` each. Raises ArchiveError for an id without a code, ConfigError for a bad number."""
    place = codes.place(sample_id)
    code = codes.values[place : place + 1]
    found = (nearest_by_faiss if faiss else nearest)(codes, code, count, leave_out=np.array([place]))
    names = [(codes.ids[at], float(cosine)) for at, cosine in zip(found.places[0], found.cosine[0], strict=True)]
    return LikeThis(sample_id=sample_id, nearest=names, drawn=around(code, sigma, count, codes.space, seed=seed)[0])


def write_drawn(archive: AnyPath, out: AnyPath, found: LikeThis, *, sigma: float, seed: int) -> None:
    """Writes the drawn codes into a new archive as `<sample_id>@1` and so on. Raises ArchiveError where it exists."""
    ids = [f"{found.sample_id}@{number}" for number in range(1, len(found.drawn) + 1)]
    made = {"by": "neighbours", "id": found.sample_id, "sigma": sigma, "seed": seed}
    write_codes(out, archive, values=found.drawn, ids=ids, labels={"origin": [found.sample_id] * len(ids)}, made=made)


def write_picture(archive: AnyPath, out: Path, codes: Codes, found: LikeThis, *, size: int, codec: str | None = None) -> None:
    """One PNG: the film and its nearest, each under its id and cosine; below, the film and those that were drawn around it."""
    replay = Replay(str(archive), codec=codec)
    own = codes.take([codes.place(found.sample_id)]).values
    near = codes.take([codes.place(name) for name, _ in found.nearest]).values
    captions = [f"{name} {cosine:.3f}" for name, cosine in found.nearest]
    rows = [
        _row(replay, np.concatenate([own, near]), [found.sample_id, *captions], codes, size),
        _row(
            replay,
            np.concatenate([own, found.drawn]),
            [found.sample_id, *(f"drawn {n}" for n in range(1, len(found.drawn) + 1))],
            codes,
            size,
        ),
    ]
    write_png(out, np.concatenate(rows))


def _row(replay: Replay, values: Values, captions: list[str], codes: Codes, size: int) -> Image:
    films = replay.films(torch.from_numpy(values).reshape(-1, *codes.space.shape), size).numpy()[:, 0]
    gap = max(1, round(GAP * size))
    panels = [named(cv2.cvtColor(to_bytes(film), cv2.COLOR_GRAY2BGR), caption) for film, caption in zip(films, captions, strict=True)]
    return np.concatenate([np.pad(panel, ((0, gap), (0, gap), (0, 0))) for panel in panels], axis=1)
