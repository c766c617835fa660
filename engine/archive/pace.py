"""How fast an archive is being made, and how long the rest will take, by what its commit records say and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.records import ShardReceipt

STAGES = ("decode", "encode", "refine", "maps", "metrics", "archive")  # in the order in which a film meets them; others come last


def pace(receipts: Sequence[ShardReceipt], *, pending: int) -> dict[str, Any]:
    """Seconds that a worker spends on a film by stage, workers, images a second of all of them, and seconds left for `pending` films.

    `receipts` are in order of shards. Workers are told apart by host, device and, where records have it, process. Those of the later half
    of the records count, for a run that was begun again has other ones; so there may be more. All is None where no record has times, as
    in an archive that was merged.
    """
    timed = [receipt for receipt in receipts if receipt.seconds and receipt.num_rows]
    if not timed:
        return {"seconds_per_film": None, "workers": None, "images_per_second": None, "seconds_left": None}
    films = sum(receipt.num_rows for receipt in timed)
    stages = sorted({stage for receipt in timed for stage in receipt.seconds}, key=lambda stage: (*STAGES, stage).index(stage))
    seconds = {stage: sum(receipt.seconds.get(stage) or 0.0 for receipt in timed) / films for stage in stages}
    a_film = sum(seconds.values())
    workers = len({_worker(receipt) for receipt in timed[len(timed) // 2 :]})
    return {
        "seconds_per_film": seconds,
        "workers": workers,
        "images_per_second": workers / a_film if a_film else None,
        "seconds_left": pending * a_film / workers,
    }


def _worker(receipt: ShardReceipt) -> tuple[str, ...]:
    return tuple(str(receipt.made_by.get(name)) for name in ("host", "device", "process"))
