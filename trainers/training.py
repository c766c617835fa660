"""One training run, from a request to its outcome: what each of its processes does. `train.py` asks, `loop.py` trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

import engine
from engine.code_step import FILMS as FILMS_FOR_STEP
from engine.code_step import record_step
from engine.config import DecodeConfig, check_at_least, check_choice, parse_loss
from engine.encode.codec import Codec, load_codec
from engine.encode.codec_spec import CODEC_JSON
from engine.encode.precision import cpu_has_bf16
from engine.errors import ConfigError
from engine.source.place import is_uri
from trainers.catalogue import TASKS, builder_of, settings_of
from trainers.film_feed import FilmFeed
from trainers.film_request import FilmsRequest, build_feed
from trainers.loop import Loop, Outcome
from trainers.presets.films import SplitConfig
from trainers.presets.loop import LoopConfig
from trainers.ranks import Ranks, join, leave
from trainers.run_folder import FILMS, check_folder, clear_folder, note, open_folder
from trainers.schedule import check_shares
from trainers.task import KnowsFilms, Task, WantsBoxes
from trainers.tasks.joined_codec import weights_of

_PATHS = ("inception", "perceptual_weights", "imagenet_weights", "boxes")  # settings that say where files lie on one machine


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `latentray train` was asked for, as plain values that travel to other processes."""

    task: str
    out: str
    preset: str = "default"
    changes: dict[str, Any] = field(default_factory=dict)  # settings of the preset that are replaced, by name
    images: int | None = None
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    films: FilmsRequest | None = None
    codec: str | None = None
    discriminator: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    every: dict[str, int] = field(default_factory=dict)  # images between log, sample, evaluate, checkpoint; left out: by the run's length
    keep: int = 3

    def __post_init__(self) -> None:
        entry = TASKS[self.task]
        for name, need, given in (
            ("--codec", entry.codec, self.codec),
            ("--discriminator", entry.discriminator, self.discriminator),
            ("--data", "required" if entry.films else "no", self.films),
        ):
            if need == "required" and given is None:
                raise ConfigError(f"{self.task} needs {name}")
            if need == "no" and given is not None:
                raise ConfigError(f"{self.task} takes no {name}: {getattr(given, 'source', given)}")
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check_at_least("threads", self.threads, 0)
        check_at_least("images", self.images or 0, 0)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be 0 or more and less than 2^63: {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the run's files and its codec lie."""
        return Path(self.out)

    def settings(self) -> Any:
        """The task's settings: the preset's, with the changes asked for."""
        return settings_of(self.task, self.preset, self.changes)

    def located(self) -> Request:
        """The same with paths that hold in a process that was started elsewhere."""

        def at(path: str | None) -> str | None:
            return str(Path(path).absolute()) if path is not None and Path(path).exists() else path

        films = self.films
        if films is not None:
            source = films.source if is_uri(films.source) else str(Path(films.source).absolute())  # a glob as well
            films = replace(films, source=source, split=replace(films.split, exclude=at(films.split.exclude or None) or ""))
        out = str(self.folder.absolute())
        return replace(self, out=out, codec=at(self.codec), discriminator=at(self.discriminator), films=films)

    def to_json(self) -> dict[str, Any]:
        """The request as plain values; `from_json` takes them."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Request:
        """The request again."""
        films = values["films"]
        if films is not None:
            parts = {"decode": DecodeConfig(**films["decode"]), "split": SplitConfig(**films["split"])}
            films = FilmsRequest(**{**films, **parts})
        return Request(**{**values, "films": films})


def train(request: Request) -> dict[str, Any] | None:
    """Trains as one process of the run: the only one, one of `torchrun`'s, or one of Ray Train's. The first tells of it."""
    if request.threads:
        torch.set_num_threads(request.threads)
    ranks = join(request.device)
    try:
        return _train(request, ranks)
    finally:
        leave()


def work(values: dict[str, Any]) -> None:
    """What Ray Train runs in each of its processes."""
    train(Request.from_json(values))


def _train(request: Request, ranks: Ranks) -> dict[str, Any] | None:
    out = request.folder
    check_folder(out, resume=request.resume, overwrite=request.overwrite)
    codec = given_codec(request)
    cfg = fitting_settings(request, codec)
    loop_cfg = loop_settings(request, cfg, ranks.device)
    task = build_task(request, cfg, codec, ranks.device)
    check_shares(task, loop_cfg.images, ranks)
    ranks.wait()
    if ranks.is_first:
        open_folder(out, {"task": request.task, "preset": request.preset, "seed": request.seed})
    feed = None
    if request.films is not None and task.recipe is not None:
        feed = build_feed(
            request.films,
            out / FILMS,
            task.recipe,
            seed=request.seed,
            replace=not request.resume,
            ranks=ranks,
            labels=task.labels,
            alternate=task.alternate,
            boxes=task.boxes if isinstance(task, WantsBoxes) else "",
        )
        if isinstance(task, KnowsFilms):
            task.on_films(feed.label_counts, feed.held_out)
    loop = Loop(task, feed, loop_cfg, ranks, out, settings=lasting_settings(request, cfg, codec, loop_cfg, feed))
    if request.resume:
        loop.resume()
    elif ranks.is_first:
        clear_folder(out)
    try:
        outcome = loop.run()
    finally:
        if feed is not None:
            feed.close()
    told = tell(request, task, feed, outcome, loop_cfg)
    if ranks.is_first:
        task.export(out, told)
        if (out / CODEC_JSON).is_file():
            told["code_step"] = _record_step(out, feed)
        note(out, told)
    ranks.wait()
    return told if ranks.is_first else None


def _record_step(out: Path, feed: FilmFeed | None) -> float:
    """How coarsely the new codec's codes may be rounded, on held-out films; 0 where there are none."""
    if feed is None:
        return 0.0
    return record_step(out, feed.held_out(load_codec(out).recipe.resolution, limit=FILMS_FOR_STEP))


def given_codec(request: Request) -> Codec | None:
    """The codec that the task starts from, if one was named."""
    return None if request.codec is None else load_codec(request.codec)


def fitting_settings(request: Request, codec: Codec | None) -> Any:
    """The task's settings, cut to the codec that it starts from where they can be."""
    cfg = request.settings()
    return cfg.cut_to(codec.recipe.resolution) if codec is not None and hasattr(cfg, "cut_to") else cfg


def build_task(request: Request, cfg: Any, codec: Codec | None, device: torch.device) -> Task:
    """The task on its device, with the codec and discriminator that it starts from."""
    entry = TASKS[request.task]
    given: dict[str, Any] = {}
    if entry.codec != "no":
        given["codec"] = codec
    if entry.codec_folder:
        given["codec_folder"] = Path(request.codec or "")
    if entry.discriminator != "no":
        given["discriminator"] = request.discriminator
    return cast("Task", builder_of(request.task)(cfg, device=device, seed=request.seed, **given))


def loop_settings(request: Request, cfg: Any, device: torch.device) -> LoopConfig:
    """How the loop runs: images, precision as this device has it, and how often it logs."""
    images = cfg.images if request.images is None else request.images
    precision = request.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" or cpu_has_bf16() else "fp32"
    eighth = max(1, images // 8)
    defaults = {"log": max(1, images // 100), "sample": eighth, "evaluate": eighth, "checkpoint": eighth}
    every = {f"{name}_images": value for name, value in (defaults | request.every).items()}
    return LoopConfig(images=images, seed=request.seed, precision=precision, keep=request.keep, **every)  # type: ignore[arg-type]  # checked


def lasting_settings(request: Request, cfg: Any, codec: Codec | None, loop_cfg: LoopConfig, feed: FilmFeed | None) -> dict[str, Any]:
    """What a resumed run must agree with: settings but for the number of images, seed, precision, codec and films."""
    lasting = {name: value for name, value in asdict(cfg).items() if name not in ("images", *_PATHS)}
    lasting |= {"seed": request.seed, "precision": loop_cfg.precision}
    if codec is not None:
        lasting["codec"] = codec.digest
    if weights := _perceptual_weights(cfg):
        lasting["perceptual_weights"] = weights
    if feed is not None:
        lasting["films"] = feed.digest
    return cast("dict[str, Any]", json.loads(json.dumps(lasting)))  # as a checkpoint gives them back: tuples are lists


def _perceptual_weights(cfg: Any) -> dict[str, dict[str, Any]]:
    """Digests of the networks that the task's loss looks through, where it does."""
    if not hasattr(cfg, "perceptual_weights"):
        return {}
    return weights_of(parse_loss(cfg.loss), lpips_net=cfg.lpips_net, weights=cfg.perceptual_weights)


def tell(request: Request, task: Task, feed: FilmFeed | None, outcome: Outcome, loop_cfg: LoopConfig) -> dict[str, Any]:
    """The provenance of what a run makes, and what its command prints: no path, no name of a film or patient."""
    return {
        "task": request.task,
        "preset": request.preset,
        "changes": {name: value for name, value in request.changes.items() if name not in _PATHS},
        "seed": request.seed,
        "precision": loop_cfg.precision,
        "images": outcome.images,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "is_stopped": outcome.is_stopped,
        "figures": outcome.figures,
        "data": None if feed is None else feed.describe(),
        "software": {"latentray": engine.__version__, "torch": torch.__version__},
    }
