"""Where shards run: in this process, or on Ray actors. A pool takes shards and gives back outcomes; it decides nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol

from engine.cluster.whereabouts import node_of
from engine.config import EngineConfig
from engine.decode.ahead import MOST_SHARDS
from engine.errors import ClusterError
from engine.flow import Flow, build_flow
from engine.records import ImageRef, Shard, ShardReceipt

MOST_AT_ONE_WORKER = 2  # one running, one waiting
SECONDS_FOR_LATECOMERS = 30.0  # after that the run starts with the workers that came; the others join it
SECONDS_WITHOUT_WORKER = 600.0  # loading and compiling a codec takes minutes at most


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a shard ended. `died`: the worker's process was lost while it ran this shard.

    `node_left`: its node is no longer there either. `requeued`: the shard was only waiting behind the one that was lost, so the attempt
    does not count.
    """

    shard: Shard
    receipt: ShardReceipt | None = None
    error: Exception | None = None
    died: bool = False
    node_left: bool = False
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
    """One flow in this process, without Ray. A shard runs when it is waited for; those behind it are decoded meanwhile."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._queue: deque[Shard] = deque()

    def takes(self, shard: Shard) -> bool:
        """Whether fewer shards are waiting than are looked at: the next one to run, and those behind it."""
        return len(self._queue) <= MOST_SHARDS

    def submit(self, shard: Shard) -> None:
        """Keeps the shard until it is waited for."""
        self._queue.append(shard)

    def wait(self, seconds: float) -> list[Outcome]:
        """Runs the first shard to its end, however long it takes."""
        if not self._queue:
            return []
        shard = self._queue.popleft()
        try:
            return [Outcome(shard, receipt=self.flow.encode(shard, following=tuple(self._queue)))]
        except Exception as error:  # handed to the driver, which retries or raises it
            return [Outcome(shard, error=error)]

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        """Never asked: a film that kills this process kills the driver too."""
        raise AssertionError("a worker in the driver's own process cannot die alone")

    def close(self) -> None:
        """Ends the flow's threads."""
        self.flow.close()


@dataclass(slots=True)
class _Seat:
    """One actor, its node, and the shards handed to it, the running one first. `coming`: the answer to `ready` that it still owes."""

    actor: Any | None = None
    node: str = ""
    coming: Any | None = None
    shards: deque[tuple[Any, Shard]] = field(default_factory=deque)

    def takes(self, shard: Shard) -> bool:
        """One shard running and one waiting; a shard that has failed before runs alone, so that a death cannot be another one's fault."""
        if self.actor is None or self.coming is not None:
            return False
        if shard.attempt > 1:
            return not self.shards
        return len(self.shards) < MOST_AT_ONE_WORKER and all(other.attempt == 1 for _, other in self.shards)


class RayPool:
    """Ray actors of one class, each with one shard running and one waiting, replaced when they die.

    `worker_class` has `__init__(cfg)`, `run(shard) -> ShardReceipt`, `ready()` and `rehearse(refs)`; the benchmark passes an idle one.
    A new actor gets work once it has answered, so shards never wait for one that no node has room for.
    """

    def __init__(self, worker_class: type[Any], cfg: Any, *, workers: int, cpus: float, gpus: float) -> None:
        import ray

        self._ray = ray
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(worker_class)
        self._cfg = cfg
        self._asks = f"{cpus:g} CPU, {gpus:g} GPU"
        self._seats = [_Seat() for _ in range(workers)]
        self._last_sign = monotonic()
        while self._num_working() < workers and not (self._num_working() and monotonic() - self._last_sign > SECONDS_FOR_LATECOMERS):
            self.wait(1.0)

    def takes(self, shard: Shard) -> bool:
        """Whether some worker has a place for it."""
        return any(seat.takes(shard) for seat in self._seats)

    def submit(self, shard: Shard) -> None:
        """Gives the shard to the worker with the fewest, among those that take it."""
        seat = min((seat for seat in self._seats if seat.takes(shard)), key=lambda candidate: len(candidate.shards))
        assert seat.actor is not None
        seat.shards.append((seat.actor.run.remote(shard), shard))

    def wait(self, seconds: float) -> list[Outcome]:
        """Outcomes of the shards at the head of each worker's queue; calls up workers for empty seats, and hears those that come."""
        for seat in self._seats:
            if seat.actor is None:
                seat.actor = self._actor.remote(self._cfg)
                seat.coming = seat.actor.ready.remote()
        waited = [seat.coming or seat.shards[0][0] for seat in self._seats if seat.coming is not None or seat.shards]
        if not waited:
            return []
        ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(waited, num_returns=1, timeout=seconds)
        arrived = set(ready)
        for seat in self._seats:
            if seat.coming in arrived:
                self._seat_worker(seat)
        self._give_up_on_silence()
        return [outcome for seat in self._seats if seat.shards and seat.shards[0][0] in arrived for outcome in self._take(seat)]

    def survives(self, refs: Sequence[ImageRef]) -> bool:
        """Runs the films through everything but the writing, in an actor of its own; it takes the cores of the worker that died."""
        probe = self._actor.remote(self._cfg)
        try:
            self._ray.get(probe.rehearse.remote(refs))
        except self._ray.exceptions.RayTaskError:
            return True  # it complained, so it lives: the shard's own attempt will tell
        except self._ray.exceptions.RayError:
            return False
        finally:
            self._ray.kill(probe)
        return True

    def close(self) -> None:
        """Ends the actors."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor)

    def _seat_worker(self, seat: _Seat) -> None:
        reference: Any = seat.coming
        seat.coming = None
        actor: Any = seat.actor
        try:
            self._ray.get(reference)
            seat.node = self._ray.get(actor.__ray_call__.remote(node_of))
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self._ray.exceptions.RayError:
            seat.actor = None  # it died on the way; another is called until silence has lasted too long
            return
        self._last_sign = monotonic()

    def _take(self, seat: _Seat) -> list[Outcome]:
        reference, shard = seat.shards.popleft()
        self._last_sign = monotonic()
        try:
            return [Outcome(shard, receipt=self._ray.get(reference))]
        except self._ray.exceptions.RayTaskError as error:
            return [Outcome(shard, error=_cause(error))]
        except self._ray.exceptions.RayError as error:  # the actor died, its node did, or memory ran out
            waiting = [Outcome(other, requeued=True) for _, other in seat.shards]
            doomed: Any = seat.actor
            self._ray.kill(doomed)  # it may only have been out of reach, and must not write any more
            seat.actor, seat.shards = None, deque()
            return [Outcome(shard, error=error, died=True, node_left=seat.node not in self._nodes()), *waiting]

    def _nodes(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _num_working(self) -> int:
        return sum(seat.actor is not None and seat.coming is None for seat in self._seats)

    def _give_up_on_silence(self) -> None:
        if self._num_working():
            return
        if monotonic() - self._last_sign > SECONDS_WITHOUT_WORKER:
            minutes = SECONDS_WITHOUT_WORKER / 60
            raise ClusterError(
                f"no worker came up for {minutes:g} minutes; does any node have room for one, and memory for the codec? {self._asks}"
            )


def open_pool(cfg: EngineConfig, *, workers: int, address: str | None, share: tuple[float, float] | None = None) -> Pool:
    """Workers for a run: 0 = this process; else that many Ray actors that share the cluster's CPU cores and GPUs evenly.

    `share`: (CPUs, GPUs) of each instead. Workers that find no room then wait for nodes to come, and the run goes on without them.
    """
    if workers == 0:
        return InProcessPool(build_flow(cfg))
    from engine.cluster.worker import ShardWorker, connect, node_resources

    connect(address)
    cpus, gpus = share or share_of_nodes(node_resources(), workers)
    threads = cfg.decode.threads or max(int(cpus), 1)
    cfg = replace(cfg, decode=replace(cfg.decode, threads=threads))
    return RayPool(ShardWorker, cfg, workers=workers, cpus=cpus, gpus=gpus)


def share_of_nodes(nodes: Sequence[tuple[float, float]], workers: int) -> tuple[float, float]:
    """The most (CPUs, GPUs) that each of `workers` can hold when every one must fit on one of `nodes`, given as (CPUs, GPUs).

    Where there are GPUs each worker holds one, or an equal part of one when there are more workers than GPUs.
    Raises ClusterError for a cluster without CPUs.
    """
    shares = [1 / parts for parts in range(1, workers + 1)] if any(gpus for _, gpus in nodes) else [0.0]
    for gpu in shares:
        room = [(cpus, int(gpus / gpu + 1e-9) if gpu else workers) for cpus, gpus in nodes]
        if sum(slots for _, slots in room) < workers:
            continue
        for cpu in sorted({cpus / parts for cpus, _ in nodes for parts in range(1, workers + 1) if cpus}, reverse=True):
            if sum(min(slots, int(cpus / cpu + 1e-9)) for cpus, slots in room) >= workers:
                return (float(int(cpu)) if cpu >= 1 else cpu), gpu
    raise ClusterError(f"the cluster has no room for this many workers: {workers}")


def _cause(error: Exception) -> Exception:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
