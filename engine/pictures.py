"""Pictures to look at: films as bytes, differences as colours, names above panels, and file names that stay in their folder."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from engine.errors import ArchiveError

Image = np.ndarray[Any, Any]

_SIDE = 256  # pixels of a panel at which letters have their own size
_LINE = 18 / 256  # height of the line of a name, as a share of a panel's side
_LIGHT = (235, 235, 235)
_NO_NAME = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]")
_LONGEST, _CUT = 251, 200  # bytes of a name without its .png, and of one that is cut


def to_bytes(film: Image) -> Image:
    """[0, 1] floats as 8-bit gray, rounded to nearest."""
    return np.clip(np.rint(film * 255.0), 0, 255).astype(np.uint8)


def colour_residual(difference: Image, *, full: float) -> Image:
    """[H, W] differences as BGR bytes [H, W, 3]: white is none, red is positive, blue is negative, in full colour from `full` on."""
    strength = np.clip(difference / full, -1, 1)
    fade = 1 - np.abs(strength)
    red, blue = np.where(strength >= 0, 1.0, fade), np.where(strength <= 0, 1.0, fade)
    return to_bytes(np.stack([blue, fade, red], axis=-1))


def named(panel: Image, name: str) -> Image:
    """A BGR panel below a line with its name; letters grow with it."""
    size = len(panel) / _SIDE
    line = np.zeros((round(_LINE * len(panel)), panel.shape[1], 3), np.uint8)
    place, thickness = (round(3 * size), round(13 * size)), max(1, round(size))
    cv2.putText(line, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, _LIGHT, thickness, cv2.LINE_AA)
    return np.concatenate([line, panel])


def side_by_side(pictures: Sequence[Image], *, gap: int, between: int = 0) -> Image:
    """BGR pictures of one height as one, `gap` pixels of the gray `between` from one to the next."""
    padded = [np.pad(each, ((0, 0), (gap if at else 0, 0), (0, 0)), constant_values=between) for at, each in enumerate(pictures)]
    return np.concatenate(padded, axis=1)


def write_png(path: Path, picture: Image) -> None:
    """Writes a picture, and makes its folder. Raises ArchiveError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    except OSError as error:
        raise _refused(error, path.parent) from None


def check_folder(out: Path) -> None:
    """Makes the folder that pictures go to; raises ArchiveError where they could not be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise _refused(error, out) from None


def safe_name(sample_id: str) -> PurePosixPath:
    """`<sample_id>.png` below the output folder: an id may hold folders, but can never climb out of it.

    An id that cannot be a name as it is (`..`, `//`, control characters, backslashes, more than a file system takes) is cleaned, and
    digits of its digest follow, so that it cannot take the place of another one.
    """
    parts = [_NO_NAME.sub("_", part) for part in sample_id.split("/") if part not in ("", ".", "..")] or ["_"]
    if "/".join(parts) == sample_id and all(len(part.encode()) <= _LONGEST for part in parts):
        return PurePosixPath(sample_id + ".png")
    short = [part.encode()[:_CUT].decode(errors="ignore") for part in parts]
    digest = hashlib.sha256(sample_id.encode(errors="surrogatepass")).hexdigest()[:8]
    return PurePosixPath(*short[:-1], f"{short[-1]}-{digest}.png")


def _refused(error: OSError, folder: Path) -> ArchiveError:
    return ArchiveError(f"pictures cannot be written: {error.strerror}: {folder}")
