"""Memory of planning and of reading a plan does not grow with the rows: 300,000 take what 150,000 take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source.test_plan import write_manifest

pytestmark = pytest.mark.slow

FEW, MANY = 150_000, 300_000  # each of several row groups, of which two may be held at a time
MOST_MIB = 24.0  # as Python objects the further rows would be 60

# A small cache is full after some ten thousand rows, as the true one is after a million. Only anonymous memory is looked at: SQLite maps
# the files that it sorts in, and the system takes such pages back as it likes.
CHILD = """
import json, re, sys, threading
from pathlib import Path
from engine.source import ordering
from engine.source.plan import make_plan

ordering._CACHE_KIB = 4096

def most_held(work):
    over, held = threading.Event(), [0]

    def look():
        while not over.wait(0.005):
            held.append(int(re.search(r"RssAnon:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)

    thread = threading.Thread(target=look)
    thread.start()
    done = work()
    over.set()
    thread.join()
    return done, max(held)

told = []
for manifest in sys.argv[1:]:
    plan, planned = most_held(lambda: make_plan(manifest, Path(manifest).with_suffix(".parquet"), shard_rows=512))
    rows, read = most_held(lambda: sum(len(shard.refs) for shard in plan.shards()))
    told.append({"rows": rows, "planned": planned, "read": read})
print(json.dumps(told))
"""


def test_memory_is_flat_in_the_rows(tmp_path: Path) -> None:
    manifests = [str(write_manifest(tmp_path / f"{rows}.csv", rows)) for rows in (FEW, MANY)]
    few_first = [manifests[0], *manifests]  # what the first plan of a process leaves behind is there for the second, too
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *few_first], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=240
    )
    _, few, many = json.loads(done.stdout)
    assert (few["rows"], many["rows"]) == (FEW, MANY)
    print(few, many)
    assert many["planned"] - few["planned"] < MOST_MIB
    assert many["read"] - few["read"] < MOST_MIB
