"""Bars of a benchmark's rows: medians with their spread, a panel a unit, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row, figure

OURS, OTHERS = "#2a6f97", "#b0b7bd"
_WIDTH, _BAR = 8.0, 0.28  # inches: of the picture, of a bar with its gap


def bars(rows: Sequence[Row], path: Path) -> None:
    """Writes a PNG. Rows that others are compared to are gray. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.values]
    units = list(dict.fromkeys(row.unit for row in drawn))
    counts = [sum(row.unit == unit for row in drawn) for unit in units]
    picture = Figure(figsize=(_WIDTH, _BAR * sum(counts) + 0.9 * len(units)), layout="constrained")
    FigureCanvasAgg(picture)
    panels = picture.subplots(len(units), 1, squeeze=False, height_ratios=counts)[:, 0]
    compared_to = {row.ratio_to for row in drawn}
    for panel, unit in zip(panels, units, strict=True):
        of_unit = [row for row in drawn if row.unit == unit]
        middles = [row.spread.median for row in of_unit]
        spans = [row.span for row in of_unit]
        reach = [
            [m - low for m, (low, _) in zip(middles, spans, strict=True)],
            [high - m for m, (_, high) in zip(middles, spans, strict=True)],
        ]
        colours = [
            OTHERS if any(row.step.startswith(name) or row.step.endswith(name) for name in compared_to if name) else OURS for row in of_unit
        ]
        panel.barh(range(len(of_unit)), middles, xerr=reach, color=colours, height=0.7, error_kw={"elinewidth": 1, "ecolor": "#444444"})
        panel.set_yticks(range(len(of_unit)), [row.step for row in of_unit], fontsize="small")
        panel.invert_yaxis()
        panel.set_xlabel(unit, fontsize="small")
        panel.set_xlim(0, 1.25 * max(high for _, high in spans))
        for at, row in enumerate(of_unit):
            ratio = "" if row.ratio is None or colours[at] == OTHERS else f"  {row.ratio:.2f}x"
            panel.text(spans[at][1], at, f"  {figure(middles[at])}{ratio}", va="center", fontsize="small")
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)
