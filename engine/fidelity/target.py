"""What is promised of a film: a size, a PSNR, a largest error, or every sample; parsed strictly, written in one way only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError

TargetKind = Literal["none", "bytes", "psnr", "max-error", "lossless"]
_WORDS = "none, bytes=N, psnr=DB, max-error=K or lossless"
_NUMBERS = {"bytes": r"\d{1,10}", "psnr": r"\d{1,3}(\.\d{1,3})?", "max-error": r"\d{1,5}"}
_RANGES = {"bytes": (1, 2**31 - 1), "psnr": (10, 120), "max-error": (0, 32767)}


@dataclass(frozen=True, slots=True)
class Target:
    """`value`: bytes of the whole layer, dB over all samples with peak 2^bits - 1, or the largest absolute error of a sample."""

    kind: TargetKind
    value: float = 0.0

    def __str__(self) -> str:
        """The canonical text, which `parse_target` reads back: part of an archive's fingerprint."""
        return self.kind if self.kind in ("none", "lossless") else f"{self.kind}={self.value:.10g}"


def parse_target(text: str) -> Target:
    """The target that `text` names. Raises ConfigError for anything else, with the text at the end.

    `max-error=0` is `lossless`, and is called so.
    """
    if text == "none":
        return Target("none")
    if text == "lossless":
        return Target("lossless")
    kind, equals, number = text.partition("=")
    for known in ("bytes", "psnr", "max-error"):
        if kind == known and equals and re.fullmatch(_NUMBERS[known], number, re.ASCII):
            low, high = _RANGES[known]
            if not low <= float(number) <= high:
                raise ConfigError(f"fidelity {known} must be {low} to {high}: {number}")
            return Target("lossless") if (known, float(number)) == ("max-error", 0.0) else Target(known, float(number))
    raise ConfigError(f"fidelity must be {_WORDS}: {text}")
