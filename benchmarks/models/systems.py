"""All systems on the same films: the bytes of a code, what comes back of it, how fast both ways are, and a picture to judge each by."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.commands import StepFailed, run_latentray
from benchmarks.inputs import DEMO, Options, classifier_directory, codec_directories, film_sets, line_up, say, spaced
from benchmarks.models.codec_facts import images_seen, num_parameters
from benchmarks.models.system_figures import CodedFilms, decomposes, draw_system, take_apart
from benchmarks.models.system_quality import Judged, judge
from benchmarks.models.system_rates import Rates, refined_rate, take_rates
from benchmarks.report import Row, measured
from engine.encode.codec import Codec, load_codec
from engine.errors import LatentrayError
from engine.features import FeatureNetwork, load_features
from engine.quality import thumbnail
from engine.replay import Replay

QUESTION = "What is a code of each system worth on the same films, and what does it cost?"
TIMED = (
    "Values: PSNR of each film at 1024x1024, gray in [0, 1], of what `encode` stored. Thumbnails are 8-bit gray, of so many bytes.\n"
    "Fréchet: between films and reconstructions, by the features of our own classifier; few films raise it: compare within a set alone.\n"
    "Timed, encode/s and decode/s: images a second of the networks alone, eager float32, in batches, all codecs in turns; of a code found\n"
    "from the mean code: the stages `encode` and `refine` of the command. Training images: with those of the trainings that it began from."
)
NAME = "systems"
STEPS, NIGHTLY_STEPS, QUICK_STEPS = 100, 20, 4  # of refinement, where a codec has no encoder
BATCH, REPEATS = 16, 5
QUICK_BATCH, QUICK_REPEATS = 2, 2
NIGHTLY_BATCH, NIGHTLY_REPEATS, NIGHTLY_FILMS = 8, 2, 12  # films of each set
SEEDS, WARM_UP = {"phantoms": 4242}, 1


def rows(options: Options) -> Iterator[Row]:
    """A row a codec and set of films, and what `compare` has beside it."""
    codecs, sets = codec_directories(options), film_sets(options)
    if options.nightly and not options.codec:  # a dozen trained ones take a quarter of an hour
        codecs = {name: path for name, path in codecs.items() if name == DEMO or not Path(path).is_relative_to(options.systems)}
    sets = {name: options.pick(quick=films, nightly=spaced(films, NIGHTLY_FILMS), whole=films) for name, films in sets.items()}
    classifier = _classifier(options)
    say(f"systems: images a second of {len(codecs)} codecs")
    size = options.pick(quick=(QUICK_BATCH, QUICK_REPEATS), nightly=(NIGHTLY_BATCH, NIGHTLY_REPEATS), whole=(BATCH, REPEATS))
    rates: Rates | None = None
    try:
        rates = take_rates(codecs, batch=size[0], repeats=size[1])
    except StepFailed as error:
        yield Row(benchmark=NAME, step="encode/s, decode/s", failed=str(error))
    yield from compare(codecs, sets, options, classifier=classifier, rates=rates)


def compare(
    codecs: Mapping[str, str], sets: Mapping[str, list[Path]], options: Options, *, classifier: FeatureNetwork | None, rates: Rates | None
) -> Iterator[Row]:
    """Of each set of films in turn: a row a codec, then one for thumbnails of as many bytes as each code had.

    Each codec's picture is written to `options.systems/figures`; one that fails is a row as well.
    """
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        films = {name: line_up(files, Path(folder) / f"films-{at}", count=len(files)) for at, (name, files) in enumerate(sets.items())}
        bench = _Bench(Path(folder), films, classifier, rates, steps=options.pick(quick=QUICK_STEPS, nightly=NIGHTLY_STEPS, whole=STEPS))
        found: dict[str, list[Row]] = {name: [] for name in sets}
        undrawn: list[Row] = []
        for name, path in codecs.items():
            for film_set, of_set in found.items():
                say(f"systems: {name}, {film_set}")
                of_set.append(measured(NAME, f"{film_set}: {name}", bench.measure, film_set, name, path))
            try:
                bench.draw(name, path, options.systems / "figures" / f"{name}.png")
            except LatentrayError as error:
                undrawn.append(Row(benchmark=NAME, step=f"picture: {name}", failed=str(error)))
        for film_set, of_set in found.items():
            yield from (*of_set, *bench.thumbnails(film_set))
        yield from undrawn


def _classifier(options: Options) -> FeatureNetwork | None:
    directory = classifier_directory(options)
    if directory is None:
        say("systems: no folder there holds a classifier, so no Fréchet distances (latentray train densenet makes one)")
        return None
    say(f"systems: Fréchet distances by the features of {directory}")
    return load_features(directory)


class _Bench:
    """The films of each set, what they are judged by, and the archives that pictures are drawn from."""

    def __init__(
        self, folder: Path, films: Mapping[str, Path], classifier: FeatureNetwork | None, rates: Rates | None, *, steps: int
    ) -> None:
        self._folder, self._films, self._classifier, self._rates, self._steps = folder, films, classifier, rates, steps
        self._thumbnails: dict[str, dict[int, Row]] = {name: {} for name in films}
        self._coded: dict[str, list[CodedFilms]] = {}

    def measure(self, film_set: str, name: str, path: str) -> Row:
        """The row of a codec, and that of a thumbnail of as many bytes. Raises StepFailed when a command does or a film has no code."""
        codec, manifest = load_codec(path), self._films[film_set]
        steps = 0 if codec.has_encoder else self._steps
        archive = self._folder / f"{name}-{manifest.stem}.zarr"
        where = ("--archive", str(archive), "--codec", path, "--no-embed-codec")
        run_latentray("encode", str(manifest), *where, "--refine-steps", str(steps), "--metrics", "none", "--workers", "0", "--quiet")
        replay = Replay(archive, codec=path)
        judged = judge(replay, manifest, self._classifier)
        self._coded.setdefault(name, []).append(CodedFilms(archive=archive, manifest=manifest, codec=path))
        code_bytes = math.prod(codec.code_shape) * replay.dtype.itemsize
        if code_bytes not in self._thumbnails[film_set]:
            small = judge(replay, manifest, self._classifier, lambda films, _: thumbnail(films, code_bytes))
            step = f"{film_set}: thumbnail of {code_bytes:,} bytes"
            self._thumbnails[film_set][code_bytes] = self._row(step, small, {"code bytes": code_bytes}, {})
        speeds = {"encode/s": refined_rate(archive)} if steps else {}
        figures = {"code bytes": code_bytes, **speeds, **(self._rates.figures(name) if self._rates else {})}
        figures |= {"parameters": num_parameters(codec)}
        seen = images_seen(codec.spec.provenance)
        figures |= {} if seen is None else {"training images": seen}
        how = f", {steps} steps from the mean code" if steps else ""
        return self._row(f"{film_set}: {name}{how}", judged, figures, self._settings(codec, steps))

    def thumbnails(self, film_set: str) -> list[Row]:
        """A row for each number of bytes that a code of the set had, the smallest first."""
        return [row for _, row in sorted(self._thumbnails[film_set].items())]

    def draw(self, name: str, path: str, picture: Path) -> None:
        """The picture of a codec, if any of its films were coded; one that decomposes films shows its maps as well."""
        sets = self._coded.get(name, [])
        if sets and decomposes(load_codec(path)):
            sets = [take_apart(each) for each in sets]
        if sets:
            draw_system(sets, picture)
            say(f"systems: drew {picture}")

    def _row(self, step: str, judged: Judged, figures: dict[str, float], settings: dict[str, Any]) -> Row:
        judge = self._classifier
        settings = {
            "films": len(judged.psnr),
            "classifier": None if judge is None else judge.told(),
        } | settings
        columns = {"films": len(judged.psnr), **figures}
        return Row(
            benchmark=NAME,
            step=step,
            unit="dB",
            values=judged.psnr,
            value_of="film",
            quality=judged.columns(),
            figures=columns,
            settings=settings,
        )

    def _settings(self, codec: Codec, steps: int) -> dict[str, Any]:
        told = codec.spec.provenance
        rates = self._rates
        return {
            "codec": codec.name,
            "digest": codec.digest,
            "resolution": codec.recipe.resolution,
            "refine_steps": steps,
            "task": told.get("task"),
            "preset": told.get("preset"),
            "timed": None if rates is None else {"batch": rates.batch, "device": rates.device, "threads": rates.threads},
        }
