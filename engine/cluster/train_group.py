"""Training processes on a Ray cluster: Ray Train places them and joins them into one process group; what they do is the caller's."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.cluster.worker import connect, node_resources
from engine.errors import ClusterError, LatentrayError

log = logging.getLogger(__name__)

_PATIENCE = 86_400  # seconds: the first process may read films for hours while the others wait


def train_on_ray(
    work: Callable[[dict[str, Any]], None],
    request: dict[str, Any],
    *,
    workers: int,
    address: str | None,
    scratch: Path,
    stop: Callable[[], None],
) -> None:
    """Runs `work(request)` in `workers` processes that torch.distributed joins (NCCL where each gets a GPU, else Gloo) until all return.

    `request` has a `device`; "cpu" leaves GPUs alone.

    `scratch` is where Ray Train keeps its own notes; every node must see it. `stop` is called at SIGTERM, to tell the processes.
    Raises ClusterError where the cluster has no room or a process dies, and the error of a request itself as it was raised.
    """
    connect(address, log_to_driver=False)  # without a dashboard Ray Train's helpers complain several times a second
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = node_resources()
    has_gpus = request["device"] != "cpu" and sum(gpus for _, gpus in resources) >= workers
    cores = int(sum(cpus for cpus, _ in resources))
    if not has_gpus and cores < workers:
        raise ClusterError(f"cluster has fewer cores ({cores}) than training processes: {workers}")
    trainer = TorchTrainer(
        work,
        train_loop_config=request,
        torch_config=TorchConfig(timeout_s=_PATIENCE),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=has_gpus),
        run_config=RunConfig(name="train", storage_path=str(scratch.absolute()), failure_config=FailureConfig(max_failures=0)),
    )
    try:
        with _at_sigterm(stop):
            trainer.fit()
    except TrainingFailedError as error:
        cause = _request_error(error)
        if cause is not None:
            raise cause from None
        log.info("a training process failed", exc_info=True)
        raise ClusterError(f"a training process failed, its checkpoints stand: {str(error).strip().splitlines()[-1]}") from None


def _request_error(error: BaseException) -> LatentrayError | None:
    """The error of ours that lies inside one of Ray Train's, if any process raised one."""
    inner = list(getattr(error, "worker_failures", {}).values())
    while inner:
        found = inner.pop()
        if isinstance(found, LatentrayError):
            return found
        causes = (getattr(found, "cause", None), getattr(found, "_base_exc", None), found.__cause__)  # how Ray wraps what a process raised
        inner += [cause for cause in causes if isinstance(cause, BaseException) and cause is not found]
    return None


@contextmanager
def _at_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    former = signal.signal(signal.SIGTERM, lambda number, frame: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
