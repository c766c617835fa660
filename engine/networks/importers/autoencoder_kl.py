"""Autoencoders of latent diffusion: its own files and MedVAE's (CompVis names), and diffusers' with the `config.json` beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from engine.errors import CodecError
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.kl_names import Layout, Part, compvis, current_name, diffusers
from engine.networks.importers.low_rank import merged
from engine.networks.importers.tensor_table import TensorTable
from engine.networks.registry import build_network
from engine.networks.settings import shortened

MEDVAE, LATENT_DIFFUSION, DIFFUSERS = "medvae", "latent-diffusion", "diffusers"
_NETWORK = "autoencoder_kl"
# In front of the names: nothing, data parallel, and a whole diffusion model, whose other parts stay behind.
_PREFIXES = ("", "module.", "first_stage_model.")
# MedVAE's projection of its codes for classifiers, from which no film is made; the losses of training.
_PROJECTION = ("channel_ds.", "channel_proj.")
_IGNORED = (*_PROJECTION, "loss.")
# Norms, which no low-rank change renames, of both halves: an encoder alone makes no films.
_COMPVIS = ("encoder.down.0.block.0.norm1.weight", "decoder.up.0.block.0.norm1.weight")
_DIFFUSERS = ("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.up_blocks.0.resnets.0.norm1.weight")
_NUMBERED = re.compile(r"^levels\.(\d+)\.")
_ROLES: dict[Part, Literal["encoder", "generator"]] = {"encoder": "encoder", "decoder": "generator"}


def has_compvis(state: Mapping[str, Any]) -> bool:
    """Whether a `state_dict` has both halves under the names of latent diffusion."""
    return any(all(f"{prefix}{name}" in state for name in _COMPVIS) for prefix in _PREFIXES)


def has_diffusers(state: Mapping[str, Any]) -> bool:
    """Whether a `state_dict` has both halves under the names of diffusers."""
    return all(name in state for name in _DIFFUSERS)


def read_compvis(state: Mapping[str, Any]) -> ImportedNetwork:
    """Encoder and generator from `encoder.down...`, `decoder.up...`, `quant_conv`, `post_quant_conv`. Sizes come from the shapes.

    A file with MedVAE's projection is MedVAE's: its films were stretched from darkest to brightest, and two of its networks lie there as
    another one's weights with low-rank changes beside them, which are added.
    """
    prefix = next(prefix for prefix in _PREFIXES if f"{prefix}{_COMPVIS[0]}" in state)
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if any(name.startswith("quantize.") for name in own):
        raise CodecError("is a VQ model, whose codes are entries of a table, no autoencoder with a normal posterior")
    is_medvae = any(name.startswith(_PROJECTION) for name in own)
    layout = MEDVAE if is_medvae else LATENT_DIFFUSION
    whole, num_changes = merged(own, layout)
    facts = {"low_rank_changes": num_changes} if num_changes else {}
    recipe = {"intensity": "minmax"} if is_medvae else {}
    return _read(TensorTable(whole, layout), compvis(layout), common={}, facts=facts, recipe=recipe)


def read_diffusers(state: Mapping[str, Any], config: Any) -> ImportedNetwork:
    """Encoder and generator from `encoder.down_blocks...`, with what `config.json` (None: not there) says of norms and scale."""
    common = _diffusers_settings(config)
    facts = {"sample_size": config["sample_size"]} if isinstance(config.get("sample_size"), int) else {}
    table = TensorTable({current_name(name): value for name, value in state.items()}, DIFFUSERS)
    return _read(table, diffusers(DIFFUSERS), common=common, facts=facts, recipe={})


def _read(table: TensorTable, layout: Layout, *, common: dict[str, Any], facts: dict[str, Any], recipe: dict[str, Any]) -> ImportedNetwork:
    channels = _channels(table)
    sizes = {part: {**_sizes(table, layout, part), **channels, **common} for part in _ROLES}
    colours = {part: _colours(table, part) for part in _ROLES}
    encoder, generator = (_state(table, layout, part, settings, channels, colours[part]) for part, settings in sizes.items())
    table.ignore(*(name for name in table.names() if name.startswith(_IGNORED)))
    table.refuse_rest()
    about = {"colours": colours["encoder"], **facts}
    own = ImportedNetwork(
        role="encoder", layout=layout.name, network=_NETWORK, settings=sizes["encoder"], state=encoder, is_average=None, facts=about
    )
    return ImportedNetwork(
        role="codec",
        layout=layout.name,
        network=_NETWORK,
        settings=sizes["decoder"],
        state=generator,
        is_average=None,
        facts=about,
        encoder=own,
        recipe=recipe,
    )


def _channels(table: TensorTable) -> dict[str, int]:
    """The code's channels and those that the decoder sees. diffusers leaves the 1x1 convolution between out where they need none."""
    z_channels = table.sizes("decoder.conv_in.weight", 4)[1]
    has_layer = "post_quant_conv.weight" in table
    return {"code_channels": table.sizes("post_quant_conv.weight", 4)[1] if has_layer else z_channels, "z_channels": z_channels}


def _colours(table: TensorTable, part: Part) -> int:
    name, dim = ("encoder.conv_in.weight", 1) if part == "encoder" else ("decoder.conv_out.weight", 0)
    colours = table.sizes(name, 4)[dim]
    if colours not in (1, 3):
        raise CodecError(f"has films of another number of colours than 1 or 3, {name}: {colours}")
    return colours


def _sizes(table: TensorTable, layout: Layout, part: Part) -> dict[str, Any]:
    """Widths, depths and attention of one half. Where its levels do not agree, its tensors will not fit the network of these sizes."""
    levels = max(table.count(layout.name_of(part, "levels.{}.blocks.0.conv1.weight")), 1)

    def at(level: int, rest: str) -> str:
        return layout.name_of(part, f"levels.{layout.number(part, level, levels)}.{rest}")

    blocks = table.count(layout.name_of(part, "levels.0.blocks.{}.conv1.weight"))
    widths = [table.sizes(at(level, "blocks.0.conv1.weight"), 4)[0] for level in range(levels)]
    attention = [level for level in range(levels) if at(level, "attentions.0.norm.weight") in table]
    middle = layout.name_of(part, "middle.attention.norm.weight") in table
    depth = max(blocks - (part == "decoder"), 1)
    return {"widths": widths, "num_res_blocks": depth, "attention_levels": attention, "middle_attention": middle}


def _state(
    table: TensorTable, layout: Layout, part: Part, settings: dict[str, Any], channels: dict[str, int], colours: int
) -> dict[str, Tensor]:
    levels = len(settings["widths"])
    with torch.device("meta"):
        network = build_network(_ROLES[part], _NETWORK, {**settings, "resolution": 2 ** (levels - 1)})
    code, z = channels["code_channels"], channels["z_channels"]
    state: dict[str, Tensor] = {}
    for mine, value in network.state_dict().items():
        first, kind = mine.partition(".")[0], mine.rpartition(".")[2]
        name = layout.name_of(part, _NUMBERED.sub(lambda found: f"levels.{layout.number(part, int(found[1]), levels)}.", mine))
        shape = tuple(value.shape)
        if first == "from_code":
            continue
        if part == "encoder" and first == "conv_out":
            state[mine] = table.take(name, 2 * z, *shape[1:])
        elif part == "encoder" and mine == "conv_in.weight":
            state[mine] = table.take(name, shape[0], colours, 3, 3).sum(1, keepdim=True)
        elif part == "decoder" and first == "conv_out":
            state[mine] = table.take(name, colours, *shape[1:]).mean(0, keepdim=True)
        elif kind == "weight" and len(shape) == 2 and len(table.shape(name)) == 4:  # attention's, as 1x1 convolutions
            state[mine] = table.take(name, *shape, 1, 1).flatten(1)
        else:
            state[mine] = table.take(name, *shape)
    if part == "encoder":
        return {**state, **_mean_alone(table, state, code, z)}
    return {**state, **_from_code(table, code, z)}


def _mean_alone(table: TensorTable, state: dict[str, Tensor], code: int, z: int) -> dict[str, Tensor]:
    """The last convolution with the rows of `quant_conv` that give the mean multiplied in, in float64."""
    weight, bias = state["conv_out.weight"].double(), state["conv_out.bias"].double()
    if "quant_conv.weight" not in table:
        if code != z:
            raise CodecError(f"lacks a tensor of the layout {table.layout}: quant_conv.weight")
        return {"conv_out.weight": weight[:code].float(), "conv_out.bias": bias[:code].float()}
    mixed = table.take("quant_conv.weight", 2 * code, 2 * z, 1, 1).double().flatten(1)[:code]  # [code, 2 z]
    offset = table.take("quant_conv.bias", 2 * code).double()[:code]
    return {
        "conv_out.weight": torch.einsum("cm,mihw->cihw", mixed, weight).float(),
        "conv_out.bias": (mixed @ bias + offset).float(),
    }


def _from_code(table: TensorTable, code: int, z: int) -> dict[str, Tensor]:
    if "post_quant_conv.weight" not in table:
        return {"from_code.weight": torch.eye(z)[:, :, None, None], "from_code.bias": torch.zeros(z)}
    weight, bias = table.take("post_quant_conv.weight", z, code, 1, 1), table.take("post_quant_conv.bias", z)
    return {"from_code.weight": weight, "from_code.bias": bias}


_BLOCKS = {"DownEncoderBlock2D", "AttnDownEncoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"}
# Of all that `config.json` may say, what this network can be. Absent is diffusers' default, which is the same.
_NEEDED: dict[str, Any] = {"_class_name": "AutoencoderKL", "act_fn": "silu", "latents_mean": None, "latents_std": None}


def _diffusers_settings(config: Any) -> dict[str, Any]:
    if config is None:
        raise CodecError("is of diffusers, whose config.json must lie beside it: it says how the norms group channels and codes are scaled")
    if not isinstance(config, Mapping):
        raise CodecError(f"has a config.json beside it that is no JSON object: {shortened(config)}")
    for name, needed in _NEEDED.items():
        if config.get(name, needed) != needed:
            raise CodecError(
                f"is a variant of {DIFFUSERS} that this version does not build, {name} must be {needed}: {shortened(config[name])}"
            )
    kinds = [kind for side in ("down_block_types", "up_block_types") for kind in _listed(config, side)]
    if unknown := [kind for kind in kinds if kind not in _BLOCKS]:
        raise CodecError(f"is a variant of {DIFFUSERS} that this version does not build, its blocks: {shortened(unknown)}")
    groups = config.get("norm_num_groups", 32)
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise CodecError(f"has a config.json whose norm_num_groups is no whole number: {shortened(groups)}")
    return {
        "groups": groups,
        "code_scale": _number(config, "scaling_factor", 0.18215),
        "code_shift": _number(config, "shift_factor", 0.0),
    }


def _listed(config: Mapping[str, Any], name: str) -> list[Any]:
    value = config.get(name, [])
    return list(value) if isinstance(value, list | tuple) else [value]


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:  # nor NaN
        raise CodecError(f"has a config.json whose {name} is no number: {shortened(value)}")
    return float(value)
