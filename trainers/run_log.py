"""What one sees of a run: metrics.jsonl, TensorBoard events, sample grids and a bar with the time that is left."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from engine.errors import TrainError

METRICS, SAMPLES, EVENTS = "metrics.jsonl", "samples", "events"
_COLUMNS_MOST = 8


class RunLog:
    """The log of the run in `out`, gone on with at `seen` images: what an interrupted run logged beyond that is cut off."""

    def __init__(self, out: Path, *, seen: int, images: int) -> None:
        # late: they take a second to load, and only the process that logs needs them
        from torch.utils.tensorboard.writer import SummaryWriter
        from tqdm import tqdm

        self._file = out / METRICS
        self._samples = out / SAMPLES
        try:
            self._samples.mkdir(parents=True, exist_ok=True)
            _cut_off(self._file, seen)
            self._events = SummaryWriter(str(out / EVENTS), purge_step=seen)
        except OSError as error:
            raise TrainError(f"run cannot be logged ({error.strerror}): {out}") from None
        self._bar = tqdm(
            total=max(images, seen), initial=seen, unit="image", file=sys.stderr, disable=not sys.stderr.isatty(), smoothing=0.1
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        with suppress(OSError):  # a disk that is full was said already, and must not hide why the run ends
            self._events.close()

    def advance(self, images: int) -> None:
        """Moves the bar."""
        self._bar.update(images)

    def record(self, row: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl, its numbers as TensorBoard scalars at `row["images"]`. Raises TrainError where the disk is full."""
        with _writing(self._file), self._file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        with _writing(self._file):
            for name, value in row.items():
                if isinstance(value, int | float) and name != "images":
                    self._events.add_scalar(name, value, row["images"])
        losses = [f"{name} {value:.4g}" for name, value in row.items() if name.endswith("loss")]
        self._bar.set_postfix_str(" ".join(losses), refresh=False)

    def show(self, pictures: Tensor, seen: int) -> None:
        """A grid of pictures [n, 1, R, R] in [-1, 1] as samples/<images>.png and in TensorBoard."""
        import cv2

        grid = as_grid(pictures)
        file = self._samples / f"{seen:012d}.png"
        done, data = cv2.imencode(".png", grid)
        assert done
        with _writing(file):
            file.write_bytes(data.tobytes())
            self._events.add_image("samples", grid, seen, dataformats="HW")


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainError(f"run cannot be logged ({error.strerror}): {file}") from None


def as_grid(pictures: Tensor) -> np.ndarray[Any, Any]:
    """Pictures [n, 1, R, R] in [-1, 1] -> one picture u1, row by row, at most 8 a row, black where none is left."""
    tiles = ((pictures.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().squeeze(1).numpy()
    n, side = len(tiles), tiles.shape[-1]
    columns = min(n, _COLUMNS_MOST)
    grid = np.zeros((-(-n // columns) * side, columns * side), np.uint8)
    for place, tile in enumerate(tiles):
        top, left = side * (place // columns), side * (place % columns)
        grid[top : top + side, left : left + side] = tile
    return grid


def _cut_off(file: Path, seen: int) -> None:
    """Keeps the lines up to `seen` images; a line that a kill cut short goes, too."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text().splitlines():
        try:
            if json.loads(line)["images"] > seen:
                continue
        except (ValueError, KeyError, TypeError):
            continue
        kept.append(line + "\n")
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(file)
