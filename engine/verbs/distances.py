"""`latentray distances`: how far sets of films are apart as a network sees them, as a table, a matrix and a map."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Fréchet distances between films with attributes, without, and other films; a map of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Films, a network, what parts the films, and what else to hold against them."""
    parser.add_argument("source", help="the films: a folder, glob, manifest, URL or phantom:N; an archive stands for its reconstructions")
    parser.add_argument("--features", required=True, metavar="PATH", help="a classifier directory, or the weights file of Inception (FID)")
    parser.add_argument("--attribute", required=True, nargs="+", metavar="A", help="a set each; as for `direction`")
    parser.add_argument(
        "--contrast", nargs="+", default=[], metavar="A", help="films with against films without, beside the baseline: sex=F"
    )
    parser.add_argument("--baseline", metavar="A", help="an attribute; left out: films that have none of --attribute")
    parser.add_argument("--labels", metavar="TABLE", help="CSV or Parquet with ids, or phantom:N; left out: what the source carries")
    parser.add_argument("--against", nargs="+", default=[], metavar="SOURCE", help="other films or archives, held against all of SOURCE")
    parser.add_argument("--films", type=int, metavar="N", help="cuts every set to N films, drawn by the seed, so that figures compare")
    parser.add_argument("--size", type=int, metavar="PX", help="side at which films are shown to the network, by default its own")
    parser.add_argument("--out", metavar="DIR", help="folder for distances.csv, distances.json and distances.png")
    parser.add_argument("--id", dest="id_from", choices=("stem", "relpath", "column"), help="what an id of SOURCE is, as in encode")
    parser.add_argument("--hash-ids", metavar="KEYFILE", help="the key that the ids of an archive were hashed with, for TABLE")
    parser.add_argument("--codec", metavar="DIR", help="the codec that made the archives, where it is not stored inside")
    parser.add_argument("--seed", type=int, default=0, help="of halves, of films that are drawn, and of the map")


def run(args: argparse.Namespace) -> None:
    """Prints the table; with --out writes matrix, map and picture."""
    from engine.distances.measured import measure_distances
    from engine.distances.scaling import check_packages
    from engine.distances.written import distance_lines, write_distances
    from engine.features import load_features
    from engine.pictures import check_folder
    from engine.verbs.keyfile import read_key
    from engine.verbs.output import emit

    if args.out:
        check_packages()
        check_folder(Path(args.out))
    found = measure_distances(
        args.source,
        load_features(args.features),
        args.attribute,
        labels=args.labels,
        contrasts=args.contrast,
        baseline=args.baseline,
        against=args.against,
        size=args.size,
        films=args.films,
        seed=args.seed,
        id_from=args.id_from,
        hash_key=read_key(args.hash_ids),
        codec=args.codec,
    )
    written = write_distances(found, Path(args.out)) if args.out else []
    lines = [*distance_lines(found), *map(str, written)]
    emit(args, "\n".join(lines), found.to_json() | {"out": args.out})
