"""One codec of `bench encode`: its turns, the gate that its codes must pass, and the rows of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.commands import Finished, StepFailed, run_alone, run_latentray
from benchmarks.inputs import line_up, say
from benchmarks.job.encode_turns import DECODE, ENCODE, LOOP, MODEL, PLAIN
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio
from engine.archive.code_reader import open_codes
from engine.archive.commits import read_receipts
from engine.archive.reader import fingerprint_parts
from engine.code_step import round_to_step
from engine.config import EngineConfig, RefineConfig
from engine.encode.parity import Difference
from engine.job import default_shard_rows

NAME = "encode"
REFERENCE = "reference.zarr"
LEAST_SHARDS = 4  # a turn, so that two workers have more than one each
# Of a film's code, relative to its length: float32 is rounded to half precision when it is stored, half precision of the network is what
# the parity gate lets through, the script averages films down in 8 bits, and a descent makes more of a rounding.
REFINED = "refined"
TOLERANCE = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 5e-2, PLAIN: 5e-2, REFINED: 5e-2}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One codec on films, and how its turns are cut. `turns` are the timed ones; `steps` those of refinement.

    `bars`: of the job's ratio to another step, by that step. `commands`: whether the whole command is timed as well.
    """

    label: str
    codec: str
    files: list[Path]
    turns: int
    batch_size: int = 16
    steps: int = 0
    bars: dict[str, Bar] = field(default_factory=dict)
    commands: bool = False

    @property
    def beside(self) -> list[str]:
        """What takes turns with the job in one process."""
        return [DECODE, MODEL, PLAIN] if not self.steps else [DECODE, LOOP]


class SceneBench:
    """The films of a scene once over, and the archive of their codes with every metric, that the timed archives must equal."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        folder.mkdir()
        self._folder, self._scene = folder, scene
        self._films = line_up(scene.files, folder / "films", count=len(scene.files))
        self._reference: Finished | None = None

    def rows(self, workers: int) -> Iterator[Row]:
        """The job with so many workers and what takes turns with it; a step that fails is a row with its reason."""
        try:
            yield from self._rows(workers)
        except StepFailed as error:
            yield Row(benchmark=NAME, step=self._step(ENCODE, workers), failed=str(error))

    def _rows(self, workers: int) -> Iterator[Row]:
        scene, reference = self._scene, self._measure_quality()
        figures: dict[str, float] = {}
        if scene.commands:
            say(f"encode: {scene.label}, the whole command, --workers {workers}")
            done = self._encode(f"command-{workers}.zarr", "--workers", str(workers), "--metrics", "none")
            self._codes_off(f"command-{workers}.zarr")
            figures = {"command s": done.seconds} | ({"command MB": done.peak_mb} if done.peak_mb else {})
        say(f"encode: {scene.label}, {scene.turns} turns, --workers {workers}")
        name = f"timed-{workers}.zarr"
        found = self._take_turns(name, workers)
        off = self._codes_off(name)
        own = {"PSNR dB": reference.report["psnr"], "SSIM": reference.report["ssim"], "codes off": off}
        rates, settings = found["rates"], found["settings"] | {"refine_steps": scene.steps, "codec": Path(scene.codec).name}
        figures |= {f"{stage} busy %": share for stage, share in found["busy"].items()}
        for step in (DECODE, MODEL):
            if step in rates:
                quality = {name: own[name] for name in ("PSNR dB", "SSIM")} if step == MODEL else {}  # decoding makes no codes
                yield self._row(step, workers, rates, quality=quality, settings=settings)
        for compared in scene.bars or scene.beside[:1]:
            if compared in rates:
                yield self._row(ENCODE, workers, rates, compared=compared, quality=own, figures=figures, settings=settings)
        for step in (PLAIN, LOOP):
            if step in rates:
                yield self._alternative(step, workers, rates, settings)

    def _row(self, step: str, workers: int, rates: dict[str, list[float]], *, compared: str = "", **more: Any) -> Row:
        told = f"{self._step(step, workers)} against the {compared}" if compared == PLAIN and step == ENCODE else self._step(step, workers)
        ratio = paired_ratio(rates[step], rates[compared]) if compared else None
        bar = self._scene.bars.get(compared) if step == ENCODE else None
        return Row(benchmark=NAME, step=told, unit="films/s", values=tuple(rates[step]), ratio=ratio, ratio_to=compared, bar=bar, **more)

    def _alternative(self, step: str, workers: int, rates: dict[str, list[float]], settings: dict[str, Any]) -> Row:
        """A script's row with the quality of its own codes; without refinement these must be the job's codes."""
        codes = torch.load(self._folder / f"{step}.pt", weights_only=True)
        count = min(len(codes), len(self._scene.files))
        quality = run_alone(
            "benchmarks.job.encode_turns:measure_quality",
            source=str(self._films),
            codec=self._scene.codec,
            codes=str(self._folder / f"{step}.pt"),
        )
        if step == PLAIN:
            expected, grid = self._expected(count), self._grid(REFERENCE)
            quality["codes off"], forgiven = differences(round_to_step(codes[:count].float(), grid), expected, grid)
            if not forgiven <= TOLERANCE[PLAIN]:
                reason = f"its codes differ from the job's by this part of their length: {forgiven:.4f}"
                return Row(benchmark=NAME, step=self._step(step, workers), failed=reason)
        return self._row(step, workers, rates, compared=ENCODE, quality=quality, settings=settings)

    def _step(self, step: str, workers: int) -> str:
        told = f"encode --workers {workers}" if step == ENCODE else step if workers == 0 else f"{step}, beside --workers {workers}"
        return f"{self._scene.label}: {told}"

    def _measure_quality(self) -> Finished:
        if self._reference is None:
            say(f"encode: {self._scene.label}, quality of the codes, not timed")
            done = self._encode(REFERENCE, "--workers", "0", "--metrics", "full")
            if done.report["failed"]:
                raise StepFailed(f"films must all come through to be timed; these did not: {done.report['failed_by_reason']}")
            self._reference = done
        return self._reference

    def _encode(self, name: str, *settings: str) -> Finished:
        where = ("--archive", str(self._folder / name), "--codec", self._scene.codec, "--batch-size", str(self._scene.batch_size))
        steps = ("--refine-steps", str(self._scene.steps))
        return run_latentray("encode", str(self._films), *where, *steps, *settings, "--quiet", "--json")

    def _take_turns(self, name: str, workers: int) -> dict[str, Any]:
        scene, turns = self._scene, self._scene.turns + 1
        cfg = EngineConfig(archive="", codec="", batch_size=scene.batch_size, refine=RefineConfig(steps=scene.steps))
        shard_rows = default_shard_rows(len(scene.files) * turns, cfg)  # what the command would choose for as many films
        shards = max(-(-len(scene.files) // shard_rows), LEAST_SHARDS if len(scene.files) > LEAST_SHARDS else 1)
        films = line_up(scene.files, self._folder / name.replace(".zarr", ""), count=shards * shard_rows * turns)
        found: dict[str, Any] = run_alone(
            "benchmarks.job.encode_turns:take_measurements",
            source=str(films),
            archive=str(self._folder / name),
            codec=scene.codec,
            beside=scene.beside if workers == 0 else [DECODE],
            turns=turns,
            workers=workers,
            shard_rows=shard_rows,
            batch_size=scene.batch_size,
            steps=scene.steps,
        )
        return found

    def _expected(self, count: int) -> Tensor:
        codes = stored_codes(self._folder / REFERENCE)
        return codes[torch.arange(count) % len(codes)]

    def _codes_off(self, name: str) -> float:
        """Verifies an archive and holds each of its codes against the reference's code of the same film; the largest difference.

        Raises StepFailed where it is more than a rounding.
        """
        archive = self._folder / name
        run_latentray("verify", str(archive), "--level", "2")
        codes = stored_codes(archive)
        off, forgiven = differences(codes, self._expected(len(codes)), self._grid(name))
        if not forgiven <= (TOLERANCE[REFINED] if self._scene.steps else TOLERANCE[_precision_of(archive)]):
            raise StepFailed(f"codes of {name} differ from the reference by this part of their length: {forgiven:.4f}")
        return off

    def _grid(self, name: str) -> float:
        """The step to whose multiples the codes of an archive are rounded, 0 where they are not."""
        return float(fingerprint_parts(self._folder / name)["latent"].get("step", 0.0))


def stored_codes(archive: Path) -> Tensor:
    """The codes of an archive, [N, *code] float32."""
    return torch.from_numpy(open_codes(archive).read().astype(np.float32))


def differences(codes: Tensor, expected: Tensor, grid: float) -> tuple[float, float]:
    """The largest relative difference of a film's code, as it is, and with a step of the grid forgiven to each number.

    A rounding may take a number to the step beside. Codes that are not finite differ without bounds.
    """
    apart = codes - expected
    forgiven = expected + apart.sign() * (apart.abs() - grid).clamp(min=0)
    return Difference.between(codes, expected).relative, Difference.between(forgiven, expected).relative


def _precision_of(archive: Path) -> str:
    """The least exact precision that its shards were made in."""
    made = {str(receipt.made_by["precision"]) for receipt in read_receipts(archive)}
    return max(made, key=lambda name: TOLERANCE[name])
