"""The directory of a run: looked at before anything is built, taken once all is, so that a bad request changes nothing in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.encode.codec_directory import RUN_JSON, check_destination
from engine.errors import TrainError
from trainers.checkpoint import checkpoints
from trainers.loop import CHECKPOINTS
from trainers.run_log import EVENTS, METRICS, SAMPLES
from trainers.stopping import STOP

FILMS = "films"


def check_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises TrainError or CodecError where the run cannot begin or go on there. Changes nothing."""
    check_destination(out)
    has_run = bool(checkpoints(out / CHECKPOINTS))
    if resume and not has_run:
        raise TrainError(f"nothing to resume, the directory holds no checkpoint: {out}")
    if has_run and not resume and not overwrite:
        raise TrainError(f"directory holds a run already; --resume goes on with it, --overwrite begins anew: {out}")


def open_folder(out: Path, about: Mapping[str, Any]) -> None:
    """Makes the directory a run's where it is none yet, and forgets that a former run was told to stop."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / STOP).unlink(missing_ok=True)
        if not (out / RUN_JSON).exists():
            note(out, about)
    except OSError as error:
        raise _unwritable(out, error) from None


def clear_folder(out: Path) -> None:
    """Removes what a former run left, but for its films and its codec."""
    try:
        for name in (CHECKPOINTS, SAMPLES, EVENTS):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / METRICS).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(out, error) from None


def note(out: Path, about: Mapping[str, Any]) -> None:
    """Writes what there is to say of the run into train.json."""
    try:
        (out / RUN_JSON).write_text(json.dumps(about, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(out, error) from None


def read_note(out: Path) -> dict[str, Any]:
    """What `note` wrote."""
    return dict(json.loads((out / RUN_JSON).read_text()))


def _unwritable(out: Path, error: OSError) -> TrainError:
    return TrainError(f"run cannot be written ({error.strerror}): {out}")
