"""The mapping network beside a StyleGAN's codec: found, read, and held against the codec whose codes it draws."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.encode.codec import Codec
from engine.encode.network_file import NetworkFile
from engine.encode.weights import sha256
from engine.errors import CodecError
from engine.networks.registry import build_network
from engine.networks.stylegan_mapping import MappingNetwork

MAPPING = "mapping.safetensors"
WHAT, FORMAT = "mapping network", "latentray-mapping-1"
_KIND = NetworkFile(WHAT, FORMAT)
_MEANS_AGREE = 1e-3  # of the mean's length: a codec may store its own in half precision


def mapping_beside(folder: str | Path, codec: Codec) -> tuple[MappingNetwork, str] | None:
    """The network that draws this codec's codes, on the CPU, and the sha256 of its file; None where none lies in the codec's folder.

    Raises CodecError for a file that is none or is damaged, and for one of another codec: its codes have another size or another mean.
    """
    file = Path(folder) / MAPPING
    if not file.is_file():
        return None
    network = load_mapping(file)
    if (size := network.settings.code_size) != codec.code_shape[-1]:
        raise CodecError(f"{WHAT} makes codes of {size} entries, those of codec {codec.name} have {codec.code_shape[-1]}: {file}")
    if codec.spec.code.mean is not None:
        mean = codec.mean_latents(1).cpu()[0]
        if not (mean - network.mean).norm() <= _MEANS_AGREE * mean.norm():
            raise CodecError(f"{WHAT} is of another codec than {codec.name}, its codes have another mean: {file}")
    return network, sha256(file.read_bytes())


def load_mapping(file: Path) -> MappingNetwork:
    """The network of a file as a trainer writes it, its weights made plain, fixed. Raises CodecError where the file is none of these."""
    with torch.device("meta"):
        network = build_network("mapping", "stylegan", _KIND.stored(file))
    assert isinstance(network, MappingNetwork)
    _KIND.fill(file, network)
    return network.fold().eval().requires_grad_(False)
