"""A DenseNet that sees a film and its residue map side by side (Tang et al. 2021, section 4); the part that makes residues stays fixed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.networks.dgm import DgmSettings
from engine.networks.residue_maker import ResidueMaker

_STEM = "features.conv0.weight"


@dataclass(frozen=True, kw_only=True)
class ResidueDenseNetSettings(DenseNetSettings):
    """A DenseNet, of which `in_channels` counts the planes of the film alone, and sizes of the DGM that makes residues (`DgmSettings`)."""

    resolution: int = 224
    dgm_widths: tuple[int, ...] = (64, 64, 128, 256, 512)
    dgm_blocks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dgm()  # checks itself

    def dgm(self) -> DgmSettings:
        """The sizes of E_F and D_F."""
        return DgmSettings(resolution=self.resolution, widths=self.dgm_widths, blocks=self.dgm_blocks)


class ResidueDenseNet(DenseNetClassifier):
    """Films [N, 1, R, R] in [-1, 1] -> logits [N, classes], R = `resolution`; differentiable in the films by both ways.

    The residue is one more plane of the first convolution, in its own unit (2 from black to white), as the paper concatenates the two.
    `features` and `classifier` are trained; `maker`, a part of a trained DGM, takes no gradient, and costs no memory for one where
    films take none.
    """

    def __init__(self, settings: ResidueDenseNetSettings) -> None:
        super().__init__(settings)
        self.resolution = settings.resolution
        stem = nn.Conv2d(settings.in_channels + 1, settings.stem, kernel_size=7, stride=2, padding=3, bias=False)
        with torch.no_grad():
            stem.weight[:, :-1] = self.features.conv0.weight
            nn.init.kaiming_normal_(stem.weight[:, -1:])  # as a first convolution starts that sees nothing else
        self.features.conv0 = stem
        self.maker = ResidueMaker(settings.dgm())

    def _planes(self, pixels: Tensor) -> Tensor:
        return torch.cat([super()._planes(pixels), self.maker(pixels).to(pixels.dtype)], dim=1)


@torch.no_grad()
def with_residue(plain: DenseNetClassifier, maker: ResidueMaker) -> ResidueDenseNet:
    """The network `plain`, fresh or with published weights, for the film and the residues of `maker`: copies of the weights of both.

    Weights of the residue's plane, of which `plain` has none, are drawn anew.
    """
    dgm = maker.settings
    sizes: dict[str, Any] = {"resolution": dgm.resolution, "dgm_widths": dgm.widths, "dgm_blocks": dgm.blocks}
    network = ResidueDenseNet(ResidueDenseNetSettings(**asdict(plain.settings), **sizes))
    state = plain.state_dict()
    network.features.conv0.weight[:, :-1] = state.pop(_STEM)
    network.load_state_dict(state, strict=False)
    network.maker.load_state_dict(maker.state_dict())
    return network
