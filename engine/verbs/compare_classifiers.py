"""`latentray compare-classifiers`: classifiers on the same films, label by label with intervals: the table of GAN-train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.classify.classifier import Classifier
    from engine.classify.roc import Interval
    from engine.compare_classifiers import Comparison

HELP = "classifiers tested on the same films, with paired intervals (GAN-train: trained on synthetic films, tested on real ones)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The films, and who is tested on them."""
    parser.description = (
        "Area under the ROC curve of each label, and their average, of several classifiers on the same films. GAN-train: classifiers that "
        "were trained on synthetic films, on a SOURCE of real ones. GAN-test: a classifier that was trained on real films, on a SOURCE of "
        "synthetic ones. Every difference from the first classifier has an interval of its own, over the same draws of films for both."
    )
    parser.add_argument("source", metavar="SOURCE", help="films that none of them was trained on, as encode takes them, with labels")
    parser.add_argument(
        "--classifier",
        required=True,
        nargs="+",
        metavar="NAME=DIR",
        help="of `train densenet`; the first is what others are held against",
    )
    parser.add_argument("--labels", metavar="TABLE", help="CSV or Parquet with ids, or phantom:N; left out: what SOURCE says of its films")
    parser.add_argument(
        "--attribute", nargs="+", default=[], metavar="A", help="a label by its columns, as `NAME: TERM, TERM`; left out: as in training"
    )
    parser.add_argument("--csv", metavar="FILE", help="the table, a row a label and classifier, with paired differences")
    parser.add_argument("--id", dest="id_from", choices=("stem", "relpath", "column"), help="what an id of SOURCE is, as in encode")
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="draws of films, or of patients where a column names them")
    parser.add_argument("--seed", type=int, default=0, help="of these draws")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N; left out: a GPU where there is one")


def run(args: argparse.Namespace) -> None:
    """Tests and prints: labels down, classifiers across."""
    from dataclasses import asdict

    from engine.compare_classifiers import compare_classifiers, write_table
    from engine.config import check_at_least
    from engine.verbs.output import emit

    check_at_least("resamples", args.resamples, 1)
    check_at_least("seed", args.seed, 0)
    found = compare_classifiers(
        args.source,
        load_named(args.classifier, args.device),
        labels=args.labels,
        attributes=args.attribute,
        id_from=args.id_from,
        resamples=args.resamples,
        seed=args.seed,
    )
    lines = [table(found), *_asides(found)]
    if args.csv:
        write_table(Path(args.csv), found)
        lines.append(f"{args.csv}: {len(found.cells)} rows")
    emit(args, "\n".join(lines), {"source": args.source, **asdict(found), "csv": args.csv})


def load_named(texts: list[str], device: str | None) -> dict[str, Classifier]:
    """Classifiers by name of `NAME=DIR`; raises ConfigError for other words and for names that come twice."""
    from engine.classify.classifier import load_classifier
    from engine.encode.backends import find_device
    from engine.errors import ConfigError

    found: dict[str, Classifier] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"classifier must read like NAME=DIR: {text}")
        if name in found:
            raise ConfigError(f"classifiers must have names of their own: {name}")
        found[name] = load_classifier(folder).to(find_device(device))
    return found


def table(found: Comparison) -> str:
    """Labels down, classifiers across with intervals; below, how far each is from the first on average."""
    from engine.compare_classifiers import AVERAGE

    header = ["", "with", *found.classifiers]
    rows = []
    for label in (*found.labels, AVERAGE):
        cells = [found.cell(label, name) for name in found.classifiers]
        rows.append([label, "" if label == AVERAGE else f"{cells[0].films_with:,}", *(_text(cell.auc) for cell in cells)])
    first, *others = found.classifiers
    differences = [_text(found.cell(AVERAGE, name).difference, sign="+") for name in others]
    if others:
        rows.append([f"less {first}", "", "", *differences])
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    sides = (str.ljust, str.rjust, *(str.ljust for _ in found.classifiers))
    aligned = ["  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)) for row in (header, *rows)]
    drawn = f"{found.films:,} films" + ("" if found.patients is None else f" of {found.patients:,} patients")
    return "\n".join([*(line.rstrip() for line in aligned), f"{drawn}, area under the ROC curve with its 95 % interval"])


def _text(of: Interval, sign: str = "") -> str:
    return f"{of.value:{sign}.3f} ({of.low:{sign}.3f} to {of.high:{sign}.3f})"


def _asides(found: Comparison) -> list[str]:
    """What was left out, and why."""
    lines = [
        f"left out: {count} {'film' if count == 1 else 'films'} {reason}"
        for count, reason in ((found.unread, "that cannot be read"), (found.unlabelled, "of which not every label is known"))
        if count
    ]
    lines += [f"left out, not known to every classifier: {label}" for label in found.not_shared]
    return lines + [f"left out, all films have it or none has: {label}" for label in found.one_class]
