"""The Ray side of a worker: an actor that builds the flow once and runs shards. Pixels never leave its process."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.flow import Flow, build_flow
from engine.records import ImageRef, Shard, ShardReceipt


class ShardWorker:
    """Made into a Ray actor by the pool, which also says how many cores and GPUs it holds."""

    def __init__(self, cfg: EngineConfig) -> None:
        self._cfg = cfg

    def ready(self) -> bool:
        """Loads weights, compiles and warms up, or raises here: an error of a method keeps its class on the way to the driver."""
        return self._flow is not None

    def run(self, shard: Shard) -> ShardReceipt:
        """One shard of films in, one committed shard of rows out."""
        return self._flow.encode(shard)

    def rehearse(self, refs: Sequence[ImageRef]) -> dict[str, float]:
        """The same films one by one without writing, to see whether they kill the process."""
        return build_flow(replace(self._cfg, batch_size=1), write=False).rehearse(refs)

    @cached_property
    def _flow(self) -> Flow:
        import torch

        torch.set_num_threads(self._cfg.decode.threads)
        return build_flow(self._cfg)


def connect(address: str | None, *, log_to_driver: bool = True) -> None:
    """Joins a Ray cluster: `address`, else RAY_ADDRESS as set inside a job, else a new one on this machine.

    `log_to_driver`: whether what other processes print is printed here, too.
    """
    import ray

    if not ray.is_initialized():
        # Left without an address, Ray would join whatever cluster was last started on this machine, dead or alive.
        where = address or os.environ.get("RAY_ADDRESS") or "local"
        if where == "local":
            _make_token()
        try:
            ray.init(
                address=where,
                logging_level=logging.ERROR,
                include_dashboard=None if _wants_existing(address) else False,
                log_to_driver=log_to_driver,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray cluster answers at {where}: {str(error).strip().splitlines()[0]}") from None


def node_resources() -> list[tuple[float, float]]:
    """(CPUs, GPUs) of each machine of the cluster that is alive."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def _make_token() -> None:
    """The token that a Ray of our own will ask for, where there is none yet: Ray would make it as well, but readable by everybody."""
    variables = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or any(os.environ.get(name) for name in variables):
        return
    file = Path.home() / ".ray" / "auth_token"  # where Ray looks for it
    with suppress(OSError):  # it is there, or this home takes no files and Ray says so
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))


def _wants_existing(address: str | None) -> bool:
    return bool(address or os.environ.get("RAY_ADDRESS"))
