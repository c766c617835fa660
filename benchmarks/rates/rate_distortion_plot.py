"""The rows of `bench rate-distortion` as a picture: bytes a film against what comes back, a column of panels for each set of films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row

MEASURES = {"mean PSNR dB": "PSNR (dB)", "MS-SSIM": "MS-SSIM", "AUC": "AUC of a linear probe"}
_INCHES = (6.4, 3.6)  # of a panel
_SHAPES: dict[str, dict[str, Any]] = {  # codes are drawn strong, pictures thin, thumbnails dashed, layers dotted
    "code": {"linewidth": 2, "marker": "o", "markersize": 5},
    "picture": {"linewidth": 1, "marker": "s", "markersize": 4},
    "thumbnail": {"linewidth": 1, "linestyle": "--", "marker": "x", "markersize": 5},
    "layer": {"linewidth": 2, "linestyle": ":", "marker": "D", "markersize": 5},
}


def plot(rows: Sequence[Row], path: Path) -> None:
    """Writes a PNG. Lines join what one method makes of different numbers of bytes; the bytes are on a logarithmic axis.

    Exact layers are left out: they have a hundred times the bytes, and no error.
    Raises ImportError without matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = [row for row in rows if row.values and row.unit == "dB" and row.settings.get("target") != "lossless"]
    sets = list(dict.fromkeys(row.settings["films"] for row in judged))
    measures = [name for name in MEASURES if any(name in row.quality for row in judged)]
    figure = Figure(figsize=(_INCHES[0] * max(1, len(sets)), _INCHES[1] * max(1, len(measures)) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(1, len(measures)), max(1, len(sets)), squeeze=False, sharex=True)
    styles = _styles(judged)
    for across, films in enumerate(sets):
        for down, measure in enumerate(measures):
            of_panel = [row for row in judged if row.settings["films"] == films and measure in row.quality]
            _draw(panels[down][across], of_panel, measure, styles)
            if down == 0:
                panels[down][across].set_title(films)
            if down == len(measures) - 1:
                panels[down][across].set_xlabel("bytes a film")
    handles = {text: line for panel in panels.flat for line, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(panel: Any, rows: Sequence[Row], measure: str, styles: dict[str, dict[str, Any]]) -> None:
    for method, style in styles.items():
        points = sorted((row.figures["bytes"], row.quality[measure]) for row in rows if _line_of(row) == method)
        if points:
            panel.plot(*zip(*points, strict=True), label=method, **style)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.set_ylabel(MEASURES[measure])
    panel.grid(visible=True, alpha=0.3)


def _line_of(row: Row) -> str:
    """What a row shares a line with: all sizes of PCA are one method, and so are all forms of a codec."""
    method = str(row.settings["method"])
    return f"{method.partition(', first')[0]}, coded: its first numbers" if ", first" in method else method


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    kinds = {_line_of(row): str(row.settings["kind"]) for row in rows}
    colours = {method: f"C{number % 10}" for number, method in enumerate(kinds)}
    return {method: _SHAPES[kind] | {"color": colours[method]} for method, kind in kinds.items()}
