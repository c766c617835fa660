"""A picture of sets of films: on the left where each lies among the others, on the right the tree of those that are alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.distances.film_sets import ALL, HALVES
from engine.distances.measured import Distances
from engine.distances.scaling import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

# Okabe and Ito (2008), told apart by any eye; marks differ as well: what a set is, its colour and its mark
_LOOKS = {
    "baseline": ("#000000", "s"),
    "attribute": ("#0072B2", "o"),
    "all films": ("#009E73", "D"),
    "other films": ("#D55E00", "^"),
}
_OFFSETS = [(9, 0), (-9, 0), (0, 10), (0, -10), (9, 9), (-9, 9), (9, -9), (-9, -9), (0, 20), (0, -20)]  # of a name from its mark, points


def draw_map(found: Distances, places: Matrix, stress: float, linked: Matrix, out: Path) -> None:
    """Writes a PNG of `places` [sets, 2] and the tree `linked`, both of roots of the distances. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.2), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    told = f"Root of the Fréchet distance between sets of films of {Path(found.source).name}, by features of {found.features['name']}"
    figure.suptitle(told, fontsize=11)
    right.set_title("Hierarchical clusters, average linkage")
    _draw_tree(right, found, linked)
    left.set_title("Multidimensional scaling")
    _draw_places(figure, left, found, places, stress)  # last, for names are placed by what is drawn
    figure.savefig(out)


def _draw_places(figure: Figure, axes: Axes, found: Distances, places: Matrix, stress: float) -> None:
    kinds = _kinds(found)
    for kind, (colour, mark) in _LOOKS.items():
        some = places[[at for at, each in enumerate(kinds) if each == kind]]
        if len(some):
            axes.scatter(some[:, 0], some[:, 1], c=colour, marker=mark, s=46, label=kind, zorder=3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.18)
    axes.grid(alpha=0.25)
    axes.set_xlabel(f"distances of the plane are off by {100 * stress:.0f} % (stress)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(_LOOKS), fontsize=9, frameon=False)
    halves = next((row for row in found.rows if row.split == HALVES), None)
    if halves is not None:
        _draw_scale(figure, axes, halves.distance**0.5)
    _name_places(figure, axes, list(found.sets), places)


def _draw_scale(figure: Figure, axes: Axes, length: float) -> None:
    """A bar as long as two halves of the same films are apart, in the upper left corner."""
    from matplotlib.lines import Line2D

    across = axes.get_xaxis_transform()  # sideways as the places are, upwards a share of the panel
    figure.draw_without_rendering()  # the limits follow from the panel's shape
    low, high = axes.get_xlim()
    start = low + 0.03 * (high - low)
    bar = Line2D([start, start + length], [0.96, 0.96], transform=across, color="#000000", lw=3, solid_capstyle="butt")
    axes.add_artist(bar)  # unlike a plot, no reason to move the limits
    axes.text(start, 0.945, "two stratified halves", transform=across, fontsize=8, va="top")


def _name_places(figure: Figure, axes: Axes, names: list[str], places: Matrix) -> None:
    """Writes each name beside its mark, where it covers least of other marks and names."""
    figure.draw_without_rendering()
    marks = axes.transData.transform(places)
    taken: list[Any] = []
    for name, place in zip(names, places, strict=True):
        tried = [_annotate(axes, name, place, offset) for offset in _OFFSETS]
        boxes = [each.get_window_extent().padded(1) for each in tried]
        costs = [_covered(box, taken, marks, axes.bbox) for box in boxes]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        for at, each in enumerate(tried):
            if at != best:
                each.remove()


def _annotate(axes: Axes, name: str, place: Matrix, offset: tuple[int, int]) -> Annotation:
    across = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    upwards = "bottom" if offset[1] > 0 else "top" if offset[1] < 0 else "center"
    return axes.annotate(name, (place[0], place[1]), xytext=offset, textcoords="offset points", ha=across, va=upwards, fontsize=9)


def _covered(box: Any, taken: list[Any], marks: Matrix, panel: Any) -> int:
    """How many names and marks a box covers; leaving the panel is worse than any."""
    inside = panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
    return int(box.count_overlaps(taken)) + sum(bool(box.contains(*mark)) for mark in marks) + (0 if inside else 100)


def _draw_tree(axes: Axes, found: Distances, linked: Matrix) -> None:
    from scipy.cluster.hierarchy import dendrogram

    labels = [f"{name} ({films:,})" for name, films in found.sets.items()]
    dendrogram(linked, labels=labels, orientation="left", ax=axes, color_threshold=0, above_threshold_color="#000000", leaf_font_size=9)
    colour_of = {label: _LOOKS[kind][0] for label, kind in zip(labels, _kinds(found), strict=True)}
    for tick in axes.get_yticklabels():
        tick.set_color(colour_of[tick.get_text()])
    axes.set_xlabel("mean distance at which sets join (films of each in parentheses)")
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)


def _kinds(found: Distances) -> list[str]:
    """What each set is: a key of _LOOKS."""
    return [
        "baseline" if name == found.baseline else "all films" if name == ALL else "other films" if name in found.against else "attribute"
        for name in found.sets
    ]
