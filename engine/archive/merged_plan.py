"""One plan file out of several, for a merged archive: the rows one after another, renumbered, with the labels of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.archive.folder_store import clear_errors, file_sha256
from engine.archive.root import Root, plan_beside
from engine.errors import ArchiveError

METADATA = b"latentray.plan"  # what a plan says about itself, as JSON; FORMAT.md has the fields


def merge_plans(roots: Sequence[Root], out: Path, *, digest: str) -> str:
    """Writes the archives' plans as one to `out` and returns its sha256, or "" without writing when one of them is not there.

    Raises ArchiveError for a plan that is not the one its archive was made from.
    """
    paths = [plan_beside(root.store.where) for root in roots]
    if not all(path.exists() for path in paths):
        return ""
    for root, path in zip(roots, paths, strict=True):
        if file_sha256(path) != root.attributes["plan"]["sha256"]:
            raise ArchiveError(f"this is not the plan that its archive was made from; move it away to merge without plans: {path}")
    try:
        with clear_errors(out), ExitStack() as stack:
            _concatenate([stack.enter_context(pq.ParquetFile(path)) for path in paths], out, digest, roots[0].shard_rows)
    except (pa.ArrowException, KeyError) as error:
        raise ArchiveError(f"plans cannot be joined, {str(error).splitlines()[0]}: {', '.join(map(str, paths))}") from error
    return file_sha256(out)


def plan_kind(path: Path) -> str:
    """What kind of source a plan was made of: "folder", "manifest", "merged", "codes" ...; "" where there is no plan that can be read."""
    try:
        return str(json.loads(pq.read_metadata(path).metadata[METADATA])["kind"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return ""


def _concatenate(files: Sequence[pq.ParquetFile], out: Path, digest: str, shard_rows: int) -> None:
    about = [json.loads(file.metadata.metadata[METADATA]) for file in files]
    labels = list(dict.fromkeys(name for file in files for name in file.schema_arrow.names[4:]))
    own = [("row", pa.int64()), ("sample_id", pa.string()), ("uri", pa.string()), ("shard", pa.int32())]
    schema = pa.schema(own + [(name, pa.string()) for name in labels])
    first = 0
    with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in (batch for file in files for batch in file.iter_batches()):
            row = np.arange(first, first + len(batch))
            columns = [row, batch.column("sample_id"), batch.column("uri"), row // shard_rows]
            columns += [batch.column(name) if name in batch.schema.names else pa.nulls(len(batch), pa.string()) for name in labels]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            first += len(batch)
        writer.add_key_value_metadata({METADATA: json.dumps(_about(about, digest, first))})


def _about(parts: Sequence[dict[str, Any]], digest: str, num_rows: int) -> dict[str, Any]:
    ways = {part["id_from"] for part in parts}
    return {
        **parts[0],
        "digest": digest,
        "num_rows": num_rows,
        "kind": "merged",
        "root": "",
        "id_from": ways.pop() if len(ways) == 1 else "mixed",
        "hashed_ids": any(part["hashed_ids"] for part in parts),
        "label_names": list(dict.fromkeys(name for part in parts for name in part["label_names"])),
    }
