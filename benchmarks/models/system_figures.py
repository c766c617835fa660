"""One picture a system, for a person to judge: films, what comes back, what is missing, and the maps of one that decomposes films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.commands import run_latentray
from engine.archive.reader import open_archive, read_values
from engine.encode.codec import Codec
from engine.map_strips import panels
from engine.pictures import named, side_by_side, write_png
from engine.replay import Replay
from engine.report import RESIDUAL_RANGE, TILE, Triple, triples

FILMS = 4  # of each set
GAP, SET_GAP = 4, 16  # white pixels between two films, and between two sets of them
MAPS = ("normal", "residue", "saliency", "lung_box")  # what an archive of `decompose` has of each film

Image = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class CodedFilms:
    """An archive, the manifest of its films, its codec, and an archive with maps of the first FILMS, where the codec makes any."""

    archive: Path
    manifest: Path
    codec: str
    maps: Path | None = None


def decomposes(codec: Codec) -> bool:
    """Whether the codec takes films apart, as that of Tang et al. 2021 does."""
    return codec.has_encoder and hasattr(codec.generator.network, "decompose")


def take_apart(films: CodedFilms) -> CodedFilms:
    """The same with maps: the first FILMS go through the command, beside the archive. Raises StepFailed where that does."""
    maps = films.archive.with_suffix(".maps.zarr")
    where = ("--archive", str(maps), "--codec", films.codec, "--no-embed-codec", "--limit", str(FILMS))
    run_latentray("decompose", str(films.manifest), *where, "--metrics", "none", "--workers", "0", "--quiet")
    return replace(films, maps=maps)


def draw_system(sets: Sequence[CodedFilms], out: Path) -> None:
    """Writes a PNG with the first FILMS films of each set as columns of named panels, TILE pixels a side; the sets side by side.

    Residual: film minus reconstruction, red where the film is brighter and blue where it is darker, in full colour from RESIDUAL_RANGE of
    the gray range on. Below it are the maps, as `decompose --png` draws them.
    """
    write_png(out, side_by_side([side_by_side(_columns(each), gap=GAP, between=255) for each in sets], gap=SET_GAP, between=255))


def _columns(films: CodedFilms) -> list[Image]:
    shown = triples(Replay(films.archive, codec=films.codec), str(films.manifest), count=FILMS)
    maps = [{} for _ in shown] if films.maps is None else _maps(films.maps, shown)
    return [
        np.concatenate([named(panel, name) for name, panel in (_panels(each) | more).items()])
        for each, more in zip(shown, maps, strict=True)
    ]


def _panels(shown: Triple) -> dict[str, Image]:
    return {
        "film": cv2.cvtColor(shown.film, cv2.COLOR_GRAY2BGR),
        f"reconstruction, {shown.psnr:.1f} dB": cv2.cvtColor(shown.rebuilt, cv2.COLOR_GRAY2BGR),
        f"residual: red brighter, blue darker, to {RESIDUAL_RANGE:g}": shown.residual,
    }


def _maps(archive: Path, shown: Sequence[Triple]) -> list[dict[str, Image]]:
    """Normal film, residue and saliency of these films, TILE pixels a side."""
    dataset = open_archive(archive)
    ids = [str(name) for name in read_values(dataset, "sample_id")]
    stored = [read_values(dataset, name, [ids.index(each.sample_id) for each in shown]) for name in MAPS]
    found = []
    for each, *parts in zip(shown, *stored, strict=True):
        side = len(parts[0])
        drawn = panels(cv2.resize(each.film, (side, side), interpolation=cv2.INTER_AREA), *parts)
        found.append({name: _tile(panel) for name, panel in drawn.items() if name != "film"})
    return found


def _tile(panel: Image) -> Image:
    return panel if len(panel) == TILE else cv2.resize(panel, (TILE, TILE), interpolation=cv2.INTER_AREA)
