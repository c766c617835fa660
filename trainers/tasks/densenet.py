"""`latentray train densenet`: classifiers, a DenseNet, one that sees residues (Tang et al. 2021) or a discriminator (Segal et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.classify.classifier import save_classifier
from engine.classify.classifier_spec import ClassifierSpec
from engine.classify.roc import bootstrap_auc
from engine.encode.codec import Codec
from engine.encode.codec_spec import NetworkSpec
from engine.errors import ConfigError
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.networks.residue_densenet import ResidueDenseNet, with_residue
from engine.networks.residue_maker import residue_maker_of
from engine.recipe import PixelRecipe
from engine.refine.weight_files import sha256_of
from trainers import randomness
from trainers.export import LICENCE
from trainers.losses.weighted_cross_entropy import class_weights, weighted_cross_entropy
from trainers.nets.discriminator_classifier import DiscriminatorClassifier
from trainers.nets.discriminator_file import load_discriminator
from trainers.nets.evaluating import evaluating
from trainers.nets.imagenet_densenet import load_imagenet
from trainers.plateau import Plateau
from trainers.presets.densenet import DensenetConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.densenet_figures import ClassifierFigures
from trainers.tasks.joined_codec import count_parameters, gflop

_PIXELS_AT_ONCE = 2**21
_WEIGHTS = "classifier.safetensors"


def build_densenet(
    cfg: DensenetConfig, *, device: torch.device, seed: int, codec: Codec | None = None, discriminator: str | None = None
) -> DensenetTask:
    """The task with initial weights that depend on `seed` and the files named alone. With a `codec`, a densenet sees its residues as well.

    Raises ConfigError for a discriminator without the setting or the setting without one, for films that are too small or not of the
    codec's side, and for weights that cannot be found; CodecError for a codec that makes no residues, TrainError for a file that holds no
    discriminator.
    """
    if (cfg.network == "discriminator") != (discriminator is not None):
        wrong = "only network discriminator starts from --discriminator" if discriminator else "network needs --discriminator"
        raise ConfigError(f"{wrong}: {cfg.network}")
    if codec is not None and cfg.network != "densenet":
        raise ConfigError(f"only network densenet sees the residues of a codec, leave out --codec: {cfg.network}")
    network: DenseNetClassifier | DiscriminatorClassifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "densenet/weights", 0))
        if discriminator is None:
            network, start = _densenet(cfg, codec)
        else:
            network, start = _discriminator(cfg, Path(discriminator))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DensenetTask(cfg, network, start, device=device, seed=seed, codec=codec)


def _densenet(cfg: DensenetConfig, codec: Codec | None) -> tuple[DenseNetClassifier, str]:
    has_weights = cfg.imagenet_weights != "none"
    network = DenseNetClassifier(
        DenseNetSettings(
            blocks=cfg.blocks,
            growth=cfg.growth,
            stem=cfg.stem,
            bottleneck=cfg.bottleneck,
            dropout=cfg.dropout,
            in_channels=3 if has_weights else 1,
            classes=len(cfg.labels),
        )
    )
    if cfg.resolution < network.least_side:
        raise ConfigError(f"resolution must be {network.least_side} or more for {len(cfg.blocks)} blocks: {cfg.resolution}")
    start = f"ImageNet weights {load_imagenet(network, cfg.imagenet_weights)}" if has_weights else "fresh weights"
    return network if codec is None else _seeing_residues(network, cfg, codec), start


def _seeing_residues(network: DenseNetClassifier, cfg: DensenetConfig, codec: Codec) -> ResidueDenseNet:
    maker = residue_maker_of(None if codec.encoder is None else codec.encoder.network, codec.generator.network)
    if maker.resolution != cfg.resolution:
        raise ConfigError(f"resolution must be that of the codec which makes residues, {maker.resolution}: {cfg.resolution}")
    return with_residue(network, maker)


def _discriminator(cfg: DensenetConfig, file: Path) -> tuple[DiscriminatorClassifier, str]:
    network = DiscriminatorClassifier(load_discriminator(file, device=torch.device("cpu")), len(cfg.labels))
    return network, f"discriminator {sha256_of(file)}"


class DensenetTask:
    """One phase, that of the network. A step of a densenet is never divided, since batch norm takes its statistics over the films of a
    step: `group` is the batch, and one process trains. The learning rate's cuts are state (`Plateau`), judged within a step.
    """

    name = "densenet"
    alternate = ""

    def __init__(
        self,
        cfg: DensenetConfig,
        network: DenseNetClassifier | DiscriminatorClassifier,
        start: str,
        *,
        device: torch.device,
        seed: int,
        codec: Codec | None = None,
    ) -> None:
        self.cfg, self.network, self._start, self._device, self._seed = cfg, network, start, device, seed
        self._codec = None if codec is None else codec.spec
        self._codec_digest = None if codec is None else codec.digest
        self.labels = cfg.labels
        self.resolution = network.resolution or cfg.resolution
        self.batch_size, self.part_size = cfg.batch, cfg.part or cfg.batch
        self.group = cfg.batch if isinstance(network, DenseNetClassifier) else self.part_size
        self.counts: Sequence[tuple[int, int]] = [(1, 1)] * len(cfg.labels)  # until films are known
        self.weights = class_weights(self.counts).to(device)
        self.plateau = Plateau(patience=cfg.patience, cut=cfg.cut)
        self._trained: list[nn.Module] = [network]
        if isinstance(network, DenseNetClassifier):
            self._trained = [network.features, network.classifier]  # not what makes residues
        self._optimiser = torch.optim.Adam(nn.ModuleList(self._trained).parameters(), lr=cfg.lr, fused=True)
        self._held_out: HeldOut | None = None
        self._seen = 0

    @property
    def recipe(self) -> PixelRecipe:
        """Films at the side that the network sees; as the codec prepares them, where one makes residues."""
        return PixelRecipe(resolution=self.resolution) if self._codec is None else self._codec.recipe

    def on_films(self, label_counts: Sequence[tuple[int, int]], held_out: HeldOut) -> None:
        """Takes the weights of equation 3 from the films that train, and those that the learning rate is judged by."""
        self.counts, self._held_out = label_counts, held_out
        self.weights = class_weights(label_counts).to(self._device)

    def phases(self) -> list[Phase]:
        """The network's."""
        return [Phase(name="classifier", modules=self._trained, optimiser=self._optimiser, loss=self.loss, after=self._after_step)]

    def on_images(self, seen: int) -> None:
        """Sets the learning rate."""
        self._seen = seen
        for group in self._optimiser.param_groups:
            group["lr"] = self.cfg.lr_at(seen) * self.plateau.factor

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Equation 3, mean over films and labels."""
        return {"loss": weighted_cross_entropy(self.network(batch.pixels), batch.marks, self.weights).mean()}

    def state(self) -> Mapping[str, Stateful]:
        """Network with running statistics, optimiser, and what the plateau has seen."""
        return {"network": self.network, "optimiser": self._optimiser, "plateau": self.plateau}

    def samples(self) -> None:
        """A classifier makes no pictures."""

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """AUC of the held-out films with its 95 % interval, label by label and their mean, average precision, and equation 3.

        Empty without such films. A label that all of them have, or none, has no such figures and is left out.
        """
        logits, marks = self._judge(films)
        if not len(logits):
            return {}
        loss = weighted_cross_entropy(logits, marks, self.weights.cpu()).mean()
        about: dict[str, float | str] = {"held_out_loss": float(loss), "judged_films": float(len(logits)), "lr_cuts": self.plateau.cuts}
        return about | self._figures(logits, marks).for_log()

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times the way forward; residues take only the way forward."""
        side, network = self.resolution, self.network
        parts: dict[str, nn.Module] = {"classifier": nn.ModuleList(self._trained)}
        with evaluating(network):
            forward = gflop(network, 2, 1, side, side, device=self._device) / 2
        if not isinstance(network, ResidueDenseNet):
            return {"parameters": count_parameters(parts), "gflop_per_image": {"classifier": round(3 * forward, 3)}}
        residue = gflop(network.maker, 1, 1, side, side, device=self._device)
        costs = {"classifier": round(3 * (forward - residue), 3), "residue": round(residue, 3)}
        return {"parameters": count_parameters({**parts, "residue": network.maker}), "gflop_per_image": costs}

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes a classifier directory of the present weights, with the threshold of each label and its figures on the films held out.

        Without films of both kinds the threshold of a label is the logit 0.
        """
        figures = self._figures(*self._judge(self._held_out))
        thresholds = figures.lines(self.cfg.threshold)
        held_out = figures.for_directory(thresholds)
        for (with_it, without), judged in zip(self.counts, held_out["labels"].values(), strict=True):
            judged |= {"train_with": with_it, "train_without": without}
        settings = {name: value for name, value in asdict(self.cfg).items() if name not in ("images", "imagenet_weights")}
        own: dict[str, Any] = {"task": self.name, "settings": settings, "start": self._start, "held_out": held_out}
        if self._codec is not None:
            own["residue"] = {"codec": self._codec.name, "digest": self._codec_digest}
        network, module_settings, weights = self._plain_network()
        spec = ClassifierSpec(
            name=f"{network}-{len(self.labels)}-at-{self.resolution}",
            network=NetworkSpec(network=network, settings=asdict(module_settings), weights=_WEIGHTS),
            labels=self.cfg.names,
            thresholds=tuple(0.0 if value is None else value for value in thresholds),
            recipe=self.recipe,
            licence=LICENCE if self._codec is None else self._codec.licence,
            provenance=own | provenance,
        )
        save_classifier(out, spec, weights=weights)

    def _after_step(self) -> None:
        """Judges the learning rate where a step passes a multiple of `judge_images`: within the step, so before anything is saved."""
        every = self.cfg.judge_images
        if not self.cfg.patience or self._seen // every == (self._seen + self.batch_size) // every:
            return
        logits, marks = self._judge(self._held_out)
        if len(logits):
            self.plateau.judge(bootstrap_auc(logits.numpy(), marks.numpy(), resamples=0, seed=0)[1].value)

    @torch.no_grad()
    def _judge(self, held_out: HeldOut | None) -> tuple[Tensor, Tensor]:
        """Logits and labels [n, labels] of the films held out, on the CPU; n may be 0."""
        if held_out is None:
            return torch.empty(0, len(self.labels)), torch.empty(0, len(self.labels))
        films, marks = held_out(self.resolution, limit=self.cfg.judged), held_out.labels(limit=self.cfg.judged)
        parts = torch.split(films, max(1, _PIXELS_AT_ONCE // self.resolution**2)) if len(films) else ()
        with evaluating(self.network):
            logits = [self.network(part.to(self._device)).float().cpu() for part in parts]
        return torch.cat(logits) if logits else torch.empty(0, len(self.labels)), marks

    def _figures(self, logits: Tensor, marks: Tensor) -> ClassifierFigures:
        return ClassifierFigures(logits, marks, self.cfg.names, resamples=self.cfg.bootstrap, seed=self._seed)

    def _plain_network(self) -> tuple[str, Any, dict[str, Tensor]]:
        """Registry name, settings and weights of the network as it is stored."""
        network: nn.Module = self.network
        if isinstance(network, DiscriminatorClassifier):
            return "pggan-discriminator", network.settings, network.plain()
        assert isinstance(network, DenseNetClassifier)
        name = "residue-densenet" if isinstance(network, ResidueDenseNet) else "densenet"
        return name, network.settings, dict(network.state_dict())
