"""How coarsely a codec's codes may be rounded: measured on films, kept in `codec.json`, and used when codes are stored."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import metrics
from engine.encode.codec import Codec, codec_files, load_codec_files
from engine.encode.codec_directory import write_codec_files
from engine.encode.codec_spec import CODEC_JSON
from engine.encode.precision import whole_float32
from engine.errors import CodecError

MOST_LOSS_DB = 0.05
MARGIN_DB = 3.0  # films may come out as much better than those that were measured, and then have less to hide rounding behind
REFINED_PART = 1 / 4  # of the step, for refined codes: they lie where films change more with their code (README.md of engine/encode)
FILMS = 16  # films that a step is measured on: the mean loss of as many is within a hundredth of a dB
FINEST = 2.0**-8  # of the codes' root mean square; half precision itself keeps 2^-11 of each number
_AT_ONCE = 2**22  # pixels


def round_to_step(codes: Tensor, step: float) -> Tensor:
    """Codes rounded to multiples of `step`, half to even; as they are where it is 0."""
    return torch.round(codes / step) * step if step else codes


def as_stored(codes: Tensor, dtype: np.dtype[Any], step: float) -> np.ndarray[Any, Any]:
    """Codes [N, *shape] as an archive of this type and step holds them; what the type cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(round_to_step(codes.detach().float(), step).cpu().numpy().astype(dtype))


def default_step(codec: Codec, *, refined: bool) -> float:
    """The step of the codes that a run stores unless asked otherwise; 0.0 for a codec that records none."""
    return codec.spec.code.step * (REFINED_PART if refined else 1.0)


def find_step(codec: Codec, films: Tensor, *, margin_db: float = MARGIN_DB) -> float:
    """The coarsest power of two to whose multiples codes can be rounded for less than MOST_LOSS_DB, on films [N, 1, R, R] in [-1, 1].

    Errors add up: of a code, what its film differs from the film, less `margin_db`; of rounding, what the films of the code and of the
    rounded code differ by.
    0.0 where no step down to FINEST of the codes' root mean square will do, where there are no films, and without an encoder.
    """
    if not codec.has_encoder or not len(films):
        return 0.0
    with whole_float32(), torch.inference_mode():
        codes = _in_parts(codec.encode, films[:FILMS], codec)
        made = _films_of(codec, codes)
        size = float(codes.square().mean().sqrt())
        if not 0 < size < math.inf:
            return 0.0
        error = metrics.mse(made, metrics.to_unit(films[:FILMS])) * 10 ** (-margin_db / 10)
        step = 2.0 ** math.floor(math.log2(size) + 1)
        while step >= FINEST * size:
            by_rounding = metrics.mse(made, _films_of(codec, round_to_step(codes, step)))
            if float((10 * torch.log10(1 + by_rounding / error)).mean()) < MOST_LOSS_DB:
                return step
            step /= 2
    return 0.0


def record_step(directory: str | Path, films: Tensor, *, margin_db: float = MARGIN_DB) -> float:
    """Finds the step of the codec in a directory and writes it into its `codec.json`; returns it.

    Its digest changes: an archive that was begun with the former codec is not continued. Raises CodecError for the shipped codec.
    """
    if str(directory) == "demo":
        raise CodecError("the shipped codec stays as it is; take a copy of its directory: demo")
    files = codec_files(directory)
    codec = load_codec_files(files, origin=f"codec {directory}")
    step = find_step(codec, films, margin_db=margin_db)
    spec = replace(codec.spec, code=replace(codec.spec.code, step=step))
    if spec != codec.spec:
        write_codec_files(Path(directory), {**files, CODEC_JSON: spec.to_bytes()})
    return step


def _films_of(codec: Codec, codes: Tensor) -> Tensor:
    return metrics.to_unit(_in_parts(codec.generate, codes, codec))


def _in_parts(run: Callable[[Tensor], Tensor], values: Tensor, codec: Codec) -> Tensor:
    parts = torch.split(values, max(1, _AT_ONCE // codec.recipe.resolution**2))
    return torch.cat([run(part).cpu() for part in parts])
