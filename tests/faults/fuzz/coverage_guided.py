"""The fuzzer that watches coverage: Atheris (libFuzzer) on our own readers, with the format-aware damage as its mutator.

Run as a program in a process of its own, since what it looks for may end it. Pixels are made of safe films only: the libraries behind
the others are fuzzed by `long_form.py`, where a crash costs a child.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["engine.decode"]):
    from engine.decode import dicom, formats, jpeg, jpeg2000, png, tiff

from engine.config import DecodeConfig
from engine.errors import DecodeError
from engine.recipe import PixelRecipe
from tests.faults.fuzz.cases import lenient, make_case
from tests.faults.fuzz.structure import BY_FORMAT

LIMITS = DecodeConfig(max_bytes=2**20, max_pixels=250_000)
RECIPE = PixelRecipe(resolution=16)
MOST_BYTES = 4096
MOST_REASON = 240
_STARTS = ((png.SIGNATURE, "PNG"), (jpeg.SIGNATURE, "JPEG"), (jpeg2000.SIGNATURE_FILE, "JP2"), (jpeg2000.SIGNATURE_CODESTREAM, "JP2"))


def test_one(data: bytes) -> None:
    """Reads a file as the engine does. Whatever it raises other than a DecodeError is found by that."""
    try:
        sealed = formats.open_film(data, LIMITS)
        if not sealed.header.is_risky:
            formats.read_film(sealed, RECIPE)
    except DecodeError as error:
        check_reason(error.reason)


def check_reason(reason: str) -> None:
    """A reason is one line that says something."""
    if not reason or "\n" in reason or len(reason) > MOST_REASON:
        raise AssertionError(f"no reason that an archive can hold: {reason!r}")


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time libFuzzer's own mutation, half of the time damage that keeps checksums and tags in order."""
    random = np.random.default_rng(seed)
    if random.random() < 0.5:
        return bytes(atheris.Mutate(data, max_size))
    try:
        with lenient():
            return BY_FORMAT[_kind(data)](data, random)[:max_size]
    except Exception:  # too damaged for that by now
        return bytes(atheris.Mutate(data, max_size))


def _kind(data: bytes) -> str:
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    return "TIFF" if data.startswith(tiff.SIGNATURES) else "DICOM"


def main() -> None:
    """Fuzzes for `--runs` files or `--seconds`, whichever ends first; what it finds is written to `--out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    formats.settle_libraries()
    with tempfile.TemporaryDirectory() as corpus:
        for number in range(120):
            case = make_case(args.seed, number)
            if len(case.data) <= MOST_BYTES and dicom.is_dicom(case.data) == (case.format == "DICOM"):
                (Path(corpus) / case.name).write_bytes(case.data)
        options = [f"-runs={args.runs}", f"-max_total_time={args.seconds}", f"-seed={args.seed}", f"-max_len={MOST_BYTES}"]
        options += ["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={args.out}/", corpus]
        atheris.Setup([sys.argv[0], *options], test_one, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
