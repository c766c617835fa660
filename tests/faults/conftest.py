"""How much is done to the engine, in short and in long form, the films that it is done with, and the counted table at the end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from tests.faults.job import Job, make_job
from tests.faults.stable import Stable
from tests.faults.strikes import Tally

LONG = os.environ.get("LATENTRAY_FAULTS") == "long"
MEMORY = Path("/dev/shm")
OUT = Path(__file__).resolve().parents[2] / "runs" / "faults.jsonl"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies right in this folder; all that is not Ray's stays in one process, since the warm one takes seconds to load."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.faults)
            if not item.get_closest_marker("ray") and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("faults"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counted table; in long form also written down, a line a test."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    lines = [json.loads(value) for report in reports for name, value in report.user_properties if name == "faults"]
    if not lines:
        return
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.line(f"{line['test']}: " + " · ".join(f"{name} {value:,}" for name, value in line["counts"].items()))
    if LONG:
        OUT.parent.mkdir(exist_ok=True)
        with OUT.open("a") as file:
            file.writelines(json.dumps({"time": time.strftime("%FT%TZ", time.gmtime()), **line}) + "\n" for line in lines)


@pytest.fixture(scope="session")
def scale() -> Callable[[int, int], int]:
    """`scale(short, long)`: whichever form this is. `LATENTRAY_FAULTS_PART`, a number, divides the long one."""
    part = int(os.environ.get("LATENTRAY_FAULTS_PART", "1"))
    return lambda short, long: max(long // part, 1) if LONG else short


@pytest.fixture
def only_long() -> None:
    """Skips a test in the short form: what it shows costs minutes, and another test shows the core of it."""
    if not LONG:
        pytest.skip("only in the long form, `make faults`")


@pytest.fixture(scope="session")
def seed() -> int:
    """What all that is random is drawn from; `LATENTRAY_FAULTS_SEED` gives another."""
    return int(os.environ.get("LATENTRAY_FAULTS_SEED", "1"))


@pytest.fixture
def count(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[dict[str, int]], None]:
    """Adds a line to the table."""

    def add(counts: dict[str, int]) -> None:
        record_property("faults", json.dumps({"test": request.node.name, "counts": counts}))

    return add


@pytest.fixture
def settle(count: Callable[[dict[str, int]], None]) -> Callable[[Tally], None]:
    """Adds a tally to the table, and holds it against what must be."""

    def add(tally: Tally) -> None:
        found = vars(tally.found)
        count({"archives": tally.archives, "starts": tally.starts, "strikes": tally.strikes.total(), **tally.strikes, **found})
        assert tally.found.rows > 0
        assert {name: number for name, number in found.items() if number and name != "rows"} == {}

    return add


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: flushes cost nothing there, and a process that dies loses no more than on a disk."""
    folder = Path(mkdtemp(prefix="latentray-faults-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    yield folder
    with suppress(OSError):
        rmtree(folder)


@pytest.fixture(scope="session")
def stable() -> Iterator[Stable]:
    """The warm process."""
    with Stable() as found:
        yield found


@pytest.fixture(scope="session")
def job(memory: Path, small_codec: Path) -> Job:
    """64 shards of two films, refined a little."""
    return make_job(memory / "job", small_codec, films=128, shard_rows=2, steps=5)


@pytest.fixture
def struck_job(request: pytest.FixtureRequest) -> Job:
    """The one that is killed again and again: small in short form."""
    found: Job = request.getfixturevalue("job" if LONG else "small_job")
    return found


@pytest.fixture(scope="session")
def small_job(memory: Path, small_codec: Path) -> Job:
    """Eight shards of one film."""
    return make_job(memory / "small", small_codec, films=8, shard_rows=1, steps=1)
