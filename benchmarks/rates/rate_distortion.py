"""Bytes a film against what comes back of it: every codec's codes in every form, with layers, beside small pictures and PCA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import DEMO, Options, codec_directories, codec_directory, say
from benchmarks.rates.picture_codecs import Fitted, Gray, PictureCodec, best_side, fit_films, picture_codecs, thumbnails
from benchmarks.rates.rate_distortion_plot import plot
from benchmarks.rates.rate_distortion_words import LEAST_LOSS, told
from benchmarks.rates.rated_codecs import CodecRates, Judged, Rated, judge
from benchmarks.rates.rated_films import FilmSet, gray_films, rated_films
from benchmarks.rates.rated_layers import layered
from benchmarks.rates.rated_probe import Area, areas, mean_area
from benchmarks.rates.stored_forms import CODED, F4, READABLE, ROUNDED
from benchmarks.report import Bar, Row
from engine import metrics
from engine.encode.codec import Codec, load_codec
from engine.errors import LatentrayError

__all__ = ["BAR", "QUESTION", "SEEDS", "TIMED", "plot", "rows", "told"]

QUESTION = "How much comes back of a film from so many bytes: of codes in every stored form, of small pictures, thumbnails and PCA?"
TIMED = (
    "Nothing is timed. Values: PSNR of each film at 1024x1024, gray in [0, 1]. bytes: a film; of codes as they lie in an archive's chunk,\n"
    "coded ones as streams with their lengths; of pictures as whole files, at the internal resolution that is best for the first films.\n"
    "loss dB: of the mean PSNR, against the same codes as f4. AUC: mean over attributes, of a linear probe on the numbers that come back\n"
    "or, for pictures, on the demo encoder's code of what comes back. Steps and tables are from films that are not measured. Of layers,\n"
    "bytes are those of the film at 1024x1024 and of the stored code; `bench fidelity` has their speed, and plain codecs of equal quality."
)
BAR = f"entropy-coded codes of the demo codec: at most 400 bytes a film, less than {LEAST_LOSS} dB lost"
NAME = "rate-distortion"
SEEDS = {"probe": 0}
CODED_BAR = Bar(bound=400, sense="at most")
FEWEST_FILMS = 8  # on which a loss is judged: of fewer it is known to a tenth of a dB alone
PCA_SIZES = (64, 256, 512)
_SIDE_FILMS = 4
_AT_ONCE = 8

RateForms = Callable[[CodecRates, FilmSet], Iterator[tuple[Rated, float | None]]]


def rows(options: Options) -> Iterator[Row]:
    """Of each set of films in turn: a row a codec and form, a PCA size, a thumbnail and a picture codec at each number of bytes."""
    films = rated_films(options, measured=options.pick(quick=2, nightly=FEWEST_FILMS, whole=32), size=256 if options.quick else 1024)
    default = replace(options, codec=None)
    sized = codec_directory(default, components=options.pick(quick=None, nightly=None, whole=max(PCA_SIZES)))
    budgets = options.pick(quick=(1024,), nightly=(1024,), whole=(128, 256, 512, 1024, 2048))
    targets = options.pick(quick=("psnr=30",), nightly=("psnr=40",), whole=("psnr=30", "psnr=35", "psnr=40", "lossless"))
    yield from compare(codec_directories(options), films, eye=DEMO, sized=sized, budgets=budgets, targets=targets)


def compare(
    codecs: Mapping[str, str], films: Sequence[FilmSet], *, eye: str, sized: str, budgets: Sequence[int], targets: Sequence[str]
) -> Iterator[Row]:
    """Codecs by name, beside pictures of as many bytes as `budgets` has, which the probe sees through the encoder of codec `eye`.

    `sized`: the linear codec whose first numbers are rows as well; `targets`: of the layers. A codec that fails is a row a set.
    """
    found: dict[str, list[Row]] = {each.name: [] for each in films}
    whole = prod(load_codec(sized).code_shape) if sized in codecs.values() else None  # that one is a row already
    sizes = [count for count in PCA_SIZES if count != whole]
    named: list[tuple[str, str, RateForms]] = [(name, path, _every_form) for name, path in codecs.items()]
    named.append((Path(sized).name, sized, partial(_first_numbers, sizes)))
    for name, path, rate in named:
        say(f"{NAME}: {name}")
        for row in _of_codec(name, path, films, rate):
            found[row.settings["films"]].append(row)
    encoder = load_codec(eye)
    for each in films:
        say(f"{NAME}: pictures of {each.name}")
        found[each.name] += _of_pictures(each, encoder, budgets)
        say(f"{NAME}: layers of {each.name}")
        found[each.name] += _of_layers(each, found[each.name], targets)
        yield from found[each.name]
    yield from _must_reach([row for of_set in found.values() for row in of_set])


def _of_codec(name: str, path: str, films: Sequence[FilmSet], rate: RateForms) -> list[Row]:
    """The rows of one codec on every set of films; where it cannot be measured, one a set that says why."""
    try:
        codec = load_codec(path)
        if codec.has_encoder:
            rates = CodecRates(codec, films, seed=SEEDS["probe"])
            rows = [_row(each, name, codec, rated, loss) for each in films for rated, loss in rate(rates, each)]
            return rows if rates.step else [*rows, *_without_step(name, films)]
        failed, unavailable = "", "no encoder: its codes are found by refinement, which `bench systems` measures"
    except LatentrayError as error:
        failed, unavailable = str(error), ""
    steps = {each.name: f"{each.name}: {name}" for each in films}
    return [
        Row(benchmark=NAME, step=step, settings={"films": each}, failed=failed, unavailable=unavailable) for each, step in steps.items()
    ]


def _every_form(rates: CodecRates, films: FilmSet) -> Iterator[tuple[Rated, float]]:
    """The forms with the mean loss of each, in dB, against the same codes as f4."""
    exact = float("nan")
    for rated in rates.forms(films):
        exact = fmean(rated.judged.psnr) if rated.form.name == F4 else exact
        yield rated, exact - fmean(rated.judged.psnr)


def _first_numbers(sizes: Sequence[int], rates: CodecRates, films: FilmSet) -> Iterator[tuple[Rated, None]]:
    """The first numbers of a linear codec, coded: fewer make another codec, whose loss is none of the form's."""
    for count in sizes:
        if count <= rates.num_numbers and rates.step:
            yield rates.first(films, count), None


def _without_step(name: str, films: Sequence[FilmSet]) -> Iterator[Row]:
    for each in films:
        for form in (ROUNDED, CODED):
            reason = f"no step that costs less than {LEAST_LOSS} dB was found"
            yield Row(benchmark=NAME, step=f"{each.name}: {name}, {form}", settings={"films": each.name}, unavailable=reason)


def _row(films: FilmSet, name: str, codec: Codec, rated: Rated, loss: float | None) -> Row:
    form = rated.form
    method = name if rated.coefficients is None else f"{name}, first {rated.coefficients}"
    told_of_form = {"form": form.name, "raw_bytes": form.raw_bytes, "step": rated.step, "readable": form.name in READABLE}
    settings = told_of_form | {"kind": "code", "method": method, "codec": codec.name, "digest": codec.digest, "loss_dB": loss}
    losses = {} if loss is None else {"loss dB": loss}
    sizes = form.num_bytes[: films.measured]  # streams of the other films were fitted
    return _judged_row(films, f"{method}, {form.name}", rated.judged, sizes, rated.areas, losses, settings)


def _of_pictures(films: FilmSet, eye: Codec, budgets: Sequence[int]) -> Iterator[Row]:
    """Thumbnails and picture codecs, at each number of bytes."""
    grays = gray_films(films)
    wanted = torch.from_numpy(np.stack(grays[: films.measured])).unsqueeze(1).float() / 255
    codecs = picture_codecs()
    for most in budgets:
        yield _picture_row(films, "thumbnail", most, thumbnails(grays, most=most), eye, wanted)
        for name, codec in codecs.items():
            why = codec if isinstance(codec, str) else ""
            fitted = None if isinstance(codec, str) else _fitted(codec, films, grays, most)
            if fitted is None:
                reason = why or f"no setting makes files of {most:,} bytes or fewer"
                settings = {"films": films.name, "method": name, "most_bytes": most}
                yield Row(benchmark=NAME, step=f"{films.name}: {name}, {most:,} bytes", settings=settings, unavailable=reason)
            else:
                yield _picture_row(films, name, most, fitted, eye, wanted)


def _fitted(codec: PictureCodec, films: FilmSet, grays: Sequence[Gray], most: int) -> Fitted | None:
    """All films, or where the probe has nothing to ask the measured ones, at the resolution that is best for the first of them."""
    side = best_side(codec, grays[:_SIDE_FILMS], most=most)
    wanted = grays if films.marks else grays[: films.measured]
    return None if side is None else fit_films(codec, wanted, side=side, most=most, smaller=True)


def _picture_row(films: FilmSet, name: str, most: int, fitted: Fitted, eye: Codec, wanted: Tensor) -> Row:
    judged = judge(_as_films(fitted.pictures[: films.measured]), wanted)
    told_of: dict[str, Area] = {}
    if films.marks:
        with torch.inference_mode():
            shown = (metrics.resize_film(picture, eye.recipe.resolution).clamp(0, 1) for picture in _as_films(fitted.pictures))
            codes = torch.cat([eye.encode(picture * 2 - 1).flatten(1) for picture in shown]).numpy()
        told_of = areas(codes, films.marks, seed=SEEDS["probe"])
    settings = {"kind": "thumbnail" if name == "thumbnail" else "picture", "method": name, "most_bytes": most, "side": fitted.side}
    return _judged_row(films, f"{name}, {most:,} bytes", judged, fitted.num_bytes, told_of, {}, settings)


def _of_layers(films: FilmSet, of_codes: Sequence[Row], targets: Sequence[str]) -> Iterator[Row]:
    """The film in an archive that keeps a layer of each target beside the smallest code that any reader of Zarr reads."""
    code = min((row for row in of_codes if row.values and row.settings.get("readable")), key=lambda row: row.figures["bytes"], default=None)
    grays = gray_films(replace(films, files=films.files[: films.measured]))
    wanted = torch.from_numpy(np.stack(grays)).unsqueeze(1).float() / 255
    code_bytes = code.figures["bytes"] if code else 0.0
    for each in layered(grays, targets):
        step, settings = f"code and layer, {each.target}", {"kind": "layer", "method": "code and layer", "target": str(each.target)}
        if each.failed:
            yield Row(benchmark=NAME, step=f"{films.name}: {step}", settings=settings | {"films": films.name}, failed=each.failed)
            continue
        told_of_code = {"code": code.step if code else "none", "code_bytes": code_bytes}
        sizes = [code_bytes + size for size in each.num_bytes]
        yield _judged_row(films, step, judge(_as_films(each.pictures), wanted), sizes, {}, {}, settings | told_of_code)


def _as_films(pictures: Sequence[Gray]) -> Iterator[Tensor]:
    """Pictures u1 as films [n, 1, h, h] in [0, 1], neighbours of one size together."""
    for _, alike in groupby(pictures, key=len):
        yield from torch.split(torch.from_numpy(np.stack(list(alike))).unsqueeze(1).float() / 255, _AT_ONCE)


def _judged_row(
    films: FilmSet,
    step: str,
    judged: Judged,
    num_bytes: Sequence[float],
    found: Mapping[str, Area],
    more: Mapping[str, float],
    settings: Mapping[str, Any],
) -> Row:
    quality = {"mean PSNR dB": fmean(judged.psnr), "SSIM": fmean(judged.ssim)}
    quality |= {"MS-SSIM": fmean(judged.ms_ssim)} if judged.ms_ssim else {}
    quality |= {"AUC": mean_area(found).value} if found else {}
    probed = (
        {"films": len(films.files), "error": mean_area(found).error, **{name: each.value for name, each in found.items()}} if found else {}
    )
    return Row(
        benchmark=NAME,
        step=f"{films.name}: {step}",
        unit="dB",
        values=judged.psnr,
        value_of="film",
        quality=quality,
        figures={"bytes": fmean(num_bytes), **more},
        settings={"films": films.name, "probed": probed, "no_auc": films.no_marks, **settings},
    )


def _must_reach(found: Sequence[Row]) -> Iterator[Row]:
    """The bytes of the shipped codec's coded codes, on each set of films; failed where they lose too much."""
    for row in found:
        if row.values and row.settings["method"] == DEMO and row.settings["form"] == CODED:
            loss, size = row.settings["loss_dB"], row.figures["bytes"]
            step = f"{row.settings['films']}: {DEMO}, {CODED}, bytes a film"
            if len(row.values) < FEWEST_FILMS:
                reason = f"what is lost is measured on {FEWEST_FILMS} films or more, these are {len(row.values)}"
                yield Row(benchmark=NAME, step=step, settings=row.settings, unavailable=reason)
            elif loss >= LEAST_LOSS:
                yield Row(benchmark=NAME, step=step, settings=row.settings, failed=f"loses {loss:.3f} dB, not less than {LEAST_LOSS}")
            else:
                yield replace(row, step=step, unit="B", values=(size,), value_of="whole", bar=CODED_BAR)
