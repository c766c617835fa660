"""The benchmarks by name, in the order in which they run: what each asks, what it has to reach, and whether it can run here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from engine.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.inputs import Options
    from benchmarks.report import Row

BENCHMARKS = {
    "decode": "benchmarks.job.decode",
    "encode": "benchmarks.job.encode",
    "memory": "benchmarks.job.memory",
    "driver": "benchmarks.job.driver",
    "archive": "benchmarks.archives.archive_reads",
    "scale": "benchmarks.job.scale",
    "refine": "benchmarks.refinement.refine",
    "slots": "benchmarks.refinement.slots",
    "backends": "benchmarks.refinement.backends",
    "kernels": "benchmarks.refinement.kernel_ops",
    "train": "benchmarks.models.train",
    "quality": "benchmarks.models.quality",
    "rate-distortion": "benchmarks.rates.rate_distortion",
    "fidelity": "benchmarks.rates.fidelity",
    "directions": "benchmarks.models.directions",
    "class-optimisation": "benchmarks.refinement.class_optimisation",
    "systems": "benchmarks.models.systems",
    "gan-train": "benchmarks.models.gan_train",
}
ON_GPU = {"gpu": "benchmarks.gpu"}  # a command of its own, for a machine that has little else; its results stand on the page
ALL = "all"


class Benchmark(Protocol):
    """What a line of the registry leads to: a module with these three names.

    It may have more: `BAR`, what it has to reach, in words; `needs(options) -> str`, why it cannot run ("" where it can); `SEEDS` and
    `WARM_UP`, those of the rows that do not say; `SINCE`, a time before which results had other rows, so that the page passes them over;
    `told(rows)`, what they come to, in lines; `plot(rows, path)`, which draws them.
    """

    QUESTION: str
    TIMED: str

    def rows(self, options: Options) -> Iterator[Row]:
        """Measures, a row at a time; a step that fails is a row with its reason."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A benchmark as the list shows it. `lacking`: why it cannot run here, "" where it can."""

    name: str
    question: str
    bar: str
    lacking: str


def load(name: str) -> Benchmark:
    """The module of a benchmark. Raises ImportError where a package that it needs is missing."""
    return cast("Benchmark", import_module((BENCHMARKS | ON_GPU)[name]))


def chosen(names: Sequence[str]) -> list[str]:
    """The benchmarks that are asked for, each once, in the order of the registry. Raises ConfigError for a name that none has."""
    unknown = [name for name in names if name not in BENCHMARKS and name != ALL]
    if unknown:
        raise ConfigError(f"benchmarks are {', '.join(BENCHMARKS)}; there is no such one: {', '.join(unknown)}")
    return [name for name in BENCHMARKS if name in names or ALL in names]


def lacking(name: str, options: Options) -> str:
    """Why a benchmark cannot run with these options on this machine, "" where it can."""
    try:
        benchmark = load(name)
    except ImportError as error:
        return f"needs a package that is not installed: {error.name}"
    asks = getattr(benchmark, "needs", None)
    return "" if asks is None else str(asks(options))


def words(name: str, rows: Sequence[Row]) -> list[str]:
    """What rows of a benchmark come to, in lines, where its module has them."""
    say = getattr(load(name), "told", None) if any(row.values for row in rows) else None
    return [] if say is None else list(say(rows))


def entries(options: Options) -> list[Entry]:
    """All benchmarks, in their order."""
    told = {name: asked(name) for name in BENCHMARKS}
    return [Entry(name=name, question=told[name][0], bar=told[name][2], lacking=lacking(name, options)) for name in BENCHMARKS]


def asked(name: str) -> tuple[str, str, str]:
    """What a benchmark asks, what it times, and what it has to reach; "" each where it cannot be imported."""
    try:
        benchmark = load(name)
    except ImportError:
        return "", "", ""
    return benchmark.QUESTION, benchmark.TIMED, str(getattr(benchmark, "BAR", ""))
