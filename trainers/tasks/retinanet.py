"""`latentray train retinanet`: the detector of lung opacities of Tang et al. 2021 (5.8), on films alone or with their residue maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.detect.average_precision import average_precisions
from engine.detect.detector import save_detector
from engine.detect.detector_spec import DetectorSpec
from engine.encode.codec import Codec
from engine.encode.codec_spec import NetworkSpec
from engine.errors import CodecError, ConfigError
from engine.networks.residue_maker import ResidueMaker, residue_maker_of
from engine.networks.retinanet import RetinaNetDetector, RetinaNetSettings, residue_settings
from engine.recipe import PixelRecipe
from trainers import randomness
from trainers.export import LICENCE
from trainers.nets.evaluating import evaluating
from trainers.nets.imagenet_resnet import load_imagenet_resnet
from trainers.presets.retinanet import RetinanetConfig
from trainers.task import Batch, HeldOut, Phase, Stateful
from trainers.tasks.joined_codec import count_parameters, gflop

_PIXELS_AT_ONCE = 2**21
_WEIGHTS = "detector.safetensors"


def build_retinanet(cfg: RetinanetConfig, *, device: torch.device, seed: int, codec: Codec | None = None) -> RetinanetTask:
    """The task with initial weights that depend on `seed` and the files named alone.

    Raises CodecError for a codec that makes no residue maps and for sizes that do not fit one another, ConfigError for a codec of another
    resolution and for weights that cannot be found.
    """
    maker = None if codec is None else _maker(codec, cfg.resolution)
    has_weights = cfg.imagenet_weights != "none"
    settings = RetinaNetSettings(
        **{name: getattr(cfg, name) for name in ("resolution", "backbone", "widths", "pyramid", "anchors", "least_score", "overlap")},
        norm="frozen" if has_weights else "group",
        in_channels=3 if has_weights else 1,
        residue={} if maker is None else residue_settings(maker),
        residue_gain=cfg.residue_gain if maker is not None else 1.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.step_seed(seed, "retinanet/weights", 0))
        network = RetinaNetDetector(settings)
    start = "fresh weights"
    if has_weights:
        start = f"ImageNet weights {load_imagenet_resnet(network.backbone.body, cfg.imagenet_weights)}"
    if maker is not None:
        assert network.residue is not None
        network.residue.load_state_dict(maker.state_dict())
    network.to(device, memory_format=torch.channels_last)
    return RetinanetTask(cfg, network, start, recipe=None if codec is None else codec.recipe, device=device)


def _maker(codec: Codec, resolution: int) -> ResidueMaker:
    try:
        maker = residue_maker_of(codec.encoder and codec.encoder.network, codec.generator.network)
    except CodecError as error:
        raise CodecError(f"codec {codec.name}: {error}") from None
    if maker.resolution != resolution:
        raise ConfigError(f"codec {codec.name} has another resolution ({maker.resolution}) than the detector: {resolution}")
    return maker


class RetinanetTask:
    """One phase, that of the network but for its residue maker. No layer looks at several films, so a step can be divided."""

    name = "retinanet"
    labels: tuple[str, ...] = ()
    alternate = ""
    group = 1

    def __init__(
        self, cfg: RetinanetConfig, network: RetinaNetDetector, start: str, *, recipe: PixelRecipe | None, device: torch.device
    ) -> None:
        self.cfg, self.network, self._start, self._device = cfg, network, start, device
        self.boxes = cfg.boxes
        self.resolution = cfg.resolution
        self.batch_size, self.part_size = cfg.batch, cfg.part or cfg.batch
        self._recipe = recipe or PixelRecipe(resolution=cfg.resolution)
        weights = [parameter for module in network.learning() for parameter in module.parameters()]
        self._optimiser: torch.optim.Optimizer
        if cfg.optimiser == "sgd":
            self._optimiser = torch.optim.SGD(weights, lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay)
        else:
            self._optimiser = torch.optim.AdamW(weights, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    @property
    def recipe(self) -> PixelRecipe:
        """Films as the codec of the residues sees them; without one, at the network's side."""
        return self._recipe

    def phases(self) -> list[Phase]:
        """The network's."""
        modules = self.network.learning()
        return [Phase(name="detector", modules=modules, optimiser=self._optimiser, loss=self.loss, clip=self.cfg.clip)]

    def on_images(self, seen: int) -> None:
        """Sets the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.cfg.lr_at(seen)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Focal loss of anchors and L1 of matched ones, means over films (Lin et al. 2017, 4.1)."""
        focal, box = self.network.losses(batch.pixels, [boxes * self.resolution for boxes in batch.targets])
        return {"loss": focal + self.cfg.box_weight * box, "focal": focal, "box": box}

    def state(self) -> Mapping[str, Stateful]:
        """Network and optimiser."""
        return {"network": self.network, "optimiser": self._optimiser}

    def samples(self) -> None:
        """A detector makes no pictures."""

    def evaluate(self, films: HeldOut | None) -> dict[str, float | str]:
        """Average precision of the held-out films at IoU 0.40 to 0.75 and its mean, in [0, 1]. Empty without films that have boxes."""
        if films is None:
            return {}
        seen = films(self.resolution, limit=self.cfg.judged)
        truth = [(boxes * self.resolution).numpy() for boxes in films.boxes(limit=self.cfg.judged)]
        if not sum(map(len, truth)):
            return {}
        with evaluating(self.network), torch.no_grad():
            parts = torch.split(seen, max(1, _PIXELS_AT_ONCE // self.resolution**2))
            found = [(boxes.cpu().numpy(), scores.cpu().numpy()) for part in parts for boxes, scores in self.network(part.to(self._device))]
        counts = {"judged_films": float(len(seen)), "judged_boxes": float(sum(map(len, truth)))}
        return {**average_precisions(found, truth), **counts}

    def summary(self) -> dict[str, Any]:
        """Weights, and GFLOP of an image's part of a step: three times the way forward, but for the residue maker."""
        network, side = self.network, self.resolution
        maker = {} if network.residue is None else {"residue_maker": network.residue}
        parts = {"detector": torch.nn.ModuleList(network.learning()), **maker}

        def forward(films: Tensor) -> Any:
            return network.head(list(network.backbone(network.planes(films)).values()))

        whole = gflop(forward, 1, 1, side, side, device=self._device)
        fixed = 0.0 if network.residue is None else gflop(network.residue, 1, 1, side, side, device=self._device)
        return {"parameters": count_parameters(parts), "gflop_per_image": {"detector": round(3 * (whole - fixed) + fixed, 3)}}

    def export(self, out: Path, provenance: dict[str, Any]) -> None:
        """Writes a detector directory of the present weights, those of the residue maker among them."""
        settings = {name: value for name, value in asdict(self.cfg).items() if name not in ("images", "imagenet_weights", "boxes")}
        with_residue = "" if self.network.residue is None else "-residue"
        spec = DetectorSpec(
            name=f"retinanet{with_residue}-{self.cfg.finding}-at-{self.resolution}",
            network=NetworkSpec(network="retinanet", settings=asdict(self.network.settings), weights=_WEIGHTS),
            finding=self.cfg.finding,
            recipe=self.recipe,
            licence=LICENCE,
            provenance={"task": self.name, "settings": settings, "start": self._start} | provenance,
        )
        save_detector(out, spec, weights=dict(self.network.state_dict()))
