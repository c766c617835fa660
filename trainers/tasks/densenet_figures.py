"""What a classifier's logits are worth on films held out: for the log, and for its directory with the line drawn for each label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from engine.classify.roc import Interval, average_precision, balanced_threshold, bootstrap_auc, rates, youden_threshold

_LINES = {"youden": youden_threshold, "balanced": balanced_threshold}


class ClassifierFigures:
    """Of logits and marks [n, labels] (0, 1), n may be 0. `names`: of the labels; `resamples` and `seed`: of the intervals' bootstrap."""

    def __init__(self, logits: Tensor, marks: Tensor, names: Sequence[str], *, resamples: int, seed: int) -> None:
        self._logits, self._marks, self._names = logits.numpy(), marks.numpy(), names
        self._every, self._macro = bootstrap_auc(self._logits, self._marks, resamples=resamples, seed=seed)
        self._precisions = [average_precision(self._logits[:, c], self._marks[:, c]) for c in range(len(names))]

    def for_log(self) -> dict[str, float]:
        """AUC with its interval and average precision of each label, and the mean AUC with its own; without those that are not known."""
        found = _parts("macro_auc", self._macro)
        for name, interval, precision in zip(self._names, self._every, self._precisions, strict=True):
            found |= {**_parts(f"auc_{name}", interval), f"ap_{name}": precision}
        return {name: value for name, value in found.items() if not np.isnan(value)}

    def lines(self, threshold: str) -> list[float | None]:
        """The logit from which on each label counts as there, by the rule "youden" or "balanced"; None without films of both kinds."""
        return [_LINES[threshold](self._logits[:, c], self._marks[:, c]) for c in range(len(self._names))]

    def for_directory(self, lines: Sequence[float | None]) -> dict[str, Any]:
        """Plain JSON values: films, mean AUC, and for each label AUC, average precision, its line, and what that line makes of the films.

        The line was drawn by the same films, which flatters its rates a little.
        """
        judged = zip(self._names, self._every, self._precisions, lines, strict=True)
        labels = {
            name: _plain({**_whole(interval), "average_precision": precision, **self._at(c, line)}) | {"threshold": line}
            for c, (name, interval, precision, line) in enumerate(judged)
        }
        return {"films": len(self._logits), "macro": _plain(_whole(self._macro)), "labels": labels}

    def _at(self, label: int, line: float | None) -> dict[str, float]:
        return {} if line is None else rates(self._logits[:, label], self._marks[:, label], line)


def _parts(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _whole(interval: Interval) -> dict[str, float]:
    return {"auc": interval.value, "low": interval.low, "high": interval.high}


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON has it."""
    return {name: None if np.isnan(value) else value for name, value in figures.items()}
