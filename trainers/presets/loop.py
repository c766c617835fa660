"""Settings of the loop that all tasks share: none of them changes what a step does, but for seed and precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.config import check_at_least, check_choice

TrainPrecision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """`images`: seen in all, then a run ends. Every so many images (0: at the end alone) it logs, shows samples, evaluates, saves.

    `keep`: checkpoints that stay. `precision` "bf16": networks run under autocast; weights and optimisers are float32 always.
    """

    images: int
    seed: int = 0
    precision: TrainPrecision = "fp32"
    log_images: int = 0
    sample_images: int = 0
    evaluate_images: int = 0
    checkpoint_images: int = 0
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("images", "seed", "log_images", "sample_images", "evaluate_images", "checkpoint_images"):
            check_at_least(name.replace("_", "-"), getattr(self, name), 0)
        check_at_least("keep", self.keep, 1)
        check_choice("precision", self.precision, ("fp32", "bf16"))
