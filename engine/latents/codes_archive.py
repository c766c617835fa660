"""Codes that were made rather than encoded, as an archive like any other: with ids, labels in its plan, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from engine.archive.reader import read_codec_files
from engine.archive.root import AnyPath, plan_name, read_root
from engine.archive.schema import OWN_ATTRIBUTES, SOURCE_PARTS, ArchiveSpec
from engine.archive.store import open_store, written_aside
from engine.archive.writer import ShardWriter, fill_archive, finalise
from engine.config import DecodeConfig
from engine.encode.codec import Codec
from engine.errors import ArchiveError
from engine.latents.codes import Values
from engine.records import Shard, ShardRows, Status
from engine.source.plan import Plan, open_plan
from engine.source.plan_file import About, write_plan

KIND = "codes"  # of a plan that lists no films
_MEASURED = ("mse_initial", "mse", "psnr", "ssim")

Cells = Sequence[str | None]


@dataclass(frozen=True, kw_only=True)
class Like:
    """What a new archive takes over: the form of its codes, the `parts` of a fingerprint that say how films come from them, and the codec.

    `origin`: the archive that its codes come from, by fingerprint and plan; empty where there was only a codec.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Literal["f2", "f4"]
    parts: Mapping[str, Any]
    software: Mapping[str, str]
    shard_rows: int
    codec_files: Mapping[str, bytes] | None
    origin: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


def like_archive(path: AnyPath) -> Like:
    """The codec, type and codec files of an archive. Raises ArchiveError."""
    root = read_root(path)
    latent = root.columns["latent"]
    return Like(
        dims=tuple(latent["dimension_names"][1:]),
        shape=tuple(latent["shape"][1:]),
        dtype="f2" if latent["data_type"] == "float16" else "f4",
        parts={name: part for name, part in root.parts.items() if name not in (*SOURCE_PARTS, "maps", "refine")},
        software=root.attributes["software"],
        shard_rows=root.shard_rows,
        codec_files=read_codec_files(path),
        origin={"fingerprint": root.attributes["fingerprint"], "plan": root.attributes["plan"]["digest"]},
        attributes={name: value for name, value in root.attributes.items() if name not in OWN_ATTRIBUTES},
    )


def like_codec(codec: Codec, *, software: Mapping[str, str], codec_files: Mapping[str, bytes] | None, shard_rows: int = 1024) -> Like:
    """A codec of which no archive is there yet. Codes are stored as float32, just as they were made; `codec_files` as for a new archive."""
    limits = DecodeConfig()
    return Like(
        dims=codec.code_dims,
        shape=codec.code_shape,
        dtype="f4",
        parts={
            "codec": {"name": codec.name, "digest": codec.digest},
            "recipe": codec.recipe.to_json(),
            "latent": {"dims": list(codec.code_dims), "shape": list(codec.code_shape), "dtype": "f4", "gauge": codec.gauge},
            "film_size": None,
            "precision": "fp32",
            "limits": {"max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels},
        },
        software=software,
        shard_rows=shard_rows,
        codec_files=codec_files,
    )


def write_codes(
    out: AnyPath,
    like: AnyPath | Like,
    *,
    values: Values,
    ids: Sequence[str],
    labels: Mapping[str, Cells] | None = None,
    made: Mapping[str, Any],
) -> None:
    """Writes codes [n, d] under ids of their own into a new archive like `like`, an archive or what is taken over.

    `labels`: cells by column, which its plan holds beside it, so that every verb finds them. `made`: how the codes came about, part of the
    fingerprint. Nothing was measured: quality is NaN. `out` comes into being whole or not at all; raises ArchiveError where it exists.
    """
    check_is_free(out)
    like, columns = like if isinstance(like, Like) else like_archive(like), dict(labels or {})
    shard_rows = min(like.shard_rows, len(ids))
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
    with written_aside(out) as aside, TemporaryDirectory(prefix="latentray-") as scratch:
        path = Path(scratch) / "plan.parquet"
        write_plan(path, ((name, "", *row) for name, row in zip(ids, cells, strict=True)), about)
        plan = open_plan(path)
        fill_archive(aside, _spec(like, plan, made), codec_files=like.codec_files)
        writer = ShardWriter(aside)
        for shard in plan.shards():
            writer.publish(shard, _rows(shard, values, like), made_by={"made": dict(made)}, seconds={})
        finalise(aside)
        store = open_store(out)
        store.put_beside(plan_name(store.name), path)


def check_is_free(out: AnyPath) -> None:
    """Raises ArchiveError unless a new archive can have this name: worth asking before hours of work."""
    if open_store(out).has_any(""):
        raise ArchiveError(f"archive is there already, name another: {out}")


def _spec(like: Like, plan: Plan, made: Mapping[str, Any]) -> ArchiveSpec:
    return ArchiveSpec(
        num_rows=plan.num_rows,
        shard_rows=plan.shard_rows,
        latent_dims=like.dims,
        latent_shape=like.shape,
        latent_dtype=like.dtype,
        fingerprint_parts={
            **like.parts,
            "made": {**({"from": dict(like.origin)} if like.origin else {}), **made},
            "metrics": "none",
            "shard_rows": plan.shard_rows,
            "plan": plan.digest,
        },
        plan_digest=plan.digest,
        plan_sha256=plan.file_sha256,
        software=like.software,
        attributes=like.attributes,
    )


def _rows(shard: Shard, values: Values, like: Like) -> ShardRows:
    first, count = shard.refs[0].row, len(shard.refs)
    latent = values[first : first + count].reshape(count, *like.shape).astype(np.dtype(like.dtype))
    if not np.isfinite(latent).all():
        raise ArchiveError(f"codes cannot be stored as {like.dtype}: one of rows {first} to {first + count - 1} is not finite")
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
