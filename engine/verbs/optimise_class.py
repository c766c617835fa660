"""`latentray optimise-class`: films with a finding out of a codec and a classifier (Segal et al. 2021), as a labelled archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.config import BACKENDS

HELP = "films with a finding: codes that climb a classifier's logit, several films a patient, as a labelled archive"

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options as INTERFACE names them; what they are unless given is the paper's where it says."""
    parser.add_argument("--codec", required=True, metavar="DIR", help="whose films are made")
    parser.add_argument("--classifier", required=True, metavar="DIR", help="who judges them, as `train densenet` writes it")
    parser.add_argument("--label", required=True, action="append", metavar="L", help=f"a finding it knows, again for more; or {ALL}")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="patients of each label")
    parser.add_argument("--to", metavar="NEW.zarr", help="the archive; left out: the codec's name and the label's, here")
    parser.add_argument("--out", metavar="DIR", help="also the films as PNG, with labels.csv")
    parser.add_argument("--size", type=int, metavar="PX", help="side of these films; left out: the codec's resolution")
    drawn = parser.add_argument_group("what is drawn")
    drawn.add_argument("--seed", type=int, default=0, help="of all draws, together with a patient's label and number")
    drawn.add_argument(
        "--codes",
        metavar="FILMS.zarr",
        help="start as the codes of this archive lie; needed where neither the codec nor a mapping network beside it says",
    )
    drawn.add_argument("--truncation", type=float, default=0.7, metavar="T", help="starts are normal numbers, none beyond this")
    drawn.add_argument("--films", default="3-6", metavar="A-B", help="films of a patient, uniform: its optimised code and some around it")
    drawn.add_argument("--sigma", type=float, default=0.2, metavar="S", help="how far these are from it, in units of the starts' spread")
    climbing = parser.add_argument_group("climbing")
    climbing.add_argument("--steps", type=int, default=200, metavar="N", help="most of a start")
    climbing.add_argument("--lr", type=float, default=0.02, metavar="A", help="length of a step, in units of the starts' spread")
    climbing.add_argument("--slots", type=int, default=32, metavar="N", help="starts that climb together")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--backend", choices=BACKENDS, default="auto", help="how gradients run; what it says is reached is judged again")
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of gradients; the judge is float32")
    machine.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N; left out: a GPU where there is one")


def run(args: argparse.Namespace) -> None:
    """Optimises label after label, writes, and prints what became of the starts of each."""
    from dataclasses import asdict

    from engine.classify.classifier import load_classifier
    from engine.encode.backends import find_device
    from engine.encode.codec import codec_files, load_codec
    from engine.encode.mapping_file import mapping_beside
    from engine.job import EMBED_LIMIT, software_versions
    from engine.latents.codes_archive import check_is_free, like_codec
    from engine.latents.optimised import Climb, optimise_class, write_archive, write_films
    from engine.latents.starts import Draws, prior_of
    from engine.latents.uphill import build_uphill
    from engine.reconstruct import check_size
    from engine.verbs.output import emit

    check_size(args.size)
    device = find_device(args.device)
    codec, classifier = load_codec(args.codec).to(device), load_classifier(args.classifier).to(device)
    labels = list(classifier.labels) if ALL in args.label else list(dict.fromkeys(args.label))
    for label in labels:
        classifier.index(label)  # before minutes of work on those that it knows
    draws = Draws(seed=args.seed, truncation=args.truncation, films=parse_films(args.films), sigma=args.sigma)
    climbing = Climb(lr=args.lr, steps=args.steps, slots=args.slots)
    prior = prior_of(codec, args.codes, mapping=None if args.codes else mapping_beside(args.codec, codec))
    name = (ALL if ALL in args.label else "-".join(labels)).replace("/", "-")
    to = Path(args.to or f"{codec.name}.{name}.zarr")
    check_is_free(to)
    most = args.count * len(labels) * args.steps
    uphill = build_uphill(codec, classifier, backend=args.backend, precision=args.precision, slots=args.slots, steps=most)
    settings = {"count": args.count, "prior": prior, "draws": draws, "climbing": climbing, "uphill": uphill}
    outcomes = [optimise_class(codec, classifier, label, **settings) for label in labels]
    files = codec_files(args.codec)
    embedded = sum(map(len, files.values())) <= EMBED_LIMIT
    like = like_codec(codec, software=software_versions(), codec_files=files if embedded else None)
    made = {"classifier": {"name": classifier.name, "digest": classifier.digest}, "labels": labels, "count": args.count}
    made |= {"draws": asdict(draws), "climb": asdict(climbing), "start": prior.origin, "gradient": uphill.parity}
    write_archive(to, like, outcomes, made)
    figures = [outcome.figures for outcome in outcomes]
    lines = [_line(each) for each in figures]
    lines.append(f"{to}: {sum(each['films'] for each in figures)} codes of {args.count * len(labels)} patients")
    if args.out:
        count = write_films(to, Path(args.out), outcomes, size=args.size, codec=None if embedded else args.codec)
        lines.append(f"{args.out}: {count} films and labels.csv")
    emit(args, "\n".join(lines), {"archive": str(to), "out": args.out, "labels": figures})


def parse_films(text: str) -> tuple[int, int]:
    """`3-6` or `4` as the fewest and the most films of a patient; raises ConfigError on anything else."""
    from engine.errors import ConfigError

    fewest, _, most = text.partition("-")
    if not fewest.isdecimal() or not (most or fewest).isdecimal():
        raise ConfigError(f"films must read like 3-6: {text}")
    return int(fewest), int(most or fewest)


def _line(figures: dict[str, float]) -> str:
    starts = (
        f"{figures['label']}: {figures['reached']} of {figures['starts']} starts reached their threshold ({figures['success_rate']:.0%})"
    )
    steps = f"steps {figures['steps_median']:.0f} median, {figures['steps_p90']:.0f} p90" if figures["reached"] else "no step counts"
    around = f"{figures['around_under_threshold']} of {figures['around']} films around them below it"
    return f"{starts} · {steps} · {around} · {figures['starts_per_second']:.2f} starts a second"
