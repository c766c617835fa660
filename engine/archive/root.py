"""The root document `zarr.json`: what an archive says of itself, sealed by its own digest so that one flipped byte shows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.archive.folder_store import ROOT_KEY
from engine.archive.store import AnyPath, Store, is_url, open_store
from engine.errors import ArchiveError, FingerprintMismatch

__all__ = ["CODEC", "COMMIT", "FORMAT", "FORMAT_VERSION", "ROOT_KEY", "AnyPath", "Root", "examine", "read_root"]

FORMAT = "latentray"
FORMAT_VERSION = 1
COMMIT = "shards/commit"
CODEC = "codec"


def canonical_json(value: Any) -> bytes:
    """`value` as JSON in the one form that digests are taken of: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """What makes two runs the same: sha256 of the canonical JSON of everything that decides the bytes of an archive."""
    return sha256(canonical_json(parts))


@dataclass(frozen=True)
class Root:
    """An archive's root document, read and found whole, and the store that it lies in."""

    store: Store
    document: dict[str, Any]

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes, as FORMAT.md lists them."""
        attributes: dict[str, Any] = self.document["attributes"]
        return attributes

    @property
    def num_rows(self) -> int:
        """Films in the plan."""
        return int(self.attributes["num_rows"])

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last."""
        return int(self.attributes["shard_rows"])

    @property
    def num_shards(self) -> int:
        """Shards in the plan."""
        return -(-self.num_rows // self.shard_rows)

    @property
    def parts(self) -> dict[str, Any]:
        """What the fingerprint is made of."""
        parts: dict[str, Any] = self.attributes["fingerprint_parts"]
        return parts

    @property
    def codec_name(self) -> str:
        """The name of the codec that made the codes."""
        return str(self.parts["codec"]["name"])

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        """The metadata document of every array and group below the root, by path; these copies are under the seal."""
        nodes: dict[str, dict[str, Any]] = self.document["consolidated_metadata"]["metadata"]
        return nodes

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """The metadata documents of the arrays over `sample`, by name."""
        return {path: node for path, node in self.nodes.items() if "/" not in path and node["node_type"] == "array"}

    @property
    def static_objects(self) -> dict[str, str]:
        """sha256 of every object but the root that is written once, when the archive is created, by key."""
        objects: dict[str, str] = self.attributes["objects"]
        return objects

    def rows_of(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row after its last."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.num_rows)


def plan_beside(archive: AnyPath) -> Path:
    """The plan of an archive as a local path: `films.zarr` -> `films.plan.parquet`. It holds paths, so it is not inside.

    Nothing is there where it has no plan. Of an archive behind a URL this is a copy, to read.
    """
    store = open_store(archive)
    return store.beside(plan_name(store.name))


def plan_name(archive: str) -> str:
    """`films.zarr` -> `films.plan.parquet`."""
    return stem(archive) + ".plan.parquet"


def stem(archive: AnyPath) -> str:
    """An archive's name without its folder and its ending: `films` of s3://bucket/films.zarr."""
    return os.fspath(archive).rstrip("/").rpartition("/")[2].removesuffix(".zarr")


def results_beside(archive: AnyPath, name: str) -> Path:
    """Where what is made from an archive is written unless asked otherwise: beside it, or here where it lies behind a URL."""
    return Path(name) if is_url(archive) else Path(archive).with_name(name)


def sealed(document: Mapping[str, Any]) -> bytes:
    """The bytes of a root document with its seal, the sha256 of its canonical form without the seal."""
    attributes = {name: value for name, value in document["attributes"].items() if name != "seal"}
    attributes["seal"] = sha256(canonical_json({**document, "attributes": attributes}))
    return canonical_json({**document, "attributes": attributes})


def examine(path: AnyPath) -> tuple[Root | None, str]:
    """The root of an archive and "", or None and what is wrong with its `zarr.json`.

    Raises ArchiveError where there is no archive of ours at all, or one of a version that this code does not know.
    """
    store = open_store(path)
    raw = store.read_or_none(ROOT_KEY)
    if raw is None:
        if not store.has_any(""):
            raise ArchiveError(f"there is no archive: {store.where}")
        return _unless_foreign(store, "is missing")
    try:
        document = orjson.loads(raw)
        attributes = document["attributes"]
        is_named = attributes["format"] == FORMAT
        is_whole = _has_seal(raw, attributes.get("seal", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _unless_foreign(store, "is not the document that was written")
    if not is_named:
        return _unless_foreign(store, "does not say that it is of this format")
    if not is_whole:
        return None, "differs from its seal"
    if attributes["format_version"] != FORMAT_VERSION:
        version = attributes["format_version"]
        raise ArchiveError(f"archive has format version {version}, this latentray reads {FORMAT_VERSION}: {store.where}")
    return Root(store, document), ""


def _has_seal(raw: bytes, seal: str) -> bool:
    """Whether a root document is the one that was sealed: without its seal, its bytes have that digest. Nothing is written out anew."""
    return sha256(raw.replace(f'"seal":"{seal}",'.encode(), b"", 1)) == seal  # `shard_rows` comes after it


def read_root(path: AnyPath) -> Root:
    """The root of an archive; raises ArchiveError when it is no archive, of an unknown version, or damaged."""
    root, what = examine(path)
    if root is None:
        raise ArchiveError(f"archive is damaged, its {ROOT_KEY} {what}; see `latentray verify`: {path}")
    return root


def fingerprint_parts(path: AnyPath) -> dict[str, Any]:
    """What the fingerprint of an archive is made of."""
    return read_root(path).parts


def check_fingerprint(path: AnyPath, parts: Mapping[str, Any]) -> None:
    """Raises FingerprintMismatch, naming each part that differs as `old -> new`, unless the archive was made with the same parts."""
    differing = differences(read_root(path).parts, parts)
    if differing:
        listed = ", ".join(differing)
        raise FingerprintMismatch(f"archive was made otherwise and cannot be continued; use another --archive, or --overwrite: {listed}")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The parts in which two fingerprints differ, as `name old -> new`."""
    before, after = _flat(json.loads(canonical_json(old))), _flat(json.loads(canonical_json(new)))
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return [f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}" for name in names]


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {key: text for part, item in value.items() for key, text in _flat(item, f"{name}.{part}" if name else part).items()}
    return {name: canonical_json(value).decode().strip('"')}


def _unless_foreign(store: Store, what: str) -> tuple[None, str]:
    if not store.has_any(COMMIT):
        raise ArchiveError(f"this is not a latentray archive: {store.where}")
    return None, what
