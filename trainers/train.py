"""`latentray train TASK`: makes a codec from films. It only parses and prints; `training.py` trains, `tasks/pca.py` fits."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from typing import Any

from engine.config import DecodeConfig, check_at_least
from engine.errors import ConfigError
from engine.verbs.output import emit

HELP = "make a codec from a data set of films"

_PCA_SETTINGS = ("components", "resolution", "storage", "images", "seed", "max_failed_fraction", "batch_size")
_NOT_FOR_PCA: dict[str, Any] = {
    "limit": None,
    "validation": 0.1,
    "patient_column": "",
    "exclude": "",
    "stratify": False,
    "augment": "none",
    "codec": None,
    "discriminator": None,
    "set": [],
    "workers": 0,
}
_SHARED = ("resume", "overwrite", "codec", "discriminator", "device", "precision", "threads", "keep")
_EVERY = ("log", "sample", "evaluate", "checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of all tasks, then those of each one."""
    parser.add_argument("task", metavar="TASK", help=f"what to train: {', '.join(_tasks())}")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run's directory, and the codec's")
    parser.add_argument("--preset", default="default", metavar="P", help="a set of settings by name; cpu-small is there for every task")
    _add(parser, "--images", type=int, metavar="N", help="films seen in all; 0 or left out: as the task has it, for pca all of them")
    _add(parser, "--seed", type=int, metavar="K", help="decides whatever is random (0)")
    parser.add_argument("--dry-run", action="store_true", help="settings, parameters, operations and seconds as JSON; writes nothing")
    films = parser.add_argument_group("films")
    films.add_argument("--data", metavar="SOURCE", help="films, as `encode` takes them: a folder, a manifest, phantom:N ...")
    films.add_argument("--limit", type=int, metavar="N", help="only the first N films of the source")
    films.add_argument("--validation", type=float, default=0.1, metavar="F", help="share of the patients that are held out")
    films.add_argument("--stratify", action="store_true", help="hold out patients so that both sides have their share of every label")
    films.add_argument("--patient-column", default="", metavar="COL", help="column that names the patient; left out: looked for")
    films.add_argument(
        "--exclude", default="", metavar="FILE", help="films never to train on, such as a data set's test list; their patients are left out"
    )
    films.add_argument(
        "--augment", default="none", metavar="A", help="none, light, flip, mirror or segal2021: how films vary each time they are seen"
    )
    _add(films, "--max-failed-fraction", type=float, metavar="F", help="refuse when more films cannot be read (0.05)")
    films.add_argument("--decoder", choices=("auto", "dali", "cpu"), default="auto", help="how files become pixels")
    _add_run(parser.add_argument_group("run; not for pca, which is one pass"))
    pca = parser.add_argument_group("pca")
    _add(pca, "--components", type=int, metavar="K", help="coefficients of a film (256)")
    _add(pca, "--resolution", type=int, metavar="R", help="side of the films that the codec sees (256)")
    _add(pca, "--storage", choices=("float16", "float32"), help="type of the components on the disk (float16)")
    _add(pca, "--batch-size", type=int, metavar="B", help="films taken at a time")


def _add_run(run: Any) -> None:
    run.add_argument("--resume", action="store_true", help="go on from the last checkpoint; pca starts again")
    run.add_argument("--overwrite", action="store_true", help="begin anew where a run lies")
    run.add_argument(
        "--codec",
        metavar="DIR",
        help="the codec whose generator, or both networks, the task starts from; for densenet and retinanet, whose residues they see",
    )
    run.add_argument("--discriminator", metavar="FILE", help="a discriminator.safetensors of a pggan run")
    run.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="replace a setting of the preset, VALUE as JSON or text"
    )
    run.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda")
    run.add_argument("--precision", default="auto", metavar="P", help="auto, fp32 or bf16 (networks under autocast)")
    run.add_argument("--threads", type=int, default=0, metavar="N", help="threads of a process; 0: one a core")
    run.add_argument("--workers", type=int, default=0, metavar="N", help="processes on Ray; 0: this one, or those of torchrun")
    run.add_argument("--address", metavar="RAY", help="the Ray cluster to join; left out: RAY_ADDRESS, else this machine")
    run.add_argument("--keep", type=int, default=3, metavar="K", help="checkpoints that stay")
    for name in _EVERY:
        run.add_argument(f"--{name}-images", type=int, metavar="N", help=f"{name} every N images; left out: by the run's length")


def run(args: argparse.Namespace) -> int | None:
    """Trains; for pca it returns 1 when too many films could not be read."""
    if args.task not in _tasks():
        raise ConfigError(f"tasks in this version are {', '.join(_tasks())}; there is no such one: {args.task}")
    return _train_pca(args) if args.task == "pca" else _train(args)


def _train(args: argparse.Namespace) -> int:
    from trainers.training import train, work

    only = [name for name in ("components", "resolution", "storage", "batch_size") if hasattr(args, name)]
    if only:
        raise ConfigError(f"only pca takes --{only[0].replace('_', '-')}; --set NAME=VALUE replaces a setting: {getattr(args, only[0])}")
    request = _request(args)
    if args.dry_run:
        from trainers.forecast import forecast

        print(json.dumps(forecast(request), indent=None if args.json else 2))
        return 0
    if args.workers:
        from engine.cluster.train_group import train_on_ray
        from trainers.run_folder import check_folder, open_folder, read_note
        from trainers.stopping import STOP

        check_at_least("workers", args.workers, 0)
        there = request.located()
        check_folder(there.folder, resume=there.resume, overwrite=there.overwrite)
        open_folder(there.folder, {"task": there.task, "preset": there.preset, "seed": there.seed})  # Ray Train writes there first
        scratch, stop = there.folder / "ray", (there.folder / STOP).touch
        train_on_ray(work, there.to_json(), workers=args.workers, address=args.address, scratch=scratch, stop=stop)
        told: dict[str, Any] | None = read_note(there.folder)
    else:
        told = train(request)
    if told is None:  # the first process of the run tells
        return 0
    numbers = {name: value for name, value in told["figures"].items() if isinstance(value, int | float)}
    figures = "".join(f" · {name} {value:.4g}" for name, value in numbers.items())
    state = "stopped; --resume goes on" if told["is_stopped"] else "done"
    emit(args, f"{args.out}: {told['images']} images in {told['seconds']:.0f} s · {state}{figures}", told)
    return 0


def _request(args: argparse.Namespace) -> Any:
    from trainers.film_request import FilmsRequest
    from trainers.presets.films import SplitConfig
    from trainers.training import Request

    films = None
    if args.data is not None:
        films = FilmsRequest(
            source=args.data,
            limit=args.limit,
            split=SplitConfig(validation=args.validation, patient_column=args.patient_column, exclude=args.exclude, stratify=args.stratify),
            augment=args.augment,
            decode=DecodeConfig(decoder=args.decoder, threads=args.threads),
            **({"max_failed_fraction": args.max_failed_fraction} if hasattr(args, "max_failed_fraction") else {}),
        )
    every = {name: value for name in _EVERY if (value := getattr(args, f"{name}_images")) is not None}
    return Request(
        task=args.task,
        out=args.out,
        preset=args.preset,
        changes=dict(map(_change, args.set)),
        images=getattr(args, "images", None) or None,
        seed=getattr(args, "seed", 0),
        films=films,
        every=every,
        **{name: getattr(args, name) for name in _SHARED},
    )


def _change(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; the value is JSON where it reads as JSON."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set must read like NAME=VALUE: {text}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _train_pca(args: argparse.Namespace) -> int:
    from trainers.presets.pca import PRESETS
    from trainers.tasks.pca import fit_pca

    if args.preset not in PRESETS:
        raise ConfigError(f"presets of pca are {', '.join(PRESETS)}: {args.preset}")
    if args.data is None:
        raise ConfigError("pca needs --data")
    unread = [name for name, default in _NOT_FOR_PCA.items() if getattr(args, name) != default]
    if unread:
        raise ConfigError(f"pca, which is one pass over all films, takes no --{unread[0].replace('_', '-')}: {getattr(args, unread[0])}")
    given = {name: value for name, value in vars(args).items() if name in _PCA_SETTINGS}
    decode = DecodeConfig(decoder=args.decoder, threads=args.threads)
    cfg = replace(PRESETS[args.preset](), decode=decode, **given)
    if args.dry_run:
        print(json.dumps({"task": "pca", "settings": asdict(cfg), "parameters": {"codec": (cfg.components + 1) * cfg.resolution**2}}))
        return 0
    report = fit_pca(args.data, args.out, cfg)
    share = f"{report.explained_variance:.2%} of the variance"
    quality = f"{report.psnr:.2f} dB mean PSNR at {report.resolution}x{report.resolution} on {report.psnr_films} of these films"
    text = f"{report.codec}: {report.components} components of {report.films} films, {share}, {quality}, {report.seconds:.1f} s"
    emit(args, text, vars(report))
    if report.failed:
        print(f"films left out because they could not be read: {report.failed}", file=sys.stderr)
    return int(report.failed_fraction > cfg.max_failed_fraction)


def _add(group: Any, *names: str, **options: Any) -> None:
    """An option that leaves no trace unless it is given, so that the preset's own value stands."""
    group.add_argument(*names, default=argparse.SUPPRESS, **options)


def _tasks() -> list[str]:
    from trainers.catalogue import TASKS

    return ["pca", *TASKS]
