"""The main job end to end, from files to a committed archive, beside its ceilings and what one would use instead."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.inputs import Options, codec_directory, film_files, spaced
from benchmarks.job.convnext_codec import save_convnext_codec
from benchmarks.job.encode_scene import Scene, SceneBench
from benchmarks.job.encode_turns import DECODE, MODEL, PLAIN
from benchmarks.job.medvae_command import medvae_rows
from benchmarks.machine import cores
from benchmarks.report import Bar, Row

QUESTION = (
    "How fast do films become a committed archive, what are the stages busy with, and how does that compare with only decoding, with\n"
    "only the network, with a plain PyTorch script, with the published conversion loop, and with MedVAE's own command?"
)
TIMED = (
    "Timed, films/s: from the first shard submitted to the last commit; of the script and the loop, from the first batch asked for to\n"
    "the saved file; of MedVAE's command, all films but the first, by the difference of two commands, and of the job beside it, its\n"
    "worker's line. Not timed: the start of Python, Ray and the script's workers, loading and compiling a codec, making the archive, and\n"
    "a first turn of each. command s: the whole command over the films once. busy %: read and decode of the decoder's threads, the others\n"
    "of the workers' own lines; the rest is idle. codes off: largest relative difference of a film's code from an untimed run with every\n"
    "metric, whose PSNR and SSIM stand beside it (a script and a loop have their own). Archives are verified at level 2. model only: the\n"
    "encoder on batches that lie ready."
)
BAR = "PCA: 0.8 of decode only; ConvNeXt-Small at 1024x1024 on a CPU: 0.9 of model only, and 2x the plain script"
SINCE = "2026-11-21T07:00"
NAME = "encode"
SEEDS = {"weights": 0}
WARM_UP = 1
OF_DECODE, OF_MODEL, OF_PLAIN = (Bar(bound=bound, sense="at least") for bound in (0.8, 0.9, 2.0))
REFINE_STEPS = 20


def rows(options: Options) -> Iterator[Row]:
    """The linear codec in this process and on Ray, then refined; ConvNeXt; MedVAE's autoencoder."""
    files, codec = film_files(options), codec_directory(options)
    label = "PCA" if options.codec is None else Path(codec).name
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        linear = SceneBench(folder / "linear", _linear(options, label, codec, files))
        for workers in workers_of(options):
            yield from linear.rows(workers)
        yield from SceneBench(folder / "refined", _refined(options, label, codec, files)).rows(0)
        yield from SceneBench(folder / "deep", _deep(options, folder, files)).rows(0)
        yield from medvae_rows(options, folder, spaced(files, 2 if options.quick else 9))


def workers_of(options: Options) -> list[int]:
    """How many workers, each number once: 0 is this process without Ray."""
    return options.pick(quick=[0], nightly=sorted({0, cores()}), whole=sorted({0, 1, 2, cores()}))


def _linear(options: Options, label: str, codec: str, files: list[Path]) -> Scene:
    turns, commands = options.pick(quick=2, nightly=8, whole=20), not (options.quick or options.nightly)
    return Scene(label=label, codec=codec, files=files, turns=turns, bars=_bars(options, {DECODE: OF_DECODE}), commands=commands)


def _refined(options: Options, label: str, codec: str, files: list[Path]) -> Scene:
    few, turns = spaced(files, options.pick(quick=4, nightly=16, whole=64)), options.pick(quick=1, nightly=2, whole=6)
    return Scene(label=f"{label}, {REFINE_STEPS} steps", codec=codec, files=few, turns=turns, steps=REFINE_STEPS)


def _deep(options: Options, folder: Path, files: list[Path]) -> Scene:
    """ConvNeXt-Small on 1024x1024, with random weights; few films, for a small CPU does not one a second."""
    codec, few = save_convnext_codec(folder, tiny=options.quick), spaced(files, options.pick(quick=4, nightly=4, whole=16))
    turns, batch = options.pick(quick=1, nightly=2, whole=6), options.pick(quick=2, nightly=2, whole=4)
    bars = _bars(options, {MODEL: OF_MODEL, PLAIN: OF_PLAIN})
    return Scene(label=codec.name, codec=str(codec), files=few, turns=turns, batch_size=batch, bars=bars)


def _bars(options: Options, bars: dict[str, Bar]) -> dict[str, Bar]:
    """None for a quick run, which only shows that everything runs."""
    return {} if options.quick else bars
