"""A detector: films -> boxes with scores, from a directory of `detector.json` and safetensors; films may have any side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.classify.film_model import FilmModel, build, load_model, save_model
from engine.detect.detector_spec import DETECTOR_JSON, DetectorSpec, read_spec
from engine.encode.model_directory import Kind
from engine.errors import CodecError

__all__ = ["Detector", "load_detector", "save_detector"]

DETECTOR = Kind(
    word="detector",
    json=DETECTOR_JSON,
    files=lambda raw: read_spec(raw).files(),
    advice="train one with: latentray train retinanet --data SOURCE --out DIR",
)
Found = tuple[Tensor, Tensor]


class Detector(FilmModel[DetectorSpec]):
    """A loaded detector."""

    word = DETECTOR.word

    @torch.no_grad()
    def detect(self, films: Tensor) -> list[Found]:
        """Films [N, 1, H, W] in [-1, 1] -> of each film boxes [k, 4] float32 (x0, y0, x1, y1 in its own pixels, x1 and y1 just outside) and
        scores [k] in (0, 1), the surest first; k may be 0. On the device. Raises CodecError for other shapes.
        """
        seen = self._seen(films)
        height, width = films.shape[2:]
        scale = torch.tensor([width, height, width, height], device=self._device) / self.resolution
        found: list[Found] = self.network(seen)
        return [(boxes * scale, scores) for boxes, scores in found]


def load_detector(path: str | Path) -> Detector:
    """The detector in a directory. Raises CodecError, naming what is missing or damaged."""
    return load_model(path, DETECTOR, _load)


def save_detector(out_dir: str | Path, spec: DetectorSpec, *, weights: Mapping[str, Tensor]) -> DetectorSpec:
    """Writes a detector directory and returns the spec as it stands in `detector.json`; see `save_model`. Raises CodecError."""
    final: DetectorSpec = save_model(out_dir, spec, DETECTOR, _load, weights=weights)
    return final


def _load(files: Mapping[str, bytes]) -> Detector:
    spec = read_spec(files[DETECTOR_JSON])

    def check(network: Any) -> None:
        if network.resolution != spec.recipe.resolution:
            raise CodecError(f"recipe.resolution is {spec.recipe.resolution}, but the network has another: {network.resolution}")
        if network.num_classes != 1:
            raise CodecError(f"network must have the one class of the finding: {network.num_classes}")

    network, digest = build("detector", spec, files, DETECTOR, check)
    return Detector(spec, network, digest=digest)
