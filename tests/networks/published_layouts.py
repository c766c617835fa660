"""The published layouts, written once more from their documentation: files with random weights, and the forward pass of each."""

from __future__ import annotations

import math
import sys
import types
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

WIDTHS = (16, 12, 8)  # films of 16x16
COLOUR_STD = 0.25  # of the last layer's weights, so that films are about as bright as films are
CODE_SIZE = 12


class Equalised(nn.Module):
    """A layer whose output, bias included, is multiplied at run time. The constant is no part of its state."""

    def __init__(self, module: nn.Module, std: float = 1.0) -> None:
        super().__init__()
        self.module = module
        nn.init.normal_(module.weight, std=std)
        nn.init.normal_(module.bias, std=std)
        self.he = math.sqrt(2 / module.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) * self.he


class Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)


def conv(below: int, width: int) -> Equalised:
    return Equalised(nn.Conv2d(below, width, 3, padding=1))


def to_colours(width: int, colours: int) -> Equalised:
    return Equalised(nn.Conv2d(width, colours, 1), std=COLOUR_STD)


class SegalGenerator(nn.Module):
    """Segal's: no norm after the linear layer, films in [0, 1], a buffer for the fade."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, code_size: int = CODE_SIZE, colours: int = 3) -> None:
        super().__init__()
        for name, value in (("current_size", 4 * 2 ** (len(widths) - 1)), ("current_depth", len(widths) - 1), ("alpha", 0)):
            self.register_buffer(name, torch.tensor(value))
        leaky = nn.LeakyReLU(0.2)
        self.latent_linear = nn.Sequential(Equalised(nn.Linear(code_size, 16 * widths[0])), leaky)
        self.init_conv = nn.Sequential(conv(widths[0], widths[0]), leaky, Norm())
        self.ScaleBlocks = nn.ModuleList()
        for below, width in pairwise(widths):
            block = nn.Module()
            block.convolv = nn.Sequential(conv(below, width), leaky, Norm(), conv(width, width), leaky, Norm())
            self.ScaleBlocks.append(block)
        self.toRGB = nn.ModuleList(to_colours(width, colours) for width in widths)

    def forward(self, z: Tensor) -> Tensor:
        x = self.latent_linear(Norm()(z))
        x = self.init_conv(x.view(len(z), -1, 4, 4))
        for block in self.ScaleBlocks:
            x = block.convolv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.toRGB[-1](x)  # [N, colours, R, R] in [0, 1]


class ZooGenerator(nn.Module):
    """pytorch_GAN_zoo's: a norm after the linear layer, films in [-1, 1]."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, code_size: int = CODE_SIZE, colours: int = 3, leak: float = 0.2) -> None:
        super().__init__()
        self.leak = leak
        self.formatLayer = Equalised(nn.Linear(code_size, 16 * widths[0]))
        self.groupScale0 = nn.ModuleList([conv(widths[0], widths[0])])
        pairs = pairwise(widths)
        self.scaleLayers = nn.ModuleList(nn.ModuleList([conv(below, width), conv(width, width)]) for below, width in pairs)
        self.toRGBLayers = nn.ModuleList(to_colours(width, colours) for width in widths)

    def forward(self, z: Tensor) -> Tensor:
        norm, x = Norm(), F.leaky_relu(self.formatLayer(Norm()(z)), self.leak)
        x = norm(x.view(len(z), -1, 4, 4))
        x = norm(F.leaky_relu(self.groupScale0[0](x), self.leak))
        for group in self.scaleLayers:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            for layer in group:
                x = norm(F.leaky_relu(layer(x), self.leak))
        return self.toRGBLayers[-1](x)


def segal_discriminator(widths: tuple[int, ...] = WIDTHS) -> dict[str, Tensor]:
    """Names and shapes of Segal's discriminator, whose blocks have some of the generator's names."""
    state = {"alpha": torch.tensor(0), "DecisionLinear.module.weight": torch.randn(1, widths[0])}
    for level, width in enumerate(widths):
        state[f"fromRGB.{level}.module.weight"] = torch.randn(width, 3, 1, 1)
    for block in range(len(widths) - 1):
        state |= {f"ScaleBlocks.{block}.convolv.{layer}.module.weight": torch.randn(4, 4, 3, 3) for layer in (0, 2)}
    return state


def lightning_file(generator: SegalGenerator, shadow: SegalGenerator | None) -> dict[str, Any]:
    """The whole training module of Segal as its callback saves it."""
    parts = {"generator": generator} | ({} if shadow is None else {"gen_shadow": shadow})
    state = OrderedDict((f"{part}.{name}", value) for part, net in parts.items() for name, value in net.state_dict().items())
    state.update({f"discriminator.{name}": value for name, value in segal_discriminator().items()})
    state.update({"alpha": torch.tensor(0), "img_size": torch.tensor(16), "fixed_z": torch.randn(2, CODE_SIZE)})
    settings = {"alpha": torch.tensor(0.0), "g_alpha": torch.tensor(0.0), "g_size": torch.tensor(16), "fixed_z": torch.randn(2, CODE_SIZE)}
    return {"state_dict": state, "settings": settings}


def save_zoo(path: Path, content: dict[str, Any], config: dict[str, Any], *, is_zip: bool = True) -> None:
    """A file of the zoo: `config` is an instance of its own class, which nobody else has."""
    module = types.ModuleType("models.utils.config")
    kind = type("BaseConfig", (), {"__module__": "models.utils.config"})
    module.BaseConfig = kind
    instance = kind()
    vars(instance).update(config)
    with patch.dict(sys.modules, {"models": module, "models.utils": module, "models.utils.config": module}):
        torch.save({"config": instance, **content}, path, _use_new_zipfile_serialization=is_zip)


def zoo_config(**changes: Any) -> dict[str, Any]:
    """What the zoo keeps with a generator, as far as it bears on the films."""
    config = {"alpha": 0, "leakyReluLeak": 0.2, "perChannelNormalization": True, "equalizedlR": True, "lossCriterion": "WGANGP"}
    sizes = {"categoryVectorDim": 0, "latentVectorDim": CODE_SIZE, "depthScale0": WIDTHS[0], "depthOtherScales": list(WIDTHS[1:])}
    return config | sizes | {"attribKeysOrder": None} | changes


def without_modules(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the zoo's old files."""
    return {name.replace(".module.", "."): value for name, value in state.items()}


def karras_arrays(
    *, is_fused: bool, widths: tuple[int, ...] = WIDTHS, code_size: int = CODE_SIZE, colours: int = 3
) -> dict[str, np.ndarray]:
    """The variables of the TensorFlow generator: [in, out], [k, k, in, out], or [k, k, out, in] where fused."""
    draw = np.random.default_rng(5)

    def normal(*shape: int) -> np.ndarray:
        # biases, which nothing scales down here, would otherwise be all that one sees
        return (draw.standard_normal(shape) * (0.2 if len(shape) == 1 else 1)).astype(np.float32)

    arrays = {"lod": np.float32(0), "4x4/Dense/weight": normal(code_size, 16 * widths[0]), "4x4/Dense/bias": normal(widths[0])}
    arrays |= {"4x4/Conv/weight": normal(3, 3, widths[0], widths[0]), "4x4/Conv/bias": normal(widths[0])}
    for level, (below, width) in enumerate(pairwise(widths), start=1):
        side = f"{4 << level}x{4 << level}"
        first, shape = (f"{side}/Conv0_up", (width, below)) if is_fused else (f"{side}/Conv0", (below, width))
        arrays |= {f"{first}/weight": normal(3, 3, *shape), f"{first}/bias": normal(width)}
        arrays |= {f"{side}/Conv1/weight": normal(3, 3, width, width), f"{side}/Conv1/bias": normal(width)}
    for level, width in enumerate(widths):
        name = f"ToRGB_lod{len(widths) - 1 - level}"
        arrays |= {f"{name}/weight": normal(1, 1, width, colours), f"{name}/bias": normal(colours)}
    return arrays


def karras_films(arrays: dict[str, np.ndarray], z: np.ndarray, levels: int = len(WIDTHS)) -> np.ndarray:
    """The TensorFlow generator at lod 0 in NumPy, float64: [N, code_size] -> [N, colours, R, R] in [-1, 1]."""
    v = {name: array.astype(np.float64) for name, array in arrays.items()}

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8)

    def biased(x: np.ndarray, name: str) -> np.ndarray:
        x = x + v[f"{name}/bias"].reshape(1, -1, 1, 1)
        return norm(np.maximum(x, 0.2 * x))

    x = norm(z.astype(np.float64)) @ (v["4x4/Dense/weight"] * (np.sqrt(2) / 4 / np.sqrt(z.shape[1])))
    x = biased(x.reshape(len(z), -1, 4, 4), "4x4/Dense")
    x = biased(_same(x, v["4x4/Conv/weight"]), "4x4/Conv")
    for level in range(1, levels):
        side = f"{4 << level}x{4 << level}"
        if f"{side}/Conv0_up/weight" in v:
            x = biased(_fused(x, v[f"{side}/Conv0_up/weight"]), f"{side}/Conv0_up")
        else:
            x = biased(_same(x.repeat(2, axis=2).repeat(2, axis=3), v[f"{side}/Conv0/weight"]), f"{side}/Conv0")
        x = biased(_same(x, v[f"{side}/Conv1/weight"]), f"{side}/Conv1")
    weight = v["ToRGB_lod0/weight"][0, 0] / np.sqrt(x.shape[1])
    return np.einsum("nihw,io->nohw", x, weight) + v["ToRGB_lod0/bias"].reshape(1, -1, 1, 1)


def _same(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What each pixel reads from its neighbours."""
    scaled = weight * np.sqrt(2 / (9 * x.shape[1]))
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        np.einsum("nihw,io->nohw", padded[:, :, dy : dy + height, dx : dx + width], scaled[dy, dx]) for dy in range(3) for dx in range(3)
    )


def _fused(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What each pixel writes into a film of twice the size: the kernel, padded and summed over four shifts, at a stride of 2."""
    padded = np.pad(weight * np.sqrt(2 / (9 * x.shape[1])), ((1, 1), (1, 1), (0, 0), (0, 0)))
    kernel = padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]  # [4, 4, out, in]
    n, _, height, width = x.shape
    out = np.zeros((n, kernel.shape[2], 2 * height + 2, 2 * width + 2))
    for dy in range(4):
        for dx in range(4):
            out[:, :, dy : dy + 2 * height : 2, dx : dx + 2 * width : 2] += np.einsum("nihw,oi->nohw", x, kernel[dy, dx])
    return out[:, :, 1:-1, 1:-1]


def weber_file(depths: tuple[int, ...] = (1, 2), widths: tuple[int, ...] = (8, 16), code_size: int = CODE_SIZE) -> dict[str, Any]:
    """What Weber's training saves: torchvision's ConvNeXt as the attribute `model` of a class, inside data parallel."""
    blocks = [CNBlockConfig(*stage) for stage in zip(widths, (*widths[1:], None), depths, strict=True)]
    net = ConvNeXt(blocks, num_classes=code_size)
    draw = torch.Generator().manual_seed(3)
    state = {f"module.model.{name}": 0.3 * torch.randn(value.shape, generator=draw) for name, value in net.state_dict().items()}
    return {"step": 7, "model": OrderedDict(state), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}}


def weber_codes(content: dict[str, Any], rgb: Tensor) -> Tensor:
    """ConvNeXt (Liu et al. 2022) written out: RGB [N, 3, R, R] in [0, 1] -> codes [N, code_size]."""
    state = {name.removeprefix("module.model."): value.to(rgb.dtype) for name, value in content["model"].items()}

    def normed(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, correction=0) + 1e-6)
        return x * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1)

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("nihw,oi->nohw", x, state[f"{name}.weight"]) + state[f"{name}.bias"].view(1, -1, 1, 1)

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    x = normed(conv(rgb, "features.0.0", stride=4), "features.0.1")
    stage = 1
    while f"features.{stage}.0.layer_scale" in state:
        block = 0
        while f"features.{stage}.{block}.layer_scale" in state:
            name = f"features.{stage}.{block}"
            inner = normed(conv(x, f"{name}.block.0", padding=3, groups=x.shape[1]), f"{name}.block.2")
            x = x + state[f"{name}.layer_scale"] * linear(F.gelu(linear(inner, f"{name}.block.3")), f"{name}.block.5")
            block += 1
        if f"features.{stage + 1}.0.weight" in state:
            x = conv(normed(x, f"features.{stage + 1}.0"), f"features.{stage + 1}.1", stride=2)
        stage += 2
    return linear(normed(x.mean((2, 3), keepdim=True), "classifier.0"), "classifier.2").flatten(1)
