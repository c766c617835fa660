"""Folders for what backends keep between runs on one machine, and exported graphs among it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

import engine

log = logging.getLogger(__name__)


def cache_folder(*parts: str, root: str | Path | None = None) -> Path:
    """The folder `parts` of the cache, made where it is missing, readable by its user alone (mode 0700).

    `root` is the cache; without it `$XDG_CACHE_HOME/latentray`, or `~/.cache/latentray`. What lies there is unpickled when it is read,
    so it is the user's own trusted folder: nothing of an archive or of a codec directory may ever be put or looked for there.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(root) if root is not None else (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "latentray"
    for part in ("", *parts):
        folder = folder / part
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def cached_program(build: Callable[[], ExportedProgram], *, key: dict[str, Any], root: str | Path | None = None) -> ExportedProgram:
    """The exported graph for `key` from the cache, or from `build`, which is then kept there.

    `key` is everything that the graph depends on, such as codec digest, loss, resolution, precision and device, as plain JSON values;
    torch's version and a digest of the sources that are traced are added. A file that cannot be loaded, or is of another key, costs one
    warning and is replaced; a cache that cannot be written costs one warning. Reading unpickles (`torch.export.load`), hence
    `cache_folder`.

    It pays for what needs an exported graph, and not for tracing alone: the gradient of a 23 M generator at 1024x1024 took 4.1 s to
    trace and 6.4 s to export, 1.7 s to save and 5.1 s to load (two busy cores).
    """
    name = ",".join(f"{part}={key[part]!r}" for part in sorted(key)) + f",torch={torch.__version__},sources={_sources()}"
    try:
        path = cache_folder("graphs", root=root) / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.pt2"
    except OSError as error:
        log.warning("graph cannot be kept for the next run (%s): %s", error.strerror or error, error.filename)
        return build()
    if path.exists():
        try:
            return _load(path, name)
        except Exception as error:  # a damaged file raises whatever its reader stumbles over
            reason = next(iter(str(error).strip().splitlines()), "")
            log.warning("cached graph cannot be used and is made anew (%s %s): %s", type(error).__name__, reason, path)
    program = build()
    try:
        _save(program, path, name)
    except OSError as error:
        log.warning("graph cannot be kept for the next run (%s): %s", error.strerror or error, path)
    return program


@cache
def _sources() -> str:
    """The sha256 of the code that decides a graph: another version of it makes another."""
    digest = hashlib.sha256()
    for room in ("networks", "refine"):
        for file in sorted((Path(engine.__path__[0]) / room).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def check_own(path: Path) -> None:
    """Raises ValueError where another user than this one owns a cached file or its folder, or may write there: it will be unpickled."""
    for place in (path, path.parent):
        found = place.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise ValueError("others own it or may write there")


def _load(path: Path, name: str) -> ExportedProgram:
    extra = {"key": ""}
    check_own(path)
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=extra)
    if extra["key"] != name:
        raise ValueError("it is of another graph")
    return program


def _save(program: ExportedProgram, path: Path, name: str) -> None:
    with replaced(path) as scratch, scratch.open("wb") as file, warnings.catch_warnings():
        # weights in channels-last order are no whole tensors to torch, which then keeps their storage; that is what we want
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(program, file, extra_files={"key": name})


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file of this process alone to write to, which takes the place of `path` at the end: others see a whole file or none."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")  # mode 0600
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
