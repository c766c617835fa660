"""A classifier: films -> logits, from a directory of `classifier.json` and safetensors; it judges films of any side, differentiably."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.classify.classifier_spec import CLASSIFIER_JSON, ClassifierSpec, read_spec
from engine.encode.model_directory import Kind, check_digests, files_digest, named_by_content, read_directory, write_files
from engine.encode.weights import fill, read_tensors, sha256, write_tensors
from engine.errors import CodecError
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe

__all__ = ["Classifier", "load_classifier", "resized", "save_classifier"]

CLASSIFIER = Kind(
    word="classifier",
    json=CLASSIFIER_JSON,
    files=lambda raw: read_spec(raw).files(),
    advice="train one with: latentray train densenet --data SOURCE --out DIR",
)


class Classifier:
    """A loaded classifier: frozen, in evaluation mode, float32, channels-last. `digest` is over all its files.

    A film's logits do not depend on the films beside it. Gradients reach the films, never the weights.
    """

    def __init__(self, spec: ClassifierSpec, network: nn.Module, *, digest: str) -> None:
        self.spec, self.digest = spec, digest
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._device = torch.device("cpu")

    @property
    def name(self) -> str:
        """What it is called, for messages."""
        return self.spec.name

    @property
    def labels(self) -> tuple[str, ...]:
        """What it looks for, in the order of its logits."""
        return self.spec.labels

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The logit from which on each label counts as there (drawn by films held out)."""
        return self.spec.thresholds

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

    def to(self, device: torch.device | str) -> Classifier:
        """Moves the network; returns itself."""
        self._device = torch.device(device)
        self.network.to(self._device)
        return self

    def index(self, label: str) -> int:
        """The column of a label. Raises CodecError for one that it does not know."""
        if label not in self.labels:
            raise CodecError(f"labels of classifier {self.name} are {', '.join(self.labels)}: {label}")
        return self.labels.index(label)

    def logits(self, pixels: Tensor) -> Tensor:
        """Films [N, 1, H, W] in [-1, 1], square or not, -> [N, labels] float32, differentiable in `pixels`. Raises CodecError otherwise."""
        found: Tensor = self.network(self._seen(pixels))
        return found.float()

    def features(self, pixels: Tensor) -> Tensor:
        """Films [N, 1, H, W] in [-1, 1] -> what the last layer sees of them, [N, features] float32, differentiable in `pixels`."""
        found: Tensor = self.network.embed(self._seen(pixels))  # type: ignore[operator]  # of every classifier network
        return found.float()

    def _seen(self, pixels: Tensor) -> Tensor:
        if pixels.ndim != 4 or pixels.shape[1] != 1 or min(pixels.shape[2:]) < 1:
            raise CodecError(f"classifier {self.name} takes films [N, 1, H, W]: {list(pixels.shape)}")
        return resized(pixels.to(self._device, torch.float32), self.resolution)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Films [N, 1, H, W] -> [N, 1, side, side]: means of squares of pixels where these tile the film, else bilinear, antialiased."""
    height, width = pixels.shape[2:]
    if (height, width) == (side, side):
        return pixels
    if height == width and height % side == 0:
        return F.avg_pool2d(pixels, height // side)
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def load_classifier(path: str | Path) -> Classifier:
    """The classifier in a directory. Raises CodecError, naming what is missing or damaged."""
    origin = f"classifier {path}"
    files = read_directory(Path(path), CLASSIFIER, origin=origin)
    try:
        return _load(files)
    except CodecError as error:
        raise CodecError(f"{origin}: {error}") from None


def save_classifier(out_dir: str | Path, spec: ClassifierSpec, *, weights: Mapping[str, Tensor]) -> ClassifierSpec:
    """Writes a classifier directory and returns the spec as it stands in `classifier.json`.

    The weights file gets the first digits of its digest, and `classifier.json` is replaced last, so it always names a file that is there.
    The classifier is loaded once before anything is written. Raises CodecError where it does not load, and where `out_dir` holds
    something else than a classifier or a training run.
    """
    packed = {spec.network.weights: write_tensors(weights)}
    final = replace(spec, network=named_by_content(spec.network, packed))
    files = {CLASSIFIER_JSON: final.to_bytes(), final.network.weights: packed[spec.network.weights]}
    _load(files)
    write_files(Path(out_dir), files, CLASSIFIER)
    return final


def _load(files: Mapping[str, bytes]) -> Classifier:
    spec = read_spec(files[CLASSIFIER_JSON])
    check_digests(files, spec.files(), CLASSIFIER)
    part = spec.network
    with torch.device("meta"):  # shapes without memory: a wrong setting is found before anything is allocated
        network = build_network("classifier", part.network, part.settings)
    if network.num_classes != len(spec.labels):
        raise CodecError(f"network has another number of classes than there are labels ({len(spec.labels)}): {network.num_classes}")
    if network.resolution not in (None, spec.recipe.resolution):
        raise CodecError(f"recipe.resolution is {spec.recipe.resolution}, but the network has another: {network.resolution}")
    fill(network, read_tensors(part.weights, files[part.weights]), part.weights)
    return Classifier(spec, network, digest=files_digest({CLASSIFIER_JSON: sha256(files[CLASSIFIER_JSON])} | spec.files()))
