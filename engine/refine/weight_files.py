"""Finds and reads the published files of perceptual weights. Nothing is downloaded unless asked, nothing but tensors is unpickled."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import ConfigError

Shapes = Mapping[str, tuple[int, ...]]

# Names as torchvision and facebookresearch/moco publish them. The first two end in eight digits of their SHA-256.
FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth", "moco": "moco_v2_800ep_pretrain.pth.tar"}
_URLS = {
    "alex": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "vgg": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "moco": "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
}
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
# what torch.load and safetensors raise for a file that is cut off, is something else or holds more than tensors
_UNREADABLE = (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)


def find_network(network: str, folder: str | None, flag: str = "--weights") -> Path:
    """The file of "alex", "vgg" or "moco" in `folder`, or else where torch.hub keeps what it downloaded (under TORCH_HOME).

    A file of safetensors with the same stem is as good. Raises ConfigError in one line with the file's name; `flag` is what names a folder.
    """
    name = FILES[network]
    folders = folders_of(folder)
    for place in folders:
        for path in (place / name, place / f"{name.partition('.')[0]}.safetensors"):
            if path.is_file():
                return path
    looked = " and ".join(str(place) for place in folders)
    raise ConfigError(
        f"weights of a loss term were not found in {looked}; name their folder with {flag}, or go without with --loss mse=1: {name}"
    )


def download_network(network: str, folder: str | None, flag: str = "--weights") -> Path:
    """As `find_network`, but a file that is nowhere is downloaded from its publisher into the first folder. Raises ConfigError."""
    try:
        return find_network(network, folder, flag)
    except ConfigError:
        name, place = FILES[network], folders_of(folder)[0]
    published = _HASH_IN_NAME.search(name)
    try:
        place.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_URLS[network], str(place / name), published and published[1], progress=False)
    except (OSError, RuntimeError) as error:  # no network, no room, or another hash
        raise ConfigError(f"weights of a loss term could not be downloaded ({' '.join(str(error).split())}): {_URLS[network]}") from error
    return place / name


def folders_of(folder: str | None) -> tuple[Path, ...]:
    """Where weights are looked for, in this order."""
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    return (Path(folder), hub) if folder else (hub,)


def find_lpips_heads(net: str) -> Path:
    """The channel weights of LPIPS 0.1 for "alex" or "vgg" in the installed package `lpips`, which is not imported. Raises ConfigError."""
    spec = find_spec("lpips")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / "weights" / "v0.1" / f"{net}.pth"
        if path.is_file():
            return path
    raise ConfigError(f"loss term lpips needs the weights of an installed package, or go without with --loss mse=1: lpips ({net}.pth)")


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, as the fingerprint of an archive has it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_weights(path: Path, shapes: Shapes) -> dict[str, Tensor]:
    """Float tensors of these names and shapes from a published file; others are ignored.

    Names may be torchvision's, those of a whole `lpips.LPIPS`, or MoCo's (its query encoder counts), and may lie under `state_dict`.
    Raises ConfigError in one line with the path: a file that cannot be read without running code from it, or lacks a tensor.
    """
    try:
        content = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except _UNREADABLE as error:
        raise ConfigError(f"weights file is damaged, or holds more than plain tensors, which is not unpickled: {path}") from error
    tensors: Any = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(tensors, dict):
        tensors = {}
    state = {_torchvision_name(str(name)): value for name, value in tensors.items() if isinstance(value, Tensor)}
    for name, shape in shapes.items():
        value = state.get(name)
        if value is None or tuple(value.shape) != tuple(shape):
            raise ConfigError(f"weights file has no tensor {name} of shape {'x'.join(map(str, shape))}: {path}")
        if not value.is_floating_point() or not value.isfinite().all():
            raise ConfigError(f"weights file has values that are no finite numbers in {name}: {path}")
    return {name: state[name] for name in shapes}


def _unpickled(path: Path) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of a newer pickle protocol, say: it is read or refused all the same
        return torch.load(path, map_location="cpu", weights_only=True)


def _torchvision_name(name: str) -> str:
    """`module.encoder_q.layer1.0.conv1.weight` (MoCo), `net.slice1.0.weight` (lpips) and `denselayer1.norm.1.weight` (torchvision's own
    file of a DenseNet) as torchvision now names these tensors.
    """
    name = _OLD_DENSENET.sub(r"\1\2.", name)
    return re.sub(r"^net\.slice\d+\.", "features.", name.removeprefix("module.encoder_q."))


def random_weights(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Weights of these shapes that keep a signal's size (He et al. 2015), for tests and benchmarks."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=draw)
        if len(shape) == 4:
            state[name] = values * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        else:  # what a norm multiplies or divides by is 1; what is added is not 0, for a black film would have no features
            is_scale = name.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight", "running_var"))
            state[name] = torch.ones(shape) if is_scale else 0.1 * values
    return state
