"""Codes that were made rather than encoded, as an archive like any other: with ids, labels in its plan, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.archive import store
from engine.archive.reader import read_codec_files
from engine.archive.root import AnyPath, Root, plan_beside, read_root
from engine.archive.schema import OWN_ATTRIBUTES, SOURCE_PARTS, ArchiveSpec
from engine.archive.writer import ShardWriter, fill_archive, finalise
from engine.errors import ArchiveError
from engine.latents.codes import Values
from engine.records import Shard, ShardRows, Status
from engine.source.plan import Plan, open_plan
from engine.source.plan_file import About, write_plan

KIND = "codes"  # of a plan that lists no films
_MEASURED = ("mse_initial", "mse", "psnr", "ssim")

Cells = Sequence[str | None]


def write_codes(
    out: Path, like: AnyPath, *, values: Values, ids: Sequence[str], labels: Mapping[str, Cells] | None = None, made: Mapping[str, Any]
) -> None:
    """Writes codes [n, d] under ids of their own into a new archive of the codec, type and codec files of the archive `like`.

    `labels`: cells by column, which its plan holds beside it, so that every verb finds them. `made`: how the codes came about, part of the
    fingerprint. Nothing was measured: quality is NaN. `out` comes into being whole or not at all; raises ArchiveError where it exists.
    """
    if "://" in str(out):
        raise ArchiveError(f"archives lie on a file system in this version, not behind a URL: {out}")
    if out.exists():
        raise ArchiveError(f"archive is there already, name another: {out}")
    root, columns = read_root(like), dict(labels or {})
    shard_rows = min(root.shard_rows, len(ids))
    about = About(
        num_rows=len(ids),
        shard_rows=shard_rows,
        kind=KIND,
        root="",
        id_from="column",
        hashed_ids=False,
        label_names=tuple(columns),
    )
    cells = zip(*columns.values(), strict=True) if columns else ((),) * len(ids)
    with store.written_aside(out) as aside:
        path = aside / "plan.parquet"
        write_plan(path, ((name, "", *row) for name, row in zip(ids, cells, strict=True)), about)
        plan = open_plan(path)
        fill_archive(aside, _spec(root, plan, made), codec_files=read_codec_files(like))
        writer = ShardWriter(aside)
        for shard in plan.shards():
            writer.publish(shard, _rows(shard, values, writer.latent_dtype, root), made_by={"made": dict(made)}, seconds={})
        finalise(aside)
        path.replace(plan_beside(out))


def _spec(root: Root, plan: Plan, made: Mapping[str, Any]) -> ArchiveSpec:
    latent = root.columns["latent"]
    kept = {name: part for name, part in root.parts.items() if name not in (*SOURCE_PARTS, "maps", "refine")}
    origin = {"fingerprint": root.attributes["fingerprint"], "plan": root.attributes["plan"]["digest"]}
    return ArchiveSpec(
        num_rows=plan.num_rows,
        shard_rows=plan.shard_rows,
        latent_dims=tuple(latent["dimension_names"][1:]),
        latent_shape=tuple(latent["shape"][1:]),
        latent_dtype="f2" if latent["data_type"] == "float16" else "f4",
        fingerprint_parts={
            **kept,
            "made": {"from": origin, **made},
            "metrics": "none",
            "shard_rows": plan.shard_rows,
            "plan": plan.digest,
        },
        plan_digest=plan.digest,
        plan_sha256=plan.file_sha256,
        software=root.attributes["software"],
        attributes={name: value for name, value in root.attributes.items() if name not in OWN_ATTRIBUTES},
    )


def _rows(shard: Shard, values: Values, dtype: str, root: Root) -> ShardRows:
    first, count = shard.refs[0].row, len(shard.refs)
    shape = tuple(root.columns["latent"]["shape"][1:])
    latent = values[first : first + count].reshape(count, *shape).astype(np.dtype(dtype))
    if not np.isfinite(latent).all():
        raise ArchiveError(f"codes cannot be stored as {dtype}: one of rows {first} to {first + count - 1} is not finite")
    return ShardRows(
        columns={
            "latent": latent,
            "sample_id": np.array([ref.sample_id for ref in shard.refs], dtype=object),
            "status": np.full(count, int(Status.OK), dtype=np.uint8),
            **{name: np.full(count, np.nan, dtype=np.float32) for name in _MEASURED},
            "steps": np.zeros(count, dtype=np.uint16),
            "source_sha256": np.zeros((count, 32), dtype=np.uint8),
            "source_height": np.zeros(count, dtype=np.uint16),
            "source_width": np.zeros(count, dtype=np.uint16),
            "source_bits": np.zeros(count, dtype=np.uint8),
        },
        failures=[],
    )
