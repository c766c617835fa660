"""What a classifier and a detector have in common: a frozen network that looks at films, and the directory that it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.encode.codec_spec import NetworkSpec
from engine.encode.model_directory import Kind, check_digests, files_digest, named_by_content, read_directory, write_files
from engine.encode.weights import fill, read_tensors, sha256, write_tensors
from engine.errors import CodecError
from engine.networks.registry import Role, build_network
from engine.recipe import PixelRecipe


class Spec(Protocol):
    """What the JSON file of such a directory says, whatever the model."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> NetworkSpec: ...
    @property
    def recipe(self) -> PixelRecipe: ...
    def files(self) -> dict[str, str]: ...
    def to_bytes(self) -> bytes: ...


S = TypeVar("S", bound=Spec)
M = TypeVar("M")


class FilmModel(Generic[S]):
    """A loaded model: frozen, in evaluation mode, float32, channels-last. `digest` is over all its files.

    What it says of a film does not depend on the films beside it.
    """

    word: str  # what it is called, for messages

    def __init__(self, spec: S, network: nn.Module, *, digest: str) -> None:
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

    def to(self, device: torch.device | str) -> Self:
        """Moves the network; returns itself."""
        self._device = torch.device(device)
        self.network.to(self._device)
        return self

    def _seen(self, pixels: Tensor) -> Tensor:
        """Films [N, 1, H, W] in [-1, 1] as the network sees them, on its device. Raises CodecError for other shapes."""
        if pixels.ndim != 4 or pixels.shape[1] != 1 or min(pixels.shape[2:]) < 1:
            raise CodecError(f"{self.word} {self.name} takes films [N, 1, H, W]: {list(pixels.shape)}")
        return resized(pixels.to(self._device, torch.float32), self.resolution)


def resized(pixels: Tensor, side: int) -> Tensor:
    """Films [N, 1, H, W] -> [N, 1, side, side]: means of squares of pixels where these tile the film, else bilinear, antialiased."""
    height, width = pixels.shape[2:]
    if (height, width) == (side, side):
        return pixels
    if height == width and height % side == 0:
        return F.avg_pool2d(pixels, height // side)
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def load_model(path: str | Path, kind: Kind, load: Callable[[Mapping[str, bytes]], M]) -> M:
    """The model in a directory, as `load` makes it of its files. Raises CodecError, naming what is missing or damaged."""
    origin = f"{kind.word} {path}"
    files = read_directory(Path(path), kind, origin=origin)
    try:
        return load(files)
    except CodecError as error:
        raise CodecError(f"{origin}: {error}") from None


def save_model(
    out_dir: str | Path, spec: Any, kind: Kind, load: Callable[[Mapping[str, bytes]], M], *, weights: Mapping[str, Tensor]
) -> Any:
    """Writes the directory and returns the spec as it stands in its JSON file.

    The weights file gets the first digits of its digest, and the JSON is replaced last, so it always names a file that is there.
    The model is loaded once before anything is written. Raises CodecError where it does not load, and where `out_dir` holds something
    else than such a model or a training run.
    """
    packed = {spec.network.weights: write_tensors(weights)}
    final = replace(spec, network=named_by_content(spec.network, packed))
    files = {kind.json: final.to_bytes(), final.network.weights: packed[spec.network.weights]}
    load(files)
    write_files(Path(out_dir), files, kind)
    return final


def build(role: Role, spec: Spec, files: Mapping[str, bytes], kind: Kind, check: Callable[[Any], None]) -> tuple[nn.Module, str]:
    """The network of a spec with the weights among these files, and the digest of all of them.

    `check` sees the network before its weights are read, and raises CodecError where it does not fit the spec.
    """
    check_digests(files, spec.files(), kind)
    part = spec.network
    with torch.device("meta"):  # shapes without memory: a wrong setting is found before anything is allocated
        network = build_network(role, part.network, part.settings)
    check(network)
    fill(network, read_tensors(part.weights, files[part.weights]), part.weights)
    return network, files_digest({kind.json: sha256(files[kind.json])} | spec.files())
