"""`latentray encode`: the main job, and exactly what `python engine/encode_dataset.py` takes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, get_args

from engine.config import BACKENDS, LpipsNet, OptimiserName

if TYPE_CHECKING:
    from engine.job import JobConfig

HELP = "a data set of films in, a verified archive of codes out"

WEIGHTS_HELP = (
    "folder with the published weights of the terms lpips and moco, named alexnet-owt-7be5be79, vgg16-397923af and moco_v2_800ep_pretrain "
    "as their publishers do, or .safetensors; left out: where torch.hub keeps downloads. Only `download` downloads; `random` is for tests"
)
SETTINGS = (
    *("refine_steps", "refine_lr", "refine_optimiser", "coarse", "target_mse", "patience", "loss", "lpips_net", "lpips_size"),
    *("batch_size", "shard_rows", "workers", "worker_cpus", "worker_gpus", "backend", "precision"),
    *(
        "decoder",
        "threads",
        "max_pixels",
        "metrics",
        "film_size",
        "dtype",
        "code_step",
        "id_from",
        "limit",
        "resume",
        "overwrite",
        "address",
    ),
    *("embed_codec", "seed", "quiet", "fidelity", "fidelity_strict", "region"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them."""
    parser.add_argument("source", help="a folder, a glob, a CSV or Parquet manifest, an fsspec URL of these, or phantom:N")
    parser.add_argument("--archive", required=True, metavar="OUT.zarr", help="where the codes go")
    parser.add_argument("--codec", required=True, metavar="NAME_OR_DIR", help="a codec directory, or a shipped one by name")
    _add_coding(parser.add_argument_group("coding"))
    add_running(parser.add_argument_group("running"))
    add_archive(parser.add_argument_group("archive"))


def _add_coding(group: Any) -> None:
    group.add_argument("--refine-steps", type=int, default=0, metavar="N", help="optimise each code by N steps; 0 keeps the encoder's")
    group.add_argument("--refine-optimiser", choices=get_args(OptimiserName), default="lbfgs", help="how refinement descends")
    group.add_argument("--refine-lr", type=float, default=0.2, metavar="RATE", help="learning rate of refinement")
    group.add_argument("--no-coarse", dest="coarse", action="store_const", const=False, help="refine at full size from the first step on")
    group.add_argument("--loss", metavar="TERMS", help="refinement loss, for example mse=1,lpips=0.8,moco=0.1; left out: the codec's own")
    group.add_argument("--lpips-net", choices=get_args(LpipsNet), default="alex", help="network of the term lpips")
    group.add_argument("--lpips-size", type=int, default=0, metavar="PX", help="side at which lpips looks at films; 0: the codec's own")
    group.add_argument("--weights", metavar="FOLDER|download|random", help=WEIGHTS_HELP)
    group.add_argument("--target-mse", type=float, default=0.0, metavar="MSE", help="a film that reaches it is done; 0: off")
    group.add_argument("--patience", type=int, default=0, metavar="N", help="a film that gains nothing for N steps is done; 0: off")
    group.add_argument("--metrics", choices=("none", "mse", "full"), default="full", help="quality stored with each code")
    group.add_argument(
        "--fidelity", default="none", metavar="TARGET", help="the film itself beside its code: bytes=N, psnr=DB, max-error=K or lossless"
    )
    group.add_argument("--fidelity-strict", action="store_true", help="a film that cannot meet it fails; left out: the best met is kept")
    group.add_argument("--region", default="", metavar="COLUMN", help="a manifest's column with boxes x0,y0,x1,y1 or masks to keep exactly")
    group.add_argument("--film-size", type=int, default=1024, metavar="PX", help="side at which quality is measured")
    group.add_argument("--seed", type=int, default=0, help="for runs that draw at random; in this version none does")


def add_running(group: Any) -> None:
    """Where and how films are worked on, which leaves no trace in the codes but rounding; and what is shown of it."""
    group.add_argument("--workers", type=int, metavar="N", help="Ray workers; 0: in this process; left out: 0, or one a GPU of a cluster")
    group.add_argument("--worker-cpus", type=float, metavar="C", help="cores of each worker; left out: a share of the nodes that are there")
    group.add_argument("--worker-gpus", type=float, metavar="G", help="GPUs of each worker; with either, workers wait for nodes that join")
    group.add_argument("--address", metavar="RAY", help="the Ray cluster to join; left out: RAY_ADDRESS, else this machine")
    group.add_argument("--batch-size", type=int, default=16, metavar="B", help="films coded together")
    group.add_argument("--backend", choices=BACKENDS, default="auto", help="how networks run")
    group.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the networks")
    group.add_argument("--decoder", choices=("auto", "dali", "cpu"), default="auto", help="how files become pixels")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="decoding threads of a worker; 0: one a core")
    group.add_argument(
        "--max-pixels", type=int, default=100_000_000, metavar="N", help="films whose header claims more, as a square, are refused"
    )
    group.add_argument("--dry-run", action="store_true", help="plan, bytes, operations and seconds by part as JSON; writes nothing")
    group.add_argument("--quiet", action="store_true", help="no progress")


def add_archive(group: Any) -> None:
    """How rows are named, cut and stored, and what becomes of an archive that exists."""
    group.add_argument("--shard-rows", type=int, metavar="S", help="films a shard; left out: by the size of the data set")
    group.add_argument(
        "--id", dest="id_from", choices=("stem", "relpath", "column"), help="what names a row; left out: a manifest's id column, else stem"
    )
    group.add_argument("--hash-ids", metavar="KEYFILE", help="store a keyed hash of each id instead of the id")
    group.add_argument("--limit", type=int, metavar="N", help="only the first N films of the plan")
    group.add_argument("--dtype", choices=("f2", "f4"), default="f2", help="stored type of the codes")
    group.add_argument(
        "--code-step",
        type=float,
        metavar="STEP",
        help="store multiples of this; 0: codes as they are; left out: the codec's own, with f2; a quarter of it if refined",
    )
    group.add_argument("--embed-codec", action=argparse.BooleanOptionalAction, help="store the codec inside; left out: when under 64 MiB")
    group.add_argument("--max-failed-fraction", type=float, default=0.05, metavar="F", help="exit 1 when more films than this failed")
    group.add_argument("--resume", action="store_true", help="continue an archive; refuse to start one")
    group.add_argument("--overwrite", action="store_true", help="remove an existing archive first")


def run(args: argparse.Namespace) -> int:
    """Encodes; exit 1 when too many films failed."""
    from engine.job import job_config
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    check_fraction(args)
    settings = {name: getattr(args, name) for name in SETTINGS}
    settings |= {"coarse": args.coarse is not False, "weights": args.weights or ""}
    job = job_config(args.source, args.archive, args.codec, hash_key=read_key(args.hash_ids), **settings)
    if args.dry_run:
        return dry_run(job)
    from dataclasses import asdict

    from engine.encode_dataset import run_job

    summary = run_job(job)
    emit(args, "\n".join([sentence(args.archive, summary), *reasons(summary)]), asdict(summary))
    return verdict("encode", args, summary)


def dry_run(job: JobConfig) -> int:
    """Prints what the job would cost as JSON, and does nothing else."""
    import json

    from engine.estimate import estimate

    print(json.dumps(estimate(job)))
    return 0


def check_fraction(args: argparse.Namespace) -> None:
    """Raises ConfigError for a share of failed films that is none."""
    from engine.errors import ConfigError

    if not 0 <= args.max_failed_fraction <= 1:
        raise ConfigError(f"max-failed-fraction must be 0 to 1: {args.max_failed_fraction}")


def reasons(summary: Any) -> list[str]:
    """A line for each reason why films failed."""
    return [f"  {count} {reason}" for reason, count in summary.failed_by_reason.items()]


def verdict(verb: str, args: argparse.Namespace, summary: Any) -> int:
    """The exit code: 1, and a line, when too many films failed."""
    if summary.failed > args.max_failed_fraction * summary.rows:
        print(f"latentray {verb}: too many films failed: {summary.failed} of {summary.rows}", file=sys.stderr)
        return 1
    return 0


def sentence(archive: str, summary: Any) -> str:
    """What came of a run, in one line."""
    quality = "" if summary.psnr is None else f" · PSNR {summary.psnr:.2f} dB · SSIM {summary.ssim:.3f}"
    rate = f" · {summary.images_per_second:.1f} images/s" if summary.encoded_now else " · nothing left to do"
    return f"{archive}: {summary.rows} films · {summary.ok} ok · {summary.failed} failed{quality}{rate}"
