"""The tensors of a checkpoint, taken one by one: each by its name and shape, each finite, and none left over unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.errors import CodecError
from engine.networks.settings import shortened


class TensorTable:
    """Tensors by name, as a file has them. Every method raises CodecError in one line where the file is not of the layout."""

    def __init__(self, tensors: Any, layout: str) -> None:
        if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
            raise CodecError(f"has no tensors by name where the layout {layout} has them: {type(tensors).__name__}")
        self._tensors: Mapping[str, Any] = tensors
        self.layout = layout
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def count(self, pattern: str) -> int:
        """How many of `pattern` with {} as 0, 1, 2 ... are there, without a gap."""
        found = 0
        while pattern.format(found) in self:
            found += 1
        return found

    def names(self) -> list[str]:
        """The names of all tensors, taken or not."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._tensor(name).shape)

    def sizes(self, name: str, dims: int) -> tuple[int, ...]:
        """The shape of a tensor of `dims` dimensions."""
        shape = self.shape(name)
        if len(shape) != dims or 0 in shape:
            raise CodecError(f"has a tensor with another number of dimensions than {dims}, {name}: {list(shape)}")
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name and shape as float32."""
        tensor = self._tensor(name)
        if tuple(tensor.shape) != shape:
            raise CodecError(f"has a tensor of another shape than its layers need, {name}: {list(tensor.shape)} instead of {list(shape)}")
        # strides of 0 make a tensor of any size from one number
        if not tensor.is_floating_point() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CodecError(f"has a tensor that is not whole and floating point: {name}")
        values = tensor.float()
        if not values.isfinite().all():
            raise CodecError(f"has values that are no finite numbers in the tensor: {name}")
        self._taken.add(name)
        return values

    def ignore(self, *names: str) -> None:
        """Counts these as accounted for, whether they are there or not."""
        self._taken.update(names)

    def refuse_rest(self) -> None:
        """Raises CodecError where there are tensors that nothing took: they could be layers that change the film."""
        rest = sorted(set(self._tensors) - self._taken)
        if rest:
            raise CodecError(f"has tensors that the layout {self.layout} does not know: {shortened(', '.join(rest))}")

    def _tensor(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise CodecError(f"lacks a tensor of the layout {self.layout}: {name}")
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise CodecError(f"has something else than a plain tensor under the name: {name}")
        return tensor


def check_fade_is_over(fades: Mapping[str, Any]) -> None:
    """Raises CodecError unless each of these weights of the lower resolution, by their names in the file, is 0, and there is one."""
    if not fades:
        raise CodecError("does not say whether its fade between two resolutions is over, it lacks: alpha")
    for name, value in fades.items():
        number = plain_value(value)
        if not isinstance(number, int | float) or number != 0:
            raise CodecError(f"is a generator in the middle of a fade between two resolutions, its {name} must be 0: {shortened(number)}")


def plain_value(value: Any) -> Any:
    """The number in a tensor of one; anything else as it is, a larger tensor as its shape."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else f"tensor {list(value.shape)}"
    return value
