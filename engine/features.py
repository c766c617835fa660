"""The network by whose features sets of films are compared: Inception, or a classifier of one's own, by the path that a user names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.classify.classifier import load_classifier
from engine.classify.classifier_spec import CLASSIFIER_JSON
from engine.errors import ConfigError
from engine.frechet import INCEPTION_FILE, read_inception
from engine.networks import inception
from engine.recipe import PixelRecipe
from engine.refine.weight_files import sha256_of

_INCEPTION_FILES = (INCEPTION_FILE, Path(INCEPTION_FILE).with_suffix(".safetensors").name)
_INCEPTION_RECIPE = PixelRecipe(resolution=1024)  # it shrinks films by itself, as published figures have it


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A frozen network that sees each film alone, and what names it.

    `digest`: "sha256:..." of Inception's file, or over the files of a classifier. `dim`: how many features a film has. `recipe`: how files
    become the films that it is shown, at the side where nothing else is asked for. `network`: lies on `device`.
    """

    name: str
    digest: str
    dim: int
    recipe: PixelRecipe
    device: str
    network: Callable[[Tensor], Tensor]

    def features(self, films: Tensor) -> Tensor:
        """Films [n, 1, H, W] in [-1, 1], of any side, -> [n, dim] float32, on the network's device."""
        return self.network(films.to(self.device))

    def told(self) -> dict[str, str | int]:
        """{"name", "sha256", "dim"}: what a result says of the network that it was measured with."""
        return {"name": self.name, "sha256": self.digest.removeprefix("sha256:"), "dim": self.dim}


def load_features(path: str | Path, *, flag: str = "--features") -> FeatureNetwork:
    """The network in a classifier directory, in Inception's published file, or in a folder that holds this file; on a GPU where one is.

    Nothing is downloaded. Raises ConfigError or CodecError in one line, with the path: nothing lies there, something else does, or it is
    damaged. `flag` is what names the path.
    """
    place = Path(path)
    if not place.exists():
        raise ConfigError(f"{flag} takes {_CHOICES}, and nothing is downloaded; there is no such file or directory: {place}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if place.is_file():
        return _of_inception(place, device)
    if (place / CLASSIFIER_JSON).exists():
        return _of_classifier(place, device)
    for name in _INCEPTION_FILES:
        if (place / name).is_file():
            return _of_inception(place / name, device)
    raise ConfigError(f"{flag} takes {_CHOICES}; the directory holds neither: {place}")


_CHOICES = f"a classifier directory (latentray train densenet makes one) or the file {INCEPTION_FILE}"


def _of_inception(file: Path, device: str) -> FeatureNetwork:
    network = read_inception(file).to(device)
    digest, dim = sha256_of(file), inception.NUM_FEATURES
    return FeatureNetwork(name="inception", digest=digest, dim=dim, recipe=_INCEPTION_RECIPE, device=device, network=network)


def _of_classifier(directory: Path, device: str) -> FeatureNetwork:
    classifier = load_classifier(directory).to(device)
    return FeatureNetwork(
        name=classifier.name,
        digest=f"sha256:{classifier.digest}",
        dim=int(classifier.network.num_features),  # type: ignore[arg-type]  # of every classifier network
        recipe=classifier.recipe,
        device=device,
        network=classifier.features,
    )
