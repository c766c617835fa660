"""A Ray of two nodes on this machine, the processes of each, and the ways to end them."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

IN_OPEN, IN_ISDIR = 0x20, 0x40000000
IN_NONBLOCK = os.O_NONBLOCK


class TwoNodes:
    """A head of one core and a node of one core, which may be lost and is then replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        quick = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 4}
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
        with _as_a_run_is():
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
            self.node: Any = self._cluster.add_node(num_cpus=1)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def workers(self) -> list[int]:
        """The actors of all nodes that have come up and run shards."""
        nodes = (self._cluster.head_node, self.node)
        return [pid for node in nodes for pid in children(raylet(node)) if b"ShardWorker" in command_of(pid)]

    def kill_worker(self, pid: int) -> None:
        """SIGKILL to one actor."""
        kill(pid)

    def lose_raylet(self) -> None:
        """SIGKILL to the node's raylet alone; its workers notice by themselves. Another node comes in its place."""
        kill(raylet(self.node))
        self.replace()

    def lose_node(self) -> None:
        """SIGKILL to every process of the node at once, as when a machine goes. Another one comes in its place."""
        for pid in [*children(raylet(self.node)), raylet(self.node)]:
            kill(pid)
        self.replace()

    def replace(self) -> None:
        """Takes what is left of the lost node away, and adds another."""
        self._cluster.remove_node(self.node, allow_graceful=False)
        with _as_a_run_is():
            self.node = self._cluster.add_node(num_cpus=1)

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def _as_a_run_is() -> Iterator[None]:
    """Without what Ray sets for children when it is started in this process, as other tests do: runs are started without it, too."""
    mode = os.environ.pop("RAY_AUTH_MODE", None)
    try:
        yield
    finally:
        if mode is not None:
            os.environ["RAY_AUTH_MODE"] = mode


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Two nodes that end with the block."""
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.close()


def raylet(node: Any) -> int:
    """The process that is a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def children(parent: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def session_of(leader: int) -> list[int]:
    """The processes of a session, which outlive one another."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(entry.name))
    return found


def command_of(pid: int) -> bytes:
    """What a process calls itself; Ray names workers after their actors."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def kill(pid: int) -> None:
    """SIGKILL, whether or not it still lives."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Openings:
    """Counts how often the files of a folder are opened, by whatever process; the kernel tells."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(IN_NONBLOCK)
        assert self._handle >= 0, os.strerror(ctypes.get_errno())
        assert libc.inotify_add_watch(self._handle, os.fsencode(folder), IN_OPEN) >= 0, os.strerror(ctypes.get_errno())

    def count(self) -> int:
        """Openings of files since the last time."""
        found = 0
        with suppress(BlockingIOError):
            while data := os.read(self._handle, 1 << 20):
                at = 0
                while at < len(data):
                    _, mask, _, length = struct.unpack_from("iIII", data, at)
                    found += not mask & IN_ISDIR
                    at += 16 + length
        return found

    def close(self) -> None:
        os.close(self._handle)
