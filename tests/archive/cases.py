"""Small real archives: a specification, the rows of a shard with good and failed films, and a plan beside the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.archive.folder_store import file_sha256
from engine.archive.root import plan_beside
from engine.archive.schema import ArchiveSpec
from engine.archive.writer import ShardWriter, create_archive, finalise
from engine.records import Failure, ImageRef, Shard, ShardReceipt, ShardRows, Status

CODEC_FILES = {"codec.json": b'{"name": "tiny"}', "weights.safetensors": bytes(range(256)) * 40, "empty.txt": b""}
ROWS, SHARD_ROWS, CODE = 10, 4, (3, 8)
STAGES = {Status.DECODE_ERROR: "decode", Status.REFINE_DIVERGED: "refine", Status.POISON: "worker", Status.NONFINITE: "encode"}


def sample_id(row: int, *, prefix: str = "film") -> str:
    """Ids with a letter outside ASCII, as file names have them."""
    return f"{prefix}-{row:05d}-ä"


def make_spec(
    path: Path, *, rows: int = ROWS, shard_rows: int = SHARD_ROWS, prefix: str = "film", plan: bool = True, **changes: Any
) -> ArchiveSpec:
    """The specification of an archive at `path`, with its plan written beside it."""
    digest = f"plan of {rows} {prefix}"
    settings: dict[str, Any] = {
        "num_rows": rows,
        "shard_rows": shard_rows,
        "latent_dims": ("layer", "channel"),
        "latent_shape": CODE,
        "latent_dtype": "f2",
        "fingerprint_parts": {
            "codec": {"name": "tiny", "digest": "ab" * 32},
            "refine": {"steps": 20},
            "shard_rows": shard_rows,
            "plan": digest,
        },
        "plan_digest": digest,
        "plan_sha256": write_plan(path, rows, shard_rows, prefix, digest) if plan else "",
        "software": {"latentray": "0.1.0"},
    }
    return ArchiveSpec(**{**settings, **changes})


def write_plan(path: Path, rows: int, shard_rows: int, prefix: str, digest: str) -> str:
    """A plan file of the columns and metadata that FORMAT.md gives it."""
    path.parent.mkdir(exist_ok=True)
    row = np.arange(rows)
    columns = {
        "row": pa.array(row, pa.int64()),
        "sample_id": [sample_id(at, prefix=prefix) for at in row],
        "uri": [f"/films/{prefix}/{at}.png" for at in row],
        "shard": pa.array(row // shard_rows, pa.int32()),
        f"label:{prefix}": [str(at) for at in row],
    }
    about = {"version": 1, "digest": digest, "num_rows": rows, "shard_rows": shard_rows, "kind": "folder", "root": "/films/"}
    about |= {"id_from": "stem", "hashed_ids": False, "label_names": [prefix]}
    with pq.ParquetWriter(plan_beside(path), pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
        writer.add_key_value_metadata({b"latentray.plan": json.dumps(about)})
    return file_sha256(plan_beside(path))


def make_shard(index: int, *, rows: int = ROWS, shard_rows: int = SHARD_ROWS, prefix: str = "film", attempt: int = 1) -> Shard:
    """One shard as the plan would give it."""
    span = range(index * shard_rows, min((index + 1) * shard_rows, rows))
    refs = tuple(ImageRef(row, sample_id(row, prefix=prefix), f"/films/{row}.png") for row in span)
    return Shard(index=index, refs=refs, digest=f"digest of shard {index}", attempt=attempt)


def make_rows(shard: Shard, *, seed: int = 0, statuses: tuple[Status, ...] = (Status.OK,), code: tuple[int, ...] = CODE) -> ShardRows:
    """Rows whose values depend on the row and `seed` only; `statuses` are dealt out in turn."""
    n = len(shard.refs)
    rng = np.random.default_rng([seed, shard.index])
    status = np.array([statuses[ref.row % len(statuses)] for ref in shard.refs], dtype="u1")
    latent = rng.normal(size=(n, *code)).astype("f2")
    quality = {name: rng.random(n).astype("f4") for name in ("mse_initial", "mse", "psnr", "ssim")}
    without = ~np.isin(status, (Status.OK, Status.REFINE_DIVERGED))
    latent[without] = np.nan
    for values in quality.values():
        values[without] = np.nan
    failures = [
        Failure(ref.row, ref.sample_id, Status(value), STAGES[Status(value)], "a reason")
        for ref, value in zip(shard.refs, status, strict=True)
        if value != Status.OK
    ]
    columns = {
        "latent": latent,
        "sample_id": np.array([ref.sample_id for ref in shard.refs], dtype=object),
        "status": status,
        **quality,
        "steps": rng.integers(0, 20, n).astype("u2"),
        "source_sha256": rng.integers(0, 256, (n, 32)).astype("u1"),
        "source_height": np.full(n, 1024, dtype="u2"),
        "source_width": np.full(n, 1024, dtype="u2"),
        "source_bits": np.full(n, 8, dtype="u1"),
    }
    return ShardRows(columns=columns, failures=failures)


MIXED = (Status.OK, Status.OK, Status.DECODE_ERROR, Status.OK, Status.REFINE_DIVERGED, Status.OK)


def publish(path: Path, shard: Shard, rows: ShardRows) -> ShardReceipt:
    """One shard through a writer of its own."""
    made_by = {"host": "here", "backend": "eager", "parity": {"max_abs": float("nan")}}
    return ShardWriter(path).publish(shard, rows, made_by=made_by, seconds={"encode": 1.0})


def make_archive(
    path: Path, *, rows: int = ROWS, shard_rows: int = SHARD_ROWS, prefix: str = "film", seed: int = 0, statuses: tuple[Status, ...] = MIXED
) -> Path:
    """A finished archive with an embedded codec and a plan."""
    create_archive(path, make_spec(path, rows=rows, shard_rows=shard_rows, prefix=prefix), codec_files=CODEC_FILES)
    for index in range(-(-rows // shard_rows)):
        shard = make_shard(index, rows=rows, shard_rows=shard_rows, prefix=prefix)
        publish(path, shard, make_rows(shard, seed=seed, statuses=statuses))
    finalise(path)
    return path


def objects(path: Path) -> dict[str, bytes]:
    """Every file of a store by key, but for the commit records, which tell of time and place."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {key: data for key, data in files.items() if not key.startswith("shards/commit/c/")}
