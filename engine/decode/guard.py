"""Pixels of films that may crash, hang or exhaust the library that reads them, made in processes that may be lost."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.config import DecodeConfig
from engine.decode.film import Film, Header, SealedFilm
from engine.decode.guarded_child import LENGTH, QUESTION, READY, seconds_for
from engine.errors import BackendError, DecodeError
from engine.recipe import PixelRecipe

_TIMERS = (signal.SIGPROF, signal.SIGALRM)
_SAMPLES = ("|u1", "<u2", "<i2", "<f4", ">u2", ">i2", ">f4")
_MOST_BYTES_A_SAMPLE = 4
# One thread; and freed memory is kept for the next film, or else each would be charged with having it mapped anew: a third of its time.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
_KEPT_BYTES = 64 * 2**20


class Guard:
    """Children that decode for any number of threads, each of which has one to itself meanwhile; started when first needed, and reused.

    Without a recipe they return samples as they are stored.
    """

    def __init__(self, recipe: PixelRecipe | None, cfg: DecodeConfig) -> None:
        self._cfg = cfg
        self._settings = json.dumps({"decode": asdict(cfg), "recipe": None if recipe is None else asdict(recipe)})
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    def read(self, sealed: SealedFilm) -> Film:
        """What `read_film` or `read_stored` returns, from a child. Raises DecodeError for what these raise.

        A film that ends its child is such an error too. A death that is not for want of time may be the machine's doing, so the film is
        tried once more. Raises BackendError where no child starts.
        """
        name = ""
        for _ in range(2):
            child = self._take()
            try:
                answer = child.ask(sealed)
            except _ChildDied as death:
                if death.signal in _TIMERS:
                    raise DecodeError(f"took longer than {seconds_for(sealed.header, self._cfg):g} s") from None
                name = death.name
                continue
            with self._lock:
                self._idle.append(child)
            if isinstance(answer, str):
                raise DecodeError(answer)
            return answer
        raise DecodeError(f"{sealed.header.format} data end the process that decodes them: {name}")

    def close(self) -> None:
        """Ends the children; called once no thread reads any more."""
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.close()

    def _take(self) -> _Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Child(self._settings)


class _ChildDied(Exception):
    def __init__(self, code: int) -> None:
        self.signal = -code
        self.name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        super().__init__(self.name)


class _Child:
    """One process of `guarded_child.py`; nothing it says is believed without a look. Films and samples lie in memory that both see."""

    def __init__(self, settings: str) -> None:
        self._memory = _Memory()
        module = "engine.decode.guarded_child"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, settings, str(self._memory.descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._memory.descriptor],
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        if self._answers.read(len(READY)) != READY:
            self.close()
            raise BackendError(f"the process that decodes risky films does not start, see: python -m {module} '{settings}' 0")

    def ask(self, sealed: SealedFilm) -> Film | str:
        """The film, or the reason why there is none. Raises _ChildDied, after which this child is gone."""
        header = sealed.header
        shared = self._memory.of(max(len(sealed.data), header.height * header.width * _MOST_BYTES_A_SAMPLE))
        shared[: len(sealed.data)] = sealed.data
        try:
            self._questions.write(QUESTION.pack(len(sealed.data), len(shared)))
            self._questions.flush()
            answer = json.loads(self._exactly(*LENGTH.unpack(self._exactly(LENGTH.size))))
            return str(answer["reason"]) if "reason" in answer else _film(answer, header, shared)
        except (BrokenPipeError, EOFError, ValueError, KeyError, TypeError):  # gone, or no longer itself
            self.close()
            raise _ChildDied(self._process.returncode) from None

    def close(self) -> None:
        """Ends the process, which has nothing to lose."""
        self._process.kill()
        for pipe in (self._questions, self._answers):
            with suppress(BrokenPipeError):  # a question half sent is flushed when the pipe closes
                pipe.close()
        self._process.wait()
        self._memory.close()

    def _exactly(self, count: int) -> bytes:
        data = self._answers.read(count)
        if len(data) < count:
            raise EOFError
        return data


def _film(answer: dict[str, Any], header: Header, shared: mmap.mmap) -> Film:
    if answer["shape"] != [header.height, header.width] or answer["dtype"] not in _SAMPLES:
        raise ValueError("an answer for another film")
    return Film(np.ndarray(answer["shape"], answer["dtype"], shared).copy(), float(answer["white"]), float(answer["black"]))


class _Memory:
    """A file without a name, mapped here and in the child; it grows to the largest film so far, but keeps no more than is usual."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("films"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()  # noqa: SIM115
        self._map: mmap.mmap | None = None
        self.descriptor = self._file.fileno()

    def of(self, size: int) -> mmap.mmap:
        """At least `size` bytes."""
        held = 0 if self._map is None else len(self._map)
        if self._map is None or held < size or held > max(size, _KEPT_BYTES):
            self._unmap()
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        return self._map

    def close(self) -> None:
        """Gives it back."""
        self._unmap()
        self._file.close()

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
        self._map = None
