"""The reading side: the archive as an xarray dataset, and what its commit records tell without opening an array."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.archive.chunks import ChunkCodec, Column
from engine.archive.commits import CommitLog, read_receipts
from engine.archive.pace import pace
from engine.archive.root import CODEC, AnyPath, fingerprint_parts, read_root
from engine.archive.store import Store
from engine.errors import ArchiveError
from engine.records import Failure, Status

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "archive_status",
    "fingerprint_parts",
    "list_failures",
    "mean_quality",
    "open_archive",
    "read_codec_files",
    "read_receipts",
    "read_values",
]

_FIGURES = re.compile(r"\d+")
_NAME = re.compile(r"(?!\.)[\w.-]{1,255}")  # of a codec's file: nothing that leads elsewhere


def open_archive(path: AnyPath) -> xr.Dataset:
    """The archive as a lazy dataset over `sample`, also while a job runs: rows of pending shards have status 0, NaN codes and no id.

    Raises ArchiveError when it is no archive, of an unknown version, or its root is damaged.
    """
    import xarray as xr  # here, since status and the commit log do without

    root = read_root(path)
    dataset: xr.Dataset = xr.open_zarr(root.store.for_zarr(), consolidated=True, chunks=None, zarr_format=3)
    return dataset


def read_values(dataset: xr.Dataset, name: str, rows: Sequence[int] | None = None) -> Column:
    """The values of one array, of `rows` or of all; raises ArchiveError where an object is damaged, which Zarr's checksums find."""
    try:
        return np.asarray((dataset[name] if rows is None else dataset[name][list(rows)]).to_numpy())
    except (OSError, ValueError, RuntimeError) as error:
        raise ArchiveError(f"the archive is damaged, and `latentray verify` names the object; array {name}") from error
    except Exception as error:
        if not type(error).__module__.startswith("obstore"):  # whose errors have no base but Exception that can be named without it
            raise
        raise ArchiveError(f"the archive cannot be read, its store fails; array {name}") from None


def archive_status(path: AnyPath) -> dict[str, Any]:
    """Counts from the commit records alone, with the keys that INTERFACE fixes; `bytes` is the size of all committed objects.

    `failed` counts rows of any status but ok; `failed_by_reason` has a count for each `stage: reason`, figures
    in a reason as N, so that there are few; `list_failures` has them whole. What is known of its speed is as `pace` says.
    """
    root = read_root(path)
    receipts = CommitLog(root).read_all()
    ok = sum(receipt.rows.get(Status.OK.name.lower(), 0) for receipt in receipts)
    done = sum(receipt.num_rows for receipt in receipts)
    reasons = Counter(f"{failure.stage}: {_FIGURES.sub('N', failure.reason)}" for receipt in receipts for failure in receipt.failures)
    return {
        "rows": root.num_rows,
        "ok": ok,
        "failed": done - ok,
        "pending": root.num_rows - done,
        "shards": root.num_shards,
        "shards_done": len(receipts),
        "codec": root.codec_name,
        "latent_shape": root.columns["latent"]["shape"][1:],
        "bytes": sum(entry["bytes"] for receipt in receipts for entry in receipt.objects.values() if entry),
        "failed_by_reason": dict(reasons.most_common()),
        **pace(receipts, pending=root.num_rows - done),
    }


def list_failures(path: AnyPath) -> list[Failure]:
    """Every failed row of the finished shards, in row order."""
    return [failure for receipt in read_receipts(path) for failure in sorted(receipt.failures, key=lambda failure: failure.row)]


def mean_quality(path: AnyPath, names: Sequence[str] = ("mse_initial", "mse", "psnr", "ssim")) -> dict[str, float | None]:
    """Means of arrays of one number a row over the ok rows where they are finite; None where none was measured."""
    dataset = open_archive(path)
    ok = read_values(dataset, "status") == Status.OK
    means: dict[str, float | None] = {}
    for name in names:
        values = read_values(dataset, name)[ok]
        measured = values[np.isfinite(values)].astype(np.float64)
        means[name] = float(measured.mean()) if measured.size else None
    return means


def read_codec_files(path: AnyPath) -> dict[str, bytes] | None:
    """The embedded codec as its files, by name, or None where the archive has none; raises ArchiveError when one is damaged."""
    root = read_root(path)
    if CODEC not in root.nodes:
        return None
    nodes = {place: node for place, node in root.nodes.items() if place.startswith(f"{CODEC}/")}
    strange = next((place for place in nodes if not _NAME.fullmatch(place.removeprefix(f"{CODEC}/"))), None)
    if strange is not None:
        raise ArchiveError(f"embedded codec has a file of a name that no codec has, and is not read: {strange!a}")
    return {place.removeprefix(f"{CODEC}/"): _read_file(root.store, place, node) for place, node in nodes.items()}


def _read_file(store: Store, place: str, node: dict[str, Any]) -> bytes:
    codec = ChunkCodec(place, node)
    count = -(-node["shape"][0] // node["chunk_grid"]["configuration"]["chunk_shape"][0])
    if count == 0:
        return b""
    found = {at: store.read_or_none(codec.key(at)) for at in range(count)}
    try:  # a chunk of zeros has no object
        present = {at: data for at, data in found.items() if data is not None}
        return bytes(codec.decode_all(present, first=0, last=count - 1).tobytes())
    except (ValueError, RuntimeError) as error:
        raise ArchiveError(f"embedded codec is damaged; see `latentray verify`, or name the codec with --codec: {place}") from error
