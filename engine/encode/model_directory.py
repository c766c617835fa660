"""A directory of one JSON file and the safetensors that it names: read within limits, replaced so that none is met half written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from engine.encode.codec_spec import WeightsFile
from engine.encode.strict_json import MAX_JSON_BYTES
from engine.encode.weights import sha256
from engine.errors import CodecError

RUN_JSON = "train.json"  # marks the directory of a training run, which holds its checkpoints and more beside the model to come
_SUFFIX, _PARTIAL = ".safetensors", ".partial"
Part = TypeVar("Part", bound=WeightsFile)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What lies in such a directory. `word`: codec or classifier. `json`: the name of its JSON file. `files`: the sha256 of each weights
    file by name, from the bytes of that file; it raises CodecError. `advice`: how one is made.
    """

    word: str
    json: str
    files: Callable[[bytes], Mapping[str, str]]
    advice: str


def read_directory(directory: Path, kind: Kind, *, origin: str) -> dict[str, bytes]:
    """The bytes of the JSON file and of the weights that it names, by file name; digests are not looked at.

    Raises CodecError where a file is missing or the JSON makes no sense; `origin` is what messages call it then.
    """
    if not directory.exists():
        raise CodecError(f"there is no such {kind.word} directory ({kind.advice}): {directory}")
    if not directory.is_dir():
        raise CodecError(f"a {kind.word} is a directory with {kind.json}, not a file: {directory}")
    if not (directory / kind.json).exists():
        raise CodecError(f"the directory holds no {kind.json}, so it is not a {kind.word}: {directory}")
    raw = _read(directory / kind.json, kind, limit=MAX_JSON_BYTES)
    try:
        names = sorted(kind.files(raw))
    except CodecError as error:
        raise CodecError(f"{origin}: {error}") from None
    return {kind.json: raw} | {name: _read(directory / name, kind) for name in names}


def files_digest(digests: Mapping[str, str]) -> str:
    """The sha256 that names a model: over one line a file, `<sha256>  <name>`, sorted by name, as `sha256sum` prints them."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_digests(files: Mapping[str, bytes], digests: Mapping[str, str], kind: Kind) -> None:
    """Raises CodecError unless each weights file is there and has its digest."""
    for name, digest in digests.items():
        if name not in files:
            raise CodecError(f"weights file is missing: {name}")
        if sha256(files[name]) != digest:
            raise CodecError(f"weights file is damaged or of another {kind.word} (its sha256 is not that of {kind.json}): {name}")


def named_by_content(part: Part, packed: Mapping[str, bytes]) -> Part:
    """The weights file with its digest, renamed `<stem>-<digest>.safetensors`."""
    digest = sha256(packed[part.weights])
    return replace(part, weights=f"{part.weights.removesuffix(_SUFFIX)}-{digest[:8]}{_SUFFIX}", sha256=digest)


def write_files(directory: Path, files: Mapping[str, bytes], kind: Kind) -> None:
    """Makes `directory` hold this model. Other files of an existing directory of the kind stay; its former weights go.

    Weights come first, the JSON last, each written aside and renamed: a killed write leaves the former model, or none.
    """
    former = check_free(directory, kind)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(files, key=lambda name: (name == kind.json, name)):
            write_aside(directory / name, files[name])
        for name in former - set(files):
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise CodecError(f"{kind.word} cannot be written ({error.strerror}): {directory}") from None


def check_free(directory: Path, kind: Kind) -> set[str]:
    """The weights files of the model that lies there, to be replaced; raises CodecError where something else lies there."""
    try:
        if not directory.exists():
            return set()
        if not directory.is_dir():
            raise CodecError(f"a {kind.word} directory cannot be made where a file is: {directory}")
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise CodecError(f"{kind.word} directory cannot be looked into ({error.strerror}): {directory}") from None
    if directory / kind.json in entries:
        try:
            return set(kind.files(_read(directory / kind.json, kind, limit=MAX_JSON_BYTES)))
        except CodecError:  # a damaged one is replaced, and nothing is deleted on its word
            return set()
    if directory / RUN_JSON in entries:
        return set()
    strangers = [entry.name for entry in entries if entry.suffix not in (_SUFFIX, _PARTIAL)]
    if strangers:
        raise CodecError(
            f"the directory holds other files (such as {strangers[0]}) and no {kind.word}; name an empty or new one: {directory}"
        )
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


def _read(file: Path, kind: Kind, *, limit: int | None = None) -> bytes:
    if not file.is_file():  # nor a pipe, which would wait for ever
        raise CodecError(f"{kind.word} file is missing: {file}")
    try:
        if limit is not None and file.stat().st_size > limit:
            raise CodecError(f"{kind.word} file is larger than {limit} bytes: {file}")
        return file.read_bytes()
    except OSError as error:
        raise CodecError(f"{kind.word} file cannot be read ({error.strerror}): {file}") from None
