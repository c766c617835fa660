"""What crosses a boundary between two stages, or between the driver and a worker. No record has behaviour beyond its own shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Status(IntEnum):
    """How a row ended; stored as u1 with CF flags, so the numbers never change meaning."""

    NOT_WRITTEN = 0
    OK = 1
    DECODE_ERROR = 2
    ENCODE_ERROR = 3
    REFINE_DIVERGED = 4
    NONFINITE = 5
    POISON = 6


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One film as the plan names it: `row` in the archive, a unique `sample_id`, and the `uri` it is read from.

    `region`: the part that a fidelity layer keeps exactly, a box "x0,y0,x1,y1" or where a mask lies; "" for none.
    """

    row: int
    sample_id: str
    uri: str
    region: str = ""


def is_box(region: str) -> bool:
    """Whether a region is meant as a box, and not as where a mask lies."""
    return re.fullmatch(r"[\d, ]+", region) is not None


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work: consecutive rows of the plan. `digest` is the sha256 of these rows in the plan."""

    index: int
    refs: tuple[ImageRef, ...]
    digest: str
    attempt: int = 1
    poison: frozenset[int] = frozenset()  # rows that killed a worker: written as such, never decoded again


@dataclass(frozen=True, slots=True)
class Failure:
    """One film that did not make it: where it stopped and why, in one line without paths."""

    row: int
    sample_id: str
    status: Status
    stage: str  # read, decode, encode, refine, worker
    reason: str


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of one source file once it has been read: sha256 of its bytes (32 bytes), size in pixels, bit depth."""

    sha256: bytes
    height: int
    width: int
    bits: int
    note: str = ""  # for example "first of 3 frames"


@dataclass(frozen=True, slots=True, eq=False)
class FilmSamples:
    """The integers of a film, before any window: `samples` [H, W] uint8, uint16 or int16, upright.

    `bits`: significant bits, 1 to 16, enough for every sample; the peak of a PSNR is 2^bits - 1. `black` and `white` are the sample values
    shown as gray 0 and 1: black lies above white where the lowest value is white (MONOCHROME1). `lossy`: why these are not the integers of
    the file itself ("colour: its luma is rounded"), empty where they are.
    """

    samples: np.ndarray[Any, Any]
    bits: int
    black: float
    white: float
    lossy: str = ""

    @property
    def is_inverted(self) -> bool:
        """Whether low samples are bright."""
        return self.black > self.white

    def to_gray(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Gray [H, W] float32 in [0, 1], as the file's own linear window shows it."""
        gray = (self.samples.astype(np.float32) - np.float32(self.black)) / np.float32(self.white - self.black)
        return np.asarray(np.clip(gray, 0, 1), dtype=np.float32)


@dataclass(slots=True)
class PixelBatch:
    """Decoded films. Gray, float32 in [-1, 1].

    `pixels` [N, 1, R, R] at the codec's resolution; `films` [N, 1, F, F] at the film size on which quality is measured
    (None when nothing is to be measured, the same tensor as `pixels` when both sizes are equal).
    `refs` and `infos` have N entries, in plan order. `failures` are the films of the same stretch of the plan that have no pixels.
    `failed_infos` keeps, by row, what was learnt of a failed file before it failed (its digest, say). `seconds`: what threads were busy
    with for these films, "read" and "decode", added up over them; without what a GPU does of it.
    """

    refs: list[ImageRef]
    pixels: Tensor
    films: Tensor | None
    infos: list[SourceInfo]
    failures: list[Failure] = field(default_factory=list)
    failed_infos: dict[int, SourceInfo] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class LatentBatch:
    """Codes of one PixelBatch, row for row.

    `latents` [N, *shape] float32 on the codec's gauge. `steps` [N] int32: refinement steps of the code kept (0: the encoder's own).
    `loss_initial` and `loss` [N] float32: the objective at the start and of the code kept, None before refinement.
    `stop` has one word an image: "budget", "target", "plateau", "diverged", or "" where nothing was refined.
    """

    latents: Tensor
    steps: Tensor
    loss_initial: Tensor | None = None
    loss: Tensor | None = None
    stop: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ShardRows:
    """One shard's worth of every array of the archive, as NumPy columns of n rows, ready to be written.

    `columns` maps an array's name (INTERFACE: latent, sample_id, status, mse_initial, mse, psnr, ssim, steps, source_sha256,
    source_height, source_width, source_bits) to its values. Every row has a status other than NOT_WRITTEN.
    """

    columns: dict[str, np.ndarray[Any, Any]]
    failures: list[Failure]


@dataclass(frozen=True, slots=True)
class ShardReceipt:
    """What a worker hands back: the commit record of one shard, as it stands in the archive.

    `rows` counts by status name ("ok", "decode_error", ...). `objects` maps an object's key in the store to
    {"sha256", "bytes"}, or to None where all its values are fill and no object exists. `made_by` tells host, backend, precision,
    decoder and parity figures; `seconds` the time by stage.
    """

    shard: int
    first_row: int
    num_rows: int
    plan_digest: str
    attempt: int
    rows: dict[str, int]
    objects: dict[str, dict[str, Any] | None]
    failures: list[Failure]
    made_by: dict[str, Any]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """What one `encode` did, over the whole archive; `seconds` and `images_per_second` only over this run."""

    archive: str
    rows: int
    ok: int
    failed: int
    pending: int
    shards: int
    shards_done: int
    failed_by_reason: dict[str, int]
    bytes: int
    psnr: float | None  # mean over ok rows, dB; None where it was not measured
    ssim: float | None
    encoded_now: int
    seconds: float
    images_per_second: float
