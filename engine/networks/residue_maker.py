"""The residue map of films alone: E_F and D_F of a DGM codec (Tang et al. 2021), frozen, for networks that see the film and its residue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.dgm import DgmEncoder, DgmGenerator, DgmSettings, PartDecoder


class ResidueMaker(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> residue maps D_F(E_F(z)) [N, 1, R, R] in [-1, 1], R = `resolution`; section 3.1.

    Its weights take no gradient, the films may. It has no dropout and no batch norm, so a film's residue is the same while the network
    around it trains. In the same unit as `DgmGenerator.decompose`: 2 from black to white, positive where disease is brighter.
    Raises CodecError for films of another side.
    """

    def __init__(self, settings: DgmSettings) -> None:
        super().__init__()
        self.settings, self.resolution = settings, settings.resolution
        self.encoder = DgmEncoder(settings).residue
        self.decoder = PartDecoder(settings)
        self.requires_grad_(False).eval()

    def forward(self, films: Tensor) -> Tensor:
        if films.shape[1:] != (1, self.resolution, self.resolution):
            raise CodecError(f"residue maps are made of films [N, 1, {self.resolution}, {self.resolution}]: {list(films.shape)}")
        residue: Tensor = self.decoder(self.encoder(films.to(next(self.parameters()).dtype)))
        return residue


@torch.no_grad()
def residue_maker_of(encoder: nn.Module | None, generator: nn.Module) -> ResidueMaker:
    """The residue maker with copies of the weights of a loaded codec's two networks. Raises CodecError unless they are those of a DGM."""
    if not isinstance(encoder, DgmEncoder) or not isinstance(generator, DgmGenerator):
        found = f"{type(encoder).__name__}, {type(generator).__name__}"
        raise CodecError(f"residue maps need a codec with encoder and generator of `latentray train dgm`; its networks: {found}")
    maker = ResidueMaker(generator.settings)
    maker.encoder.load_state_dict(encoder.residue.state_dict())
    maker.decoder.load_state_dict(generator.residue.state_dict())
    return maker
