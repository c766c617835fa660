"""What is measured on: the films and the codec that all benchmarks of one run share, as files on this machine."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.commands import run_latentray
from engine.classify.classifier_spec import CLASSIFIER_JSON
from engine.config import DecodeConfig
from engine.encode.codec_spec import CODEC_JSON
from engine.errors import ConfigError
from engine.source.opening import read_bytes
from engine.source.place import is_uri, local_path
from engine.source.plan import Plan, make_plan

FILMS_VARIABLE = "LATENTRAY_FILMS"  # a folder of real films with manifest.csv and train.csv
PHANTOMS, PHANTOMS_TO_FIT = "phantom:64?seed=11", "phantom:320?seed=12&size=256"
QUICK_PHANTOMS, QUICK_PHANTOMS_TO_FIT = "phantom:8?seed=11&size=256", "phantom:24?seed=12&size=64"
QUICK_FILMS = 8
UNSEEN, QUICK_UNSEEN = "phantom:128?seed=4242", "phantom:8?seed=4242&size=256"  # no training of ours draws this series
DEMO = "demo"
Choice = TypeVar("Choice")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run of the benchmarks: SOURCE of the films and codec directory, None for the defaults below.

    `quick`: few films and repeats, to see that everything runs; `nightly`: the sizes of `make bench`; neither: the whole measurement.
    `scratch` keeps what is made once (phantoms as files, a fitted codec) and what is thrown away after each benchmark. `systems`: where
    `make systems` leaves the codecs that `bench systems` finds by itself, and where their pictures go. `classifier`: the directory of the
    one that judges, None for one that lies beside the codecs.
    """

    films: str | None = None
    codec: str | None = None
    classifier: str | None = None
    quick: bool = False
    nightly: bool = False
    scratch: Path = Path("runs/bench")
    systems: Path = Path("runs/systems")

    def pick(self, *, quick: Choice, nightly: Choice, whole: Choice) -> Choice:
        """The one of three values that belongs to the size of this run."""
        return quick if self.quick else nightly if self.nightly else whole

    @property
    def size(self) -> str:
        """Which of the three it is."""
        return self.pick(quick="quick", nightly="nightly", whole="whole")

    def settings(self) -> dict[str, str | None]:
        """What was asked for, as results tell it: names instead of paths, None for what was left out."""
        films = self.films if self.films is None or is_uri(self.films) else Path(self.films).name
        return {"films": films} | {
            name: path and Path(path).name for name, path in (("codec", self.codec), ("classifier", self.classifier))
        }


def say(text: str) -> None:
    """Tells a person at the terminal what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def film_files(options: Options) -> list[Path]:
    """The films as local files, in the order of their source.

    Without a source: the 1024x1024 ChestX-ray14 films of the folder that LATENTRAY_FILMS names, else phantoms. Films that are no local
    files (phantoms, objects of a store) are written to the scratch folder once, so that neither drawing nor a network is timed.
    """
    with _listed(options) as plan:
        kept = options.scratch / f"films-{plan.digest[:12]}"
        return [_as_file(ref.uri, kept / ref.sample_id) for shard in plan.shards() for ref in shard.refs]


def spaced(files: Sequence[Path], count: int) -> list[Path]:
    """`count` of them at equal distances, or all: neighbours are often of one patient."""
    return [files[at * len(files) // count] for at in range(count)] if len(files) >= count else list(files)


def films_digest(options: Options) -> str:
    """sha256, hex, of the films in the order of their source: of the bytes of each file, of the words for what is none (phantoms).

    Nothing is drawn for it. "" where the source is an archive of codes.
    """
    if options.films and options.films.rstrip("/").endswith(".zarr"):
        return ""
    found = hashlib.sha256()
    with _listed(options) as plan:
        for uri in (ref.uri for shard in plan.shards() for ref in shard.refs):
            path = local_path(uri)
            is_file = path is not None and Path(path).is_file()
            content = Path(path or "").read_bytes() if is_file else uri.encode()
            found.update(hashlib.sha256(content).digest())
    return found.hexdigest()


def line_up(files: Sequence[Path], folder: Path, *, count: int) -> Path:
    """A manifest of `count` films under names of their own: links to the files, over and over in the same order."""
    folder.mkdir(parents=True)
    names = [folder / f"{row:06d}{files[row % len(files)].suffix}" for row in range(count)]
    for row, name in enumerate(names):
        name.symlink_to(files[row % len(files)].absolute())
    manifest = folder.with_suffix(".csv")
    manifest.write_text("\n".join(["path", *(str(name.absolute()) for name in names), ""]))
    return manifest


def codec_directory(options: Options, *, components: int | None = None) -> str:
    """The codec asked for, else a PCA codec with the trainer's own settings, fitted once on films other than the measured ones.

    `components`: of the PCA codec, as many as its films allow; None: the trainer's own number.
    """
    if options.codec:
        return options.codec
    films = _folder()
    if options.quick:
        name, source, settings = "pca-quick", QUICK_PHANTOMS_TO_FIT, ["--components", "16", "--resolution", "64"]
    elif films and (films / "train.csv").is_file():
        name, source, settings = "pca-films", str(films / "train.csv"), []
    else:
        name, source, settings = "pca-phantoms", PHANTOMS_TO_FIT, []
    if components is not None:
        name, settings = f"{name}-{components}", [*settings, "--components", str(components)]
    codec = options.scratch / name
    if not (codec / "codec.json").exists():
        say(f"fitting a PCA codec on {source.rpartition('/')[2]}")
        run_latentray("train", "pca", "--data", source, "--out", str(codec), *settings)
    return str(codec)


def film_sets(options: Options) -> dict[str, list[Path]]:
    """Films by the name of their set: unseen phantoms and, where LATENTRAY_FILMS has them, real films; with a source, that one alone."""
    if options.films:
        return {"films": film_files(options)}
    sets = {"phantoms": film_files(replace(options, films=QUICK_UNSEEN if options.quick else UNSEEN))}
    return sets | ({"real films": film_files(options)} if _has_real_films() else {})


def codec_directories(options: Options) -> dict[str, str]:
    """Codecs by name: the one asked for, or those of the folder asked for in name order, then the shipped demo and the default PCA.

    Raises ConfigError where a folder was asked for and has none. Left out, it is `options.systems`, which may be empty or missing.
    """
    if options.codec and (options.codec == DEMO or (Path(options.codec) / CODEC_JSON).is_file()):
        found = {Path(options.codec).resolve().name: options.codec}
    else:
        folder = Path(options.codec) if options.codec else options.systems
        found = {path.name: str(path) for path in _folders_with(CODEC_JSON, folder)}
        if options.codec and not found:
            raise ConfigError(f"no {CODEC_JSON} lies there, nor in a folder of it: {options.codec}")
    fitted = codec_directory(replace(options, codec=None))
    return found | {name: path for name, path in {DEMO: DEMO, Path(fitted).name: fitted}.items() if name not in found}


def classifier_directory(options: Options) -> Path | None:
    """The classifier asked for, the first one beside the codecs of the folder asked for, or of `options.systems`; None without any."""
    if options.classifier:
        return Path(options.classifier)
    beside = _folders_with(CLASSIFIER_JSON, Path(options.codec)) if options.codec else []
    return next(iter([*beside, *_folders_with(CLASSIFIER_JSON, options.systems)]), None)


@contextmanager
def _listed(options: Options) -> Iterator[Plan]:
    """The plan of the films, which lies in the scratch folder while it is read."""
    options.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        source = options.films or _real_films(Path(folder)) or (QUICK_PHANTOMS if options.quick else PHANTOMS)
        yield make_plan(source, Path(folder) / "plan.parquet", shard_rows=1024, limit=QUICK_FILMS if options.quick else None)


def _folders_with(name: str, folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{name}"))


def _has_real_films() -> bool:
    folder = _folder()
    return folder is not None and (folder / "manifest.csv").is_file()


def _folder() -> Path | None:
    value = os.environ.get(FILMS_VARIABLE)
    if not value:
        return None
    if not Path(value).is_dir():
        raise ConfigError(f"{FILMS_VARIABLE} names no folder: {value}")
    return Path(value)


def _real_films(scratch: Path) -> str | None:
    """A manifest of the real films of one size and source, since mixed ones would make repeats differ for no reason of ours."""
    folder = _folder()
    if folder is None or not _has_real_films():
        return None
    with (folder / "manifest.csv").open(newline="") as file:
        paths = [folder / row["path"] for row in csv.DictReader(file) if row.get("source") == "nih" and row.get("width") == "1024"]
    if not paths:
        raise ConfigError(f"manifest has no films of source nih and width 1024, name others with --films: {folder / 'manifest.csv'}")
    manifest = scratch / "films.csv"
    manifest.write_text("\n".join(["path", *(str(path.absolute()) for path in paths), ""]))
    return str(manifest)


def _as_file(uri: str, kept: Path) -> Path:
    path = None if uri.startswith("phantom:") else local_path(uri)
    if path is not None:
        return Path(path)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}.part")
        unfinished.write_bytes(read_bytes(uri, max_bytes=DecodeConfig().max_bytes))
        unfinished.replace(kept)
    return kept
