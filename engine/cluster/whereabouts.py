"""What the driver asks a worker about its place. A module of its own: a worker imports it, and with it nothing that it may not need."""

from __future__ import annotations


def node_of(worker: object) -> str:
    """The id of the node that this worker's process runs on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
