"""A guarded child: decodes cases one after another by the engine's own door, and says before each which one it begins."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import time
from typing import Any

import torch

from engine.config import DecodeConfig
from engine.decode.choose import Decoder, build_decoder
from engine.errors import ReadError
from engine.recipe import PixelRecipe
from engine.records import ImageRef
from tests.faults.fuzz.cases import Case, make_case

MOST_MEMORY = 3 * 2**30  # that decoding may add to the address space, beyond what the libraries hold


def main() -> None:
    """Answers on the file descriptor that it is given: `{"begin": name}`, then what became of it."""
    parser = argparse.ArgumentParser()
    for name in ("seed", "first", "last", "answers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    faulthandler.enable()
    with os.fdopen(args.answers, "w", buffering=1) as answers:
        bench = Bench()
        _limit_memory()
        for number in range(args.first, args.last):
            case = make_case(args.seed, number)
            answers.write(json.dumps({"begin": case.name, "number": number, "damage": case.damage}) + "\n")
            answers.write(json.dumps(bench.outcome(case)) + "\n")
        bench.close()


class Bench:
    """The thread-pool decoder as the flow builds it, fed one case at a time."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._decoder: Decoder = build_decoder(
            PixelRecipe(resolution=32), DecodeConfig(decoder="cpu", threads=1), read=self._read, batch_size=1, film_size=48
        )

    def outcome(self, case: Case) -> dict[str, Any]:
        """`end`: ok, failed, or raised where an exception came through; with stage, reason and seconds."""
        self._files = {case.name: case.data}
        begun = time.perf_counter()
        try:
            end = self._decode(ImageRef(0, case.name, case.name))
        except Exception as error:  # whatever comes through the door is what is looked for
            end = {"end": "raised", "stage": "decode", "reason": f"{type(error).__name__}: {error}"}
        return {**end, "seconds": round(time.perf_counter() - begun, 3)}

    def close(self) -> None:
        """Ends the decoder's threads."""
        self._decoder.close()

    def _decode(self, ref: ImageRef) -> dict[str, str]:
        (batch,) = self._decoder.batches([ref])
        if len(batch.refs) + len(batch.failures) != 1:
            return {"end": "raised", "stage": "decode", "reason": f"{len(batch.refs)} films and {len(batch.failures)} failures of one file"}
        if batch.failures:
            return {"end": "failed", "stage": batch.failures[0].stage, "reason": batch.failures[0].reason}
        assert batch.films is not None
        for pixels in (batch.pixels, batch.films):
            if not (torch.isfinite(pixels).all() and pixels.abs().max() <= 1 + 1e-6):
                return {"end": "raised", "stage": "decode", "reason": "pixels outside -1 to 1"}
        return {"end": "ok", "stage": "", "reason": ""}

    def _read(self, uri: str) -> bytes:
        if not self._files[uri]:
            raise ReadError("file is empty")
        return self._files[uri]


def _limit_memory() -> None:
    """A film that wants more than MOST_MEMORY meets a MemoryError here, and not the machine's last page."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_MEMORY, held + MOST_MEMORY))


if __name__ == "__main__":
    main()
