"""MedVAE's own command, `medvae_inference`, against the job: the same random weights, the same films, one NIfTI a film."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.commands import Finished, StepFailed, run_alone, run_latentray
from benchmarks.inputs import Options, say
from benchmarks.job import medvae_weights
from benchmarks.job.encode_scene import stored_codes
from benchmarks.report import Row
from engine.archive.commits import read_receipts
from engine.archive.reader import open_archive
from engine.encode.parity import LIMITS, Difference

COMMAND, VARIABLE = "medvae_inference", "LATENTRAY_MEDVAE"
NAME, LABEL = "encode", "AutoencoderKL 4x 256x256"
SIDE = 256
INPUT = ("-model_name", "medvae_4_1_2d", "-modality", "xray", "-device", "cpu")


def medvae_rows(options: Options, folder: Path, files: list[Path]) -> Iterator[Row]:
    """Both commands over the films; one row says why where the package is not installed, or the run is to be short."""
    if options.nightly:
        yield Row(benchmark=NAME, step=f"{LABEL}: {COMMAND}", unavailable="not in the nightly run, two minutes: latentray bench encode")
        return
    command = find_command()
    if command is None:
        reason = f"no {COMMAND} on the path nor in {VARIABLE}; pip install medvae, best in an environment of its own"
        yield Row(benchmark=NAME, step=f"{LABEL}: {COMMAND}", unavailable=reason)
        return
    try:
        yield from _measured(command, folder / "medvae", files, width=32 if options.quick else 128)
    except StepFailed as error:
        yield Row(benchmark=NAME, step=f"{LABEL}: {COMMAND}", failed=str(error))


def find_command() -> Path | None:
    """The command that LATENTRAY_MEDVAE names, else the one on the path, else none."""
    named = os.environ.get(VARIABLE) or shutil.which(COMMAND)
    return Path(named) if named and Path(named).is_file() else None


def _measured(command: Path, folder: Path, files: list[Path], *, width: int) -> Iterator[Row]:
    say(f"encode: {COMMAND}, {len(files)} films")
    folder.mkdir()
    weights = Path(_run([str(command.parent / "python"), medvae_weights.__file__, str(folder / "hub"), str(width)]).splitlines()[-1])
    codec, archive, films = folder / "codec", folder / "codes.zarr", {count: _films(files[:count], folder) for count in (1, len(files))}
    run_latentray("import-checkpoint", str(weights), "--out", str(codec), "--resolution", str(SIDE))
    theirs = {count: _theirs(command, some, folder / f"codes-{count}", hub=folder / "hub") for count, some in films.items()}
    done = _ours(codec, films[len(files)], archive)
    quality = _quality(codec, films[len(files)], archive)
    off = _difference(archive, folder / f"codes-{len(files)}", limit=LIMITS["bf16"])
    ours = len(files) / sum(sum(receipt.seconds.values()) for receipt in read_receipts(archive))
    rate = _rate(theirs, len(files))
    about: dict[str, Any] = {"benchmark": NAME, "unit": "films/s", "value_of": "whole"}
    about["settings"] = {"films": len(files), "width": width, "side": SIDE}
    ratio: dict[str, Any] = {"ratio": ours / rate, "ratio_to": COMMAND}
    figures = {"command s": done.seconds}
    yield Row(step=f"{LABEL}: encode --workers 0", values=(ours,), quality=quality | {"codes off": 0.0}, figures=figures, **ratio, **about)
    figures = {"command s": theirs[len(files)]}
    yield Row(step=f"{LABEL}: {COMMAND}", values=(rate,), quality=quality | {"codes off": off}, figures=figures, **about)


def _films(files: list[Path], folder: Path) -> Path:
    """PNGs of SIDE x SIDE in a folder: the command takes films as large as they are, and at 1024x1024 minutes for each."""
    out = folder / f"films-{len(files)}"
    out.mkdir()
    for row, file in enumerate(files):
        with Image.open(file) as film:
            film.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).save(out / f"{row:03d}.png")
    return out


def _theirs(command: Path, films: Path, out: Path, *, hub: Path) -> float:
    """Seconds of the whole command, which finds our weights where its downloads would be."""
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    start = perf_counter()
    _run([str(command), "-i", str(films), "-o", str(out), *INPUT], environment)
    return perf_counter() - start


def _ours(codec: Path, films: Path, archive: Path) -> Finished:
    where = ("--archive", str(archive), "--codec", str(codec), "--film-size", str(SIDE))
    return run_latentray("encode", str(films), *where, "--workers", "0", "--metrics", "none", "--quiet", "--json")


def _quality(codec: Path, films: Path, archive: Path) -> dict[str, float]:
    codes = archive.with_suffix(".pt")
    torch.save(stored_codes(archive), codes)
    arguments = {"source": str(films), "codec": str(codec), "codes": str(codes), "film_size": SIDE}
    found: dict[str, float] = run_alone("benchmarks.job.encode_turns:measure_quality", **arguments)
    return found


def _rate(seconds: dict[int, float], films: int) -> float:
    """Films a second beyond the first: the start of the command, which loads its packages and weights, is in both runs."""
    more = seconds[films] - seconds[1]
    if more <= 0:
        raise StepFailed(f"{films} films took no longer than one, so no rate can be told: {seconds[films]:.1f} s")
    return (films - 1) / more


def _difference(archive: Path, niftis: Path, *, limit: float) -> float:
    """The largest relative difference of a film's code; raises StepFailed where it is more than half precision explains."""
    names = [str(name) for name in open_archive(archive)["sample_id"].to_numpy()]
    theirs = torch.from_numpy(np.stack([read_nifti(niftis / f"{name}.nii.gz") for name in names])[:, None])
    off = Difference.between(stored_codes(archive), theirs).relative
    if not off <= limit:
        raise StepFailed(f"codes of the job and of {COMMAND} differ by this part of their length: {off:.4f}")
    return off


def read_nifti(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The array of a gzipped NIfTI-1 file of float32 (little-endian, first index fastest); raises StepFailed for another type."""
    data = gzip.decompress(file.read_bytes())
    dims = np.frombuffer(data, "<i2", count=8, offset=40)
    kind, start = int(np.frombuffer(data, "<i2", count=1, offset=70)[0]), int(np.frombuffer(data, "<f4", count=1, offset=108)[0])
    if kind != 16:
        raise StepFailed(f"a NIfTI file must hold float32 (type 16): {kind}")
    shape = tuple(int(size) for size in dims[1 : 1 + dims[0]])
    return np.frombuffer(data, "<f4", count=int(np.prod(shape)), offset=start).reshape(shape, order="F")


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise StepFailed(f"{Path(command[0]).name} exited with {done.returncode}: {last}")
    return done.stdout.strip()
