"""The variational autoencoder of Kumar and Triana 2024 (figure 4), gray: encoder to the mean of q(z|x), and decoder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from engine.errors import CodecError


@dataclass(frozen=True, kw_only=True)
class VaeSettings:
    """Widths of the encoder's stages, each of which halves the side; the decoder has them the other way round. `convolutions` of each
    stage, or one number for all.

    The defaults are the network of table 5. Figure 4 draws two convolutions in the fourth stage alone, `convolutions` (1, 1, 1, 2, 1);
    table 5 counts 4,711,648 numbers in the encoder, which is two in each stage. `code_size` 1024 is also from table 5: its mean and
    variance layers have 8,389,632 numbers each and the decoder 11,184,033, which all three is so for films of 128 pixels and for no
    other side. The text has films of 224. `resolution` is a multiple of 2^(number of stages).
    """

    resolution: int = 224
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    convolutions: tuple[int, ...] = (2,)
    code_size: int = 1024
    leak: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= len(self.widths) <= 8:
            raise CodecError(f"vae.widths must be 1 to 8: {self.widths}")
        if len(self.convolutions) not in (1, len(self.widths)):
            raise CodecError(f"vae.convolutions must be one number, or one for each of {len(self.widths)} stages: {self.convolutions}")
        if not all(1 <= width <= 8192 for width in (*self.widths, self.code_size)):
            raise CodecError(f"vae widths must be 1 to 8192: {self.code_size}, {self.widths}")
        if not all(1 <= count <= 8 for count in self.convolutions):
            raise CodecError(f"vae.convolutions must be 1 to 8 a stage: {self.convolutions}")
        if not 0 <= self.leak < 1:
            raise CodecError(f"vae.leak must be 0 or more and under 1: {self.leak}")
        if not 1 <= self.resolution <= 4096 or self.resolution % 2 ** len(self.widths):
            raise CodecError(f"vae.resolution must be a multiple of {2 ** len(self.widths)}, 4096 at most: {self.resolution}")

    @property
    def counts(self) -> tuple[int, ...]:
        """Convolutions of each stage."""
        return self.convolutions if len(self.convolutions) > 1 else self.convolutions * len(self.widths)

    @property
    def lowest(self) -> int:
        """The side of the last stage's output."""
        return self.resolution >> len(self.widths)


class VaeTrunk(nn.Module):
    """Films [N, 1, R, R] in [0, 1] -> features [N, widths[-1], r, r], r = R / 2^stages: 3x3 convolutions, leaky ReLU, max-pooling of 2."""

    def __init__(self, settings: VaeSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width, count in zip(settings.widths, settings.counts, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.LeakyReLU(settings.leak)]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.layers = nn.Sequential(*layers)

    def forward(self, films: Tensor) -> Tensor:
        found: Tensor = self.layers(films)
        return found


class VaeEncoder(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> the mean of q(z|x), [N, 1, code_size].

    The network sees [0, 1], as the paper's tensors have it. The variance of q(z|x) is needed to train and not to code: the trainer has
    a second layer like `mean` for it, on `features`.
    """

    def __init__(self, settings: VaeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (1, settings.code_size)
        self.resolution = settings.resolution
        self.feature_size = settings.widths[-1] * settings.lowest**2
        self.trunk = VaeTrunk(settings)
        self.mean = nn.Linear(self.feature_size, settings.code_size)

    def forward(self, pixels: Tensor) -> Tensor:
        mean: Tensor = self.mean(self.features(pixels))
        return mean.unsqueeze(1)

    def features(self, pixels: Tensor) -> Tensor:
        """What the layers of mean and variance see: [N, feature_size]."""
        found: Tensor = self.trunk(unit(pixels, self.mean.weight))
        return found.flatten(1)


class VaeGenerator(nn.Module):
    """Codes [N, 1, code_size] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped.

    A linear layer, then transposed convolutions (kernel 4, stride 2, padding 1) with batch norm and ReLU, the last one, to one channel,
    without either. Where figure 4 cannot run it is read as meant: the norms after 64 and 32 channels have 64 and 32 of them, not 256,
    and "Belu" is ReLU; with that the decoder has the numbers of table 5. No activation is drawn after the last layer, so there is none.
    """

    def __init__(self, settings: VaeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (1, settings.code_size)
        self.resolution = settings.resolution
        self.linear = nn.Linear(settings.code_size, settings.widths[-1] * settings.lowest**2)
        layers: list[nn.Module] = []
        for above, width in pairwise(settings.widths[::-1]):
            layers += [nn.ConvTranspose2d(above, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(settings.widths[0], 1, 4, 2, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        lowest = self.settings.lowest
        x = self.linear(latents.flatten(1).to(self.linear.weight.dtype))
        film: Tensor = self.layers(x.reshape(x.shape[0], -1, lowest, lowest))  # [N, 1, R, R] in [0, 1]
        return film * 2 - 1


def unit(pixels: Tensor, like: Tensor) -> Tensor:
    """Films in [-1, 1] as values in [0, 1], of the type of a weight."""
    return (pixels.to(like.dtype) + 1) / 2
