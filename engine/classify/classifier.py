"""A classifier: films -> logits, from a directory of `classifier.json` and safetensors; it judges films of any side, differentiably."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.classify.classifier_spec import CLASSIFIER_JSON, ClassifierSpec, read_spec
from engine.classify.film_model import FilmModel, build, load_model, resized, save_model
from engine.encode.model_directory import Kind
from engine.errors import CodecError

__all__ = ["Classifier", "load_classifier", "resized", "save_classifier"]

CLASSIFIER = Kind(
    word="classifier",
    json=CLASSIFIER_JSON,
    files=lambda raw: read_spec(raw).files(),
    advice="train one with: latentray train densenet --data SOURCE --out DIR",
)


class Classifier(FilmModel[ClassifierSpec]):
    """A loaded classifier. Gradients reach the films, never the weights."""

    word = CLASSIFIER.word

    @property
    def labels(self) -> tuple[str, ...]:
        """What it looks for, in the order of its logits."""
        return self.spec.labels

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The logit from which on each label counts as there (drawn by films held out)."""
        return self.spec.thresholds

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


def load_classifier(path: str | Path) -> Classifier:
    """The classifier in a directory. Raises CodecError, naming what is missing or damaged."""
    return load_model(path, CLASSIFIER, _load)


def save_classifier(out_dir: str | Path, spec: ClassifierSpec, *, weights: Mapping[str, Tensor]) -> ClassifierSpec:
    """Writes a classifier directory and returns the spec as it stands in `classifier.json`; see `save_model`. Raises CodecError."""
    final: ClassifierSpec = save_model(out_dir, spec, CLASSIFIER, _load, weights=weights)
    return final


def _load(files: Mapping[str, bytes]) -> Classifier:
    spec = read_spec(files[CLASSIFIER_JSON])

    def check(network: Any) -> None:
        if network.num_classes != len(spec.labels):
            raise CodecError(f"network has another number of classes than there are labels ({len(spec.labels)}): {network.num_classes}")
        if network.resolution not in (None, spec.recipe.resolution):
            raise CodecError(f"recipe.resolution is {spec.recipe.resolution}, but the network has another: {network.resolution}")

    network, digest = build("classifier", spec, files, CLASSIFIER, check)
    return Classifier(spec, network, digest=digest)
