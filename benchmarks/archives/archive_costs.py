"""What an archive costs beside reading its codes: bytes, `status` and `verify`, and writers side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain
from statistics import median
from typing import Any

from numcodecs import Blosc

from benchmarks.archives.archive_made import Codes, draw_codes, shard_rows_for
from benchmarks.archives.archive_turns import files_of, timed
from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, say
from benchmarks.report import Bar, Row
from engine.archive.root import Root

NAME = "archive"
BYTES_BAR = Bar(bound=1.02, sense="at most")
WRITTEN_ROWS = 64 * 1024
LEVELS = (1, 2, 3)
BYTES = "bytes of `latent`"
VERBS = ("status", *(f"verify --level {level}" for level in LEVELS))
VERB_TURNS = 5  # of a process, as long as its share of seconds lasts


class Costs:
    """What an archive of so many codes takes: bytes, and the seconds of `status` and `verify`, imports not counted."""

    def __init__(self, count: int, path: str) -> None:
        self._count, self._path = count, path
        self._turns: list[dict[str, Any]] = []
        self._failed = ""

    def measure(self, *, seconds: float) -> None:
        """One process, in which each verb is repeated as often as `seconds` allow."""
        if not self._failed:
            try:
                self._turns.append(run_alone("benchmarks.archives.archive_costs:look", path=self._path, seconds=seconds))
            except StepFailed as error:
                self._failed = str(error)

    def rows(self) -> Iterator[Row]:
        """Bytes, then the verbs; an archive that is not whole has neither."""
        steps = {verb: f"{self._count:,} rows, {verb}" for verb in (BYTES, *VERBS)}
        reason = self._reason()
        if reason:
            yield from (Row(benchmark=NAME, step=step, failed=reason) for step in steps.values())
            return
        quality = {"rows ok": self._count, "problems": 0.0}
        found = run_alone("benchmarks.archives.archive_costs:weigh", path=self._path, rows=self._count)
        yield Row(
            benchmark=NAME,
            step=steps[BYTES],
            unit="bytes/row",
            values=(found["latent"],),
            value_of="whole",
            ratio=found["latent"] / found["compressed"],
            ratio_to="the compressed codes alone",
            bar=BYTES_BAR,
            quality=quality,
            figures={"bytes/row": found["all"], "shard rows": found["shard rows"]},
        )
        for verb in VERBS:
            blocks = [turn["seconds"][verb] for turn in self._turns]
            values = tuple(chain.from_iterable(blocks))
            yield Row(benchmark=NAME, step=steps[verb], unit="s", values=values, blocks=tuple(map(len, blocks)), quality=quality)

    def _reason(self) -> str:
        """Why there is nothing to tell of the archive, "" where all its rows were found and nothing is wrong with them."""
        if self._failed:
            return self._failed
        ok, problems = min(turn["ok"] for turn in self._turns), sum(turn["problems"] for turn in self._turns)
        return "" if ok == self._count and not problems else f"{ok} of {self._count} rows are ok, with {problems} problems"


def look(*, path: str, seconds: float) -> dict[str, Any]:
    """The `seconds` of each verb, turn by turn; how many rows are `ok` and how many `problems` there are."""
    from engine.archive.reader import archive_status
    from engine.archive.verify import verify_archive

    problems = 0
    found = {"status": timed(lambda turn: archive_status(path), VERB_TURNS, seconds)}
    for level in LEVELS:

        def verify(turn: int, level: int = level) -> None:
            nonlocal problems
            problems += sum(not each.is_note for each in verify_archive(path, level=level))

        found[f"verify --level {level}"] = timed(verify, VERB_TURNS, seconds)
    return {"seconds": found, "ok": archive_status(path)["ok"], "problems": problems}


def weigh(*, path: str, rows: int) -> dict[str, Any]:
    """Bytes a row of the objects of `latent`, of `all` files, and of the codes `compressed` by blosc alone; rows of a shard."""
    from engine.archive.root import read_root

    latent, everything = (sum(each.stat().st_size for each in files_of(where)) for where in (f"{path}/latent", path))
    root = read_root(path)
    packed = _packed_bytes(root, draw_codes(rows))
    return {"latent": latent / rows, "all": everything / rows, "compressed": packed / rows, "shard rows": root.shard_rows}


def _packed_bytes(root: Root, codes: Codes) -> int:
    """Bytes of what blosc, as it is set in the metadata, makes of the codes, an inner chunk at a time."""
    node = root.columns["latent"]
    chunk_rows, codecs = node["chunk_grid"]["configuration"]["chunk_shape"][0], node["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        chunk_rows, codecs = codecs[0]["configuration"]["chunk_shape"][0], codecs[0]["configuration"]["codecs"]
    settings = next(codec["configuration"] for codec in codecs if codec["name"] == "blosc")
    pack = Blosc(settings["cname"], clevel=settings["clevel"], shuffle=Blosc.SHUFFLE, blocksize=settings["blocksize"])
    return sum(len(pack.encode(codes[first : first + chunk_rows])) for first in range(0, len(codes), chunk_rows))


def writers_rows(options: Options) -> Iterator[Row]:
    """Rows a second of 1 to 4 processes that write full shards of one archive, and whether all came to the same archive."""
    count = options.pick(quick=2048, nightly=WRITTEN_ROWS // 4, whole=WRITTEN_ROWS)
    turns = options.pick(quick=1, nightly=1, whole=3)
    numbers = options.pick(quick=(1, 2), nightly=(1, 2, 3, 4), whole=(1, 2, 3, 4))
    shard_rows = shard_rows_for(WRITTEN_ROWS)
    rates: dict[int, list[float]] = {writers: [] for writers in numbers}
    contents: set[str] = set()
    for _ in range(turns):
        for writers in numbers:
            say(f"archive: {writers} writers of {count:,} rows")
            with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
                arguments = {"path": f"{folder}/codes.zarr", "rows": count, "shard_rows": shard_rows, "writers": writers}
                found = run_alone("benchmarks.archives.archive_made:write_side_by_side", **arguments)
            rates[writers].append(found["rate"])
            contents.add(found["content"])
    for writers in numbers:
        yield _of_writers(writers, rates, contents, count)


def _of_writers(writers: int, rates: dict[int, list[float]], contents: set[str], count: int) -> Row:
    step = f"{writers} {'writer' if writers == 1 else 'writers side by side'}"
    if len(contents) != 1:
        return Row(benchmark=NAME, step=step, failed=f"the same codes gave {len(contents)} different archives")
    ratios = [rate / one for rate, one in zip(rates[writers], rates[min(rates)], strict=True)]
    return Row(
        benchmark=NAME,
        step=step,
        unit="rows/s",
        values=tuple(rates[writers]),
        ratio=median(ratios),
        ratio_to="1 writer",
        quality={"archives that differ": 0.0},
        figures={"rows": float(count)},
        warm_up=0,
    )
