"""What the rows of `bench rate-distortion` come to, in words made from them: where each way wins, and the form that an archive stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from benchmarks.report import Row
from engine.metrics import PSNR_CAP

LEAST_LOSS = 0.05  # dB: what a stored form may not lose
_MEASURES = {"mean PSNR dB": ("PSNR", "{:.1f} dB", 0.05), "SSIM": ("SSIM", "{:.3f}", 0.001), "MS-SSIM": ("MS-SSIM", "{:.3f}", 0.001)}
_MEASURES |= {"AUC": ("AUC", "{:.2f}", 0.01)}  # each with how it is written, and what is no difference


def told(rows: Sequence[Row]) -> list[str]:
    """Lines of text of each set of films: the best at up to so many bytes, the smallest form of each codec, and what layers take."""
    judged = [row for row in rows if row.values and row.unit == "dB"]
    lines: list[str] = []
    for films, of_set in groupby(sorted(judged, key=lambda row: str(row.settings["films"])), key=lambda row: str(row.settings["films"])):
        found = list(of_set)
        lines += _winners(films, found)
        lines += _without_auc(films, found)
        lines += default_forms(films, found)
        lines += _of_layers(films, found)
    return lines


def budgets(rows: Sequence[Row]) -> list[int]:
    """The numbers of bytes at which pictures were made, the fewest first."""
    return sorted({int(row.settings["most_bytes"]) for row in rows if "most_bytes" in row.settings})


def default_forms(films: str, rows: Sequence[Row]) -> Iterator[str]:
    """A line a codec: the smallest stored form that loses less than LEAST_LOSS, of those any reader of Zarr reads and of all."""
    coded = [row for row in rows if row.settings.get("loss_dB") is not None]
    for method in dict.fromkeys(row.settings["method"] for row in coded):
        small = [row for row in coded if row.settings["method"] == method and row.settings["loss_dB"] < LEAST_LOSS]
        readable = min((row for row in small if row.settings["readable"]), key=_bytes)  # f4 itself loses nothing
        least = min(small, key=_bytes)
        yield f"{films}, stored form of {method}: {_form(readable)}; the smallest of all: {_form(least)}"


def winner(rows: Sequence[Row], column: str) -> Row:
    """The row with the best of these figures; of several as good, the one of the fewest bytes."""
    best = max(row.quality[column] for row in rows)
    return min((row for row in rows if row.quality[column] >= best - _MEASURES[column][2]), key=_bytes)


def _winners(films: str, rows: Sequence[Row]) -> Iterator[str]:
    for most in budgets(rows):
        fitting = [row for row in rows if _bytes(row) <= most]
        best = []
        for column, (name, text, _) in _MEASURES.items():
            having = [row for row in fitting if column in row.quality]
            if having:
                first = winner(having, column)
                error = f" +- {first.settings['probed']['error']:.2f}" if column == "AUC" else ""
                best.append(f"{name} {_what(first)} ({text.format(first.quality[column])}{error}, {_bytes(first):.0f} bytes)")
        if best:
            yield f"{films}, up to {most:,} bytes a film, best by: {'; '.join(best)}"


def _without_auc(films: str, rows: Sequence[Row]) -> Iterator[str]:
    reasons = {str(row.settings["no_auc"]) for row in rows if row.settings["no_auc"]}
    yield from (f"{films}, no AUC: {reason}" for reason in sorted(reasons))


def _of_layers(films: str, rows: Sequence[Row]) -> Iterator[str]:
    for row in (row for row in rows if row.settings["kind"] == "layer"):
        size = f"{_bytes(row):,.0f} bytes a film, {row.settings['code_bytes']:.0f} of them the code"
        gained = "exact" if min(row.values) >= PSNR_CAP else f"{row.quality['mean PSNR dB']:.1f} dB, and never less than promised"
        yield f"{films}, code and layer of {row.settings['target']}: {size}; {gained}"


def _form(row: Row) -> str:
    told_of: dict[str, Any] = row.settings
    step = f" to {told_of['step']:g}" if told_of["form"] == "f2 rounded" else ""
    return f"{told_of['form']}{step} ({_bytes(row):.0f} bytes, {told_of['loss_dB']:.3f} dB lost)"


def _what(row: Row) -> str:
    return (
        row.step.partition(": ")[2].partition(" bytes")[0].rsplit(", ", 1)[0]
        if "most_bytes" in row.settings
        else row.step.partition(": ")[2]
    )


def _bytes(row: Row) -> float:
    return row.figures["bytes"]
