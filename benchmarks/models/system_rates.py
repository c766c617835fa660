"""Images a second of encoders and generators alone: all codecs take turns in one process, so that one slow minute slows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.commands import run_alone
from benchmarks.timing import spread, take_turns
from engine.archive.commits import read_receipts
from engine.encode.backends import find_device
from engine.encode.codec import load_codec
from engine.errors import CodecError

ENCODE, DECODE = "encode", "decode"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Images a second of each codec, turn by turn; none of `encode` where it has no encoder. Those that do not load are left out."""

    encode: dict[str, list[float]]
    decode: dict[str, list[float]]
    batch: int
    device: str
    threads: int

    def figures(self, name: str) -> dict[str, float]:
        """The medians of a codec, as columns."""
        found = {"encode/s": self.encode.get(name), "decode/s": self.decode.get(name)}
        return {column: spread(values).median for column, values in found.items() if values}


def take_rates(codecs: Mapping[str, str], *, batch: int, repeats: int) -> Rates:
    """Of codec directories by name, in a process of its own. Raises StepFailed when that ends badly."""
    return Rates(**run_alone("benchmarks.models.system_rates:measure", codecs=dict(codecs), batch=batch, repeats=repeats))


def measure(*, codecs: dict[str, str], batch: int, repeats: int) -> dict[str, Any]:
    """What `Rates` holds: batches of noise and of random codes, eager float32, on the first GPU or the CPU, after a turn to warm up."""
    device = find_device(None)
    steps: dict[str, Callable[[int], int]] = {}
    for name, path in codecs.items():
        try:
            codec = load_codec(path).to(device)
        except CodecError:
            continue  # its row says why
        draw = torch.Generator().manual_seed(0)
        codes = codec.project(torch.randn(batch, *codec.code_shape, generator=draw))
        steps[f"{DECODE} {name}"] = partial(_turn, codec.generate, codes.to(device))
        if codec.has_encoder:
            side = codec.recipe.resolution
            steps[f"{ENCODE} {name}"] = partial(_turn, codec.encode, (torch.rand(batch, 1, side, side, generator=draw) * 2 - 1).to(device))
    rates = take_turns(steps, repeats=repeats)
    found = {way: {name: rates[f"{way} {name}"] for name in codecs if f"{way} {name}" in rates} for way in (ENCODE, DECODE)}
    return found | {"batch": batch, "device": str(device), "threads": torch.get_num_threads()}


def refined_rate(archive: Path) -> float:
    """Films a second of the stages `encode` and `refine` that its workers' commit records tell of: a code found by optimisation."""
    receipts = list(read_receipts(archive))
    seconds = sum(receipt.seconds.get(stage, 0.0) for receipt in receipts for stage in ("encode", "refine"))
    return sum(sum(receipt.rows.values()) for receipt in receipts) / seconds


def _turn(network: Callable[[Tensor], Tensor], inputs: Tensor, turn: int) -> int:
    with torch.inference_mode():
        network(inputs)
    return len(inputs)
