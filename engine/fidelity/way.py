"""How the films of one archive are coded: fixed before the first film, recorded with the archive, the same for every film of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import ArchiveError
from engine.fidelity.codestream import CODESTREAMS
from engine.fidelity.target import Target

# How far JPEG 2000's own estimate lies below the PSNR that comes out, and what typical films need of the others at 40 dB.
_J2K_SHORT = 0.55
_AT_40_DB = {"jxl": -20.0, "avif": 14.0}


@dataclass(frozen=True, slots=True)
class Way:
    """`codec` and its `effort` (0 where it has none); `residual`: the film minus the reconstruction of its code is coded, not the film.

    `start`: the quality that is tried first, in units of the codec's knob. It is part of the way: no film's bytes depend on another film.
    """

    codec: str
    effort: int = 0
    residual: bool = False
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.codec not in CODESTREAMS:
            raise ArchiveError(f"fidelity codec is not known: {self.codec}")

    def to_json(self) -> dict[str, Any]:
        """The way as plain JSON values, for an archive's attributes and fingerprint."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Way:
        """The way that `to_json` wrote. Raises ArchiveError for anything else."""
        try:
            return cls(str(plain["codec"]), int(plain["effort"]), bool(plain["residual"]), float(plain["start"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArchiveError(f"fidelity way is not as it is written: {plain!r}") from error


EXACT_WAY = Way("jxl", CODESTREAMS["jxl"].effort)  # for a region, and for films that no lossy quality can bring to their target


def default_way(target: Target) -> Way:
    """What is taken when nothing is measured: JPEG XL where samples are exact or bounded, JPEG 2000 for a PSNR or a size."""
    if target.kind in ("lossless", "max-error", "none"):
        return EXACT_WAY
    return Way("j2k", start=guess_start("j2k", target))


def guess_start(codec: str, target: Target) -> float:
    """The quality that a typical film needs, in units of the codec's knob."""
    knob = CODESTREAMS[codec].knob
    if knob is None or target.kind not in ("psnr", "bytes"):
        return 0.0
    wanted = target.value if target.kind == "psnr" else 40.0  # a size is found from anywhere
    if codec == "j2k":
        return knob.snap(wanted + _J2K_SHORT)
    return knob.snap(_AT_40_DB[codec] + (wanted - 40) / knob.slope)
