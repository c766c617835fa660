"""The course of a run, known before it begins: stretches of steps of one size on films of one resolution."""

from __future__ import annotations

from typing import Any

from trainers.ranks import Ranks
from trainers.task import Task


def stages_of(task: Task, images: int) -> list[dict[str, Any]]:
    """The run as stretches of steps that take equally long."""
    stages: list[dict[str, Any]] = []
    seen = 0
    while seen < images:
        task.on_images(seen)
        kind = {"resolution": task.resolution, "batch_size": task.batch_size}
        if not stages or any(stages[-1][name] != value for name, value in kind.items()):
            stages.append({"first_image": seen, **kind, "images": 0})
        stages[-1]["images"] += task.batch_size
        seen += task.batch_size
    return stages


def check_shares(task: Task, images: int, ranks: Ranks) -> None:
    """Raises ConfigError unless all steps of the run can be shared evenly by the processes, in whole groups of images."""
    for stage in stages_of(task, images):
        task.on_images(stage["first_image"])
        ranks.share(0, task.batch_size, group=task.group)
    task.on_images(0)
