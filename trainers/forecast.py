"""What a training run would take, before it begins: its stages, parameters, operations, and seconds from a timed step of each stage."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.loop import Loop
from trainers.ranks import join
from trainers.schedule import stages_of
from trainers.training import Request, build_task, fitting_settings, given_codec, loop_settings

_PATIENCE = 60.0  # seconds of trying, after which stages are extrapolated from the one before by their pixels


class NoiseFeed:
    """Films of noise in place of a data set, every other one with all labels: a step takes as long."""

    def __init__(self, num_labels: int) -> None:
        self._num_labels = num_labels
        self.held_out = _NoHeldOut()

    def batch(self, numbers: range, resolution: int) -> Tensor:
        return torch.rand(len(numbers), 1, resolution, resolution).mul_(2).sub_(1).contiguous(memory_format=torch.channels_last)

    def ahead(self, numbers: range, resolution: int) -> None:
        return

    def labels(self, numbers: range) -> Tensor:
        return torch.tensor(numbers).remainder(2)[:, None].expand(-1, self._num_labels).float()

    def boxes(self, numbers: range) -> list[Tensor]:
        return [torch.tensor([[0.2, 0.3, 0.5, 0.6]] * (number % 2)).view(-1, 4) for number in numbers]


class _NoHeldOut:
    def __call__(self, resolution: int, *, limit: int = 0) -> Tensor:
        return torch.empty(0, 1, resolution, resolution)

    def labels(self, *, limit: int = 0) -> Tensor:
        raise AssertionError("a run that is only being estimated is not judged")

    def boxes(self, *, limit: int = 0) -> list[Tensor]:
        raise AssertionError("a run that is only being estimated is not judged")


def forecast(request: Request) -> dict[str, Any]:
    """Settings, parameters, operations and seconds of the run as plain JSON values. Writes nothing; reads no film.

    `stages` are stretches of one batch size and resolution; each is timed by its second step on this machine, as one process, until a
    minute has gone: later ones are extrapolated by their pixels and say so.
    """
    ranks = join(request.device)
    codec = given_codec(request)
    cfg = fitting_settings(request, codec)
    task = build_task(request, cfg, codec, ranks.device)
    loop_cfg = loop_settings(request, cfg, ranks.device)
    stages = stages_of(task, loop_cfg.images)
    with tempfile.TemporaryDirectory(prefix="latentray-forecast-") as folder:
        _time(Loop(task, NoiseFeed(len(task.labels)), loop_cfg, ranks, Path(folder), settings={}), stages)
    told = {
        "task": request.task,
        "preset": request.preset,
        "settings": asdict(cfg),
        "images": loop_cfg.images,
        "precision": loop_cfg.precision,
        "device": str(ranks.device),
        **task.summary(),
        "stages": stages,
        "seconds": round(sum(stage["seconds"] for stage in stages), 1),
    }
    return dict(json.loads(json.dumps(told)))


def _time(loop: Loop, stages: list[dict[str, Any]]) -> None:
    spent, known = 0.0, None
    for stage in stages:
        if spent < _PATIENCE:
            first, second = loop.try_step(stage["first_image"]), loop.try_step(stage["first_image"])
            spent += first + second
            per_image, is_timed = second / stage["batch_size"], True
            known = (per_image, stage["resolution"])
        else:
            assert known is not None
            ratio = ((stage["resolution"] or 1) / (known[1] or 1)) ** 2
            per_image, is_timed = known[0] * ratio, False
        stage |= {"seconds_per_image": round(per_image, 5), "seconds": round(per_image * stage["images"], 1), "is_timed": is_timed}
