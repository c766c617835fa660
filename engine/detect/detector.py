"""A detector: films -> boxes with scores, from a directory of `detector.json` and safetensors; films may have any side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.classify.classifier import resized
from engine.detect.detector_spec import DETECTOR_JSON, DetectorSpec, read_spec
from engine.encode.model_directory import Kind, check_digests, files_digest, named_by_content, read_directory, write_files
from engine.encode.weights import fill, read_tensors, sha256, write_tensors
from engine.errors import CodecError
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe

__all__ = ["Detector", "load_detector", "save_detector"]

DETECTOR = Kind(
    word="detector",
    json=DETECTOR_JSON,
    files=lambda raw: read_spec(raw).files(),
    advice="train one with: latentray train retinanet --data SOURCE --out DIR",
)
Found = tuple[Tensor, Tensor]


class Detector:
    """A loaded detector: frozen, in evaluation mode, float32, channels-last. `digest` is over all its files.

    Boxes of a film do not depend on the films beside it.
    """

    def __init__(self, spec: DetectorSpec, network: nn.Module, *, digest: str) -> None:
        self.spec, self.digest = spec, digest
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._device = torch.device("cpu")

    @property
    def name(self) -> str:
        """What it is called, for messages."""
        return self.spec.name

    @property
    def recipe(self) -> PixelRecipe:
        """How files become the films that it was trained on."""
        return self.spec.recipe

    @property
    def resolution(self) -> int:
        """Side of the films that the network sees."""
        return self.recipe.resolution

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self._device

    def to(self, device: torch.device | str) -> Detector:
        """Moves the network; returns itself."""
        self._device = torch.device(device)
        self.network.to(self._device)
        return self

    @torch.no_grad()
    def detect(self, films: Tensor) -> list[Found]:
        """Films [N, 1, H, W] in [-1, 1] -> of each film boxes [k, 4] float32 (x0, y0, x1, y1 in its own pixels, x1 and y1 just outside) and
        scores [k] in (0, 1), the surest first; k may be 0. On the device. Raises CodecError for other shapes.
        """
        if films.ndim != 4 or films.shape[1] != 1 or min(films.shape[2:]) < 1:
            raise CodecError(f"detector {self.name} takes films [N, 1, H, W]: {list(films.shape)}")
        height, width = films.shape[2:]
        scale = torch.tensor([width, height, width, height], device=self._device) / self.resolution
        found: list[Found] = self.network(resized(films.to(self._device, torch.float32), self.resolution))
        return [(boxes * scale, scores) for boxes, scores in found]


def load_detector(path: str | Path) -> Detector:
    """The detector in a directory. Raises CodecError, naming what is missing or damaged."""
    origin = f"detector {path}"
    files = read_directory(Path(path), DETECTOR, origin=origin)
    try:
        return _load(files)
    except CodecError as error:
        raise CodecError(f"{origin}: {error}") from None


def save_detector(out_dir: str | Path, spec: DetectorSpec, *, weights: Mapping[str, Tensor]) -> DetectorSpec:
    """Writes a detector directory and returns the spec as it stands in `detector.json`, which is replaced last.

    The detector is loaded once before anything is written. Raises CodecError where it does not load, and where `out_dir` holds something
    else than a detector or a training run.
    """
    packed = {spec.network.weights: write_tensors(weights)}
    final = replace(spec, network=named_by_content(spec.network, packed))
    files = {DETECTOR_JSON: final.to_bytes(), final.network.weights: packed[spec.network.weights]}
    _load(files)
    write_files(Path(out_dir), files, DETECTOR)
    return final


def _load(files: Mapping[str, bytes]) -> Detector:
    spec = read_spec(files[DETECTOR_JSON])
    check_digests(files, spec.files(), DETECTOR)
    part = spec.network
    with torch.device("meta"):  # shapes without memory: a wrong setting is found before anything is allocated
        network = build_network("detector", part.network, part.settings)
    if network.resolution != spec.recipe.resolution:
        raise CodecError(f"recipe.resolution is {spec.recipe.resolution}, but the network has another: {network.resolution}")
    if network.num_classes != 1:
        raise CodecError(f"network must have the one class of the finding: {network.num_classes}")
    fill(network, read_tensors(part.weights, files[part.weights]), part.weights)
    return Detector(spec, network, digest=files_digest({DETECTOR_JSON: sha256(files[DETECTOR_JSON])} | spec.files()))
