"""Films against what came back of them: PSNR and SSIM film by film, and how far apart the two sets are as our own classifier sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Tensor

from benchmarks.commands import StepFailed
from engine import metrics
from engine.features import FeatureNetwork
from engine.frechet import FrechetDistance
from engine.replay import Replay, listed

FILMS_AT_ONCE = 4

Rebuild = Callable[[Tensor, list[int]], Tensor]
"""(films [N, 1, S, S] in [0, 1], their rows in the archive) -> the same films again."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """PSNR (dB, gray in [0, 1]) and SSIM of each film, and the Fréchet distance of both sets; None without a classifier."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    frechet: float | None

    def columns(self) -> dict[str, float]:
        """The means and the distance, as a table has them."""
        distance = {} if self.frechet is None else {"Fréchet": self.frechet}
        return {"mean PSNR dB": fmean(self.psnr), "SSIM": fmean(self.ssim)} | distance


def judge(replay: Replay, manifest: Path, network: FeatureNetwork | None, rebuild: Rebuild | None = None) -> Judged:
    """Every film of the manifest, as the archive's recipe has it at the archive's film size, against what its stored code stands for.

    With `rebuild`, against what that makes of it. Raises StepFailed where a film has no code, since all rows are to be of the same films.
    """
    again = rebuild or (lambda films, rows: replay.films(replay.latents(rows), films.shape[-1]))
    distance = None if network is None else FrechetDistance(network.features, network.dim)
    psnr: list[float] = []
    ssim: list[float] = []
    row_of = replay.row_of
    with listed(str(manifest), id_from=None) as plan:
        refs = [ref for shard in plan.shards() for ref in shard.refs]
    with_code = [ref for ref in refs if ref.sample_id in row_of]
    if len(with_code) < len(refs):
        raise StepFailed(f"rows must be of the same films, so each must have a code; without one: {len(refs) - len(with_code)}")
    for batch in replay.sources(refs, batch_size=FILMS_AT_ONCE):
        if batch.films is None or not batch.refs:
            continue
        films = metrics.to_unit(batch.films).cpu()
        rebuilt = again(films, [row_of[ref.sample_id] for ref in batch.refs])
        psnr += metrics.psnr(rebuilt, films).tolist()
        ssim += metrics.ssim(rebuilt, films).tolist()
        if distance is not None:
            distance.add_real(films * 2 - 1)
            distance.add_fake(rebuilt * 2 - 1)
    return Judged(psnr=tuple(psnr), ssim=tuple(ssim), frechet=distance.compute() if distance is not None and len(psnr) > 1 else None)
