"""What an archive is made of: its arrays with their types and chunks, as FORMAT.md has them, and the settings that shape them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.errors import UnstableSpecificationWarning
from zarr.storage import MemoryStore

from engine.archive.root import CODEC, COMMIT, FORMAT, FORMAT_VERSION, ROOT_KEY, canonical_json, fingerprint, sealed, sha256
from engine.errors import ArchiveError, ConfigError
from engine.records import Status

INNER_CHUNK_BYTES = 2**19  # of latents, before compression: what a reader of single rows has to fetch
# Of a blosc block, for each byte of a number: blosc puts first bytes first, and zstd's blocks are as long, so that the noise of the last
# bytes does not spoil the code words of the first. Higher levels look for repeats that codes do not have, and read more slowly.
PLANE_BYTES, BLOSC_LEVEL = 2**17, 1
CODEC_CHUNK_BYTES = 4 * 2**20
BYTES = "bytes"  # as zarr-extensions registers it
_BYTES_IN_ZARR = "variable_length_bytes"  # as Zarr-Python writes it, which warns and reads either
SOURCE_PARTS = ("plan", "source")  # the parts of a fingerprint that say which films; archives that differ only there can be merged
OWN_ATTRIBUTES = frozenset(
    {
        *("Conventions", "format", "format_version", "num_rows", "shard_rows", "fingerprint", "fingerprint_parts"),
        *("plan", "software", "objects", "content", "seal"),
    }
)

Documents = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RowArray:
    """One more array along `sample`: `dtype` as in "u1", the names and lengths of its further dimensions. Fill is 0, NaN for floats.

    `dtype` "bytes": a byte string of any length a row, b"" where there is none; such an array has no further dimensions.
    """

    dtype: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fill(self) -> Any:
        """What a row without a value holds."""
        if self.dtype == BYTES:
            return b""
        return float("nan") if np.dtype(self.dtype).kind == "f" else 0

    @property
    def column_dtype(self) -> np.dtype[Any]:
        """The type of a NumPy column of such rows."""
        return np.dtype(object if self.dtype == BYTES else self.dtype)


@dataclass(frozen=True, kw_only=True)
class ArchiveSpec:
    """All that is fixed when an archive is created.

    `fingerprint_parts` is all that decides the bytes of the rows; it holds `codec` with the codec's `name`, and its `shard_rows` and
    `plan` (the plan's digest) must be those given here. `plan_sha256` is of the plan file's bytes. `attributes` are further attributes
    of the group, as JSON values, and `more` further arrays along `sample`, by name. Raises ConfigError for values that make no archive.
    """

    num_rows: int
    shard_rows: int
    latent_dims: tuple[str, ...]
    latent_shape: tuple[int, ...]
    latent_dtype: Literal["f2", "f4"]
    fingerprint_parts: Mapping[str, Any]
    plan_digest: str
    plan_sha256: str
    software: Mapping[str, str]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, RowArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_rows < 1 or self.shard_rows < 1:
            raise ConfigError(f"an archive needs 1 row or more and shards of 1 row or more: {self.num_rows}, {self.shard_rows}")
        if len(self.latent_dims) != len(self.latent_shape) or not self.latent_shape or min(self.latent_shape) < 1:
            raise ConfigError(f"a code needs a length of 1 or more for each named dimension: {self.latent_dims}, {self.latent_shape}")
        if len({"sample", "byte", *self.latent_dims}) != 2 + len(self.latent_dims):
            raise ConfigError(f"a code's dimensions must differ from one another, from `sample` and from `byte`: {self.latent_dims}")
        if self.latent_dtype not in ("f2", "f4"):
            raise ConfigError(f"codes are stored as f2 or f4: {self.latent_dtype}")
        for name, value in (("shard_rows", self.shard_rows), ("plan", self.plan_digest)):
            if self.fingerprint_parts.get(name) != value:
                raise ConfigError(f"fingerprint part {name} must be {value}: {self.fingerprint_parts.get(name)}")
        if not isinstance(self.fingerprint_parts.get("codec"), Mapping) or "name" not in self.fingerprint_parts["codec"]:
            raise ConfigError(f"fingerprint part codec must have a name: {self.fingerprint_parts.get('codec')}")
        taken = sorted(set(self.attributes) & OWN_ATTRIBUTES)
        if taken:
            raise ConfigError(f"these attributes are the archive's own: {', '.join(taken)}")
        taken = sorted({name for name in self.more if name in _OWN_NAMES or not name.isidentifier()})
        if taken:
            raise ConfigError(f"further arrays cannot have these names: {', '.join(taken)}")


def static_objects(spec: ArchiveSpec, codec_files: Mapping[str, bytes] | None) -> dict[str, bytes]:
    """Every object of a new archive that holds no rows, by key: the sealed root, the arrays' metadata, the embedded codec."""
    objects = _arrays(spec) | _codec_arrays(codec_files or {})
    documents: Documents = {}
    for key in sorted(key for key in objects if key.endswith("/zarr.json")):
        documents[key.removesuffix("/zarr.json")] = _as_registered(json.loads(objects[key]))
        objects[key] = canonical_json(documents[key.removesuffix("/zarr.json")])
    del objects[ROOT_KEY]
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**spec.attributes, **_own_attributes(spec, objects)},
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": documents},
    }
    return {**objects, ROOT_KEY: sealed(root)}


def inner_rows(shard_rows: int, row_bytes: int) -> int:
    """Rows of an inner chunk of latents: the divisor of the shard's rows that comes nearest to INNER_CHUNK_BYTES by ratio."""
    if shard_rows * row_bytes <= INNER_CHUNK_BYTES:
        return shard_rows
    divisors = {d for i in range(1, math.isqrt(shard_rows) + 1) if shard_rows % i == 0 for d in (i, shard_rows // i)}
    return min(sorted(divisors), key=lambda rows: abs(math.log(rows * row_bytes / INNER_CHUNK_BYTES)))


def _own_attributes(spec: ArchiveSpec, objects: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "Conventions": "CF-1.11",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "num_rows": spec.num_rows,
        "shard_rows": spec.shard_rows,
        "fingerprint": fingerprint(spec.fingerprint_parts),
        "fingerprint_parts": dict(spec.fingerprint_parts),
        "plan": {"digest": spec.plan_digest, "sha256": spec.plan_sha256},
        "software": dict(spec.software),
        "objects": {key: sha256(data) for key, data in objects.items()},
    }


def _arrays(spec: ArchiveSpec) -> dict[str, bytes]:
    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), zarr_format=3)
    number = np.dtype(spec.latent_dtype).itemsize
    inner = inner_rows(spec.shard_rows, number * math.prod(spec.latent_shape))
    group.create_array(
        "latent",
        shape=(spec.num_rows, *spec.latent_shape),
        chunks=(inner, *spec.latent_shape),
        shards=None if inner == spec.shard_rows else (spec.shard_rows, *spec.latent_shape),
        dtype=spec.latent_dtype,
        fill_value=np.nan,
        compressors=[BloscCodec(cname="zstd", clevel=BLOSC_LEVEL, shuffle="shuffle", blocksize=number * PLANE_BYTES), Crc32cCodec()],
        dimension_names=("sample", *spec.latent_dims),
        attributes={"long_name": "latent code", "coordinates": "sample_id"},
    )
    for name, (dtype, fill, attributes) in _ROW_ARRAYS.items():
        _create_row_array(group, spec, name, dtype, fill, attributes)
    for name, array in spec.more.items():
        _create_further_array(group, spec, name, array)
    shards = zarr.create_group(MemoryStore(memory), path=COMMIT.split("/", maxsplit=1)[0], zarr_format=3)
    shards.create_array(
        COMMIT.rsplit("/", maxsplit=1)[-1],
        shape=(-(-spec.num_rows // spec.shard_rows),),
        chunks=(1,),
        dtype=str,
        fill_value="",
        compressors=[Crc32cCodec()],
        dimension_names=("shard",),
        attributes={"long_name": "commit record, JSON; empty while the shard is pending"},
    )
    return {key: buffer.to_bytes() for key, buffer in memory.items()}


def _create_row_array(group: Any, spec: ArchiveSpec, name: str, dtype: Any, fill: Any, attributes: dict[str, Any]) -> None:
    per_row = (32,) if name == "source_sha256" else ()
    # digests do not compress; everything else does, above all the fill that pads the last chunk
    compressors = [Crc32cCodec()] if per_row else [ZstdCodec(level=5), Crc32cCodec()]
    group.create_array(
        name,
        shape=(spec.num_rows, *per_row),
        chunks=(spec.shard_rows, *per_row),
        dtype=dtype,
        fill_value=fill,
        compressors=compressors,
        dimension_names=("sample", "byte")[: 1 + len(per_row)],
        attributes=attributes,
    )


def _create_bytes_array(group: Any, spec: ArchiveSpec, name: str, array: RowArray) -> None:
    """Each row is an inner chunk of its own, so that one is read without its neighbours; what is coded already is not packed again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableSpecificationWarning)  # of the name alone, which `_as_registered` replaces
        group.create_array(
            name,
            shape=(spec.num_rows,),
            chunks=(1,),
            shards=None if spec.shard_rows == 1 else (spec.shard_rows,),
            dtype=_BYTES_IN_ZARR,
            fill_value=b"",
            compressors=[Crc32cCodec()],
            dimension_names=("sample",),
            attributes=dict(array.attributes),
        )


def _as_registered(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "data_type": BYTES} if document.get("data_type") == _BYTES_IN_ZARR else document


def _create_further_array(group: Any, spec: ArchiveSpec, name: str, array: RowArray) -> None:
    if array.dtype == BYTES:
        _create_bytes_array(group, spec, name, array)
        return
    inner = inner_rows(spec.shard_rows, np.dtype(array.dtype).itemsize * math.prod(array.shape))
    group.create_array(
        name,
        shape=(spec.num_rows, *array.shape),
        chunks=(inner, *array.shape),
        shards=None if inner == spec.shard_rows else (spec.shard_rows, *array.shape),
        dtype=array.dtype,
        fill_value=array.fill,
        compressors=[ZstdCodec(level=5), Crc32cCodec()],
        dimension_names=("sample", *array.dims),
        attributes=dict(array.attributes),
    )


def _codec_arrays(files: Mapping[str, bytes]) -> dict[str, bytes]:
    if not files:
        return {}
    memory: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(memory), path=CODEC, zarr_format=3)
    for name, data in files.items():
        if "/" in name or name.startswith(("__", ".")) or name == ROOT_KEY:
            raise ArchiveError(f"a codec file of this name cannot be embedded: {name}")
        array = group.create_array(
            name,
            shape=(len(data),),
            chunks=(max(1, min(len(data), CODEC_CHUNK_BYTES)),),
            dtype="u1",
            fill_value=0,
            compressors=[Crc32cCodec()],
            dimension_names=(f"{name} byte",),
            attributes={"long_name": "a file of the codec, byte for byte"},
        )
        array[:] = np.frombuffer(data, dtype="u1")
    return {key: buffer.to_bytes() for key, buffer in memory.items()}


_ROW_ARRAYS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sample_id": (str, "", {"long_name": "unique name of the film"}),
    "status": (
        "u1",
        0,
        {
            "long_name": "how the row ended",
            "flag_values": [int(status) for status in Status],
            "flag_meanings": " ".join(status.name.lower() for status in Status),
        },
    ),
    "mse_initial": ("f4", np.nan, {"long_name": "mean squared error before refinement, gray in [0, 1]", "units": "1"}),
    "mse": ("f4", np.nan, {"long_name": "mean squared error of the stored code, gray in [0, 1]", "units": "1"}),
    "psnr": ("f4", np.nan, {"long_name": "peak signal-to-noise ratio of the stored code", "units": "dB"}),
    "ssim": ("f4", np.nan, {"long_name": "structural similarity of the stored code", "units": "1"}),
    "steps": ("u2", 0, {"long_name": "refinement steps of the stored code", "units": "1"}),
    "source_sha256": ("u1", 0, {"long_name": "sha256 of the source file"}),
    "source_height": ("u2", 0, {"long_name": "height of the source film", "units": "pixel"}),
    "source_width": ("u2", 0, {"long_name": "width of the source film", "units": "pixel"}),
    "source_bits": ("u1", 0, {"long_name": "bit depth of the source film", "units": "bit"}),
}
_OWN_NAMES = {"latent", *_ROW_ARRAYS, COMMIT.split("/", maxsplit=1)[0], CODEC}


def further_arrays(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, RowArray]:
    """The arrays along `sample` that not every archive has, as they were asked for, from the metadata documents of all of them."""
    return {
        name: RowArray(
            dtype=BYTES if node["data_type"] == BYTES else np.dtype(node["data_type"]).str[1:],
            dims=tuple(node["dimension_names"][1:]),
            shape=tuple(node["shape"][1:]),
            attributes=node["attributes"],
        )
        for name, node in columns.items()
        if name not in _OWN_NAMES
    }
