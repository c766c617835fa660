"""A disk that fills up anywhere in a run: one clear line, nothing lost, and the same command finishes when there is room again.

The disk is a tmpfs of a few pages, mounted in a name space of its own, which needs no rights where users may have such name spaces.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.job import Job, rows_of
from tests.faults.stable import Stable

UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def on_small_disk(words: list[str]) -> int:
    """Runs in the name space: FOLDER PAGES TMPDIR-too? COPY WORDS ...; encodes onto a disk of so many pages, then of enough; exits 0 when
    the first run failed with one line, the second one with none, and copies the archive out. 3: the disk was never full."""
    import os
    import sys
    import tempfile

    from tests.faults.stable import encode

    folder, pages, scratch, copy, *rest = words
    _mount(folder, f"size={int(pages) * 4096}")
    if scratch == "with":
        tempfile.tempdir = folder
    said = os.path.join(copy, "said")
    child = os.fork()
    if child == 0:
        log = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 2)
        os._exit(encode(rest))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _mount(folder, f"remount,size={64 * 2**20}")
    if code != 0:
        with open(said) as file:
            lines = file.read().strip().splitlines()
        if code != 2 or len(lines) != 1 or "full" not in lines[0]:
            print(f"ended with {code}: {lines}", file=sys.stderr)
            return 1
        if encode(rest) != 0:
            return 1
    subprocess.run(["cp", "-r", *(os.path.join(folder, name) for name in os.listdir(folder)), copy], check=True)
    return 0 if code else 3


def _mount(folder: str, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)


@pytest.fixture(scope="module")
def apart(memory: Path) -> Iterator[Stable]:
    """A warm process that may mount."""
    probe = ["sh", "-c", f"mount -t tmpfs none {memory}"]
    if subprocess.run([*UNSHARE, *probe], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount in a name space of his own")
    with Stable(UNSHARE) as found:
        yield found


def test_a_disk_that_is_full_anywhere(
    small_job: Job, apart: Stable, memory: Path, scale: Callable[[int, int], int], seed: int, count: Callable[[dict[str, int]], None]
) -> None:
    rng, full = random.Random(seed), 0
    for turn in range(scale(3, 60)):
        disk, copy = memory / f"disk-{turn}", memory / f"copy-{turn}"
        disk.mkdir()
        copy.mkdir()
        archive = disk / "films.zarr"
        words = [str(disk), str(rng.randrange(2, 190)), rng.choice(["with", "without"]), str(copy)]
        run = apart.start(
            [*words, *small_job.words(archive, "--workers", "0")], copy / "log", call="tests.faults.test_full_disk:on_small_disk"
        )
        code = run.wait()
        assert code in (0, 3), run.said
        full += code == 0
        assert rows_of(copy / "films.zarr") == small_job.undisturbed
        (copy / "log").unlink()
        (copy / "said").unlink()
        found = small_job.check(copy / "films.zarr")
        assert {name: number for name, number in vars(found).items() if number and name != "rows"} == {}
    count({"runs": scale(3, 60), "full disks": full})
    assert full > 0
