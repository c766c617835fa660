"""Level 4 of `verify`: a sample of rows is read, decoded and compared again, so that the archive is held against the films themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import metrics
from engine.config import DecodeConfig, MapsConfig
from engine.decompose import Decomposer
from engine.encode.precision import DTYPES
from engine.errors import ArchiveError
from engine.fidelity.target import parse_target
from engine.film_layer import FilmReader, breach, read_film
from engine.lung_box import FINDER
from engine.records import ImageRef, PixelBatch
from engine.replay import Replay
from engine.saliency import STEPS, saliency, to_steps
from engine.source.plan import open_plan

MSE_TOLERANCE = 1e-4  # of mean squared error in [0, 1]: backends and decoders may differ by rounding, a wrong code differs by far more
MSE_PART_BF16 = 2e-2  # of the error itself: bfloat16's rounding of a film adds up along its difference from the source
CODE_TOLERANCE = 2e-2  # of the code's root mean square, for codes that the encoder made alone
CODE_TOLERANCE_BF16 = 1e-1  # the parity gate admits half of it
STEP_TOLERANCE = 1  # of 255 grays, or of 127 steps of a residue: a value that lies between two may be rounded to either
STEP_TOLERANCE_BF16 = 6  # bfloat16 moves a pixel by 2 from float32, in random networks as deep as the paper's
MEAN_TOLERANCE = 0.1  # of a step, times the tolerance in steps: means over a map differ by much less than its pixels
BOX_TOLERANCE = 1 / 32  # of a film's side: lungs are sought on a coarse grid, of which a row of cells may fall to either side


def audit_rows(archive: str | Path, plan_path: Path, *, count: int = 16, seed: int = 0, codec: str | None = None) -> list[tuple[str, str]]:
    """Checks up to `count` ok rows drawn with `seed`; returns (sample_id, what is wrong) for those that fail.

    Each film is read again from where the plan says. Its digest must be the recorded one; its stored code must reconstruct it to the
    recorded error; where nothing was refined, encoding it again must give the stored code; where maps are stored, taking its stored
    code apart again must give them; and a layer must give the film to the error that was promised. Raises ArchiveError without a plan.
    """
    if not plan_path.exists():
        raise ArchiveError(f"level 4 reads films again and needs the plan, which is not there: {plan_path}")
    replay = Replay(archive, codec=codec)
    ok = np.flatnonzero(replay.status == 1)
    rows = np.sort(np.random.default_rng(seed).permutation(ok)[:count])
    refs = _refs(plan_path, {int(row) for row in rows})
    problems: list[tuple[str, str]] = []
    maps = MapAudit(replay) if "maps" in replay.parts else None
    layers = LayerAudit(replay) if "fidelity" in replay.parts else None
    try:
        for pixels in replay.sources(refs):
            problems += [(failure.sample_id, f"the film cannot be read again: {failure.reason}") for failure in pixels.failures]
            if pixels.refs:
                problems += _check(replay, pixels)
                problems += maps.check(pixels) if maps else []
                problems += layers.check(pixels) if layers else []
    finally:
        if layers:
            layers.close()
    return problems


class LayerAudit:
    """Decodes the layers of an archive and holds them against the films that they promise."""

    def __init__(self, replay: Replay) -> None:
        self._replay, self._target = replay, parse_target(replay.parts["fidelity"]["target"])
        self._reader = FilmReader(DecodeConfig(**replay.parts["limits"]), replay.codec.recipe)

    def check(self, pixels: PixelBatch) -> list[tuple[str, str]]:
        """(sample_id, what is wrong) for each film whose layer is not what was promised, or not what was recorded instead."""
        found: list[tuple[str, str]] = []
        for ref in pixels.refs:
            some = self._replay.dataset.isel(sample=ref.row)
            try:
                back = read_film(self._replay, ref.row)
            except ArchiveError as error:
                found.append((ref.sample_id, str(error)))
                continue
            if back is None:
                found.append((ref.sample_id, "the row has a code, but no layer"))
                continue
            target = self._target if some["layer_met"].item() else parse_target("none")
            wrong = breach(self._reader.film(ref), back, target, recorded=float(some["layer_psnr"].item()))
            found += [(ref.sample_id, wrong)] if wrong else []
        return found

    def close(self) -> None:
        """Ends the reader's processes."""
        self._reader.close()


class MapAudit:
    """Holds the maps of an archive of `decompose` against those that its stored codes make again.

    Normal film and residue may differ by the rounding of their precision, STEP_TOLERANCE. Saliency follows from the stored residue and
    the stored box without any rounding, and must be equal. A box that was sought must be found again; one that a file gave stands, since
    the archive does not know the file.
    """

    def __init__(self, replay: Replay) -> None:
        self._replay, self._cfg = replay, MapsConfig(floor=replay.parts["maps"]["floor"])
        self._decomposers: dict[str, Decomposer] = {}

    def check(self, pixels: PixelBatch) -> list[tuple[str, str]]:
        """(sample_id, what is wrong) for each map of these films that is not as it should be."""
        found: list[tuple[str, str]] = []
        for at, ref in enumerate(pixels.refs):
            some = self._replay.dataset.isel(sample=[ref.row])
            decomposer = self._decomposer(self._replay.precision_of(ref.row))
            again = decomposer.maps(
                decomposer.parts(self._replay.latents([ref.row])), pixels.pixels[at : at + 1], [ref.sample_id], [(0, 0)]
            ).arrays
            stored = {name: some[name].to_numpy()[0] for name in again} | {"residue": to_steps(some["residue"].to_numpy()[0])}
            found += [(ref.sample_id, what) for what in self._compare(stored, {name: values[0] for name, values in again.items()}, ref.row)]
        return found

    def _compare(self, stored: dict[str, Any], again: dict[str, Any], row: int) -> list[str]:
        steps = STEP_TOLERANCE if self._replay.precision_of(row) in ("fp32", "fp16") else STEP_TOLERANCE_BF16
        found = []
        for name, unit in (("normal", "grays"), ("residue", "steps")):
            most = int(np.abs(stored[name].astype(int) - again[name].astype(int)).max())
            if most > steps:
                found.append(f"the code makes another {name} map, which differs by {most} {unit}")
        x0, y0, x1, y1 = (int(edge) for edge in stored["lung_box"])
        salient = saliency(stored["residue"], (x0, y0, x1, y1), floor=self._cfg.floor)
        if (salient != stored["saliency"]).any():
            found.append(f"the saliency map is not that of the stored residue, in {int((salient != stored['saliency']).sum())} pixels")
        moved = int(np.abs(stored["lung_box"].astype(int) - again["lung_box"].astype(int)).max())
        if self._replay.parts["maps"]["lungs"] == FINDER and moved > max(1, BOX_TOLERANCE * salient.shape[0]):
            found.append(f"the lungs are found elsewhere on the film, {moved} pixels from the stored box")
        for name, expected, tolerance in (
            ("residue_mean", again["residue_mean"], steps * MEAN_TOLERANCE / STEPS),
            ("salient_share", (stored["saliency"] > 0).mean(), 1e-6),
        ):
            if not abs(float(stored[name]) - float(expected)) <= tolerance:
                found.append(f"{name} is not that of the map: {float(stored[name]):.6f}, found {float(expected):.6f}")
        return found

    def _decomposer(self, precision: str) -> Decomposer:
        """One for each precision that shards were made in; merged ones do not tell, and get float32."""
        known = precision if precision in DTYPES else "fp32"
        if known not in self._decomposers:
            self._decomposers[known] = Decomposer(self._replay.codec, self._cfg, precision=known)
        return self._decomposers[known]


def _check(replay: Replay, pixels: PixelBatch) -> list[tuple[str, str]]:
    assert pixels.films is not None
    rows = [ref.row for ref in pixels.refs]
    some = replay.dataset.isel(sample=rows)
    stored = replay.latents(rows)
    error = metrics.mse(replay.films(stored, replay.film_size), metrics.to_unit(pixels.films).cpu())
    again = replay.codec.encode(pixels.pixels.to(replay.device)).detach().cpu() if replay.codec.has_encoder else None
    found: list[tuple[str, str]] = []
    for at, (ref, info) in enumerate(zip(pixels.refs, pixels.infos, strict=True)):
        if info.sha256 != some["source_sha256"].to_numpy()[at].tobytes():
            found.append((ref.sample_id, "the source file is no longer the one that was encoded"))
            continue
        recorded = float(some["mse"].to_numpy()[at])
        by_rounding = MSE_PART_BF16 * recorded if replay.precision_of(ref.row) == "bf16" else 0.0
        if not np.isnan(recorded) and abs(recorded - float(error[at])) > max(MSE_TOLERANCE, by_rounding):
            found.append((ref.sample_id, f"the code reconstructs the film with MSE {float(error[at]):.6f}, recorded {recorded:.6f}"))
        if again is not None and int(some["steps"].to_numpy()[at]) == 0:
            beyond = torch.clamp((again[at] - stored[at]).abs() - replay.step / 2, min=0)  # what rounding to the step does not explain
            difference = float(beyond.square().mean().sqrt() / torch.clamp(stored[at].square().mean().sqrt(), min=1e-6))
            if difference > (CODE_TOLERANCE_BF16 if replay.precision_of(ref.row) == "bf16" else CODE_TOLERANCE):
                found.append((ref.sample_id, f"encoding the film again gives another code, relative difference {difference:.3f}"))
    return found


def _refs(plan_path: Path, rows: set[int]) -> list[ImageRef]:
    plan = open_plan(plan_path)
    shards = sorted({row // plan.shard_rows for row in rows})
    return [ref for shard in plan.shards(shards) for ref in shard.refs if ref.row in rows]
