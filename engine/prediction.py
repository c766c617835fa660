"""What a code makes of its film at the film's own size: what the residual of a layer is taken from, here and wherever it is decoded."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from engine import metrics
from engine.encode.codec import Codec
from engine.encode.precision import whole_float32
from engine.recipe import Square

Gray = np.ndarray[Any, np.dtype[np.float32]]


def film_of_code(codec: Codec, codes: Tensor) -> list[Gray]:
    """Films [R, R] in [0, 1] of codes [N, *shape], in float32 whatever the run computes in: decoding makes the very same later."""
    with whole_float32(), torch.inference_mode():
        parts = [metrics.to_unit(codec.generate(one)).cpu() for one in torch.split(codes, 1)]
    return [np.ascontiguousarray(part[0, 0].numpy(), dtype=np.float32) for part in parts]


def predict(film: Gray, shape: tuple[int, ...], square: Square) -> Gray:
    """A codec's film [R, R] at the size [H, W] of its source, as the recipe squared it; what a crop left out repeats the edge."""
    height, width = shape
    if square == "stretch" or height == width:
        return _resized(film, height, width)
    if square == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        edges = ((top, height - side - top), (left, width - side - left))
        return np.pad(_resized(film, side, side), edges, mode="edge")
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.ascontiguousarray(_resized(film, side, side)[top : top + height, left : left + width])


def _resized(film: Gray, height: int, width: int) -> Gray:
    resized = cv2.resize(film, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(resized, 0, 1), dtype=np.float32)
