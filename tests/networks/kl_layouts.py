"""Latent diffusion's autoencoder written once more from its documentation: files with weights drawn by name, and its forward pass."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RANK = 4  # of MedVAE's low-rank changes


@dataclass(frozen=True, kw_only=True)
class Sizes:
    widths: tuple[int, ...] = (32, 64)
    blocks: int = 2
    colours: int = 1
    code: int = 1
    z: int = 3
    attention: tuple[int, ...] = ()
    middle: bool = True
    groups: int = 32
    has_quant: bool = True


MEDVAE = Sizes(colours=3, code=3)
DIFFUSERS = Sizes(widths=(16, 32, 32), blocks=1, colours=3, code=4, z=4, attention=(1,), groups=8)
DIFFUSERS_CONFIG = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.42.1",
    "act_fn": "silu",
    "block_out_channels": [16, 32, 32],
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "mid_block_add_attention": True,
    "norm_num_groups": 8,
    "sample_size": 32,
    "scaling_factor": 0.7,
    "shift_factor": 0.1,
}


class CompVis:
    """The names of latent diffusion: levels from the highest resolution down, attention by 1x1 convolutions."""

    middle = ("mid.block_1", "mid.attn_1", "mid.block_2")
    shortcut, last_norm = "nin_shortcut", "norm_out"
    attention = ("norm", "q", "k", "v", "proj_out")
    kernel = (1, 1)

    @staticmethod
    def level(part: str, level: int, levels: int) -> str:
        return f"{part}.{'down' if part == 'encoder' else 'up'}.{level}"

    @staticmethod
    def inner(kind: str, part: str, at: int) -> str:
        return {"block": f"block.{at}", "attention": f"attn.{at}", "resample": f"{'down' if part == 'encoder' else 'up'}sample.conv"}[kind]


class Diffusers(CompVis):
    """The names of diffusers: the decoder's levels from the lowest resolution up, attention by linear layers."""

    middle = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
    shortcut, last_norm = "conv_shortcut", "conv_norm_out"
    attention = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
    kernel = ()  # type: ignore[assignment]

    @staticmethod
    def level(part: str, level: int, levels: int) -> str:
        return f"encoder.down_blocks.{level}" if part == "encoder" else f"decoder.up_blocks.{levels - 1 - level}"

    @staticmethod
    def inner(kind: str, part: str, at: int) -> str:
        side = "down" if part == "encoder" else "up"
        return {"block": f"resnets.{at}", "attention": f"attentions.{at}", "resample": f"{side}samplers.0.conv"}[kind]


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """A layer's weights, always the same for its name: as large as they are at the start of a training."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        scaled = draw / np.sqrt(np.prod(shape[1:]))
    else:
        scaled = 0.1 * draw + (1 if "norm" in name and name.endswith(".weight") else 0)
    return torch.from_numpy(scaled.astype(np.float32))


def film(size: int = 32, n: int = 1) -> Tensor:
    """Gray films [n, 1, size, size] in [-1, 1]."""
    return torch.from_numpy(np.random.default_rng(7).uniform(-1, 1, (n, 1, size, size)).astype(np.float32))


def state_of(sizes: Sizes, names: type[CompVis] = CompVis) -> dict[str, Tensor]:
    """All tensors of a file."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": shape[:1]})

    def block(name: str, below: int, width: int) -> None:
        layer(f"{name}.norm1", below)
        layer(f"{name}.conv1", width, below, 3, 3)
        layer(f"{name}.norm2", width)
        layer(f"{name}.conv2", width, width, 3, 3)
        if below != width:
            layer(f"{name}.{names.shortcut}", width, below, 1, 1)

    def attention(name: str, width: int) -> None:
        norm, *products = names.attention
        layer(f"{name}.{norm}", width)
        for product in products:
            layer(f"{name}.{product}", width, width, *names.kernel)

    count, lowest, highest = len(sizes.widths), sizes.widths[-1], sizes.widths[0]
    for part in ("encoder", "decoder"):
        below = highest if part == "encoder" else lowest
        layer(f"{part}.conv_in", below, sizes.colours if part == "encoder" else sizes.z, 3, 3)
        for level in range(count) if part == "encoder" else reversed(range(count)):
            name, width = names.level(part, level, count), sizes.widths[level]
            for at in range(sizes.blocks + (part == "decoder")):
                block(f"{name}.{names.inner('block', part, at)}", below, width)
                below = width
                if level in sizes.attention:
                    attention(f"{name}.{names.inner('attention', part, at)}", width)
            if level != (count - 1 if part == "encoder" else 0):
                layer(f"{name}.{names.inner('resample', part, 0)}", width, width, 3, 3)
        block(f"{part}.{names.middle[0]}", lowest, lowest)
        if sizes.middle:
            attention(f"{part}.{names.middle[1]}", lowest)
        block(f"{part}.{names.middle[2]}", lowest, lowest)
        last = lowest if part == "encoder" else highest
        layer(f"{part}.{names.last_norm}", last)
        layer(f"{part}.conv_out", 2 * sizes.z if part == "encoder" else sizes.colours, last, 3, 3)
    if sizes.has_quant:
        layer("quant_conv", 2 * sizes.code, 2 * sizes.z, 1, 1)
        layer("post_quant_conv", sizes.z, sizes.code, 1, 1)
    return {name: values(name, shape) for name, shape in shapes.items()}


def with_low_rank_changes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As MedVAE's fine-tuned networks lie in their files: each convolution of a block or attention with its change beside it."""
    changed: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        is_inner = any(part in name for part in (".block", ".attn")) and "norm" not in layer
        if not is_inner:
            changed[name] = value
            continue
        changed[f"{layer}.conv.{kind}"] = values(f"{layer}.conv.{kind}", tuple(value.shape))
        if kind == "weight":
            for half, shape in (("lora_down", (RANK, *value.shape[1:])), ("lora_up", (value.shape[0], RANK, 1, 1))):
                changed[f"{layer}.{half}.weight"] = 0.3 * values(f"{layer}.{half}.weight", shape)
    return changed


def projection(code: int) -> dict[str, Tensor]:
    """MedVAE's layers from codes to what its classifiers see."""
    shapes = {"channel_ds.0": (64, code, 1, 1), "channel_ds.2": (64, 64, 3, 3), "channel_ds.4": (code, 64, 1, 1)}
    shapes |= {"channel_proj": (code, code, 1, 1)}
    weights = {f"{name}.weight": shape for name, shape in shapes.items()} | {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    return {name: values(name, shape) for name, shape in weights.items()}


class Documented:
    """The forward pass of a file, in float64, on films of the file's own colours."""

    def __init__(self, state: dict[str, Tensor], sizes: Sizes, names: type[CompVis] = CompVis) -> None:
        self.state = {name: value.double() for name, value in state.items()}
        self.sizes, self.names = sizes, names

    def mean(self, x: Tensor) -> Tensor:
        h, count = self.conv(x.double(), "encoder.conv_in"), len(self.sizes.widths)
        for level in range(count):
            h = self.level(h, "encoder", level)
            if level < count - 1:
                name = f"{self.names.level('encoder', level, count)}.{self.names.inner('resample', 'encoder', 0)}"
                h = F.conv2d(F.pad(h, (0, 1, 0, 1)), self.state[f"{name}.weight"], self.state[f"{name}.bias"], stride=2)
        moments = self.last(self.around_middle(h, "encoder"), "encoder")
        if self.sizes.has_quant:
            moments = self.conv(moments, "quant_conv")
        return moments.chunk(2, dim=1)[0]

    def films(self, z: Tensor) -> Tensor:
        z = self.conv(z.double(), "post_quant_conv") if self.sizes.has_quant else z.double()
        h, count = self.around_middle(self.conv(z, "decoder.conv_in"), "decoder"), len(self.sizes.widths)
        for level in reversed(range(count)):
            h = self.level(h, "decoder", level)
            if level > 0:
                h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                h = self.conv(h, f"{self.names.level('decoder', level, count)}.{self.names.inner('resample', 'decoder', 0)}")
        return self.last(h, "decoder")

    def level(self, h: Tensor, part: str, level: int) -> Tensor:
        name = self.names.level(part, level, len(self.sizes.widths))
        for at in range(self.sizes.blocks + (part == "decoder")):
            h = self.block(h, f"{name}.{self.names.inner('block', part, at)}")
            if level in self.sizes.attention:
                h = self.attention(h, f"{name}.{self.names.inner('attention', part, at)}")
        return h

    def around_middle(self, h: Tensor, part: str) -> Tensor:
        first, attention, second = (f"{part}.{name}" for name in self.names.middle)
        h = self.block(h, first)
        if self.sizes.middle:
            h = self.attention(h, attention)
        return self.block(h, second)

    def last(self, h: Tensor, part: str) -> Tensor:
        return self.conv(swish(self.norm(h, f"{part}.{self.names.last_norm}")), f"{part}.conv_out")

    def block(self, x: Tensor, name: str) -> Tensor:
        h = self.conv(swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
        h = self.conv(swish(self.norm(h, f"{name}.norm2")), f"{name}.conv2")
        shortcut = f"{name}.{self.names.shortcut}"
        return h + (self.conv(x, shortcut) if f"{shortcut}.weight" in self.state else x)

    def attention(self, x: Tensor, name: str) -> Tensor:
        norm, *products = self.names.attention
        n, width, height, across = x.shape
        pixels = self.norm(x, f"{name}.{norm}").reshape(n, width, -1)

        def product(values: Tensor, which: int) -> Tensor:
            weight, bias = (self.state[f"{name}.{products[which]}.{kind}"] for kind in ("weight", "bias"))
            return torch.einsum("oi,nip->nop", weight.reshape(width, width), values) + bias[:, None]

        query, key, value = (product(pixels, which) for which in range(3))
        weights = torch.exp(torch.einsum("ncq,nck->nqk", query, key) / width**0.5)
        weights = weights / weights.sum(2, keepdim=True)
        return x + product(torch.einsum("nqk,nck->ncq", weights, value), 3).reshape(n, width, height, across)

    def norm(self, x: Tensor, name: str) -> Tensor:
        grouped = x.reshape(len(x), self.sizes.groups, -1)
        grouped = (grouped - grouped.mean(2, keepdim=True)) / torch.sqrt(grouped.var(2, keepdim=True, correction=0) + 1e-6)
        scale, shift = (self.state[f"{name}.{kind}"].reshape(1, -1, 1, 1) for kind in ("weight", "bias"))
        return grouped.reshape(x.shape) * scale + shift

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def lightning_callbacks(kind: Any) -> dict[Any, Any]:
    """What Lightning keeps beside `state_dict`: the state of a callback, under its class."""
    return {"epoch": 3, "global_step": 9, "callbacks": {kind: {"monitor": "val/rec_loss", "best_model_path": "last.ckpt"}}, "loops": None}
