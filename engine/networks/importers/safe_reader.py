"""Reads files of torch and NumPy without running anything that lies in them: nothing is imported, called or built but plain tensors."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from engine.errors import CodecError

MAX_BYTES = 4 * 2**30  # Weber's files, optimiser included, have 0.6 GB
ZOO_CONFIG = "models.utils.config.BaseConfig"
# Lightning, whose files latent diffusion's are, keeps the state of its callbacks under their classes.
LIGHTNING_CALLBACKS = tuple(
    f"{package}.callbacks.{file}"
    for package in ("pytorch_lightning", "lightning.pytorch")
    for file in ("model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping")
)
_ZIP = b"PK\x03\x04"
_SAFETENSORS_HEADER = 8  # bytes of a length, and then JSON
_REFUSED = re.compile(r"GLOBAL (\w[\w.]*\w)")
# what torch and NumPy raise for a file that is cut off, is something else or holds more than tensors
_UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, AssertionError, struct.error, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


class ZooConfig:
    """What stands for pytorch_GAN_zoo's `models.utils.config.BaseConfig`: its attributes as plain values, no code."""

    values: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a configuration must be a dictionary")
        self.values = MappingProxyType(dict(state))


class Unread:
    """What stands for a class whose name alone lies in a file, as a key: nothing can be made of it."""

    def __new__(cls, *args: Any) -> Unread:
        """Refuses, however it is called."""
        raise pickle.UnpicklingError("a name that is only a key is made into an object")


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """What a file holds: torch's objects as they were saved (of tensors, plain values and `ZooConfig`), or the arrays of an npz by name."""

    content: Any
    is_npz: bool
    sha256: str


_STAND_INS: list[Any] = [(ZooConfig, ZOO_CONFIG), *((Unread, name) for name in LIGHTNING_CALLBACKS)]


def read_file(path: Path) -> FileContent:
    """The content of a file of `torch.save` (either format), `np.savez` or safetensors, on the CPU.

    torch's own restricted unpickler does the work; of all other names a file may mention it is told the zoo's configuration, for which
    `ZooConfig` stands, and `LIGHTNING_CALLBACKS`, for which `Unread` stands. Raises CodecError in one line for a file that is missing,
    empty, too large, damaged or another kind, and where it names code, which is not run.
    """
    _check_size(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(_SAFETENSORS_HEADER + 1)
            is_zip, is_safetensors = start.startswith(_ZIP), start[_SAFETENSORS_HEADER:] == b"{"
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        is_npz = is_zip and _is_npz(path)
        content = _arrays(path) if is_npz else _safetensors(path) if is_safetensors else _torch_objects(path)
    except CodecError:
        raise
    except _UNREADABLE as error:
        if refused := _REFUSED.search(str(error)):
            raise CodecError(f"checkpoint names code, which is never run ({refused[1]}): {path}") from error
        raise CodecError(f"checkpoint is damaged, or no file of tensors by torch.save or numpy.savez: {path}") from error
    return FileContent(content=content, is_npz=is_npz, sha256=digest)


def _check_size(path: Path) -> None:
    try:
        if path.is_dir():
            raise CodecError(f"a checkpoint is a file, not a directory: {path}")
        if not path.exists():
            raise CodecError(f"there is no such checkpoint: {path}")
        if not path.is_file():  # a pipe would wait for ever
            raise CodecError(f"a checkpoint must be a plain file: {path}")
        size = path.stat().st_size
    except OSError as error:
        raise CodecError(f"checkpoint cannot be read ({error.strerror}): {path}") from None
    if size == 0:
        raise CodecError(f"checkpoint is empty: {path}")
    if size > MAX_BYTES:
        raise CodecError(f"checkpoint is larger than {MAX_BYTES} bytes: {path}")


def _is_npz(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise CodecError(f"checkpoint unpacks to more than {MAX_BYTES} bytes: {path}")
    is_npz = all(member.filename.endswith(".npy") for member in members)
    if not is_npz and any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CodecError(f"checkpoint is a compressed archive, which torch.save does not write: {path}")
    return is_npz


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise CodecError(f"checkpoint holds pickled objects instead of arrays, which are never loaded: {path}") from error
        raise


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type of tensor that torch does not have
        raise CodecError(f"checkpoint is damaged, or no file of tensors by safetensors: {path}") from error


def _torch_objects(path: Path) -> Any:
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_STAND_INS):
        return torch.load(path, map_location="cpu", weights_only=True)
