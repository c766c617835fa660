"""What refinement minimises: a weighted sum of terms, one value an image, with everything about the target computed once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import ConfigError
from engine.metrics import mse
from engine.refine.perceptual import LpipsTerm, MocoTerm, PerceptualTerm
from kernels.mse_ssim.op import mse_ssim

Loss = tuple[tuple[str, float], ...]

TERMS = ("lpips", "moco", "mse", "ssim")
_PIXEL_LEAST_SIDES = {"mse": 1, "ssim": 11}  # the window of SSIM has 11 taps


def check_loss(loss: Loss, *, target_mse: float = 0.0) -> None:
    """Raises ConfigError, before any work, unless this version can compute `loss` and stop at `target_mse` by it."""
    for name, weight in loss:
        if name not in TERMS:
            raise ConfigError(f"loss has an unknown term (known: {', '.join(TERMS)}): {name}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"loss weight of {name} must be 0 or more: {weight}")
    if target_mse > 0 and not dict(loss).get("mse"):
        raise ConfigError(f"refine.target_mse needs a loss with an mse term: {','.join(f'{name}={weight:g}' for name, weight in loss)}")


class Objective(nn.Module):
    """The loss of films against their targets, a weighted sum of the terms mse, ssim, lpips and moco. Frozen; images never mix.

    mse: mean squared error in [0, 1] units, as `engine.metrics`. ssim: 1 - SSIM, as `engine.metrics`. lpips: Zhang et al. 2018.
    moco: cosine distance of MoCo's features. The objective of Weber et al. 2022 is mse=1, lpips=0.8, moco=0.1.
    Films that leave [-1, 1] are not clamped, for a clamp's gradient is 0: a codec's generator keeps its films in the range.
    """

    def __init__(self, loss: Loss, *, lpips: LpipsTerm | None = None, moco: MocoTerm | None = None) -> None:
        """Terms of weight 0 are left out, and so is a network that no term needs.

        Raises ConfigError as `check_loss`, and where lpips or moco has a weight and no network: `build_objective` loads them.
        """
        check_loss(loss)
        super().__init__()
        self.weights = {name: float(weight) for name, weight in loss if weight > 0}
        given: dict[str, PerceptualTerm | None] = {"lpips": lpips, "moco": moco}
        missing = [name for name in given if name in self.weights and given[name] is None]
        if missing:
            raise ConfigError(f"loss has a term whose network was not given, use --loss mse=1 to go without: {', '.join(missing)}")
        self.networks = nn.ModuleDict({name: network for name, network in given.items() if network is not None and name in self.weights})
        self.requires_grad_(False).eval()

    def features(self, targets: Tensor) -> tuple[Tensor, ...]:
        """What the loss needs of target pixels [N, 1, r, r] in [-1, 1]: tensors with one entry an image, as many for any N and r.

        Detached; in the types that the networks compute in where the caller sets autocast. Raises ConfigError as `check_side`.
        """
        self.check_side(targets.shape[-1])
        with torch.no_grad():
            pixels = targets.float()
            own = (_unclamped_unit(pixels),) if self._has_pixel_terms else ()
            return (*own, *(part for _, network in self._networks() for part in network.features(pixels)))

    def forward(self, pixels: Tensor, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Pixels [N, 1, r, r] in [-1, 1] and what `features` made of N targets -> loss [N], mse [N], float32.

        The loss is differentiable in `pixels`. The mse is detached and not weighted; it is NaN where the loss has no mse term.
        """
        pixels = pixels.float()
        values = {}
        if self._has_pixel_terms:
            values, features = self._pixel_values(_unclamped_unit(pixels), features[0]), features[1:]
        for name, network in self._networks():
            values[name] = network(pixels, features[: network.num_features])
            features = features[network.num_features :]
        loss = sum((weight * values[name] for name, weight in self.weights.items()), start=pixels.new_zeros(pixels.shape[0]))
        return loss, values["mse"].detach() if "mse" in self.weights else torch.full_like(loss, torch.nan)

    def _pixel_values(self, films: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if "ssim" not in self.weights:
            return {"mse": mse(films, targets)}
        error, similarity = mse_ssim(films, targets)
        return {"mse": error, "ssim": 1 - similarity}

    def _networks(self) -> Iterable[tuple[str, PerceptualTerm]]:
        return cast("Iterable[tuple[str, PerceptualTerm]]", self.networks.items())

    @property
    def _has_pixel_terms(self) -> bool:
        return "mse" in self.weights or "ssim" in self.weights

    def least_sides(self) -> dict[str, int]:
        """The smallest side in pixels at which each term works."""
        networks = {name: network.least_side for name, network in self._networks()}
        return {name: (networks | _PIXEL_LEAST_SIDES)[name] for name in self.weights}

    def check_side(self, side: int) -> None:
        """Raises ConfigError unless every term works on films of `side` pixels."""
        for name, least in self.least_sides().items():
            if side < least:
                raise ConfigError(f"loss term {name} needs films of {least} pixels or more a side, not: {side}")
        for _, network in self._networks():
            network.check_side(side)

    def at(self, side: int) -> Objective:
        """The objective of a coarser level, films of `side` pixels: **terms that do not work there are left out**, silently.

        It shares the networks. A term's own resolution, `lpips_size`, is `side` where the level is smaller than it, so that no film is
        enlarged. Features are of a resolution: make them again from the targets of that level. Losses of two levels are not comparable.
        Raises ConfigError where no term is left.
        """
        left = tuple((name, weight) for name, weight in self.weights.items() if self.least_sides()[name] <= side)
        if not left:
            raise ConfigError(f"no term of the loss ({', '.join(self.weights)}) works on films of pixels a side: {side}")
        networks = {name: network.at(side) for name, network in self._networks() if name in dict(left)}
        return Objective(left, **networks)  # type: ignore[arg-type]  # each is of its own kind again


def _unclamped_unit(pixels: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return pixels * 0.5 + 0.5
