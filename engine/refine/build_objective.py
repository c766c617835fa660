"""Builds an objective with its networks from published files, says which weights they are, and what a step of it costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from engine.config import check_choice
from engine.networks import features, resnet50
from engine.networks.features import FeatureNet, FeatureStack
from engine.networks.resnet50 import ResNet50Trunk
from engine.refine.objective import Loss, Objective, check_loss
from engine.refine.perceptual import MOCO_SIDE, LpipsTerm, MocoTerm
from engine.refine.weight_files import download_network, find_lpips_heads, find_network, random_weights, read_weights, sha256_of

Mode = Literal["files", "download", "random"]


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Where perceptual weights come from.

    "files": published files in `folder`, or where torch.hub keeps downloads; LPIPS's channel weights from the installed package `lpips`.
    "download": the same, and files that are nowhere are fetched from their publishers. "random": drawn from `seed`, for tests and
    benchmarks; an archive made with them says so. `flag`: how a command is told the folder, for messages.
    """

    mode: Mode = "files"
    folder: str | None = None
    seed: int = 0
    flag: str = "--weights"

    def __post_init__(self) -> None:
        check_choice("weights", self.mode, get_args(Mode))


FROM_FILES = WeightSource()


def build_objective(
    loss: Loss, *, resolution: int, lpips_net: FeatureNet = "alex", lpips_size: int = 0, source: WeightSource = FROM_FILES
) -> Objective:
    """The objective for films of `resolution` pixels, on the CPU, with the networks that terms of positive weight need.

    Weber et al. 2022: mse=1,lpips=0.8,moco=0.1, with `lpips_net` "alex" in their code and "vgg" in their paper, `lpips_size` 0.
    Raises ConfigError as `check_objective`, and for weights that are missing or damaged.
    """
    check_objective(loss, resolution=resolution, lpips_net=lpips_net, lpips_size=lpips_size)
    objective = _without_weights(loss, lpips_net, lpips_size).to_empty(device="cpu")
    for name, term in objective.networks.items():
        if isinstance(term, LpipsTerm):
            term.stack.load_published(_state(lpips_net, features.published_shapes(lpips_net), source))
            for head, (_, values) in zip(term.heads, sorted(_heads(lpips_net, source).items()), strict=True):
                head.data.copy_(values.flatten())
        elif isinstance(term, MocoTerm):
            term.trunk.load_published(_state(name, term.trunk.published_shapes(), source))
    return objective


def check_objective(loss: Loss, *, resolution: int, lpips_net: FeatureNet = "alex", lpips_size: int = 0) -> None:
    """Raises ConfigError, without looking for weights, unless `build_objective` can make this objective."""
    check_loss(loss)
    check_choice("lpips-net", lpips_net, get_args(FeatureNet))
    _without_weights(loss, lpips_net, lpips_size).check_side(resolution)


def least_side(loss: Loss, *, lpips_net: FeatureNet = "alex") -> int:
    """The smallest films, in pixels a side, that a coarser level can be refined on: where `Objective.at` has a term left."""
    return min(_without_weights(loss, lpips_net, 0).least_sides().values())


def describe_weights(loss: Loss, *, lpips_net: FeatureNet = "alex", source: WeightSource = FROM_FILES) -> dict[str, dict[str, Any]]:
    """Which weights the terms of `loss` get, for a fingerprint: by term, the network and each part's "sha256:..." or "random:seed".

    Empty where no term looks through a network. Raises ConfigError for files that are missing; what they hold is not checked.
    """
    wanted = {name for name, weight in loss if weight > 0}
    described: dict[str, dict[str, Any]] = {}
    if source.mode == "random":
        drawn = f"random:{source.seed}"
        described["lpips"] = {"net": lpips_net, "features": drawn, "heads": drawn}
        described["moco"] = {"net": "resnet50", "features": drawn}
        return {name: parts for name, parts in described.items() if name in wanted}
    if "lpips" in wanted:
        heads, found = find_lpips_heads(lpips_net), _file(lpips_net, source)
        described["lpips"] = {"net": lpips_net, "features": sha256_of(found), "heads": sha256_of(heads)}
    if "moco" in wanted:
        described["moco"] = {"net": "resnet50", "features": sha256_of(_file("moco", source))}
    return described


def loss_gflop(loss: Loss, side: int, *, lpips_net: FeatureNet = "alex", lpips_size: int = 0) -> dict[str, float]:
    """Billions of floating-point operations, two a multiply-add, that each term adds to a step of one film of `side` pixels.

    Value and gradient: a frozen convolution's gradient costs what the convolution costs. Pointwise work is not counted, nor are targets,
    which are computed once.
    """
    resize = MOCO_SIDE * side * (side + MOCO_SIDE) if side != MOCO_SIDE else 0
    multiply_adds = {
        "mse": 0,
        "ssim": 110 * side**2,  # five maps under 11 + 11 taps
        "lpips": features.multiply_adds(lpips_net, lpips_size or side),
        "moco": resnet50.multiply_adds(MOCO_SIDE) + resize,
    }
    return {name: 4e-9 * multiply_adds[name] for name, weight in loss if weight > 0}


def _without_weights(loss: Loss, lpips_net: FeatureNet, lpips_size: int) -> Objective:
    wanted = {name for name, weight in loss if weight > 0}
    with torch.device("meta"):  # no memory, no time and no random numbers
        heads = [torch.empty(channels) for channels in features.tap_channels(lpips_net)]
        lpips = LpipsTerm(FeatureStack(lpips_net), heads, size=lpips_size) if "lpips" in wanted else None
        return Objective(loss, lpips=lpips, moco=MocoTerm(ResNet50Trunk()) if "moco" in wanted else None)


def _file(network: str, source: WeightSource) -> Path:
    find = download_network if source.mode == "download" else find_network
    return find(network, source.folder, source.flag)


def _state(network: str, shapes: dict[str, tuple[int, ...]], source: WeightSource) -> dict[str, Tensor]:
    return random_weights(shapes, source.seed) if source.mode == "random" else read_weights(_file(network, source), shapes)


def _heads(net: FeatureNet, source: WeightSource) -> dict[str, Tensor]:
    shapes = {f"lin{tap}.model.1.weight": (1, channels, 1, 1) for tap, channels in enumerate(features.tap_channels(net))}
    if source.mode == "random":
        return {name: values.abs() for name, values in random_weights(shapes, source.seed).items()}
    return read_weights(find_lpips_heads(net), shapes)
