"""What `latentray edit` writes: strips of a film along a direction, and archives of edited codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from engine.archive.root import AnyPath
from engine.errors import ConfigError
from engine.latents.codes import Codes
from engine.latents.codes_archive import write_codes
from engine.latents.direction_file import Direction
from engine.latents.edit import moved
from engine.pictures import Image, colour_residual, named, safe_name, side_by_side, to_bytes, write_png
from engine.replay import Replay

CHANGE_RANGE = 0.25  # of gray in [0, 1] at which the colour of a change is full
GAP = 1 / 64  # between panels, as a share of their side


def parse_alphas(text: str) -> list[float]:
    """`-3,0,3` as numbers; raises ConfigError on anything else, and for numbers that come twice."""
    try:
        alphas = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"alpha must read like -3,0,3: {text}") from None
    if not np.isfinite(alphas).all() or len(set(alphas)) != len(alphas):
        raise ConfigError(f"alphas must be finite and differ from one another: {text}")
    return alphas


def write_edited(codes: Codes, archive: AnyPath, out: AnyPath, direction: Direction, alphas: Sequence[float]) -> int:
    """Writes codes of `archive` at each alpha into a new archive, and returns how many.

    Ids are `<sample_id>@<alpha>`; the new plan carries columns `origin`, `attribute` and `alpha`. Raises ConfigError for a direction of
    another codec, ArchiveError where `out` exists.
    """
    values = moved(codes.values, direction, alphas, codes.space)
    pairs = [(name, f"{alpha:g}") for name in codes.ids for alpha in alphas]
    write_codes(
        out,
        archive,
        values=values.reshape(-1, codes.space.size),
        ids=[f"{name}@{alpha}" for name, alpha in pairs],
        labels={
            "origin": [name for name, _ in pairs],
            "attribute": [direction.attribute] * len(pairs),
            "alpha": [alpha for _, alpha in pairs],
        },
        made={
            "by": "edit",
            "attribute": direction.attribute,
            "method": direction.method,
            "alphas": list(alphas),
            "spread": direction.spread,
        },
    )
    return len(pairs)


def write_strips(
    codes: Codes,
    archive: AnyPath,
    out: Path,
    direction: Direction,
    alphas: Sequence[float],
    *,
    size: int | None = None,
    codec: str | None = None,
) -> int:
    """Writes `<sample_id>.png` for each of these codes of `archive`; returns how many.

    Above: the film at each alpha; below: what that changed in it, red where it is brighter and blue where darker. What it is compared with
    is the film of the stored code itself.
    """
    values = moved(codes.values, direction, alphas, codes.space)
    replay = Replay(str(archive), codec=codec)
    for name, code, edits in zip(codes.ids, codes.values, values, strict=True):
        latents = torch.from_numpy(np.concatenate([code[None], edits])).reshape(-1, *codes.space.shape)
        before, *after = replay.films(latents, size).numpy()[:, 0]
        write_png(out / safe_name(name), draw_strip(before, after, [f"{direction.attribute} {alpha:+g}" for alpha in alphas]))
    return len(codes)


def draw_strip(before: Image, after: Sequence[Image], names: Sequence[str]) -> Image:
    """BGR u1 of films [S, S] in [0, 1] under their names, each above the colours of its difference from `before`."""
    gap = max(1, round(GAP * len(before)))
    columns = []
    for film, name in zip(after, names, strict=True):
        gray = cv2.cvtColor(to_bytes(film), cv2.COLOR_GRAY2BGR)
        change = colour_residual(film - before, full=CHANGE_RANGE)
        columns.append(np.concatenate([named(gray, name), np.zeros((gap, *gray.shape[1:]), np.uint8), change]))
    return side_by_side(columns, gap=gap)
