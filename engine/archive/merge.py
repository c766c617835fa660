"""Joins archives that were made alike from different films: shard objects as they are where shards line up, else row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engine.archive.chunks import Column, column_codecs
from engine.archive.commits import CommitLog
from engine.archive.ids import IdLedger
from engine.archive.merged_plan import merge_plans
from engine.archive.reader import read_codec_files
from engine.archive.root import AnyPath, Root, canonical_json, differences, plan_name, read_root, sha256
from engine.archive.schema import OWN_ATTRIBUTES, SOURCE_PARTS, ArchiveSpec, further_arrays
from engine.archive.store import open_store, written_aside
from engine.archive.writer import ShardWriter, fill_archive, finalise
from engine.errors import ArchiveError, FingerprintMismatch
from engine.records import Failure, ImageRef, Shard, ShardReceipt, ShardRows

SHOWN_IDS = 5
COPIERS = 8


class _Part:
    """One of the archives that are merged; `first_row` and `first_shard` say where it begins in the merged one."""

    def __init__(self, root: Root, first_row: int) -> None:
        self.root = root
        self.first_row = first_row
        self.first_shard = first_row // root.shard_rows
        self.codecs = column_codecs(root)
        self.receipts = CommitLog(root).read_all()
        if len(self.receipts) != root.num_shards:
            pending = root.num_shards - len(self.receipts)
            raise ArchiveError(f"archive is not finished, {pending} of {root.num_shards} shards are pending: {root.store.where}")

    def read(self, receipt: ShardReceipt, key: str) -> bytes | None:
        """One committed object; raises ArchiveError when it is not what was committed."""
        entry = receipt.objects[key]
        data = None if entry is None else self.root.store.read(key)
        if entry is not None and sha256(data or b"") != entry["sha256"]:
            raise ArchiveError(f"archive is damaged; see `latentray verify`: {self.root.store.where}/{key}")
        return data

    def column(self, receipt: ShardReceipt, name: str) -> Column:
        """The values of one array in one shard."""
        codec = self.codecs[name]
        return codec.decode(receipt.shard, self.read(receipt, codec.key(receipt.shard)))

    def failures(self, receipt: ShardReceipt) -> list[Failure]:
        """A shard's failures under their rows in the merged archive."""
        return [replace(failure, row=failure.row + self.first_row) for failure in receipt.failures]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Consecutive rows on their way from old shards to a new one: `origins` has the row after each old shard's last, and its receipt."""

    first_row: int
    columns: dict[str, Column]
    failures: list[Failure]
    origins: list[tuple[int, ShardReceipt]]

    def __len__(self) -> int:
        return len(self.columns["status"])

    def joined(self, other: _Rows) -> _Rows:
        columns = {name: np.concatenate([values, other.columns[name]]) for name, values in self.columns.items()}
        return _Rows(self.first_row, columns, self.failures + other.failures, self.origins + other.origins)

    def cut(self, num_rows: int) -> tuple[_Rows, _Rows]:
        """The first `num_rows`, and the others."""
        end = self.first_row + num_rows
        head = {name: values[:num_rows] for name, values in self.columns.items()}
        tail = {name: values[num_rows:] for name, values in self.columns.items()}
        reached = next(at for at, (last, _) in enumerate(self.origins) if last >= end)
        return (
            _Rows(self.first_row, head, [failure for failure in self.failures if failure.row < end], self.origins[: reached + 1]),
            _Rows(end, tail, [failure for failure in self.failures if failure.row >= end], [it for it in self.origins if it[0] > end]),
        )


def merge_archives(paths: Sequence[AnyPath], out: AnyPath) -> Root:
    """Writes the rows of finished archives, in the order given, into a new one, and their plans into one beside it.

    Where every archive but the last ends with a full shard, objects are copied byte for byte. Raises FingerprintMismatch, naming the
    parts, unless the archives differ in their films only; ArchiveError when one is unfinished or damaged, when a sample id occurs twice,
    or when `out` exists. `out` comes into being whole or not at all.
    """
    roots = [read_root(path) for path in paths]
    if len(roots) < 2:
        raise ArchiveError(f"merging needs two archives or more: {len(roots)}")
    _refuse_unlike(roots)
    parts = [_Part(root, sum(before.num_rows for before in roots[:at])) for at, root in enumerate(roots)]
    _refuse_repeated_ids(parts)
    shard_rows = roots[0].shard_rows
    digest = sha256(canonical_json({"merged": [root.attributes["plan"]["digest"] for root in roots]}))
    with written_aside(out) as aside, TemporaryDirectory(prefix="latentray-") as scratch:
        plan = Path(scratch) / "plan.parquet"
        plan_sha256 = merge_plans(roots, plan, digest=digest)
        codecs = (read_codec_files(root.store.where) for root in roots)
        fill_archive(aside, _spec(roots, digest, plan_sha256), codec_files=next((files for files in codecs if files), None))
        lined_up = all(root.num_rows % shard_rows == 0 for root in roots[:-1])
        (_copy_shards if lined_up else _rewrite_rows)(parts, aside)
        finalise(aside)
        if plan_sha256:
            store = open_store(out)
            store.put_beside(plan_name(store.name), plan)
    return read_root(out)


def _refuse_unlike(roots: Sequence[Root]) -> None:
    shared = [{name: part for name, part in root.parts.items() if name not in SOURCE_PARTS} for root in roots]
    for root, parts in zip(roots[1:], shared[1:], strict=True):
        differing = differences(shared[0], parts)
        if differing:
            raise FingerprintMismatch(f"archives were made otherwise and cannot be merged, {root.store.name} in {', '.join(differing)}")


def _refuse_repeated_ids(parts: Sequence[_Part]) -> None:
    ledger = IdLedger()
    for part in parts:
        for receipt in part.receipts:
            ledger.add([str(name) for name in part.column(receipt, "sample_id")], first_row=part.first_row + receipt.first_row)
    repeated: list[str] = []
    for group in ledger.suspects():
        names = [_id_of_row(parts, row) for row in group]
        repeated += sorted({name for name in names if names.count(name) > 1})
    if repeated:
        shown = ", ".join(repeated[:SHOWN_IDS]) + (" ..." if len(repeated) > SHOWN_IDS else "")
        raise ArchiveError(f"archives share {len(repeated)} sample ids; encode one of them with --id relpath: {shown}")


def _id_of_row(parts: Sequence[_Part], row: int) -> str:
    part = next(part for part in reversed(parts) if part.first_row <= row)
    at = row - part.first_row
    receipt = part.receipts[at // part.root.shard_rows]
    return str(part.column(receipt, "sample_id")[at - receipt.first_row])


def _spec(roots: Sequence[Root], digest: str, plan_sha256: str) -> ArchiveSpec:
    root = roots[0]
    latent = root.columns["latent"]
    kept = {name: part for name, part in root.parts.items() if name not in SOURCE_PARTS}
    return ArchiveSpec(
        num_rows=sum(root.num_rows for root in roots),
        shard_rows=root.shard_rows,
        latent_dims=tuple(latent["dimension_names"][1:]),
        latent_shape=tuple(latent["shape"][1:]),
        latent_dtype="f2" if latent["data_type"] == "float16" else "f4",
        fingerprint_parts={**kept, "plan": digest},
        plan_digest=digest,
        plan_sha256=plan_sha256,
        software=root.attributes["software"],
        more=further_arrays(root.columns),
        attributes={name: value for name, value in root.attributes.items() if name not in OWN_ATTRIBUTES},
    )


def _copy_shards(parts: Sequence[_Part], archive: Path) -> None:
    root = read_root(archive)
    log, codecs = CommitLog(root), column_codecs(root)

    def copy(part: _Part, receipt: ShardReceipt) -> None:
        shard = part.first_shard + receipt.shard
        key_of = {part.codecs[name].key(receipt.shard): codec.key(shard) for name, codec in codecs.items()}
        for old, new in key_of.items():
            data = part.read(receipt, old)
            if data is not None:
                root.store.put_if_absent(new, data)
        moved = replace(
            receipt,
            shard=shard,
            first_row=part.first_row + receipt.first_row,
            objects={new: receipt.objects[old] for old, new in sorted(key_of.items(), key=lambda pair: pair[1])},
            failures=part.failures(receipt),
        )
        root.store.put_if_absent(log.key(shard), log.encode(moved))

    with ThreadPoolExecutor(COPIERS) as pool:  # so that the disk flushes many objects together
        for part in parts:
            for _ in pool.map(partial(copy, part), part.receipts):
                pass


def _rewrite_rows(parts: Sequence[_Part], archive: Path) -> None:
    root, writer = read_root(archive), ShardWriter(archive)
    arriving = _decoded(parts)
    held = next(arriving)
    for shard in range(root.num_shards):
        first, last = root.rows_of(shard)
        while len(held) < last - first:
            held = held.joined(next(arriving))
        now, held = held.cut(last - first)
        old = [receipt for _, receipt in now.origins]
        ids = [str(name) for name in now.columns["sample_id"]]
        writer.publish(
            Shard(
                index=shard,
                refs=tuple(ImageRef(first + at, name, "") for at, name in enumerate(ids)),
                digest=sha256(canonical_json([receipt.plan_digest for receipt in old])),
            ),
            ShardRows(columns=now.columns, failures=now.failures),
            made_by={"merged_from": [receipt.made_by for receipt in old]},
            seconds={},
        )


def _decoded(parts: Sequence[_Part]) -> Iterator[_Rows]:
    for part in parts:
        for receipt in part.receipts:
            first = part.first_row + receipt.first_row
            columns = {name: part.column(receipt, name) for name in part.codecs}
            yield _Rows(first, columns, part.failures(receipt), [(first + receipt.num_rows, receipt)])
