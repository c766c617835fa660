"""The files of a codec directory: found, named by their content, and written as every model directory is (`model_directory.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import engine
from engine.encode.codec_spec import CODEC_JSON, CodecSpec, WeightsFile, read_spec
from engine.encode.model_directory import (
    RUN_JSON,
    Kind,
    check_free,
    files_digest,
    named_by_content,
    read_directory,
    write_aside,
    write_files,
)
from engine.encode.weights import sha256
from engine.errors import CodecError

__all__ = ["CODEC", "RUN_JSON", "check_destination", "codec_digest", "codec_files", "name_weights", "write_aside", "write_codec_files"]

FIT_ONE = "latentray train pca --data phantom:200 --out runs/pca"
CODEC = Kind(word="codec", json=CODEC_JSON, files=lambda raw: read_spec(raw).files(), advice=f"fit one with: {FIT_ONE}")


def codec_files(path: str | Path) -> dict[str, bytes]:
    """The bytes of `codec.json` and of the weights it names, by file name, as they lie on the disk; digests are checked when loading.

    `path` is a codec directory, or `demo` for the shipped one. Raises CodecError where a file is missing or `codec.json` makes no sense.
    """
    return read_directory(_find(path), CODEC, origin=f"codec {path}")


def codec_digest(digests: Mapping[str, str]) -> str:
    """The sha256 that names a codec, from those of its files."""
    return files_digest(digests)


def name_weights(spec: CodecSpec, packed: Mapping[str, bytes]) -> tuple[CodecSpec, dict[str, bytes]]:
    """The spec with digests, its weights files renamed `<stem>-<digest>.safetensors`, and the bytes of all its files by their new names."""
    missing = sorted(set(spec.files()) - set(packed))
    if missing:
        raise CodecError(f"no tensors were given for a weights file of the codec: {', '.join(missing)}")
    mean = spec.code.mean
    final = replace(
        spec,
        encoder=None if spec.encoder is None else named_by_content(spec.encoder, packed),
        generator=named_by_content(spec.generator, packed),
        code=replace(spec.code, mean=named_by_content(mean, packed) if isinstance(mean, WeightsFile) else mean),
        coarse=None if spec.coarse is None else named_by_content(spec.coarse, packed),
    )
    by_digest = {sha256(data): data for data in packed.values()}
    return final, {CODEC_JSON: final.to_bytes()} | {name: by_digest[digest] for name, digest in final.files().items()}


def write_codec_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Makes `directory` hold this codec, as `model_directory.write_files` does."""
    write_files(directory, files, CODEC)


def check_destination(directory: Path) -> set[str]:
    """The weights files of the codec that lies there, to be replaced; raises CodecError where something else lies there."""
    return check_free(directory, CODEC)


def _find(path: str | Path) -> Path:
    if str(path) != "demo":
        return Path(path)
    shipped = Path(engine.__file__).parent / "codecs" / "demo"
    if not shipped.is_dir():
        raise CodecError(f"no demo codec is shipped in this version; fit one with: {FIT_ONE}")
    return shipped
