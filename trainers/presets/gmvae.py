"""Settings of the Gaussian-mixture autoencoder, and the presets of `train gmvae`: those of table 4 whose networks the paper gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.config import check_at_least, check_choice
from engine.errors import CodecError, ConfigError
from engine.labels import LabelSpec
from engine.networks.gmvae import GmVaeEncoderSettings, GmVaeGeneratorSettings
from engine.networks.vae import VaeSettings
from engine.recipe import PixelRecipe
from trainers.losses.vae import REDUCTIONS
from trainers.presets.vae import NIH_FILMS, check_training, recipe_of

__all__ = ["PRESETS", "GmVaeConfig"]

DECODER_1, DECODER_2 = (14, 6, 3, 3, 3), (128, 64, 32, 16, 3)  # channels of tables 2 and 3


@dataclass(frozen=True, kw_only=True)
class GmVaeConfig:
    """The networks (`GmVaeEncoderSettings`; `decoder`: channels of `GmVaeGeneratorSettings`, () for the decoder of the VAE), the mixture
    of `components`, the loss and how it is minimised. What `VaeConfig` has means the same here.

    `code_size` numbers are z. `labels`, as `LabelSpec.parse` reads them, follow z in the code (FS-GMVAE): the decoder is trained with a
    film's own, and beside it, with `label_weight` times the cross-entropy, a layer of the encoder that says them of a film without any.
    `judge_by`: a label by which clusters are judged on held-out films; training does not look at it. "" for none.
    `imagenet_weights`: the file with ImageNet's weights of `features`, never downloaded; "none" to start them afresh. `frozen`: the
    features stay as they are (the paper's "encoder in eval"), which needs a file.
    `mixture_at`: until so many images are seen the prior is the standard normal distribution, and then the components are put where the
    last `kept` codes lie, by k-means; 0: the mixture is there from the start, at random.
    """

    resolution: int = 224
    code_size: int = 1000
    components: int = 50
    features: str = "plain"
    transition: bool = False
    normalise: bool = False
    frozen: bool = False
    imagenet_weights: str = "none"
    decoder: tuple[int, ...] = ()
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    convolutions: tuple[int, ...] = (2,)
    leak: float = 0.2
    labels: tuple[str, ...] = ()
    label_weight: float = 1.0
    judge_by: str = ""
    over: str = "sum"
    beta: float = 1.0
    warm_up: int = 0
    mixture_at: int = 0
    kept: int = 1024
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
        for name, least in (("components", 1), ("label_weight", 0), ("mixture_at", 0), ("kept", self.components)):
            check_at_least(name, getattr(self, name), least)
        for label in self.asked:
            LabelSpec.parse(label)
        try:
            self.encoder_settings, self.generator_settings, self.recipe  # noqa: B018  # they check themselves
        except CodecError as error:
            raise ConfigError(str(error)) from None

    @property
    def asked(self) -> tuple[str, ...]:
        """What is asked of each film: the labels that are learned, then the one that is judged by, unless it is among them."""
        return tuple(dict.fromkeys((*self.labels, *filter(None, [self.judge_by]))))

    @property
    def encoder_settings(self) -> GmVaeEncoderSettings:
        """Those of the encoder."""
        return GmVaeEncoderSettings(
            resolution=self.resolution,
            code_size=self.code_size,
            labels=len(self.labels),
            features=self.features,
            transition=self.transition,
            normalise=self.normalise,
            widths=self.widths,
            convolutions=self.convolutions,
            leak=self.leak,
        )

    @property
    def generator_settings(self) -> GmVaeGeneratorSettings | VaeSettings:
        """Those of the decoder."""
        whole = self.code_size + len(self.labels)
        if self.decoder:
            return GmVaeGeneratorSettings(resolution=self.resolution, code_size=whole, channels=self.decoder)
        return VaeSettings(resolution=self.resolution, widths=self.widths, convolutions=self.convolutions, code_size=whole, leak=self.leak)

    @property
    def recipe(self) -> PixelRecipe:
        """How files become films."""
        return recipe_of(self.resolution, self.square, self.equalise)


def _kumar2024(
    *,
    code_size: int = 1000,
    components: int = 50,
    transition: bool = True,
    normalise: bool = True,
    features: str = "vgg16",
    decoder: int = 1,
) -> GmVaeConfig:
    """A row of table 4. The loss is the course's, with a mean squared error as the paper has it for its VAE; one epoch of CXR14.

    Where the text has no normalisation block in V8 and table 4 has one, the table is followed. V1 and V2 have "linear layers" of sizes
    that are not given, so there is no preset of them. The features are those of ImageNet and stay as they are; `imagenet_weights`
    names their file. FS-GMVAE V3 is V4 with labels, which are those of a data set: `labels` names them.
    """
    return GmVaeConfig(
        code_size=code_size,
        components=components,
        features=features,
        transition=transition,
        normalise=normalise,
        frozen=True,
        decoder=DECODER_1 if decoder == 1 else DECODER_2,
        over="mean",
        images=NIH_FILMS,
    )


def _default() -> GmVaeConfig:
    """From nothing, with the VAE's own encoder and decoder, and a mixture that is put where codes lie. Meant for one GPU."""
    return GmVaeConfig(code_size=128, components=50, beta=0.07, lr=5e-4, warm_up=20_000, mixture_at=60_000, kept=8192, images=600_000)


def _cpu_small() -> GmVaeConfig:
    """32x32 on a laptop. Gray values stay as they are, since views and exposures differ in them. The mixture comes when codes have settled,
    with as many components as the paper's larger models have: what films differ most in is not their view, so few clusters miss it.
    """
    return GmVaeConfig(
        resolution=32,
        widths=(16, 32, 64, 128),
        convolutions=(1,),
        code_size=24,
        components=300,
        beta=0.003,
        lr=1e-3,
        batch_size=32,
        mixture_at=64_000,
        kept=8192,
        equalise="none",
        images=80_000,
    )


_LARGE = partial(_kumar2024, code_size=2000, components=300, decoder=2)
PRESETS: dict[str, Callable[[], GmVaeConfig]] = {
    "default": _default,
    "cpu-small": _cpu_small,
    "gmvae-v3": partial(_kumar2024, transition=False),
    "gmvae-v4": _kumar2024,
    "gmvae-v5": partial(_kumar2024, transition=False, decoder=2),
    "gmvae-v6": partial(_LARGE, features="densenet121"),
    "gmvae-v7": partial(_LARGE, transition=False, normalise=False),
    "gmvae-v8": _LARGE,
    "fs-gmvae-v3": _kumar2024,
}
