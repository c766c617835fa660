"""The Gaussian-mixture autoencoder of Kumar and Triana 2024 (section 3, tables 2 to 4), gray: features, transition net, decoders."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import CodecError
from engine.networks.vae import VaeSettings, VaeTrunk, unit

FEATURES = ("plain", "vgg16", "densenet121")
_BETWEEN = 300  # channels of the transition net
_HALVINGS = 5  # of VGG-16 and DenseNet-121


@dataclass(frozen=True, kw_only=True)
class GmVaeEncoderSettings:
    """`features`: VGG-16 or DenseNet-121 up to their last feature map, or "plain", the encoder of the VAE
    (`widths`, `convolutions`, `leak`).

    `transition`: whether the paper's transition net stands between features and code; without it the whole feature map goes into one
    linear layer, on which the paper says nothing. `normalise`: ImageNet's statistics, which "plain" has no use for. `code_size` numbers
    are z, `labels` more are probabilities of labels.
    """

    resolution: int = 224
    code_size: int = 1000
    labels: int = 0
    features: str = "vgg16"
    transition: bool = True
    normalise: bool = True
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    convolutions: tuple[int, ...] = (2,)
    leak: float = 0.2

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise CodecError(f"gmvae.features must be one of {', '.join(FEATURES)}: {self.features}")
        if self.features == "plain" and self.normalise:
            raise CodecError(f"gmvae.normalise is of use only with features of ImageNet: {self.features}")
        if not 0 <= self.labels <= 1000:
            raise CodecError(f"gmvae.labels must be 0 to 1000: {self.labels}")
        if self.plain.lowest < 1 or self.resolution % 2**self.halvings:
            raise CodecError(f"gmvae.resolution must be a multiple of {2**self.halvings}: {self.resolution}")

    @property
    def plain(self) -> VaeSettings:
        """The settings of the plain features, which checks them."""
        return VaeSettings(
            resolution=self.resolution, widths=self.widths, convolutions=self.convolutions, code_size=self.code_size, leak=self.leak
        )

    @property
    def halvings(self) -> int:
        """How often the features halve the side."""
        return len(self.widths) if self.features == "plain" else _HALVINGS


class GmVaeEncoder(nn.Module):
    """Films [N, 1, R, R] in [-1, 1] -> codes [N, 1, code_size + labels]: the mean of q(z|x), then the probability of each label.

    The paper puts a film's own labels behind z. Who codes a film does not know them, so a layer on the same features, which the trainer
    fits by cross-entropy, says how likely each is; the decoder was trained with the true ones, 0 and 1. The variance of q(z|x) is
    needed to train and not to code: the trainer has a second layer like `mean` for it, on `hidden`.
    """

    def __init__(self, settings: GmVaeEncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (1, settings.code_size + settings.labels)
        self.resolution = settings.resolution
        self.features, channels = _features(settings)
        side = settings.resolution >> settings.halvings
        self.transition = TransitionNet(channels) if settings.transition else nn.Flatten()
        self.feature_size = _BETWEEN if settings.transition else channels * side**2
        self.mean = nn.Linear(self.feature_size, settings.code_size)
        self.labels = nn.Linear(self.feature_size, settings.labels) if settings.labels else None

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.hidden(pixels)
        parts = [self.mean(hidden)]
        if self.labels is not None:
            parts.append(torch.sigmoid(self.labels(hidden)))
        return torch.cat(parts, dim=1).unsqueeze(1)

    def hidden(self, pixels: Tensor) -> Tensor:
        """What the layers of mean, variance and labels see: [N, feature_size]."""
        found: Tensor = self.transition(self.features(unit(pixels, self.mean.weight)))
        return found


class TransitionNet(nn.Module):
    """Features [N, C, r, r] -> [N, 300]: 1x1 convolution to 300 channels, batch norm, ReLU, max-pooling of r pixels (7 at 224)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, _BETWEEN, 1), nn.BatchNorm2d(_BETWEEN), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        x = self.layers(features)
        return F.max_pool2d(x, x.shape[-1]).flatten(1)


@dataclass(frozen=True, kw_only=True)
class GmVaeGeneratorSettings:
    """`channels` of the maps from the lowest up, each twice the side of the one before. (14, 6, 3, 3, 3) is the paper's decoder 1,
    (128, 64, 32, 16, 3) its decoder 2, from 14x14 to 224x224. `code_size` numbers are the whole code, labels included.
    """

    resolution: int = 224
    code_size: int = 1000
    channels: tuple[int, ...] = (128, 64, 32, 16, 3)

    def __post_init__(self) -> None:
        if not 2 <= len(self.channels) <= 9 or not all(1 <= width <= 8192 for width in (*self.channels, self.code_size)):
            raise CodecError(f"gmvae.channels must be 2 to 9 widths, widths 1 to 8192: {self.code_size}, {self.channels}")
        if not 1 <= self.resolution <= 4096 or self.resolution % 2 ** (len(self.channels) - 1):
            raise CodecError(f"gmvae.resolution must be a multiple of {2 ** (len(self.channels) - 1)}, 4096 at most: {self.resolution}")

    @property
    def lowest(self) -> int:
        """The side of the first map."""
        return self.resolution >> (len(self.channels) - 1)


class GmVaeGenerator(nn.Module):
    """Codes [N, 1, code_size] -> films [N, 1, R, R], nominally in [-1, 1] and not clamped: tables 2 and 3 of the paper.

    Transposed convolutions (kernel 4, stride 2, padding 1) to three channels, whose mean is the film. The tables begin with a map of
    14x14 and list nothing between the layers; here a linear layer makes that map of the code, and there is a ReLU after each layer but
    the last, since without one all of it would be linear.
    """

    def __init__(self, settings: GmVaeGeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.code_shape = (1, settings.code_size)
        self.resolution = settings.resolution
        self.linear = nn.Linear(settings.code_size, settings.channels[0] * settings.lowest**2)
        layers: list[nn.Module] = []
        for below, width in pairwise(settings.channels):
            layers += [nn.ReLU(), nn.ConvTranspose2d(below, width, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.linear(latents.flatten(1).to(self.linear.weight.dtype))
        x = x.reshape(x.shape[0], -1, self.settings.lowest, self.settings.lowest)
        film: Tensor = self.layers(x).mean(dim=1, keepdim=True)  # [N, 1, R, R] in [0, 1]
        return film * 2 - 1


def _features(settings: GmVaeEncoderSettings) -> tuple[nn.Module, int]:
    """The features and their channels; torchvision only where its networks are asked for."""
    if settings.features == "plain":
        return VaeTrunk(settings.plain), settings.widths[-1]
    try:
        from engine.networks.imagenet_features import CHANNELS, ImagenetFeatures
    except ModuleNotFoundError as error:
        raise CodecError(
            f"encoder gmvae with these features needs a package that is not installed ({error.name}): {settings.features}"
        ) from None
    return ImagenetFeatures(settings.features, normalise=settings.normalise), CHANNELS[settings.features]
