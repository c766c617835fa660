"""The tables of the project's README that come from results, between their markers: speed, quality by bytes, layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from benchmarks.inputs import DEMO
from benchmarks.rates.fidelity_methods import FILM, RESIDUAL
from benchmarks.rates.rate_distortion_words import winner
from benchmarks.report import Row, figure, span_of
from benchmarks.results_file import Results
from engine.errors import ConfigError

SPEED, QUALITY, LAYERS = "speed", "quality", "layers"
OTHER_WORKERS, CEILING = re.compile("--workers [1-9]"), " only"  # decode only, model only
OURS = "encode"  # what its alternatives are compared to; they stand on the page
FAST = ("encode", "refine")  # what people would do otherwise is in the rows that these are compared to
RATED, KEPT = "rate-distortion", "fidelity"
BUDGETS = (256, 512, 1024)  # bytes a film
MEASURED_FIRST = "real films"  # the set that the README shows, where there is one
LAYER_HEADS = ("best plain codec", "times", "dB / MS-SSIM", "films/s in, out", "plain films/s", "layer of the residual")
PSNR, SSIM, MS_SSIM = "mean PSNR dB", "SSIM", "MS-SSIM"

Found = Sequence[tuple[str, Results]]


def in_readme(text: str, found: Found) -> str:
    """The text with its tables renewed; one that no results are there for is left as it is."""
    for name, table in ((SPEED, speed), (QUALITY, quality), (LAYERS, layers)):
        lines = list(table(found))
        text = _between(text, name, lines) if lines else text
    return text


def speed(found: Found) -> Iterator[str]:
    """A line a comparison, each with what it is compared to, then the files; nothing without results."""
    pairs = [(row, results) for name, results in found if name in FAST for row in comparisons(results.of(name))]
    if not pairs:
        return
    yield "| | | spread | beside | | times | quality |"
    yield "| --- " * 7 + "|"
    for row, results in pairs:
        other = compared_to(row, results.of(row.benchmark))
        beside = f"{figure(other.spread.median)} {other.unit}" if other else ""
        words = ", ".join(f"{name} {figure(value)}" for name, value in row.quality.items())
        ours = f"{figure(row.spread.median)} {row.unit}"
        times = "" if row.ratio is None else f"{row.ratio:.2f}"
        yield f"| `{row.benchmark}`: {row.step} | {ours} | {span_of(row)} | {row.ratio_to} | {beside} | {times} | {words} |"
    yield ""
    yield _files(results for _, results in pairs)


def comparisons(rows: Sequence[Row]) -> list[Row]:
    """What has something to reach, of several that are compared to the same the fastest; and, of `encode`, what one would use instead.

    Of `encode` each codec has its own; other numbers of workers, and ceilings that nothing has to reach, are on the page.
    """
    compared = [row for row in rows if row.values and row.ratio is not None and not OTHER_WORKERS.search(row.step)]
    is_encode = any(row.benchmark == "encode" for row in compared)
    best: dict[str, Row] = {}
    for row in (row for row in compared if row.bar):
        key = row.step if is_encode else f"{row.unit} {row.ratio_to}"
        best[key] = max(best.get(key, row), row, key=lambda each: each.ratio or 0)
    barred = list(best.values())
    told = [compared_to(row, rows) for row in barred]
    instead = [row for row in compared if is_encode and not row.bar and not row.ratio_to.endswith((CEILING, OURS)) and row not in told]
    return [row for row in compared if row in barred or row in instead]


def compared_to(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row that `row.ratio_to` names, of the same codec: the nearest before it whose step has these words, else the nearest after it."""
    at, codec = rows.index(row), row.step.rpartition(": ")[0]
    near = [*reversed(rows[:at]), *rows[at + 1 :]] if row.ratio_to else []
    near = [each for each in near if each.step.rpartition(": ")[0] == codec and each is not row]
    return next((each for each in near if each.values and each.unit == row.unit and row.ratio_to in each.step), None)


def quality(found: Found) -> Iterator[str]:
    """A line a method: the best PSNR, with its SSIM, at up to so many bytes a film; nothing without results."""
    for results in [results for name, results in found if name == RATED][-1:]:
        rows = [row for row in results.of(RATED) if row.values and PSNR in row.quality and row.value_of == "film"]
        sets = list(dict.fromkeys(str(row.settings["films"]) for row in rows))
        films = MEASURED_FIRST if MEASURED_FIRST in sets else sets[0]
        of_set = [row for row in rows if row.settings["films"] == films]
        yield f"| {films}, {len(of_set[0].values)} | {' | '.join(f'up to {most:,} bytes' for most in BUDGETS)} |"
        yield "| --- " * (len(BUDGETS) + 1) + "|"
        for method in _methods(of_set):
            cells = [_best([row for row in of_set if _method(row) == method and row.figures["bytes"] <= most]) for most in BUDGETS]
            yield f"| {method} | {' | '.join(cells)} |"
        yield ""
        yield _files([results])


def layers(found: Found) -> Iterator[str]:
    """A line a promise: the layer beside the best plain codec, what comes back, and how fast; nothing without results."""
    for results in [results for name, results in found if name == KEPT][-1:]:
        rows = [row for row in results.of(KEPT) if row.values]
        kept = [row for row in rows if row.settings["kind"] == FILM]
        heads = [f"bytes a film, {len(kept[0].values)} films", "layer", *LAYER_HEADS]
        yield f"| {' | '.join(heads)} |"
        yield "| --- " * len(heads) + "|"
        for row in kept:
            of_target = {each.settings.get("method"): each for each in rows if each.settings["target"] == row.settings["target"]}
            plain, residual = of_target.get(row.ratio_to), of_target.get(RESIDUAL)
            times = "" if row.ratio is None else f"{row.ratio:.3f}"
            cells = [f"`{row.settings['target']}`", _mean_bytes(row), f"{_mean_bytes(plain)} {row.ratio_to}".strip(), times]
            yield f"| {' | '.join([*cells, _comes_back(row), _in_and_out(row), _in_and_out(plain), _mean_bytes(residual)])} |"
        yield ""
        yield _files([results])


def _mean_bytes(row: Row | None) -> str:
    return f"{row.figures['mean bytes']:,.0f}" if row else ""


def _in_and_out(row: Row | None) -> str:
    return f"{figure(row.figures['encode films/s'])}, {figure(row.figures['decode films/s'])}" if row else ""


def _comes_back(row: Row) -> str:
    return "exact" if row.settings["target"] == "lossless" else " / ".join([f"{row.quality[PSNR]:.1f}", f"{row.quality[MS_SSIM]:.4f}"])


def _methods(rows: Sequence[Row]) -> list[str]:
    """Pictures and thumbnails, the shipped codec and PCA: what the small codecs of `make systems` reach is in their own table."""
    codes = {"code": (DEMO, "pca-"), "layer": ()}  # layers take more bytes than these columns have
    shown = [row for row in rows if _method(row).startswith(codes.get(str(row.settings["kind"]), ""))]
    return list(dict.fromkeys(map(_method, shown)))


def _method(row: Row) -> str:
    return str(row.settings["method"]).partition(",")[0]


def _best(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    best = winner(rows, PSNR)
    return f"{best.quality[PSNR]:.1f} / {best.quality[SSIM]:.3f} ({best.figures['bytes']:.0f})"


def _files(of: Iterator[Results] | Sequence[Results]) -> str:
    names = dict.fromkeys(f"`{results.name}`" for results in of)
    return f"From {', '.join(names)}."


def _between(text: str, name: str, lines: Sequence[str]) -> str:
    marked = re.compile(rf"(<!-- bench: {name} -->\n).*?(<!-- end -->)", flags=re.DOTALL)
    if not marked.search(text):
        raise ConfigError(f"README has no place for a table, which is between two lines: <!-- bench: {name} --> and <!-- end -->")
    return marked.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text)
