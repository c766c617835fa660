"""`latentray decompose`: an archive as `encode` makes it, with each film's normal film, residue and saliency beside its code."""

from __future__ import annotations

import argparse

from engine.verbs import encode

HELP = "films into normal film, residue and saliency maps, beside their codes in an archive"

SETTINGS = (
    *("batch_size", "shard_rows", "workers", "address", "backend", "precision", "decoder", "threads", "max_pixels", "metrics", "film_size"),
    *("dtype", "code_step", "id_from", "limit", "resume", "overwrite", "embed_codec", "quiet", "worker_cpus", "worker_gpus"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them; those that `encode` has too mean the same."""
    parser.add_argument("source", help="a folder, a glob, a CSV or Parquet manifest, an fsspec URL of these, or phantom:N")
    parser.add_argument("--archive", required=True, metavar="OUT.zarr", help="where codes and maps go")
    parser.add_argument("--codec", required=True, metavar="DIR", help="a codec that decomposes, as `train dgm` makes them")
    maps = parser.add_argument_group("maps")
    maps.add_argument("--lungs", metavar="FILE", help="CSV of id,x0,y0,x1,y1: boxes around lungs in pixels of the files; left out: sought")
    maps.add_argument("--floor", type=float, default=0.05, metavar="F", help="least |residue| that is salient, of 2 from black to white")
    maps.add_argument("--png", metavar="DIR", help="also write a picture for each film: film, normal film, residue, saliency")
    maps.add_argument("--metrics", choices=("none", "mse", "full"), default="full", help="quality of normal film + residue, with each code")
    maps.add_argument("--film-size", type=int, default=1024, metavar="PX", help="side at which quality is measured")
    encode.add_running(parser.add_argument_group("running"))
    encode.add_archive(parser.add_argument_group("archive"))


def run(args: argparse.Namespace) -> int:
    """Decomposes; exit 1 when too many films failed."""
    from dataclasses import asdict
    from pathlib import Path

    from engine.archive.reader import mean_quality
    from engine.config import MapsConfig
    from engine.encode_dataset import run_job
    from engine.job import job_config
    from engine.map_strips import write_strips
    from engine.pictures import check_folder
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    encode.check_fraction(args)
    maps = MapsConfig(lungs=str(Path(args.lungs).absolute()) if args.lungs else "", floor=args.floor)
    settings = {name: getattr(args, name) for name in SETTINGS} | {"maps": maps}
    hash_key = read_key(args.hash_ids)
    job = job_config(args.source, args.archive, args.codec, hash_key=hash_key, **settings)
    if args.dry_run:
        return encode.dry_run(job)
    if args.png:
        check_folder(Path(args.png))  # before hours of work, not after
    summary = run_job(job)
    means = mean_quality(args.archive, ("residue_mean", "salient_share"))
    lines = [encode.sentence(args.archive, summary), *encode.reasons(summary)]
    if means["residue_mean"] is not None:
        lines.append(f"mean |residue| {means['residue_mean']:.4f}, 2 from black to white · salient {means['salient_share']:.2%} of a film")
    if args.png:
        written = write_strips(
            args.archive, args.source, Path(args.png), codec=args.codec, id_from=args.id_from, limit=args.limit, hash_key=hash_key
        )
        lines.append(f"{args.png}: {written} pictures of film, normal film, residue and saliency")
    emit(args, "\n".join(lines), asdict(summary) | means)
    return encode.verdict("decompose", args, summary)
