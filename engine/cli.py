"""`latentray <verb>`: finds its verbs through the entry points of the group `latentray.verbs`, so other packages can add theirs."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any, NoReturn, Protocol

from engine.errors import LatentrayError
from engine.verbs.output import printable

GROUP = "latentray.verbs"
# Read when torch loads: threads that wait by spinning would take the cores from those that decode.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


class Verb(Protocol):
    """What an entry point leads to: a module with these three names."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the verb's options."""

    def run(self, args: argparse.Namespace) -> int | None:
        """Does it; returns the exit code, None for 0."""


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are one line, and to which `-3,0,3` is a value, as -3 is."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Prints the complaint and where to read more; exits 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str]) -> int:
    """Runs `latentray VERB ...`; returns the exit code: 0 done, 1 a check failed, 2 bad request, 3 fingerprint mismatch."""
    verbs = {point.name: point for point in entry_points(group=GROUP)}
    needs_help = not argv or argv[0] in ("-h", "--help")
    parser = OneLineParser(
        prog="latentray",
        description="Chest radiographs to latent codes and back.",
        epilog=_list_of(verbs) if needs_help else None,  # it loads them all, any of which may be another package's and broken
        formatter_class=_Raw,
    )
    parser.add_argument("--version", action="version", version=f"latentray {version('latentray')}")
    parser.add_argument("verb", choices=sorted(verbs), metavar="VERB")
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(argv[:1])
    return run_verb(args.verb, verbs[args.verb].load(), argv[1:])


def run_verb(name: str, verb: Verb, argv: Sequence[str]) -> int:
    """Parses the verb's own options and runs it; a LatentrayError becomes one line on stderr and its exit code."""
    parser = OneLineParser(prog=f"latentray {name}", description=verb.HELP, formatter_class=_Defaults)
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    verb.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout as the last line")
    parser.add_argument("--verbose", action="store_true", help="log what is being done, and full tracebacks, to stderr")
    args = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        return verb.run(args) or 0
    except LatentrayError as error:
        if args.verbose:
            logging.getLogger(__name__).info("the error below came from", exc_info=True)
        print(printable(f"latentray {name}: {error}"), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"latentray {name}: interrupted; the same command continues where this one stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of stdout left, as `head` does; nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the list of verbs as it is laid out."""


def _list_of(verbs: dict[str, EntryPoint]) -> str:
    lines = [f"  {name:<12} {verbs[name].load().HELP}" for name in sorted(verbs)] if verbs else ["  none: is latentray installed?"]
    return "verbs:\n" + "\n".join(lines) + "\n\nlatentray VERB --help says more."


if __name__ == "__main__":
    entry()
