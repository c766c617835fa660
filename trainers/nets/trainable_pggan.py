"""The progressive GAN's generator while it is trained beside an encoder: level by level, in the forms that are quick on any machine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.networks.coarse import Head, fit_heads
from engine.networks.frozen_ops import leaky_pixel_norm
from engine.networks.pggan import PgganGenerator, PgganLevel, PgganSettings
from engine.networks.pixel_norm import pixel_norm

_RANDOM = 0.3  # of a random layer's usual spread, beside the filter that a convolution starts as
_FIRST_GRAY = 0.1  # of a gray layer's usual spread: the first films are flat, and no pixel starts far outside the range


class TrainablePggan(nn.Module):
    """z [N, 1, code_size] -> films [N, 1, r, r], nominally in [-1, 1] and not clamped, at any of its levels.

    `whole` is the generator as the engine knows it, with plain weights (no equalised learning rate). Each level below the last has a gray
    layer of its own, `gray`, so that it can be trained before, and at a lower price than, those above it. Upsampling and the convolution
    after it are one transposed convolution, whose weights are made from the plain ones at every call; norms keep one float a pixel for
    their gradient. Under autocast convolutions are in half precision, norms and the film in float32.
    """

    def __init__(self, settings: PgganSettings) -> None:
        """Weights from torch's generator of random numbers.

        The lowest layers start as He et al. 2015 have it. A level starts as an enlargement of what is below: its convolutions are mostly a
        smooth filter of each channel under a random rotation of the channels, so that its films are near those of the level below.
        """
        super().__init__()
        self.settings = settings
        self.whole = PgganGenerator(settings)
        self.resolution = self.whole.resolution
        self.gray = nn.ModuleDict({str(4 * 2**at): nn.Conv2d(width, 1, 1) for at, width in enumerate(settings.channels[:-1])})
        for layer in self.whole.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, settings.leak)
                nn.init.zeros_(_bias(layer))
        for level in self.whole.levels:
            assert isinstance(level, PgganLevel)
            _start_as_filter(level.first, (0.25, 0.5, 0.25))  # after nearest neighbour: bilinear
            _start_as_filter(level.second, (0.0, 1.0, 0.0))
        for side in (*map(int, self.gray), self.resolution):
            head = self._gray(side)
            nn.init.kaiming_normal_(head.weight, 1.0)
            head.weight.data *= _FIRST_GRAY
            nn.init.constant_(_bias(head), 0.5 if settings.output_range == "unit" else 0.0)
        self.to(memory_format=torch.channels_last)

    def forward(self, latents: Tensor, resolution: int, alpha: Tensor | None = None) -> Tensor:
        """Films [N, 1, resolution, resolution] float32; `alpha`, a scalar, is the share of the film below, enlarged (None: it has none)."""
        x, below = self._features(latents, resolution)
        film = self._film(x)
        if alpha is not None:
            film = film + alpha * (F.interpolate(self._film(below), scale_factor=2.0, mode="nearest") - film)
        return self._signed(film)

    def take(self, generator: PgganGenerator, heads: Mapping[int, Head]) -> None:
        """Copies a trained generator's weights, and the coarse heads that were fitted to it into the gray layers of their levels."""
        self.whole.load_state_dict(generator.state_dict())
        for head in heads.values():
            self._take_head(head)

    @torch.no_grad()
    def begin_level(self, resolution: int, latents: Tensor, *, below: int) -> None:
        """Fits the gray layer of a level that has not been trained to films of `below` pixels, made smoothly larger: by least squares.

        Left to the optimiser, it would take hundreds of steps to grow from next to nothing, in which films are flat. `below` is the last
        level that has been trained; the fit is to `latents` [N, 1, code_size]. In whole float32; where it cannot be made, the layer stays
        as it is.
        """
        with torch.autocast(latents.device.type, enabled=False):
            x, _ = self._features(latents, resolution)
            film = F.interpolate(self(latents, below), size=(resolution, resolution), mode="bilinear", align_corners=False)
        heads = fit_heads(lambda _: iter([(resolution, x)]), lambda _: film, iter([latents]))
        for head in heads.values():
            self._take_head(head)

    def up_to(self, resolution: int) -> PgganGenerator:
        """The generator that ends at a level, as the engine stores it: a copy."""
        widths = self.settings.channels[: level_at(resolution) + 1]
        part = PgganGenerator(PgganSettings(**{**vars(self.settings), "channels": widths}))
        state = self.whole.state_dict()
        state |= {f"to_gray.{name}": value for name, value in self._gray(resolution).state_dict().items()}
        part.load_state_dict({name: state[name] for name in part.state_dict()})
        return part

    def _signed(self, film: Tensor) -> Tensor:
        return film * 2 - 1 if self.settings.output_range == "unit" else film

    def _take_head(self, head: Head) -> None:
        """Heads make films in [-1, 1], gray layers in the generator's own range."""
        layer, is_unit = self._gray(head.resolution), self.settings.output_range == "unit"
        with torch.no_grad():
            layer.weight.copy_(head.weight / 2 if is_unit else head.weight)
            _bias(layer).copy_((head.bias + 1) / 2 if is_unit else head.bias)

    def _features(self, latents: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
        """Activations of a level and of the one below."""
        x = below = self._lowest(latents)
        for level in self.whole.levels[: level_at(resolution)]:
            assert isinstance(level, PgganLevel)
            below, x = x, self._level(level, x)
        return x, below

    def _lowest(self, latents: Tensor) -> Tensor:
        s, whole = self.settings, self.whole
        z = pixel_norm(latents.flatten(1), epsilon=s.epsilon)  # [N, code_size]
        x = F.leaky_relu(whole.linear(z), s.leak).reshape(z.shape[0], -1, 4, 4).contiguous(memory_format=torch.channels_last)
        if s.norm_after_linear:
            x = pixel_norm(x, epsilon=s.epsilon)
        return self._norm(whole.first(x))

    def _level(self, level: PgganLevel, x: Tensor) -> Tensor:
        weight = folded(level.first.weight).contiguous(memory_format=torch.channels_last)
        x = self._norm(F.conv_transpose2d(x, weight, level.first.bias, stride=2, padding=1))
        return self._norm(level.second(x))

    def _norm(self, x: Tensor) -> Tensor:
        return leaky_pixel_norm(x, leak=self.settings.leak, epsilon=self.settings.epsilon)

    def _film(self, x: Tensor) -> Tensor:
        """In the generator's own range. A sum and no 1x1 convolution: one channel in half precision is slow, and need not be rounded."""
        layer = self._gray(x.shape[-1])
        return (x.float() * layer.weight.reshape(1, -1, 1, 1)).sum(dim=1, keepdim=True) + _bias(layer)

    def _gray(self, resolution: int) -> nn.Conv2d:
        layer = self.whole.to_gray if resolution == self.resolution else self.gray[str(resolution)]
        assert isinstance(layer, nn.Conv2d)
        return layer


def level_at(resolution: int) -> int:
    """How many doublings lead from 4x4 to a side."""
    return resolution.bit_length() - 3


def folded(weight: Tensor) -> Tensor:
    """Weights [D, C, 3, 3] -> [C, D, 4, 4] of the transposed convolution that upsamples first; differentiable, in the weights' own type.

    What `engine.networks.frozen_ops.folded_upsampling` makes once, in double precision.
    """
    # `pggan_generator.folded` has the same values, but sums gradients in another order: their last bits differ, so trained weights would.
    wide = F.pad(weight.flip(2, 3), (1, 1, 1, 1))  # [D, C, 5, 5]
    return (wide[:, :, 1:, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, 1:] + wide[:, :, :-1, :-1]).transpose(0, 1)


@torch.no_grad()
def _start_as_filter(layer: nn.Conv2d, taps: tuple[float, float, float]) -> None:
    row = torch.tensor(taps)
    rotation = nn.init.orthogonal_(torch.empty(layer.out_channels, layer.in_channels))
    layer.weight.mul_(_RANDOM).add_(rotation[:, :, None, None] * torch.outer(row, row))


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias
