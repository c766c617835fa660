"""Level 4 of `verify`: a sample of rows is read, decoded and compared again, so that the archive is held against the films themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine import metrics
from engine.errors import ArchiveError
from engine.records import ImageRef, PixelBatch
from engine.replay import Replay
from engine.source.plan import open_plan

MSE_TOLERANCE = 1e-4  # of mean squared error in [0, 1]: backends and decoders may differ by rounding, a wrong code differs by far more
CODE_TOLERANCE = 2e-2  # of the code's root mean square, for codes that the encoder made alone
CODE_TOLERANCE_BF16 = 1e-1  # the parity gate admits half of it


def audit_rows(archive: str | Path, plan_path: Path, *, count: int = 16, seed: int = 0, codec: str | None = None) -> list[tuple[str, str]]:
    """Checks up to `count` ok rows drawn with `seed`; returns (sample_id, what is wrong) for those that fail.

    Each film is read again from where the plan says. Its digest must be the recorded one; its stored code must reconstruct it to the
    recorded error; and where nothing was refined, encoding it again must give the stored code. Raises ArchiveError without a plan.
    """
    if not plan_path.exists():
        raise ArchiveError(f"level 4 reads films again and needs the plan, which is not there: {plan_path}")
    replay = Replay(archive, codec=codec)
    ok = np.flatnonzero(replay.status == 1)
    rows = np.sort(np.random.default_rng(seed).permutation(ok)[:count])
    refs = _refs(plan_path, {int(row) for row in rows})
    problems: list[tuple[str, str]] = []
    for pixels in replay.sources(refs):
        problems += [(failure.sample_id, f"the film cannot be read again: {failure.reason}") for failure in pixels.failures]
        if pixels.refs:
            problems += _check(replay, pixels)
    return problems


def _check(replay: Replay, pixels: PixelBatch) -> list[tuple[str, str]]:
    assert pixels.films is not None
    rows = [ref.row for ref in pixels.refs]
    some = replay.dataset.isel(sample=rows)
    stored = replay.latents(rows)
    error = metrics.mse(replay.films(stored, replay.film_size), metrics.to_unit(pixels.films).cpu())
    again = replay.as_stored(replay.codec.encode(pixels.pixels.to(replay.device))) if replay.codec.has_encoder else None
    found: list[tuple[str, str]] = []
    for at, (ref, info) in enumerate(zip(pixels.refs, pixels.infos, strict=True)):
        if info.sha256 != some["source_sha256"].to_numpy()[at].tobytes():
            found.append((ref.sample_id, "the source file is no longer the one that was encoded"))
            continue
        recorded = float(some["mse"].to_numpy()[at])
        if not np.isnan(recorded) and abs(recorded - float(error[at])) > MSE_TOLERANCE:
            found.append((ref.sample_id, f"the code reconstructs the film with MSE {float(error[at]):.6f}, recorded {recorded:.6f}"))
        if again is not None and int(some["steps"].to_numpy()[at]) == 0:
            difference = float((again[at] - stored[at]).square().mean().sqrt() / torch.clamp(stored[at].square().mean().sqrt(), min=1e-6))
            if difference > (CODE_TOLERANCE_BF16 if replay.precision_of(ref.row) == "bf16" else CODE_TOLERANCE):
                found.append((ref.sample_id, f"encoding the film again gives another code, relative difference {difference:.3f}"))
    return found


def _refs(plan_path: Path, rows: set[int]) -> list[ImageRef]:
    plan = open_plan(plan_path)
    shards = sorted({row // plan.shard_rows for row in rows})
    return [ref for shard in plan.shards(shards) for ref in shard.refs if ref.row in rows]
