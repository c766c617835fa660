"""The generator of Karras et al. 2018 from the variables of its TensorFlow code, given as arrays in an npz under the code's own names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.pggan_state import Layer, he_scale, imported_pggan, pggan_state, scaled
from engine.networks.importers.tensor_table import TensorTable, check_fade_is_over

KARRAS = "karras"
# the moving average; the generator itself; variables as `Gs.vars` or `G.vars` names them, which does not say whose they are
_PREFIXES = {"Gs/": True, "G/": False, "": None}
_DENSE = "4x4/Dense"


def has_karras_generator(arrays: Mapping[str, Any]) -> bool:
    """Whether arrays are those of the generator."""
    return _prefix(_plain_names(arrays)) is not None


def read_karras(arrays: Mapping[str, Any]) -> ImportedNetwork:
    """The generator: pixel norm after the dense layer, films in [-1, 1], biases as they are.

    Scales are those of `use_wscale`: sqrt(2 / fan_in), for the dense layer sqrt(2) / 4 / sqrt(fan_in), for the colours 1 / sqrt(fan_in).
    Both forms of upsampling are read, and equal: the fused `Conv0_up` and `Conv0` after nearest neighbours.
    """
    named = _plain_names(arrays)
    prefix = _prefix(named)
    assert prefix is not None, "the caller asks `has_karras_generator` first"
    own = {name.removeprefix(prefix): _tensor(value) for name, value in named.items() if name.startswith(prefix)}
    if "lod" in own:
        check_fade_is_over({"lod": own["lod"]})
    table = TensorTable(own, KARRAS)
    table.ignore("lod")
    widths, colours = _widths(table)
    code_size = table.sizes(f"{_DENSE}/weight", 2)[0]
    blocks = []
    for level, (below, width) in enumerate(pairwise(widths), start=1):
        side = f"{4 * 2**level}x{4 * 2**level}"
        blocks.append((_after_upsampling(table, side, below, width), _convolution(table, f"{side}/Conv1", width, width)))
    linear = _dense(table, code_size, widths[0])
    first = _convolution(table, "4x4/Conv", widths[0], widths[0])
    to_colours = [_to_colours(table, lod, width, colours) for lod, width in enumerate(reversed(widths))]
    table.refuse_rest()
    state = pggan_state(linear, first, blocks, to_colours[0])
    settings = {"channels": widths, "code_size": code_size, "leak": 0.2, "norm_after_linear": True, "output_range": "signed"}
    return imported_pggan(KARRAS, state, settings, colours=colours, is_average=_PREFIXES[prefix])


def _widths(table: TensorTable) -> tuple[list[int], int]:
    """The width of each level, from 4x4 up, as its colour layer has it, and the number of colours. lod 0 is the highest level."""
    levels = table.count("ToRGB_lod{}/weight")
    shapes = [table.sizes(f"ToRGB_lod{lod}/weight", 4) for lod in reversed(range(max(levels, 1)))]
    return [shape[2] for shape in shapes], shapes[-1][3]


def _dense(table: TensorTable, code_size: int, width: int) -> Layer:
    """[in, out] to [out, in]. The bias is one number a channel, each of which has 16 pixels."""
    weight = table.take(f"{_DENSE}/weight", code_size, 16 * width)
    bias = table.take(f"{_DENSE}/bias", width)
    return Layer(weight=scaled(weight.t(), he_scale(code_size, math.sqrt(2) / 4)), bias=bias.repeat_interleave(16))


def _convolution(table: TensorTable, name: str, below: int, width: int) -> Layer:
    weight = table.take(f"{name}/weight", 3, 3, below, width)
    return Layer(weight=scaled(weight.permute(3, 2, 0, 1), he_scale(9 * below)), bias=table.take(f"{name}/bias", width))


def _after_upsampling(table: TensorTable, side: str, below: int, width: int) -> Layer:
    """The first convolution of a level.

    The fused one is a transposed convolution [3, 3, out, in], spread to 4x4 and stride 2. A transposed convolution writes where a
    convolution reads, so it is the convolution with its kernel turned by 180 degrees, on films enlarged by nearest neighbours.
    """
    fused = f"{side}/Conv0_up"
    if f"{fused}/weight" not in table:
        return _convolution(table, f"{side}/Conv0", below, width)
    weight = table.take(f"{fused}/weight", 3, 3, width, below)
    turned = weight.flip(0, 1).permute(2, 3, 0, 1)
    return Layer(weight=scaled(turned, he_scale(9 * below)), bias=table.take(f"{fused}/bias", width))


def _to_colours(table: TensorTable, lod: int, width: int, colours: int) -> Layer:
    weight = table.take(f"ToRGB_lod{lod}/weight", 1, 1, width, colours)
    bias = table.take(f"ToRGB_lod{lod}/bias", colours)
    return Layer(weight=scaled(weight.permute(3, 2, 0, 1), he_scale(width, gain=1)), bias=bias)


def _prefix(named: Mapping[str, Any]) -> str | None:
    return next((prefix for prefix in _PREFIXES if f"{prefix}{_DENSE}/weight" in named), None)


def _plain_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """TensorFlow's own names end in the number of an output."""
    return {name.removesuffix(":0"): value for name, value in arrays.items()}


def _tensor(array: Any) -> Any:
    """Numbers as a tensor; what is no numbers as it is, to be refused where a layer needs it."""
    types = {"f": np.float32, "i": np.int64, "u": np.int64}
    return torch.from_numpy(np.asarray(array, types[array.dtype.kind], order="C")) if array.dtype.kind in types else array
