"""How well boxes are found: average precision at one overlap, and its mean over the overlaps of Tang et al. 2021 (table 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
OVERLAPS = tuple(percent / 100 for percent in range(40, 80, 5))
"""0.40, 0.45 ... 0.75: intersection over union from which on a box counts as found (section 5.2)."""


def average_precision(found: Sequence[tuple[Array, Array]], truth: Sequence[Array], *, overlap: float) -> float:
    """The area under precision over recall of boxes found on films, all films together; NaN where there is no true box.

    `found`: of each film boxes [k, 4] as x0, y0, x1, y1 and scores [k]; `truth`: of each film boxes [m, 4] in the same unit. Boxes are
    gone through by falling score, equal ones as they come. Each takes the true box of its film that it overlaps most (IoU) among those
    not yet taken; under `overlap`, it is false, and so is a second box on the same true one. Precision at a recall is the greatest at that
    recall or any higher one (every point counts, as PASCAL VOC has it since 2010).
    Raises ValueError where films or boxes and scores differ in number.
    """
    if len(found) != len(truth) or any(len(boxes) != len(scores) for boxes, scores in found):
        raise ValueError(f"films differ, or boxes and scores: {len(found)} and {len(truth)} films")
    wanted = sum(map(len, truth))
    if not wanted:
        return float("nan")
    scores = np.concatenate([np.asarray(of_film, dtype=np.float64) for _, of_film in found])
    hits = np.concatenate([_hits(boxes, of_film, true, overlap) for (boxes, of_film), true in zip(found, truth, strict=True)])
    hits = hits[np.argsort(-scores, kind="stable")]
    caught = np.cumsum(hits)
    precision = caught / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * hits).sum() / wanted)  # recall grows by 1 / wanted at each hit, and nowhere else


def average_precisions(found: Sequence[tuple[Array, Array]], truth: Sequence[Array]) -> dict[str, float]:
    """Average precision at each of OVERLAPS, as `ap40` to `ap75`, and their mean, `ap`."""
    each = {f"ap{round(100 * overlap)}": average_precision(found, truth, overlap=overlap) for overlap in OVERLAPS}
    return {"ap": float(np.mean(list(each.values()))), **each}


def box_overlaps(boxes: Array, others: Array) -> Array:
    """Intersection over union of boxes [k, 4] with others [m, 4]: [k, m], 0 where both have no area."""
    one, other = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4), np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = _area(one) + _area(other) - shared
    overlaps: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _area(boxes: Array) -> Array:
    area: Array = (boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1)
    return area


def _hits(boxes: Array, scores: Array, truth: Array, overlap: float) -> Array:
    """Whether each box of one film is true, [k], in the order given."""
    hits = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(truth):
        return hits
    overlaps = box_overlaps(boxes, truth)
    for box in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable"):
        true = int(overlaps[box].argmax())
        if overlaps[box, true] >= overlap:
            hits[box] = True
            overlaps[:, true] = -1.0  # taken
    return hits
