"""Weights between safetensors bytes and networks: never pickles, every tensor accounted for, float32 in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.settings import shortened


def sha256(data: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(data).hexdigest()


def read_tensors(name: str, data: bytes, *, as_stored: bool = False) -> dict[str, Tensor]:
    """The tensors in the bytes of the file `name`, floating ones as float32 or `as_stored`; CodecError where it is not safetensors."""
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type of tensor that torch does not have
        raise CodecError(f"{name} is not a readable safetensors file: {shortened(error)}") from None
    return {key: value.float() if value.is_floating_point() and not as_stored else value for key, value in tensors.items()}


def write_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors bytes, the same for equal tensors."""
    return save({key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)})


def fill(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Puts `tensors` of the file `name` into `network` (which may lie on the meta device) without copying them.

    Raises CodecError where a tensor is missing, left over or of another shape.
    """
    wanted = network.state_dict()
    for key in wanted:
        if key not in tensors:
            raise CodecError(f"{name} lacks a tensor that the network needs: {key}")
        if tensors[key].shape != wanted[key].shape:
            shapes = f"{list(tensors[key].shape)} instead of {list(wanted[key].shape)}"
            raise CodecError(f"{name} has a tensor of another shape than the settings make, {key}: {shapes}")
    left_over = sorted(set(tensors) - set(wanted))
    if left_over:
        raise CodecError(f"{name} has tensors that the network does not know: {shortened(', '.join(left_over))}")
    network.load_state_dict(dict(tensors), assign=True)
