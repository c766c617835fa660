"""The archive beside the files that people keep codes in: open, one row, all codes, bytes; `status`, `verify`, and writers side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.archives.archive_costs import BYTES_BAR, NAME, Costs, writers_rows
from benchmarks.archives.archive_formats import FORMATS, LATENTRAY, XARRAY
from benchmarks.archives.archive_made import NUMBERS, SEED, shard_rows_for
from benchmarks.archives.archive_turns import ROWS_SEED
from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, say
from benchmarks.report import Bar, Row

QUESTION = "How quickly are codes found again, how many bytes do they take, and how do other files of the same codes (512 halves) do?"
TIMED = (
    "Timed, imports done and files in the page cache: `open`, from a path to a handle whose shape is known; `random row`, one code as an "
    "array, of a row drawn at random, from a handle that is open; `full read`, from the path to all codes in one array in memory. So the "
    "whole read of `.pt` is in its `open`, and its rows come from memory. A process a format and turn; sizes take turns. Not timed: "
    "imports, closing, a first turn of each (unless it takes all its time). `ratio`: the other's time by that of latentray's quick door. "
    "`disk bytes/row`: what the file system gives away. Checked: every code that was read is the one that was written."
)
SEEDS = {"codes": SEED, "rows": ROWS_SEED}
WARM_UP = 1
READS = ("open", "random row", "full read")
ROW_BAR, FULL_BAR = Bar(bound=3, sense="at most"), Bar(bound=500, sense="at most")
WINS_BAR = Bar(bound=2, sense="at least")
FULL_BAR_ROWS = 112_120  # ChestX-ray14
BAR = (
    f"random row {ROW_BAR} ms; full read of {FULL_BAR_ROWS:,} rows {FULL_BAR} ms; {BYTES_BAR}x of the bytes of the compressed codes; "
    "there and beyond, quicker than each other file in 2 of 3 reads"
)


def rows(options: Options) -> Iterator[Row]:
    """Reads, bytes, `status` and `verify` by number of rows, then what 1 to 4 writers write.

    All sizes take turns, so that the processes of a row lie as far from one another as the run is long: what disturbs a machine for
    minutes is then in the spread.
    """
    sizes = options.pick(quick=(200,), nightly=(FULL_BAR_ROWS,), whole=(1000, FULL_BAR_ROWS, 1_000_000))
    turns, seconds = options.pick(quick=1, nightly=3, whole=3), options.pick(quick=0.3, nightly=0.4, whole=4.0)
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        measured = [_made(count, Path(scratch)) for count in sizes]
        for turn in range(turns):
            for reads, costs in measured:
                say(f"archive: {reads.count:,} rows, turn {turn + 1} of {turns}")
                for name in [each for each in reads.made if each not in reads.failed]:
                    reads.measure(name, seconds=seconds)
                costs.measure(seconds=seconds)
        for reads, costs in measured:
            yield from reads.rows()
            yield from costs.rows()
    yield from writers_rows(options)


def _made(count: int, scratch: Path) -> tuple[Measured, Costs]:
    say(f"archive: files of {count:,} rows are written")
    folder = scratch / str(count)
    folder.mkdir()
    return Measured(count, str(folder)), Costs(count, str(folder / FORMATS[LATENTRAY].file))


class Measured:
    """What the processes of each format found for one number of rows; what could not be had, with its reason."""

    def __init__(self, count: int, folder: str, *, names: Sequence[str] = tuple(FORMATS)) -> None:
        self.count, self.folder = count, folder
        self.turns: dict[str, list[dict[str, list[float]]]] = {name: [] for name in names}
        self.unavailable = {name: FORMATS[name].lacking(count) for name in names}
        here = [name for name, reason in self.unavailable.items() if not reason]
        found = run_alone(
            "benchmarks.archives.archive_turns:make_all", names=here, folder=folder, rows=count, shard_rows=shard_rows_for(count)
        )
        self.digest = found["digest"]
        self.failed = {name: each["failed"] for name, each in found["made"].items() if "failed" in each}
        self.made = {name: each for name, each in found["made"].items() if "failed" not in each}

    def measure(self, name: str, *, seconds: float) -> None:
        """One process of a format; one that reads other codes than were written has failed."""
        arguments = {"name": name, "path": f"{self.folder}/{FORMATS[name].file}", "rows": self.count, "seconds": seconds}
        try:
            found = run_alone("benchmarks.archives.archive_turns:read", **arguments)
        except StepFailed as error:
            self.failed[name] = str(error)
            return
        if found.pop("digest") != self.digest or found.pop("wrong rows"):
            self.failed[name] = "its codes are not those that were written"
        self.turns[name].append(found)

    def rows(self) -> Iterator[Row]:
        """Every kind of read by every format, then how often latentray is the quicker one."""
        for read in READS:
            yield from (self.row(name, read) for name in self.turns)
        yield from (self.wins(name) for name in self.turns if name not in (LATENTRAY, XARRAY))

    def row(self, name: str, read: str) -> Row:
        """One format's times of one kind of read."""
        step = f"{self.count:,} rows, {read}: {name}"
        if self.unavailable[name] or name in self.failed:
            return Row(benchmark=NAME, step=step, unavailable=self.unavailable[name], failed=self.failed.get(name, ""))
        blocks = [turn[read] for turn in self.turns[name]]
        bars = {"random row": ROW_BAR} | ({"full read": FULL_BAR} if self.count == FULL_BAR_ROWS else {})
        is_ours = name in (LATENTRAY, XARRAY)
        return Row(
            benchmark=NAME,
            step=step,
            unit="ms",
            values=tuple(1e3 * value for block in blocks for value in block),
            blocks=tuple(map(len, blocks)),
            ratio=None if is_ours else self.ratio(name, read),
            ratio_to="" if is_ours or self.ratio(name, read) is None else LATENTRAY,
            bar=bars.get(read) if is_ours else None,
            quality={"codes differ": 0.0, "bytes/row": self.made[name]["bytes"]},
            figures={"disk bytes/row": self.made[name]["disk"]},
            settings={"rows": self.count, "numbers": NUMBERS, "dtype": "f2"},
        )

    def ratio(self, name: str, read: str) -> float | None:
        """How much longer a format takes than latentray, the median over turns; None where either has failed."""
        found = self.ratios(name, read)
        return median(found) if found else None

    def ratios(self, name: str, read: str, *, ours: str = LATENTRAY) -> list[float]:
        """How much longer a format takes than we, turn by turn: a process beside its neighbour."""
        pairs = zip(self.turns[name], self.turns[ours], strict=False)
        return [median(other[read]) / median(own[read]) for other, own in pairs]

    def wins(self, name: str) -> Row:
        """In how many of the three reads latentray is quicker than a format, turn by turn."""
        step = f"{self.count:,} rows, reads quicker than {name}"
        reason = self.failed.get(name, "") or self.failed.get(LATENTRAY, "")
        if self.unavailable[name] or reason:
            return Row(benchmark=NAME, step=step, unavailable=self.unavailable[name], failed=reason)
        by_door, by_xarray = (self._quicker(name, ours) for ours in (LATENTRAY, XARRAY))
        return Row(
            benchmark=NAME,
            step=step,
            unit="of 3 reads",
            values=tuple(by_door),
            bar=WINS_BAR if self.count >= FULL_BAR_ROWS else None,
            quality={"codes differ": 0.0},
            figures={"by xarray": median(by_xarray)} if by_xarray else {},
        )

    def _quicker(self, name: str, ours: str) -> list[float]:
        turns = zip(*(self.ratios(name, read, ours=ours) for read in READS), strict=True)
        return [float(sum(ratio > 1 for ratio in turn)) for turn in turns]
