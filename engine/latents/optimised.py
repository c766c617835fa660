"""What `latentray optimise-class` makes: patients with a finding, several films each, as a labelled archive, and as films with a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.classify.classifier import Classifier
from engine.config import check_at_least
from engine.csv_table import write_csv
from engine.encode.codec import Codec
from engine.errors import ConfigError
from engine.latents.class_optimisation import Optimised, climb
from engine.latents.codes import Values
from engine.latents.codes_archive import Like, write_codes
from engine.latents.starts import Draws, Prior
from engine.latents.uphill import Score, Uphill, build_uphill, judge_of
from engine.pictures import safe_name
from engine.reconstruct import reconstruct

LABELS_CSV = "labels.csv"
COLUMNS = ("patient", "label", "film", "logit", "threshold", "goal", "steps", "reached")

Cells = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Climb:
    """How codes climb. `lr`: length of a step in units of the prior's spread, in each number (root mean square); `steps`: most of a start;
    `slots`: starts that climb together."""

    lr: float = 0.02
    steps: int = 200
    slots: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr must be a positive number: {self.lr}")
        if not 0 <= self.steps <= 65535:
            raise ConfigError(f"steps must be 0 to 65535: {self.steps}")
        check_at_least("slots", self.slots, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """One label: codes [n, d] of all films with their `ids` and `rows` of the table, and what became of the starts in `seconds`."""

    label: str
    values: Values
    ids: Sequence[str]
    rows: Sequence[Cells]
    optimised: Sequence[Optimised]
    seconds: float

    @property
    def figures(self) -> dict[str, Any]:
        """Starts, how many reached their goal and in how many steps; films around them and how many fell under the threshold; the rate."""
        steps = [each.steps for each in self.optimised if each.reached]
        around = [row for row in self.rows if row["film"] != "1"]
        return {
            "label": self.label,
            "starts": len(self.optimised),
            "reached": len(steps),
            "success_rate": len(steps) / len(self.optimised),
            "steps_median": float(np.median(steps)) if steps else float("nan"),
            "steps_p90": float(np.percentile(steps, 90)) if steps else float("nan"),
            "films": len(self.rows),
            "around": len(around),
            "around_under_threshold": sum(row["reached"] == "0" for row in around),
            "starts_per_second": len(self.optimised) / self.seconds,
        }


def optimise_class(
    codec: Codec,
    classifier: Classifier,
    label: str,
    *,
    count: int,
    prior: Prior,
    draws: Draws | None = None,
    climbing: Climb | None = None,
    uphill: Uphill | None = None,
) -> Outcome:
    """`count` patients with a finding (Segal et al. 2021, 3.4 and 4.3 to 4.5). Both models lie on one device.

    `uphill`: their gradient, built; left out: in eager float32. Every logit in the table is eager float32's, whatever codes climbed by.

    Each is optimised until its logit reaches the classifier's threshold plus its own severity; the other films of a patient are drawn
    around that code. They are judged against the plain threshold and kept either way, as the paper neither looks at them nor draws anew;
    a start that did not reach its goal stays alone. Raises CodecError for a label that is unknown, ConfigError for a count under 1.
    """
    check_at_least("count", count, 1)
    draws, climbing = draws or Draws(), climbing or Climb()
    uphill = uphill or build_uphill(codec, classifier, slots=climbing.slots)
    ascent, threshold = uphill.ascent(label), classifier.thresholds[classifier.index(label)]
    judge = judge_of(codec, classifier, label)
    starts = (draws.start(prior, label, number, threshold, device=codec.device) for number in range(count))
    stride, begun = climbing.lr * prior.scale, time.perf_counter()
    found = list(climb(starts, ascent, codec.project, stride=stride, steps=climbing.steps, slots=climbing.slots))
    seconds = time.perf_counter() - begun
    found.sort(key=lambda each: each.start.number)
    values, ids, rows = [], [], []
    for each in found:
        code = each.code.flatten().cpu().numpy()
        films = draws.series(prior, label, each.start.number, code) if each.reached else code[None]
        patient = f"{label.replace('/', '-')}-{each.start.number:06d}"
        logits = [each.logit, *_logits(films[1:], judge, codec)]
        for film, logit in enumerate(logits, start=1):
            rows.append(_row(patient, label, film, logit, threshold, each))
            ids.append(f"{patient}-{film}")
        values.append(films)
    return Outcome(label=label, values=np.concatenate(values), ids=ids, rows=rows, optimised=found, seconds=seconds)


def write_archive(out: Path, like: Like, outcomes: Sequence[Outcome], made: Mapping[str, Any]) -> None:
    """All films of all labels as one archive of codes, its plan holding `COLUMNS`. Raises ArchiveError where `out` exists."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    write_codes(
        out,
        like,
        values=np.concatenate([outcome.values for outcome in outcomes]),
        ids=[name for outcome in outcomes for name in outcome.ids],
        labels={column: [row[column] for row in rows] for column in COLUMNS},
        made={"by": "optimise-class", **made},
    )


def write_films(archive: Path, out: Path, outcomes: Iterable[Outcome], *, size: int | None = None, codec: str | None = None) -> int:
    """The archive's films as PNG, and `labels.csv`, a manifest of them that `train` and `encode` take. Returns how many.

    Raises ArchiveError or ConfigError where they cannot be written.
    """
    written = reconstruct(archive, out, size=size, codec=codec)
    films = ((name, row) for outcome in outcomes for name, row in zip(outcome.ids, outcome.rows, strict=True))
    rows = ([safe_name(name), name, *(row[column] for column in COLUMNS)] for name, row in films)
    write_csv(out / LABELS_CSV, ["path", "id", *COLUMNS], rows)
    return written.films


def _logits(values: Values, judge: Score, codec: Codec) -> list[float]:
    """Each film alone: a patient has few, and so no logit depends on the films beside it."""
    codes = torch.from_numpy(values).reshape(-1, *codec.code_shape)
    return [judge(code[None]).item() for code in codes]


def _row(patient: str, label: str, film: int, logit: float, threshold: float, found: Optimised) -> Cells:
    """`reached`: whether the first film is at its goal, and the others at the plain threshold."""
    reached = found.reached if film == 1 else logit >= threshold
    cells = (patient, label, str(film), f"{logit:.4f}", f"{threshold:.4f}", f"{found.start.goal:.4f}", str(found.steps), str(int(reached)))
    return dict(zip(COLUMNS, cells, strict=True))
