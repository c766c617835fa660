"""From an archive back to films: its codec, its codes in order, and the pixels that they stand for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from engine import metrics
from engine.archive.commits import read_receipts
from engine.archive.reader import open_archive, read_codec_files, read_values
from engine.archive.root import fingerprint_parts
from engine.code_step import as_stored
from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.encode.codec import Codec, load_codec, load_codec_files
from engine.errors import ArchiveError, CodecError
from engine.records import ImageRef, PixelBatch, Status
from engine.source.opening import read_bytes
from engine.source.plan import Plan, make_plan


class Replay:
    """An archive opened together with the codec that made it: the one stored inside, else the one given.

    Raises CodecError when there is neither, or when the one given is not the one that made the archive.
    """

    def __init__(self, archive: str | Path, *, codec: str | None = None) -> None:
        self._archive = archive
        self.dataset: xr.Dataset = open_archive(archive)
        self.parts: dict[str, Any] = fingerprint_parts(archive)
        self.codec = _codec_of(archive, codec, self.parts["codec"]["digest"])
        self.film_size = int(self.parts["film_size"] or 1024)  # None where nothing was measured
        self.dtype = np.dtype(self.parts["latent"]["dtype"])
        self.step = float(self.parts["latent"].get("step", 0))
        self.status = read_values(self.dataset, "status")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.codec.to(self.device)

    @property
    def sample_ids(self) -> list[str]:
        """The id of every row, "" where no shard has been written yet."""
        return [str(name) for name in read_values(self.dataset, "sample_id")]

    def has_code(self, row: int) -> bool:
        """Whether a film can be made of this row: it is ok, or diverged and kept its best code."""
        return int(self.status[row]) in (Status.OK, Status.REFINE_DIVERGED)

    def precision_of(self, row: int) -> str:
        """What the networks ran in when this row was made, as its commit record has it."""
        return str(self._made_by[row // int(self.parts["shard_rows"])].get("precision", ""))

    @cached_property
    def _made_by(self) -> dict[int, dict[str, Any]]:
        return {receipt.shard: receipt.made_by for receipt in read_receipts(self._archive)}

    @property
    def row_of(self) -> dict[str, int]:
        """Rows that hold a code, by id."""
        return {name: row for row, name in enumerate(self.sample_ids) if self.has_code(row)}

    def sources(self, refs: Sequence[ImageRef], *, batch_size: int = 4) -> Iterator[PixelBatch]:
        """Source films, decoded by the codec's recipe, with `films` at the archive's film size."""
        limits = DecodeConfig(**self.parts["limits"])
        read = partial(read_bytes, max_bytes=limits.max_bytes)
        decoder = build_decoder(self.codec.recipe, limits, read=read, batch_size=batch_size, film_size=self.film_size)
        try:
            yield from decoder.batches(refs)
        finally:
            decoder.close()

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Codes of the rows, [N, *shape] float32."""
        return torch.from_numpy(read_values(self.dataset, "latent", rows).astype(np.float32))

    def films(self, latents: Tensor, size: int | None = None) -> Tensor:
        """Films of codes, [N, 1, S, S] float32 in [0, 1] at `size`, by default at the codec's own resolution."""
        with torch.inference_mode():
            pixels = self.codec.generate(latents.to(self.device))
            return metrics.to_unit(metrics.resize_film(pixels, size or pixels.shape[-1])).cpu()

    def as_stored(self, latents: Tensor) -> Tensor:
        """Codes as the archive would hold them: rounded to its step and type, [N, *shape] float32."""
        return torch.from_numpy(as_stored(latents, self.dtype, self.step).astype(np.float32))

    def batches(self, rows: Sequence[int], *, batch_size: int = 16, size: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Rows and their films, a few at a time."""
        for at in range(0, len(rows), batch_size):
            some = list(rows[at : at + batch_size])
            yield some, self.films(self.latents(some), size)


@contextmanager
def listed(source: str, *, id_from: str | None, limit: int | None = None, hash_key: bytes | None = None) -> Iterator[Plan]:
    """The plan of a source that is only looked at, in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        yield make_plan(source, Path(scratch) / "plan.parquet", shard_rows=256, id_from=id_from, limit=limit, hash_key=hash_key)


def _codec_of(archive: str | Path, given: str | None, digest: str) -> Codec:
    files = read_codec_files(archive) if given is None else None
    if given is None and files is None:
        raise CodecError(f"the archive holds no codec; name the one that made it with --codec: {archive}")
    codec = load_codec(given) if given is not None else load_codec_files(files or {})
    if codec.digest != digest:
        raise ArchiveError(f"this codec did not make the archive (its digest is {digest[:12]}): {codec.digest[:12]}")
    return codec
