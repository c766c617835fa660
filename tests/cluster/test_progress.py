"""What a person reads while a run goes on."""

from __future__ import annotations

import pytest

from engine.cluster.progress import Progress, duration
from engine.records import ShardReceipt


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (523, "8 min 43 s"), (11_100, "3 h 05 min"), (187_300, "2 days 4 h")],
)
def test_durations_read_as_said(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_lines_count_all_films_but_rates_only_this_run(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(total=1000, done=500, failed=3)
    progress.on_receipt(ShardReceipt(5, 500, 100, "", 1, {"ok": 98, "decode_error": 2}, {}, [], {}, {}))
    assert progress.line().startswith("600 of 1,000 films · 595 ok · 5 failed · ")
    assert progress.encoded_now == 100
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("600 of 1,000 films")


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(total=1, done=0, failed=0, quiet=True)
    progress.tick()
    progress.close()
    assert capsys.readouterr() == ("", "")
