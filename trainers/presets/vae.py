"""Settings of the variational autoencoder, and the presets of `train vae`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.config import check_at_least, check_choice
from engine.errors import CodecError, ConfigError
from engine.networks.vae import VaeSettings
from engine.recipe import PixelRecipe
from trainers.losses.vae import REDUCTIONS
from trainers.presets.checks import check_betas, check_rate

__all__ = ["PRESETS", "VaeConfig"]

NIH_FILMS = 112_120  # of the paper's data set, CXR14


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """The networks (`VaeSettings`), the loss and how it is minimised.

    What is minimised is the reconstruction, `over` the pixels of a film as a sum or a mean, plus `beta` times the KL divergence from the
    standard normal distribution, which grows to that over `warm_up` images. Adam with `lr` and `betas`. A step is never divided: batch
    norm takes its statistics over the whole of it. `square` and `equalise`: of the pixel recipe. `storage`: type of the weights on the
    disk. `images`: where a run ends unless told otherwise.
    """

    resolution: int = 224
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    convolutions: tuple[int, ...] = (2,)
    code_size: int = 1024
    leak: float = 0.2
    over: str = "sum"
    beta: float = 0.1
    warm_up: int = 0
    lr: float = 1e-4
    betas: tuple[float, ...] = (0.9, 0.999)
    batch_size: int = 64
    square: str = "crop"
    equalise: str = "histogram"
    storage: str = "float16"
    images: int

    def __post_init__(self) -> None:
        check_training(self)
        check_choice("over", self.over, REDUCTIONS)
        try:
            self.settings  # noqa: B018  # checks itself
            self.recipe  # noqa: B018
        except CodecError as error:
            raise ConfigError(str(error)) from None

    @property
    def settings(self) -> VaeSettings:
        """Those of both networks."""
        return VaeSettings(
            resolution=self.resolution, widths=self.widths, convolutions=self.convolutions, code_size=self.code_size, leak=self.leak
        )

    @property
    def recipe(self) -> PixelRecipe:
        """The paper's transforms as far as a recipe has them: `recipe_of`."""
        return recipe_of(self.resolution, self.square, self.equalise)


def recipe_of(resolution: int, square: str, equalise: str) -> PixelRecipe:
    """How a file becomes pixels: the paper resizes to 224, crops the centre, makes it gray and equalises the histogram, in that order.

    A recipe equalises first, at the film's full size and before the crop, then crops and resizes. What is cut off thereby counts in the
    histogram, and averages of equalised pixels are a little less even than pixels equalised last.
    """
    return PixelRecipe(resolution=resolution, square=square, equalise=equalise)  # type: ignore[arg-type]  # it checks them


def check_training(cfg: object) -> None:
    """Raises ConfigError unless what all autoencoders' settings share makes sense."""
    values = vars(cfg)
    for name, least in _LEAST.items():
        check_at_least(name, values[name], least)
    check_choice("storage", values["storage"], ("float16", "float32"))
    check_rate("lr", values["lr"])
    check_betas(values["betas"])


_LEAST: dict[str, float] = {"beta": 0, "warm_up": 0, "batch_size": 2, "images": 1}  # batch norm has no statistics of one film


def _kumar2024() -> VaeConfig:
    """Kumar and Triana 2024: the loss is a mean squared error, its weight beside the KL that of figure 6 (others: 1 and 0.002).

    Whether the error is a sum or a mean the paper does not say; "MSE" is a mean, and blurred films of random codes are what it shows.
    One epoch of CXR14, after which their loss was flat.
    """
    return VaeConfig(over="mean", beta=0.1, images=NIH_FILMS)


def _default() -> VaeConfig:
    """The paper's network with a loss under which it reconstructs: the sum of errors, a fourteenth of the KL. Meant for one GPU."""
    return VaeConfig(beta=0.07, lr=5e-4, warm_up=20_000, code_size=512, images=600_000)


def _cpu_small() -> VaeConfig:
    """32x32 on a laptop: about 4 ms of one core an image."""
    return VaeConfig(
        resolution=32,
        widths=(16, 32, 64, 128),
        convolutions=(1,),
        code_size=64,
        beta=0.02,
        lr=1e-3,
        batch_size=32,
        images=24_000,
    )


PRESETS: dict[str, Callable[[], VaeConfig]] = {"default": _default, "kumar2024": _kumar2024, "cpu-small": _cpu_small}
