"""The other end of the guard: a process that decodes one film after another, and that a film may crash, hang or exhaust."""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import sys
from typing import IO, Any

import numpy as np

from engine.config import DecodeConfig
from engine.decode.film import Header
from engine.decode.formats import open_film, read_film, read_stored, settle_libraries
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

READY = b"R"
LENGTH = struct.Struct("<Q")
QUESTION = struct.Struct("<QQ")  # bytes of the film, bytes of the memory in which it lies and its samples will
PIXELS_A_SECOND = 1_600_000  # of the slowest film that counts as healthy: 16 megapixels in the 10 seconds of `max_seconds`
WALL_OVER_PROCESSOR = 6  # a film that waits rather than works is given up after so many times its processor time
_BYTES_A_PIXEL = 64  # colour in 32-bit integers, in floats, and a copy of each
_BYTES_ANYWAY = 512 * 2**20


def main() -> None:
    """Takes questions from standard input until it ends, and answers each. Arguments: settings as JSON, the descriptor of the memory."""
    settings, descriptor = json.loads(sys.argv[1]), int(sys.argv[2])
    cfg = DecodeConfig(**settings["decode"])
    recipe = None if settings["recipe"] is None else PixelRecipe(**settings["recipe"])
    # What libraries print must not get between the answers, nor into a log: it may quote headers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settle_libraries()
    for timer in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(timer, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF, signal.SIGALRM})
    answers.write(READY)
    answers.flush()
    while (question := sys.stdin.buffer.read(QUESTION.size)) != b"":
        length, size = QUESTION.unpack(question)
        with mmap.mmap(descriptor, size) as shared:
            answer = _answer(shared, length, cfg, recipe)
        _write(answers, answer)


def _answer(shared: mmap.mmap, length: int, cfg: DecodeConfig, recipe: PixelRecipe | None) -> dict[str, Any]:
    """The samples in place of the film, and how to read them; or the reason why there are none. As stored where there is no recipe."""
    data = shared[:length]
    try:
        sealed = open_film(data, cfg)
        _limit(sealed.header, len(data), cfg)
        film = read_stored(sealed) if recipe is None else read_film(sealed, recipe)
        _unlimit()
    except DecodeError as error:
        _unlimit()
        return {"reason": error.reason}
    samples = film.samples
    np.copyto(np.ndarray(samples.shape, samples.dtype, shared), samples)
    return {"shape": samples.shape, "dtype": samples.dtype.str, "white": film.white, "black": film.black}


def _limit(header: Header, size: int, cfg: DecodeConfig) -> None:
    """No more time and memory than a film of this size can need. The kernel ends the process when its time is up."""
    seconds = seconds_for(header, cfg)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL_OVER_PROCESSOR * seconds)
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        _allow(held + _BYTES_ANYWAY + _BYTES_A_PIXEL * header.height * header.width + 4 * size)


def _unlimit() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if sys.platform == "linux":
        _allow(None)


def _allow(size: int | None) -> None:
    """Bytes of address space, within what the system allows at all; None for just that."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if size is None or most != resource.RLIM_INFINITY:
        size = most if size is None else min(size, most)
    resource.setrlimit(resource.RLIMIT_AS, (size, most))


def seconds_for(header: Header, cfg: DecodeConfig) -> float:
    """Processor time that a film may take: `max_seconds`, and for large ones more in proportion."""
    return cfg.max_seconds * max(1.0, header.height * header.width / (PIXELS_A_SECOND * DecodeConfig.max_seconds))


def _write(answers: IO[bytes], answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    answers.write(LENGTH.pack(len(text)) + text)
    answers.flush()


if __name__ == "__main__":
    main()
