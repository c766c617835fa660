"""Films of an archive read again, each beside the film that its code stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine import metrics
from engine.archive.root import plan_beside
from engine.errors import ArchiveError
from engine.latents.codes_archive import KIND
from engine.pictures import Image
from engine.records import ImageRef, PixelBatch, SourceInfo
from engine.replay import Replay, listed
from engine.source.plan import Plan, open_plan

_BATCH = 8


@dataclass
class Compared:
    """Films of one batch [N, S, S] beside their reconstructions, all finite; without those that `Missing` counts."""

    refs: list[ImageRef]
    infos: list[SourceInfo]
    films: list[Image] = field(default_factory=list)
    reconstructions: list[Image] = field(default_factory=list)


@dataclass
class Missing:
    """Rows that gave no pair, counted as they are met: `codes` that are not finite, `files` that cannot be read."""

    codes: int = 0
    files: int = 0


class FilmsOfArchive:
    """Films of an archive and the films that its codes stand for, as pairs of at most `side` pixels. Memory is that of one batch.

    Films come from `source`, or else from the archive's own plan. Raises as `Replay`.
    """

    def __init__(
        self,
        archive: str | Path,
        *,
        side: int,
        source: str | None = None,
        codec: str | None = None,
        id_from: str | None = None,
        hash_key: bytes | None = None,
    ) -> None:
        self.replay = Replay(archive, codec=codec)
        self.side = min(side, self.replay.film_size)
        self._archive, self._source, self._id_from, self._hash_key = Path(archive), source, id_from, hash_key

    def pairs(self, wanted: set[str], missing: Missing) -> Iterator[Compared]:
        """Those of these ids that the source has, a batch at a time, in the order of the source; what is `missing` is added up.

        Raises ArchiveError where the plan is not there or lists no films, SourceError where the source cannot be listed.
        """
        row_of = self.replay.row_of
        for batch in self.batches(wanted & row_of.keys(), missing):
            yield self._compared(batch, [row_of[ref.sample_id] for ref in batch.refs], missing)

    def batches(self, wanted: set[str], missing: Missing) -> Iterator[PixelBatch]:
        """The films alone, decoded by the codec's recipe, for who needs no reconstructions. Raises as `pairs`."""
        with self._plan() as plan:
            for shard in plan.shards():
                refs = [ref for ref in shard.refs if ref.sample_id in wanted]
                for batch in self.replay.sources(refs, batch_size=_BATCH) if refs else ():
                    missing.files += len(batch.failures)
                    if batch.refs:
                        yield batch

    def films(self, batch: PixelBatch, places: Sequence[int]) -> list[Image]:
        """Some films of a batch, each [side, side] float32 in [0, 1]."""
        assert batch.films is not None
        return list(metrics.to_unit(metrics.resize_film(batch.films[list(places)].cpu(), self.side))[:, 0].numpy())

    def _compared(self, batch: PixelBatch, rows: Sequence[int], missing: Missing) -> Compared:
        latents = self.replay.latents(rows)
        kept = torch.isfinite(latents).flatten(1).all(1)
        missing.codes += int((~kept).sum())
        places = [int(place) for place in torch.nonzero(kept).flatten()]
        compared = Compared([batch.refs[place] for place in places], [batch.infos[place] for place in places])
        if places:
            compared.films = self.films(batch, places)
            compared.reconstructions = list(self.replay.films(latents[kept], self.side)[:, 0].numpy())
        return compared

    @contextmanager
    def _plan(self) -> Iterator[Plan]:
        if self._source is not None:
            with listed(self._source, id_from=self._id_from, hash_key=self._hash_key) as plan:
                yield plan
            return
        path = plan_beside(self._archive)
        if not path.exists():
            raise ArchiveError(f"films are read again, and the plan that lists them is not there; name them with --source: {path}")
        plan = open_plan(path)
        if plan.about.kind == KIND:
            raise ArchiveError(f"codes of this archive were made, there are no films to hold them against: {self._archive}")
        yield plan
