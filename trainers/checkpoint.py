"""Checkpoints: the whole state of a run as one safetensors file, written aside and renamed, so the last good one is always whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.encode.codec_directory import write_aside
from engine.errors import TrainError
from engine.json_object import read_json_object

_FORMAT = "latentray-checkpoint-1"
_HEADER = "latentray"
_MAX_HEADER_BYTES = 10**8  # what safetensors itself takes
_PREFIX, _SUFFIX = "images-", ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A read checkpoint: `about` (task, settings, images, steps, seconds ...) and the states of the run's parts by name."""

    file: Path
    about: dict[str, Any]
    states: dict[str, Any]


def save_checkpoint(folder: Path, about: Mapping[str, Any], states: Mapping[str, Any], *, keep: int) -> Path:
    """Writes the states (nested dicts, lists, tensors, plain values) with `about`, whose "images" names the file; keeps the last `keep`.

    Raises TrainError, the former checkpoints untouched, where it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_apart(dict(states), tensors)
    header = json.dumps({"format": _FORMAT, "about": about, "states": skeleton})
    data = save(tensors, metadata={_HEADER: header})  # one entry: several would be written in any order
    file = folder / f"{_PREFIX}{about['images']:012d}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(file, data)
        for former in checkpoints(folder)[:-keep]:
            former.unlink()
    except OSError as error:
        raise TrainError(f"checkpoint cannot be written ({error.strerror}); the former ones are whole: {file}") from None
    return file


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))


def read_checkpoint(file: Path) -> Checkpoint:
    """A checkpoint as it was saved; nothing in the file is run. Raises TrainError for a file that is none, or is cut short."""
    try:
        with safe_open(file, framework="pt") as stored:
            header = read_json_object((stored.metadata() or {}).get(_HEADER, "{}"), max_bytes=_MAX_HEADER_BYTES, finite=False)
            if header.get("format") != _FORMAT:
                raise TrainError(f"not a checkpoint of a training run: {file}")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # it is no dict
        about, states = dict(header["about"]), dict(_put_together(header["states"], tensors))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise TrainError(f"checkpoint is damaged ({type(error).__name__}); delete it to go on from the one before: {file}") from None
    return Checkpoint(file, about, states)


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value with each tensor moved to `tensors` and a reference in its place, as JSON that keeps integer keys and tuples."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[key, _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_take_apart(item, tensors) for item in value]}
    if isinstance(value, list):
        return {"list": [_take_apart(item, tensors) for item in value]}
    assert value is None or isinstance(value, bool | int | float | str), f"a state holds tensors and plain values only: {type(value)}"
    return {"plain": value}


def _put_together(node: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _put_together(item, tensors) for key, item in value}
    if kind in ("list", "tuple"):
        items = [_put_together(item, tensors) for item in value]
        return items if kind == "list" else tuple(items)
    if kind == "plain":
        return value
    raise ValueError(kind)
