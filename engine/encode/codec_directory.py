"""The files of a codec directory: found, read within limits, named by their content, and replaced so that no reader meets half a codec."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import engine
from engine.encode.codec_spec import CODEC_JSON, MAX_JSON_BYTES, CodecSpec, WeightsFile, read_spec
from engine.encode.weights import sha256
from engine.errors import CodecError

FIT_ONE = "latentray train pca --data phantom:200 --out runs/pca"
Part = TypeVar("Part", bound=WeightsFile)
RUN_JSON = "train.json"  # marks the directory of a training run, which holds its checkpoints and more beside the codec to come
_SUFFIX, _PARTIAL = ".safetensors", ".partial"


def codec_files(path: str | Path) -> dict[str, bytes]:
    """The bytes of `codec.json` and of the weights it names, by file name, as they lie on the disk; digests are checked when loading.

    `path` is a codec directory, or `demo` for the shipped one. Raises CodecError where a file is missing or `codec.json` makes no sense.
    """
    directory = _find(path)
    raw = _read(directory / CODEC_JSON, limit=MAX_JSON_BYTES)
    try:
        names = sorted(read_spec(raw).files())
    except CodecError as error:
        raise CodecError(f"codec {path}: {error}") from None
    return {CODEC_JSON: raw} | {name: _read(directory / name) for name in names}


def codec_digest(digests: Mapping[str, str]) -> str:
    """The sha256 that names a codec: over one line a file, `<sha256>  <name>`, sorted by name, as `sha256sum` prints them."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def name_weights(spec: CodecSpec, packed: Mapping[str, bytes]) -> tuple[CodecSpec, dict[str, bytes]]:
    """The spec with digests, its weights files renamed `<stem>-<digest>.safetensors`, and the bytes of all its files by their new names."""
    missing = sorted(set(spec.files()) - set(packed))
    if missing:
        raise CodecError(f"no tensors were given for a weights file of the codec: {', '.join(missing)}")

    def named(part: Part) -> Part:
        digest = sha256(packed[part.weights])
        return replace(part, weights=f"{part.weights.removesuffix(_SUFFIX)}-{digest[:8]}{_SUFFIX}", sha256=digest)

    mean = spec.code.mean
    final = replace(
        spec,
        encoder=None if spec.encoder is None else named(spec.encoder),
        generator=named(spec.generator),
        code=replace(spec.code, mean=named(mean) if isinstance(mean, WeightsFile) else mean),
        coarse=None if spec.coarse is None else named(spec.coarse),
    )
    by_digest = {sha256(data): data for data in packed.values()}
    return final, {CODEC_JSON: final.to_bytes()} | {name: by_digest[digest] for name, digest in final.files().items()}


def write_codec_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Makes `directory` hold this codec. Other files of an existing codec directory stay; its former weights go.

    Weights come first, `codec.json` last, each written aside and renamed: a killed write leaves the former codec, or none.
    """
    former = check_destination(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: (name == CODEC_JSON, name)):
            write_aside(directory / name, files[name])
        for name in former - set(files):
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise CodecError(f"codec cannot be written ({error.strerror}): {directory}") from None


def check_destination(directory: Path) -> set[str]:
    """The weights files of the codec that lies there, to be replaced; raises CodecError where something else lies there."""
    try:
        if not directory.exists():
            return set()
        if not directory.is_dir():
            raise CodecError(f"a codec directory cannot be made where a file is: {directory}")
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise CodecError(f"codec directory cannot be looked into ({error.strerror}): {directory}") from None
    if directory / CODEC_JSON in entries:
        try:
            return set(read_spec(_read(directory / CODEC_JSON, limit=MAX_JSON_BYTES)).files())
        except CodecError:  # a damaged one is replaced, and nothing is deleted on its word
            return set()
    if directory / RUN_JSON in entries:
        return set()
    strangers = [entry.name for entry in entries if entry.suffix not in (_SUFFIX, _PARTIAL)]
    if strangers:
        raise CodecError(f"the directory holds other files (such as {strangers[0]}) and no codec; name an empty or new one: {directory}")
    return set()


def write_aside(file: Path, data: bytes) -> None:
    """Writes a file under another name and renames it once it is on the disk: a killed write leaves the former file, or none."""
    partial = file.with_name(file.name + _PARTIAL)
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _find(path: str | Path) -> Path:
    if str(path) == "demo":
        shipped = Path(engine.__file__).parent / "codecs" / "demo"
        if not shipped.is_dir():
            raise CodecError(f"no demo codec is shipped in this version; fit one with: {FIT_ONE}")
        return shipped
    directory = Path(path)
    if not directory.exists():
        raise CodecError(f"there is no such codec directory (fit one with: {FIT_ONE}): {directory}")
    if not directory.is_dir():
        raise CodecError(f"a codec is a directory with {CODEC_JSON}, not a file: {directory}")
    if not (directory / CODEC_JSON).exists():
        raise CodecError(f"the directory holds no {CODEC_JSON}, so it is not a codec: {directory}")
    return directory


def _read(file: Path, *, limit: int | None = None) -> bytes:
    if not file.is_file():  # nor a pipe, which would wait for ever
        raise CodecError(f"codec file is missing: {file}")
    try:
        if limit is not None and file.stat().st_size > limit:
            raise CodecError(f"codec file is larger than {limit} bytes: {file}")
        return file.read_bytes()
    except OSError as error:
        raise CodecError(f"codec file cannot be read ({error.strerror}): {file}") from None
