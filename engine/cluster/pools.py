"""Where shards run: in this process, or on Ray actors. A pool takes shards and gives back outcomes; it decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.flow import Flow, build_flow
from engine.records import ImageRef, Shard, ShardReceipt

MOST_AT_ONE_WORKER = 2  # one running, one waiting


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a shard ended. `died`: the worker's process was lost while it ran this shard.

    `requeued`: the shard was only waiting behind the one that was lost, so the attempt does not count.
    """

    shard: Shard
    receipt: ShardReceipt | None = None
    error: Exception | None = None
    died: bool = False
    requeued: bool = False


class Pool(Protocol):
    """A bounded set of workers."""

    def takes(self, shard: Shard) -> bool:
        """Whether this shard may be submitted before an outcome is taken."""
        ...

    def submit(self, shard: Shard) -> None:
        """Hands a shard to a worker."""
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes that have arrived, waiting for the first one up to `seconds`."""
        ...

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        """Whether a throw-away process lives through these films."""
        ...

    def close(self) -> None:
        """Ends the workers."""
        ...


class InProcessPool:
    """One flow in this process, without Ray. A shard runs when it is waited for; the one behind it is decoded meanwhile."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._queue: deque[Shard] = deque()

    def takes(self, shard: Shard) -> bool:
        """Whether fewer than two shards are waiting."""
        return len(self._queue) < 2

    def submit(self, shard: Shard) -> None:
        """Keeps the shard until it is waited for."""
        self._queue.append(shard)

    def wait(self, seconds: float) -> list[Outcome]:
        """Runs the first shard to its end, however long it takes."""
        shard = self._queue.popleft()
        following = self._queue[0] if self._queue else None
        try:
            return [Outcome(shard, receipt=self._flow.encode(shard, following=following))]
        except Exception as error:  # handed to the driver, which retries or raises it
            return [Outcome(shard, error=error)]

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        """Never asked: a film that kills this process kills the driver too."""
        raise AssertionError("a worker in the driver's own process cannot die alone")

    def close(self) -> None:
        """Ends the flow's threads."""
        self._flow.close()


@dataclass(slots=True)
class _Seat:
    """One actor and the shards handed to it, the running one first; None after a death, until there is work for a new one."""

    actor: Any | None
    shards: deque[tuple[Any, Shard]]

    def takes(self, shard: Shard) -> bool:
        """One shard running and one waiting; a shard that has failed before runs alone, so that a death cannot be another one's fault."""
        if shard.attempt > 1:
            return not self.shards
        return len(self.shards) < MOST_AT_ONE_WORKER and all(other.attempt == 1 for _, other in self.shards)


class RayPool:
    """Ray actors of one class, each with one shard running and one waiting, replaced when they die.

    `worker_class` has `__init__(cfg)`, `run(shard) -> ShardReceipt`, `ready()` and `rehearse(refs)`; the benchmark passes an idle one.
    """

    def __init__(self, worker_class: type[Any], cfg: Any, *, workers: int, cpus: float, gpus: float) -> None:
        import ray

        self._ray = ray
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(worker_class)
        self._cfg = cfg
        self._seats = [_Seat(self._actor.remote(cfg), deque()) for _ in range(workers)]
        self._await_ready([seat.actor for seat in self._seats])

    def takes(self, shard: Shard) -> bool:
        """Whether some worker has a place for it."""
        return any(seat.takes(shard) for seat in self._seats)

    def submit(self, shard: Shard) -> None:
        """Gives the shard to the worker with the fewest, among those that take it."""
        seat = min((seat for seat in self._seats if seat.takes(shard)), key=lambda candidate: len(candidate.shards))
        seat.actor = seat.actor or self._actor.remote(self._cfg)
        seat.shards.append((seat.actor.run.remote(shard), shard))

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes of the shards at the head of each worker's queue."""
        heads = [seat.shards[0][0] for seat in self._seats if seat.shards]
        ready, _ = self._ray.wait(heads, num_returns=len(heads), timeout=0) if heads else ([], [])
        if not ready and heads:
            ready, _ = self._ray.wait(heads, num_returns=1, timeout=seconds)
        arrived = set(ready)
        return [outcome for seat in self._seats if seat.shards and seat.shards[0][0] in arrived for outcome in self._take(seat)]

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        """Runs the films through everything but the writing, in an actor of its own; it takes the cores of the worker that died."""
        probe = self._actor.remote(self._cfg)
        try:
            self._ray.get(probe.rehearse.remote(refs))
        except self._ray.exceptions.RayActorError:
            return False
        except self._ray.exceptions.RayTaskError:
            return True  # it complained, so it lives: the shard's own attempt will tell
        finally:
            self._ray.kill(probe)
        return True

    def close(self) -> None:
        """Ends the actors."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor)

    def _take(self, seat: _Seat) -> list[Outcome]:
        reference, shard = seat.shards.popleft()
        try:
            return [Outcome(shard, receipt=self._ray.get(reference))]
        except self._ray.exceptions.RayActorError as error:
            waiting = [Outcome(other, requeued=True) for _, other in seat.shards]
            seat.actor, seat.shards = None, deque()
            return [Outcome(shard, error=error, died=True), *waiting]
        except self._ray.exceptions.RayTaskError as error:
            return [Outcome(shard, error=_cause(error))]

    def _await_ready(self, actors: list[Any]) -> None:
        try:
            self._ray.get([actor.ready.remote() for actor in actors])
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayActorError as error:
            raise ConfigError(f"a worker died while it loaded the codec, perhaps for want of memory: {_line(error)}") from None


def open_pool(cfg: EngineConfig, *, workers: int, address: str | None) -> Pool:
    """Workers for a run: 0 = this process; else that many Ray actors that share the cluster's CPU cores and GPUs evenly."""
    if workers == 0:
        return InProcessPool(build_flow(cfg))
    from engine.cluster.worker import ShardWorker, connect

    cluster = connect(address)
    gpus = cluster.get("GPU", 0.0)
    cpus = max(cluster.get("CPU", 1.0), 1.0) / workers
    cpus = float(int(cpus)) if cpus >= 1 else cpus
    threads = cfg.decode.threads or max(int(cpus), 1)
    cfg = replace(cfg, decode=replace(cfg.decode, threads=threads))
    return RayPool(ShardWorker, cfg, workers=workers, cpus=cpus, gpus=min(1.0, gpus / workers))


def _cause(error: Exception) -> Exception:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _line(error: Exception) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__).strip()
