"""Tells a person how far a run is: a bar on a terminal, a line every few seconds elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

from engine.records import ShardReceipt

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts films as their shards are committed; rates cover this run only, not what an earlier one had done."""

    def __init__(self, *, total: int, done: int, failed: int, quiet: bool = False) -> None:
        self._total, self._done, self._failed = total, done, failed
        self._ok = done - failed
        self._quiet = quiet
        self._start = self._last_line = monotonic()
        self.encoded_now = 0
        self._said = ""
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="film", file=sys.stderr, smoothing=0.1, dynamic_ncols=True)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return monotonic() - self._start

    def on_receipt(self, receipt: ShardReceipt) -> None:
        """Adds one finished shard."""
        ok = receipt.rows.get("ok", 0)
        self._ok += ok
        self._failed += receipt.num_rows - ok
        self._done += receipt.num_rows
        self.encoded_now += receipt.num_rows
        if self._bar is not None:
            self._bar.set_postfix(ok=self._ok, failed=self._failed, refresh=False)
            self._bar.update(receipt.num_rows)

    def tick(self) -> None:
        """Prints a line when there is no bar and the last line is a few seconds old."""
        if self._bar is None and not self._quiet and monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = monotonic()
            self._say()

    def line(self) -> str:
        """`1,024 of 112,120 films · 1,020 ok · 4 failed · 212.3 images/s · 8 min 43 s left`"""
        rate = self.encoded_now / max(self.seconds, 1e-9)
        left = duration((self._total - self._done) / rate) + " left" if self.encoded_now else "no rate yet"
        return f"{self._done:,} of {self._total:,} films · {self._ok:,} ok · {self._failed:,} failed · {rate:.1f} images/s · {left}"

    def close(self) -> None:
        """Ends the bar, or prints the last line."""
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet:
            self._say()

    def _say(self) -> None:
        line = self.line()
        if line != self._said:
            print(line, file=sys.stderr, flush=True)
        self._said = line


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `8 min 43 s`, `3 h 05 min`, `2 days 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"
