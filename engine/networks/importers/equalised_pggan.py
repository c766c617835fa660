"""PGGAN generators whose layers multiply their output, bias included, by sqrt(2 / fan_in): Segal et al. 2021 and pytorch_GAN_zoo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from engine.errors import CodecError
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.pggan_state import Layer, he_scale, imported_pggan, pggan_state, scaled
from engine.networks.importers.safe_reader import ZooConfig
from engine.networks.importers.tensor_table import TensorTable, check_fade_is_over, plain_value
from engine.networks.settings import shortened

SEGAL, ZOO = "segal", "pytorch_GAN_zoo"
_LEAK = 0.2
_LINEAR_OUTPUT = ("WGANGP", "WGANGP2")  # the zoo's other losses put a tanh behind the colours


@dataclass(frozen=True, kw_only=True)
class _Names:
    """How a layout names its layers; {} is the level."""

    linear: str
    first: str
    levels: tuple[str, str]
    colours: str


_SEGAL_NAMES = _Names(
    linear="latent_linear.0.module",
    first="init_conv.0.module",
    levels=("ScaleBlocks.{}.convolv.0.module", "ScaleBlocks.{}.convolv.3.module"),
    colours="toRGB.{}.module",
)
_ZOO_NAMES = _Names(
    linear="formatLayer.module",
    first="groupScale0.0.module",
    levels=("scaleLayers.{}.0.module", "scaleLayers.{}.1.module"),
    colours="toRGBLayers.{}.module",
)
# Of all that a file may say of its network, what this one can be.
_SEGAL_SETTINGS = {"equalize": True, "norm_layers": True, "mode": "nearest"}
_ZOO_SETTINGS = {"equalizedlR": True, "perChannelNormalization": True, "categoryVectorDim": 0}


def has_segal_generator(state: Mapping[str, Any]) -> bool:
    """Whether a `state_dict` has Segal's generator, bare or inside the whole training module."""
    return any(f"{prefix}{_SEGAL_NAMES.linear}.weight" in state for prefix in _SEGAL_PREFIXES)


# the moving average, which the paper evaluates; the generator itself; a file of the generator alone
_SEGAL_PREFIXES = {"gen_shadow.": True, "generator.": False, "": None}


def read_segal(state: Mapping[str, Any], settings: Any) -> ImportedNetwork:
    """Segal's generator: no pixel norm after the linear layer, films in [0, 1]. `settings` is the entry beside `state_dict`."""
    prefix = next(prefix for prefix in _SEGAL_PREFIXES if f"{prefix}{_SEGAL_NAMES.linear}.weight" in state)
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    said = settings if isinstance(settings, Mapping) else {}
    fades = {f"{prefix}alpha": own.get("alpha")} | {f"settings.{name}": said.get(name) for name in ("alpha", "g_alpha")}
    check_fade_is_over({name: value for name, value in fades.items() if value is not None})
    _check_settings(said, _SEGAL_SETTINGS, SEGAL)
    table = TensorTable(own, SEGAL)
    table.ignore("alpha", "current_size", "current_depth")
    variant = {"norm_after_linear": False, "output_range": "unit", "leak": _leak(said.get("leakiness", _LEAK))}
    return _read_layers(table, _SEGAL_NAMES, SEGAL, variant, is_average=_SEGAL_PREFIXES[prefix])


def read_zoo(content: Mapping[str, Any]) -> ImportedNetwork:
    """The zoo's PGAN, `avgG` before `netG`: pixel norm after the linear layer, films in [-1, 1]. Its fade is in its configuration."""
    config = content["config"]
    said = config.values if isinstance(config, ZooConfig) else config
    if not isinstance(said, Mapping):
        raise CodecError(f"has no configuration where the layout {ZOO} has it: {type(config).__name__}")
    check_fade_is_over({"config.alpha": said["alpha"]} if "alpha" in said else {})
    _check_settings(said, _ZOO_SETTINGS, ZOO)
    if said.get("lossCriterion", _LINEAR_OUTPUT[0]) not in _LINEAR_OUTPUT:
        raise CodecError(f"was trained with a loss whose generators end in a tanh, or an unknown one: {shortened(said['lossCriterion'])}")
    network = next((name for name in ("avgG", "netG") if isinstance(content.get(name), Mapping)), None)
    if network is None:
        raise CodecError("has no generator, it lacks: avgG, netG")
    variant = {"norm_after_linear": True, "output_range": "signed", "leak": _leak(said.get("leakyReluLeak", _LEAK))}
    table = TensorTable(_with_modules(content[network]), ZOO)
    return _read_layers(table, _ZOO_NAMES, ZOO, variant, is_average=network == "avgG")


def _read_layers(table: TensorTable, names: _Names, layout: str, variant: dict[str, Any], *, is_average: bool | None) -> ImportedNetwork:
    levels = table.count(f"{names.colours}.weight")
    # every level keeps the layer that once made its colours: its width is the level's
    shapes = [table.sizes(f"{names.colours.format(level)}.weight", 4) for level in range(max(levels, 1))]
    colours, widths = shapes[-1][0], [shape[1] for shape in shapes]
    code_size = table.sizes(f"{names.linear}.weight", 2)[1]

    def layer(name: str, *shape: int) -> Layer:
        he = he_scale(math.prod(shape[1:]))
        weight, bias = table.take(f"{name}.weight", *shape), table.take(f"{name}.bias", shape[0])
        return Layer(weight=scaled(weight, he), bias=scaled(bias, he))

    linear = layer(names.linear, 16 * widths[0], code_size)
    first = layer(names.first, widths[0], widths[0], 3, 3)
    blocks = []
    for level, (below, width) in enumerate(pairwise(widths)):
        one, two = (name.format(level) for name in names.levels)
        blocks.append((layer(one, width, below, 3, 3), layer(two, width, width, 3, 3)))
    to_colours = [layer(names.colours.format(level), colours, width, 1, 1) for level, width in enumerate(widths)]
    table.refuse_rest()
    state = pggan_state(linear, first, blocks, to_colours[-1])
    settings = {"channels": widths, "code_size": code_size, **variant}
    return imported_pggan(layout, state, settings, colours=colours, is_average=is_average)


def _with_modules(state: Any) -> Any:
    """Names of old files, `formatLayer.weight`, as those of new ones, `formatLayer.module.weight`."""
    if not isinstance(state, Mapping):
        return state

    def renamed(name: Any) -> Any:
        layer, _, part = str(name).rpartition(".")
        return name if not isinstance(name, str) or layer.endswith(".module") else f"{layer}.module.{part}"

    return {renamed(name): value for name, value in state.items()}


def _check_settings(said: Mapping[str, Any], needed: Mapping[str, Any], layout: str) -> None:
    for name, value in needed.items():
        if name in said and plain_value(said[name]) != value:
            found = shortened(plain_value(said[name]))
            raise CodecError(f"is a variant of {layout} that this version does not build, {name} must be {value}: {found}")


def _leak(value: Any) -> float:
    number = plain_value(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise CodecError(f"has a slope of its leaky ReLU that is no number: {shortened(number)}")
    return float(number)
