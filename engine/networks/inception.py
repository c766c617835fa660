"""InceptionV3 up to its pooled features, in the variant of 2015 that the Fréchet inception distance is measured with, on gray films."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.folded_norm import NORM_PARTS, fill_convolution, folded
from engine.networks.gray_stem import GrayStem

NUM_FEATURES = 2048
SIDE = 299  # pixels that the network looks at
_NORM_EPSILON = 1e-3

# A branch is a chain of convolutions; a pair at its end looks at the same maps, and both results go on.
Branch = tuple[str | tuple[str, str], ...]
# name of a convolution -> channels in and out, kernel (rows, columns), stride; all those with stride 1 keep the maps' size
Convolutions = Mapping[str, tuple[int, int, tuple[int, int], int]]


class Mixed(nn.Module):
    """Branches side by side on the same maps, and a pooled one last: "mean" and "max" with a convolution after it, "half" without.

    The mean does not count the zeros outside the maps, as TensorFlow's does not.
    """

    def __init__(self, branches: tuple[Branch, ...], convolutions: Convolutions, pool: str) -> None:
        super().__init__()
        self.branches, self.pool = branches, pool
        for name, (inputs, outputs, kernel, stride) in convolutions.items():
            padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else 0
            self.add_module(name, nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        results = [result for branch in self.branches for result in self._through(branch, x)]
        if self.pool == "half":
            return torch.cat([*results, F.max_pool2d(x, 3, 2)], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.pool == "max" else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*results, self._convolved("branch_pool", pooled)], 1)

    def _through(self, branch: Branch, x: Tensor) -> list[Tensor]:
        for step in branch:
            if isinstance(step, tuple):
                return [self._convolved(name, x) for name in step]
            x = self._convolved(step, x)
        return [x]

    def _convolved(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = F.relu(self.get_submodule(name)(x), inplace=True)
        return result


class InceptionV3(nn.Module):
    """Films [N, 1, R, R] in [-1, 1], any R -> features [N, 2048] float32.

    Szegedy et al. 2016, with what TensorFlow's graph of 2015-12-05 has and torchvision's network has not: means in pools that do not count
    the padding, and in the last block a maximum in place of the mean. Films become 299x299 bilinearly, without a low-pass filter before,
    as the usual implementation of the distance (Heusel et al. 2017) has it. Norms are folded into the convolutions. Frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = GrayStem(32, kernel=3, stride=2, padding=0, is_normalised=False)
        self.Conv2d_2a_3x3 = nn.Conv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = nn.Conv2d(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = nn.Conv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = nn.Conv2d(80, 192, 3)
        self.mixed = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
        blocks = [_block_a(192, 32), _block_a(256, 64), _block_a(288, 64), _block_b()]
        blocks += [_block_c(width) for width in (128, 160, 160, 192)]
        blocks += [_block_d(), _block_e(1280, "mean"), _block_e(2048, "max")]
        for name, block in zip(self.mixed, blocks, strict=True):
            self.add_module(f"Mixed_{name}", block)
        self.requires_grad_(False).eval()

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Takes the published weights under their names, of `published_shapes`; others are ignored."""
        self.Conv2d_1a_3x3.load_published(*_folded(state, "Conv2d_1a_3x3"))
        for name, convolution in self._convolutions():
            fill_convolution(convolution, *_folded(state, name))
        self.to(memory_format=torch.channels_last)

    def forward(self, films: Tensor) -> Tensor:
        x = F.interpolate(films.float(), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = F.relu(self.Conv2d_2a_3x3(F.relu(self.Conv2d_1a_3x3(x))))
        x = F.max_pool2d(F.relu(self.Conv2d_2b_3x3(x)), 3, 2)
        x = F.relu(self.Conv2d_4a_3x3(F.relu(self.Conv2d_3b_1x1(x))))
        x = F.max_pool2d(x, 3, 2)
        for name in self.mixed:
            x = self.get_submodule(f"Mixed_{name}")(x)
        return x.mean(dim=(2, 3))

    def published_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights in the published file; its last layer is not needed."""
        shapes: dict[str, tuple[int, ...]] = {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3)}
        shapes |= {f"{name}.conv.weight": tuple(convolution.weight.shape) for name, convolution in self._convolutions()}
        for name, shape in list(shapes.items()):
            norm = name.removesuffix("conv.weight") + "bn"
            shapes |= {f"{norm}.{part}": shape[:1] for part in NORM_PARTS}
        return shapes

    def _convolutions(self) -> Iterator[tuple[str, nn.Conv2d]]:
        """All but the first, by their published names."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                yield name, module


def _block_a(inputs: int, pooled: int) -> Mixed:
    branches: tuple[Branch, ...] = (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    )
    convolutions: Convolutions = {
        "branch1x1": (inputs, 64, (1, 1), 1),
        "branch5x5_1": (inputs, 48, (1, 1), 1),
        "branch5x5_2": (48, 64, (5, 5), 1),
        "branch3x3dbl_1": (inputs, 64, (1, 1), 1),
        "branch3x3dbl_2": (64, 96, (3, 3), 1),
        "branch3x3dbl_3": (96, 96, (3, 3), 1),
        "branch_pool": (inputs, pooled, (1, 1), 1),
    }
    return Mixed(branches, convolutions, "mean")


def _block_b() -> Mixed:
    branches: tuple[Branch, ...] = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))
    convolutions: Convolutions = {
        "branch3x3": (288, 384, (3, 3), 2),
        "branch3x3dbl_1": (288, 64, (1, 1), 1),
        "branch3x3dbl_2": (64, 96, (3, 3), 1),
        "branch3x3dbl_3": (96, 96, (3, 3), 2),
    }
    return Mixed(branches, convolutions, "half")


def _block_c(width: int) -> Mixed:
    branches: tuple[Branch, ...] = (
        ("branch1x1",),
        ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    )
    convolutions: Convolutions = {
        "branch1x1": (768, 192, (1, 1), 1),
        "branch7x7_1": (768, width, (1, 1), 1),
        "branch7x7_2": (width, width, (1, 7), 1),
        "branch7x7_3": (width, 192, (7, 1), 1),
        "branch7x7dbl_1": (768, width, (1, 1), 1),
        "branch7x7dbl_2": (width, width, (7, 1), 1),
        "branch7x7dbl_3": (width, width, (1, 7), 1),
        "branch7x7dbl_4": (width, width, (7, 1), 1),
        "branch7x7dbl_5": (width, 192, (1, 7), 1),
        "branch_pool": (768, 192, (1, 1), 1),
    }
    return Mixed(branches, convolutions, "mean")


def _block_d() -> Mixed:
    branches: tuple[Branch, ...] = (("branch3x3_1", "branch3x3_2"), ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"))
    convolutions: Convolutions = {
        "branch3x3_1": (768, 192, (1, 1), 1),
        "branch3x3_2": (192, 320, (3, 3), 2),
        "branch7x7x3_1": (768, 192, (1, 1), 1),
        "branch7x7x3_2": (192, 192, (1, 7), 1),
        "branch7x7x3_3": (192, 192, (7, 1), 1),
        "branch7x7x3_4": (192, 192, (3, 3), 2),
    }
    return Mixed(branches, convolutions, "half")


def _block_e(inputs: int, pool: str) -> Mixed:
    branches: tuple[Branch, ...] = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    )
    convolutions: Convolutions = {
        "branch1x1": (inputs, 320, (1, 1), 1),
        "branch3x3_1": (inputs, 384, (1, 1), 1),
        "branch3x3_2a": (384, 384, (1, 3), 1),
        "branch3x3_2b": (384, 384, (3, 1), 1),
        "branch3x3dbl_1": (inputs, 448, (1, 1), 1),
        "branch3x3dbl_2": (448, 384, (3, 3), 1),
        "branch3x3dbl_3a": (384, 384, (1, 3), 1),
        "branch3x3dbl_3b": (384, 384, (3, 1), 1),
        "branch_pool": (inputs, 192, (1, 1), 1),
    }
    return Mixed(branches, convolutions, pool)


def _folded(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of the convolution `name` with the batch norm after it."""
    return folded(state, f"{name}.conv.weight", f"{name}.bn", epsilon=_NORM_EPSILON)
