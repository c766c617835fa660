"""RetinaNet (Lin et al. 2017): torchvision's network on gray films, which may see their residue maps as well (Tang et al. 2021, 5.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from engine.errors import CodecError
from engine.networks.dgm import DgmSettings
from engine.networks.residue_maker import ResidueMaker
from engine.networks.retinanet_stages import RESNET_LEVELS, PlainPyramid, plain_norm, resnet50_pyramid
from engine.networks.settings import read_settings

_IMAGENET_MEAN, _IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RATIOS, _OCTAVE = (0.5, 1.0, 2.0), (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_LARGEST = 4096
Found = tuple[Tensor, Tensor]
"""Boxes [k, 4] as x0, y0, x1, y1 in pixels, the surest first, and their scores [k] in (0, 1)."""


@dataclass(frozen=True, kw_only=True)
class RetinaNetSettings:
    """The defaults are ResNet-50 with torchvision's pyramid and anchors.

    `backbone`: "resnet50", or "plain", whose stages have `widths` channels. `pyramid`: channels of its maps and of the heads. `norm` of
    ResNet-50: "group", or "frozen" batch norm, for weights trained on ImageNet. `in_channels` 3 repeats the gray film and takes off
    ImageNet's mean and spread; with 1 the network sees films in [-1, 1]. `anchors`: the least side of the anchors of each level of the
    pyramid, in pixels; there are three sizes of each, an octave together, and three shapes. `least_score`, `overlap`: boxes that score
    less are not told, nor those that overlap a surer one by more (IoU). `residue`: the `DgmSettings` of the residue maker, or nothing for
    films alone; `residue_gain`: what the residue is multiplied by before the network sees it as a channel of its own.
    """

    resolution: int = 224
    backbone: str = "resnet50"
    widths: tuple[int, ...] = ()
    pyramid: int = 256
    norm: str = "group"
    in_channels: int = 1
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    classes: int = 1
    least_score: float = 0.05
    overlap: float = 0.5
    residue: dict[str, Any] = field(default_factory=dict)
    residue_gain: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in (("backbone", ("resnet50", "plain")), ("norm", ("group", "frozen")), ("in_channels", (1, 3))):
            if getattr(self, name) not in allowed:
                raise CodecError(f"retinanet.{name} must be one of {', '.join(map(str, allowed))}: {getattr(self, name)}")
        for name in ("pyramid", "classes"):
            if not 1 <= getattr(self, name) <= _LARGEST:
                raise CodecError(f"retinanet.{name} must be 1 to {_LARGEST}: {getattr(self, name)}")
        if not self.anchors or not all(1 <= side <= _LARGEST for side in self.anchors):
            raise CodecError(f"retinanet.anchors must be sides of 1 to {_LARGEST} pixels: {self.anchors}")
        if self.backbone == "resnet50" and (self.widths or len(self.anchors) != RESNET_LEVELS):
            raise CodecError(f"retinanet of resnet50 has no widths and {RESNET_LEVELS} anchors: {self.widths}, {self.anchors}")
        if self.backbone == "plain":
            self._check_plain()
        least = 2 ** len(self.widths) if self.backbone == "plain" else 32
        if not least <= self.resolution <= _LARGEST:
            raise CodecError(f"retinanet.resolution must be {least} to {_LARGEST}: {self.resolution}")
        for name in ("least_score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise CodecError(f"retinanet.{name} must be 0 to 1: {getattr(self, name)}")
        if not 0 < self.residue_gain <= 1000:
            raise CodecError(f"retinanet.residue_gain must be above 0 and 1000 at most: {self.residue_gain}")
        if self.residue and self.maker_settings().resolution != self.resolution:
            raise CodecError(f"retinanet.residue must have the network's resolution of {self.resolution}: {self.residue}")

    def _check_plain(self) -> None:
        if not len(self.anchors) <= len(self.widths) <= 8 or not all(1 <= width <= _LARGEST for width in self.widths):
            raise CodecError(f"retinanet of plain stages needs as many widths as anchors or more, 8 at most: {self.widths}, {self.anchors}")
        if any(width % 8 for width in (*self.widths, self.pyramid)) or self.norm != "group":
            widths = (*self.widths, self.pyramid)
            raise CodecError(f"retinanet of plain stages needs widths that are multiples of 8, and norm group: {widths}, {self.norm}")

    def maker_settings(self) -> DgmSettings:
        """The residue maker's settings. Raises CodecError for ones that make no sense."""
        return read_settings(DgmSettings, self.residue, "residue")


class RetinaNetDetector(RetinaNet):  # type: ignore[misc]  # torchvision has no types
    """Films [N, 1, R, R] in [-1, 1], R = `resolution` -> boxes with scores, film by film. Weights have torchvision's names.

    Anchors, matching, both losses and the choice of boxes are torchvision's; its resizing of films is left out, since all have one side.
    No layer looks at several films. The residue maker, where there is one, is part of it and never learns.
    """

    def __init__(self, settings: RetinaNetSettings) -> None:
        planes = settings.in_channels + bool(settings.residue)
        if settings.backbone == "resnet50":
            backbone: nn.Module = resnet50_pyramid(planes, norm=settings.norm, channels=settings.pyramid)
        else:
            backbone = PlainPyramid(planes, settings.widths, levels=len(settings.anchors), channels=settings.pyramid)
        # Heads start so small that, where they are narrow, no gradient gets through them unless they have norms (as torchvision's second
        # RetinaNet has them).
        norm = plain_norm if settings.backbone == "plain" else None
        sizes = tuple(tuple(int(side * step) for step in _OCTAVE) for side in settings.anchors)
        super().__init__(
            backbone,
            settings.classes,
            anchor_generator=AnchorGenerator(sizes, (_RATIOS,) * len(sizes)),
            head=RetinaNetHead(settings.pyramid, len(_RATIOS) * len(_OCTAVE), settings.classes, norm_layer=norm),
            score_thresh=settings.least_score,
            nms_thresh=settings.overlap,
        )
        self.settings, self.resolution, self.num_classes = settings, settings.resolution, settings.classes
        self.residue = ResidueMaker(settings.maker_settings()) if settings.residue else None

    def learning(self) -> list[nn.Module]:
        """The parts that a training moves: all but the residue maker."""
        return [self.backbone, self.head]

    def losses(self, films: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Focal loss of the scores and L1 of the boxes, each a film's sum over its matched anchors by their number, mean over films.

        `boxes`: of each film, [k, 4] float32 in pixels; all are of class 0. Anchors of IoU 0.5 with a box, and the nearest to each box, are
        matched, those under 0.4 are background. Lin et al. 2017, equation 5, alpha 0.25, gamma 2.
        """
        outputs, anchors, _ = self._look(films)
        targets = [{"boxes": of_film, "labels": torch.zeros(len(of_film), dtype=torch.int64, device=films.device)} for of_film in boxes]
        with torch.autocast(films.device.type, enabled=False):
            found = self.compute_loss(targets, outputs, anchors)
        return found["classification"], found["bbox_regression"]

    def forward(self, films: Tensor) -> list[Found]:
        """Boxes in pixels of the films, cut at their edges, 300 a film at most; no gradient goes through the choice."""
        outputs, anchors, places = self._look(films)
        by_level = {name: list(torch.split(values, places, dim=1)) for name, values in outputs.items()}
        side = self.resolution
        found = self.postprocess_detections(by_level, [list(torch.split(one, places)) for one in anchors], [(side, side)] * len(films))
        return [(film["boxes"], film["scores"]) for film in found]

    def planes(self, films: Tensor) -> Tensor:
        """What the stages see of films: [N, 1 or 3, R, R], and the residue as a last channel."""
        if films.shape[1:] != (1, self.resolution, self.resolution):
            raise CodecError(f"retinanet takes films [N, 1, {self.resolution}, {self.resolution}]: {list(films.shape)}")
        seen = films
        if self.settings.in_channels == 3:
            mean, spread = (torch.tensor(values, device=films.device).view(1, 3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_SPREAD))
            seen = ((films + 1) / 2 - mean) / spread
        if self.residue is None:
            return seen
        return torch.cat([seen, self.residue(films).to(seen.dtype) * self.settings.residue_gain], dim=1)

    def _look(self, films: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """Logits and box offsets of all anchors in float32, the anchors of each film, and how many of them each level has."""
        levels = list(self.backbone(self.planes(films)).values())
        outputs = {name: values.float() for name, values in self.head(levels).items()}
        grids = [films.new_empty(1, 1, *level.shape[-2:]) for level in levels]  # anchors need their sides, and the type of films
        anchors = self.anchor_generator(ImageList(films, [(self.resolution, self.resolution)] * len(films)), grids)
        per_place = self.anchor_generator.num_anchors_per_location()
        return outputs, anchors, [n * grid.shape[-2] * grid.shape[-1] for n, grid in zip(per_place, grids, strict=True)]


def residue_settings(maker: ResidueMaker) -> dict[str, Any]:
    """`RetinaNetSettings.residue` of a residue maker."""
    return asdict(maker.settings)
