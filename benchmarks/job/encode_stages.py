"""Where the time of a run goes: the share of it that each stage was busy, from the commit records; the rest it was idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import ShardReceipt

OF_THREADS = ("read", "decode")  # stages that the decoder's threads share
OF_LINE = {"encode": "encode", "refine": "refine", "write": "archive"}  # stages of the workers' own lines, and their names in records


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds that each stage was busy, added up over threads or lines, and of how many seconds of them: `offered`."""

    busy: dict[str, float]
    offered: dict[str, float]

    def shares(self) -> dict[str, float]:
        """The share of its time that each stage was busy, in per cent."""
        return {stage: 100 * spent / self.offered[stage] for stage, spent in self.busy.items()}

    def idle(self) -> dict[str, float]:
        """Seconds that each stage waited: for films, for a core, or for its turn in the line."""
        return {stage: self.offered[stage] - spent for stage, spent in self.busy.items()}


def stage_times(receipts: Sequence[ShardReceipt], *, wall: float, threads: int, lines: int) -> StageTimes:
    """Of shards that took `wall` seconds together, by `threads` decoding threads and `lines` workers, in all.

    A thread that works but has lost its core to another one counts as busy. Stages that took no time at all are left out.
    """
    busy = {stage: sum(_of_threads(receipt, stage) for receipt in receipts) for stage in OF_THREADS}
    busy |= {stage: sum(receipt.seconds.get(name, 0.0) for receipt in receipts) for stage, name in OF_LINE.items()}
    busy = {stage: spent for stage, spent in busy.items() if spent}
    return StageTimes(busy=busy, offered={stage: wall * (threads if stage in OF_THREADS else lines) for stage in busy})


def _of_threads(receipt: ShardReceipt, stage: str) -> float:
    return float(receipt.made_by.get("thread_seconds", {}).get(stage, 0.0))
