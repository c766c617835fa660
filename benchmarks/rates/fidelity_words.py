"""What the rows of `bench fidelity` come to, in words made from them: the layer beside the best plain codec, and whether residuals pay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.rates.fidelity_methods import FILM, RESIDUAL
from benchmarks.report import Row, figure


def told(rows: Sequence[Row]) -> list[str]:
    """Lines of text: a target's layer beside the best plain codec, then whether the residual pays there; at last where it does at all."""
    of_films = {row.settings["target"]: row for row in rows if row.values and row.settings["kind"] == FILM}
    residuals = {row.settings["target"]: row for row in rows if row.values and row.settings["kind"] == RESIDUAL}
    lines = [f"{target}: {_beside_plain(row)}" for target, row in of_films.items()]
    both = {target: (residuals[target], row) for target, row in of_films.items() if target in residuals}
    lines += [f"{target}: {_residual(*pair)}" for target, pair in both.items()]
    return [*lines, *_where(both)]


def _beside_plain(row: Row) -> str:
    size = f"{figure(row.figures['mean bytes'])} B a film"
    return f"the layer takes {size}, {row.ratio:.3f}x the best plain codec ({row.ratio_to})" if row.ratio else f"the layer takes {size}"


def _residual(residual: Row, film: Row) -> str:
    """The residual against the film itself, in all and film by film."""
    of_one, of_other = residual.figures["mean bytes"], film.figures["mean bytes"]
    share = 100 * (of_one / of_other - 1)
    fewer = sum(one < other for one, other in zip(residual.values, film.values, strict=True))
    verdict = f"the residual pays, {-share:.1f} % fewer" if share < 0 else f"the residual does not pay, {share:.1f} % more"
    sizes = f"{figure(of_one)} and {figure(of_other)} B"
    return f"{verdict} bytes than the film itself ({sizes}); it is smaller on {fewer} of {len(film.values)} films"


def _where(both: dict[str, tuple[Row, Row]]) -> Iterator[str]:
    paying = [target for target, (residual, film) in both.items() if residual.figures["mean bytes"] < film.figures["mean bytes"]]
    if both:
        yield f"residuals pay at {', '.join(paying)}" if paying else f"residuals pay nowhere: tried at {', '.join(both)}"
