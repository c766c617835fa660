"""The processes of one training run: who one is, which images are one's own, and the few things that all must agree on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.errors import ConfigError, TrainError

_PATIENCE = timedelta(days=1)  # the first process may pack films for hours while the others wait


class Ranks:
    """One process of `size`, number `rank`; alone by default. Made by `join`, or around a process group that others set up (Ray Train)."""

    def __init__(self, *, rank: int = 0, size: int = 1, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    def share(self, first: int, batch_size: int, *, group: int = 1) -> range:
        """This process's images of a step that begins with image `first`: consecutive, in whole groups.

        Raises ConfigError where the step does not part evenly.
        """
        if batch_size % (self.size * group):
            raise ConfigError(
                f"a step of {batch_size} images in groups of {group} cannot be shared evenly by so many processes: {self.size}"
            )
        own = batch_size // self.size
        return range(first + self.rank * own, first + (self.rank + 1) * own)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the processes, in one exchange for each type."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            same = [gradient for gradient in gradients if gradient.dtype == dtype]
            joined = torch.cat([gradient.flatten() for gradient in same])
            dist.all_reduce(joined)
            joined /= self.size
            for gradient, mean in zip(same, torch.split(joined, [gradient.numel() for gradient in same]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Each value's mean over the processes; all give the same names."""
        if self.size == 1:
            return dict(values)
        together = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(together)
        return dict(zip(values, (together / self.size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        if self.size == 1:
            return flag
        raised = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(raised)
        return bool(raised.item())

    def check_alike(self, tensors: Sequence[Tensor]) -> None:
        """Raises TrainError unless all processes hold the same weights."""
        if self.size == 1:
            return
        total = sum((tensor.detach().double().sum() for tensor in tensors), start=torch.zeros((), dtype=torch.float64, device=self.device))
        bounds = torch.stack([total, -total])
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
        if bounds[0] != -bounds[1]:
            raise TrainError(f"processes start from different weights; all must see one output directory: {self.size} processes")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            try:
                dist.barrier()
            except RuntimeError as error:  # it says little of why; the process that ended says it
                raise TrainError(f"another process of the run has ended ({type(error).__name__}); this was process {self.rank}") from None


def join(device: str) -> Ranks:
    """This process as the environment says: one of many under `torchrun` (RANK, WORLD_SIZE, LOCAL_RANK), else alone.

    `device` is auto, cpu or cuda; each process takes the GPU of its local rank. Raises ConfigError where CUDA is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda: {device}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(f"this machine has no CUDA device that torch can use: {device}")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device("cuda", local) if device == "cuda" or (device == "auto" and has_cuda) else torch.device("cpu")
    if chosen.type == "cuda" and local >= torch.cuda.device_count():
        raise ConfigError(f"machine has fewer CUDA devices ({torch.cuda.device_count()}) than processes; process {local} has none")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if dist.is_initialized():
        return Ranks(rank=dist.get_rank(), size=dist.get_world_size(), device=chosen)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    return Ranks(rank=int(os.environ.get("RANK", "0")), size=size, device=chosen)


def leave() -> None:
    """Takes the process group down again, where `join` made one."""
    if dist.is_initialized() and "WORLD_SIZE" in os.environ:
        dist.destroy_process_group()
