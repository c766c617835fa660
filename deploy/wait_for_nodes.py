"""Waits until a Ray cluster has as many nodes as it was started with: latentray shares out what is there when a job begins."""

from __future__ import annotations

import argparse
import sys
import time


def main() -> int:
    """0 when they are there, 1 when they are not in time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of the cluster, HOST:PORT")
    parser.add_argument("nodes", type=int, help="how many must be alive, the head among them")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to wait for them")
    args = parser.parse_args()
    import ray

    deadline = time.monotonic() + args.seconds
    while True:
        try:
            if not ray.is_initialized():
                ray.init(address=args.address, logging_level="ERROR", log_to_driver=False)
            alive = sum(node["Alive"] for node in ray.nodes())
        except (ConnectionError, RuntimeError):  # the head is not up yet
            alive = 0
        if alive >= args.nodes or time.monotonic() > deadline:
            print(f"{alive} of {args.nodes} nodes are there", file=sys.stderr)
            return 0 if alive >= args.nodes else 1
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
