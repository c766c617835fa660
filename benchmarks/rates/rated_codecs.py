"""One codec of `bench rate-distortion`: its codes of all films, in every form, judged by the films that come back and by what they tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.rates.code_tables import fit_tables, to_numbers
from benchmarks.rates.rated_films import Codes, FilmSet, code_films
from benchmarks.rates.rated_probe import Area, areas
from benchmarks.rates.stored_forms import StoredForm, coded_form, stored_forms
from engine import metrics
from engine.code_step import find_step
from engine.encode.codec import Codec

MOST_NUMBERS = 1024  # that the probe looks at: of larger codes, means of neighbours
_FILMS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Judged:
    """PSNR (dB, gray in [0, 1]), SSIM and MS-SSIM of each film; MS-SSIM is empty for films too small for its scales."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    ms_ssim: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A form of a codec's codes of a set of films. `coefficients`: how many of a code's numbers were kept, None for all."""

    form: StoredForm
    judged: Judged
    areas: dict[str, Area]
    step: float
    coefficients: int | None = None


class CodecRates:
    """What is measured of one codec: forms of its codes of several sets of films, with steps and tables from films that are not measured.

    `step`: the one that the codec records, else the coarsest power of two at which other films lose less than 0.05 dB; 0 where none does.
    Raises CodecError for a codec without an encoder.
    """

    def __init__(self, codec: Codec, films: Sequence[FilmSet], *, seed: int) -> None:
        self.codec = codec
        self._films, self._seed = films, seed
        self._coded = {each.name: code_films(codec, each) for each in films}
        pixels = [each.pixels for each in self._coded.values() if len(each.pixels)]
        self.step = codec.spec.code.step or (find_step(codec, torch.cat(pixels)) if pixels else 0.0)

    def forms(self, films: FilmSet) -> Iterator[Rated]:
        """Every form of the codes of one set, the plain ones first."""
        codes = self._flat(films)
        tables = fit_tables(to_numbers(self._others(), self.step)) if self.step else None
        seen: dict[bytes, Judged] = {}
        for form in stored_forms(codes, step=self.step, tables=tables):
            shown = form.codes[: films.measured]
            if shown.tobytes() not in seen:  # the same numbers make the same films, however they are written
                seen[shown.tobytes()] = self._judge(films, shown)
            yield Rated(form=form, judged=seen[shown.tobytes()], areas=self._areas(films, form.codes), step=self.step)

    def first(self, films: FilmSet, coefficients: int) -> Rated:
        """The first so many numbers of each code, coded; the others are 0, the mean of a linear codec's."""
        codes = self._flat(films)[:, :coefficients]
        form = coded_form(codes, step=self.step, tables=fit_tables(to_numbers(self._others()[:, :coefficients], self.step)))
        whole = np.zeros((films.measured, self.num_numbers), dtype=np.float32)
        whole[:, :coefficients] = form.codes[: films.measured]
        told = self._areas(films, form.codes)
        return Rated(form=form, judged=self._judge(films, whole), areas=told, step=self.step, coefficients=coefficients)

    @property
    def num_numbers(self) -> int:
        """Numbers of a code."""
        return int(np.prod(self.codec.code_shape))

    def _flat(self, films: FilmSet) -> Codes:
        codes = self._coded[films.name].codes
        return codes.reshape(len(codes), -1)

    def _others(self) -> Codes:
        """Codes of the films that are not measured, of all sets; of all films where there are no others."""
        found = np.concatenate([self._flat(each)[each.measured :] for each in self._films])
        return found if len(found) else np.concatenate([self._flat(each) for each in self._films])

    def _judge(self, films: FilmSet, codes: Codes) -> Judged:
        latents = torch.from_numpy(codes).reshape(-1, *self.codec.code_shape)
        with torch.inference_mode():
            made = (metrics.to_unit(self.codec.generate(part)).cpu() for part in torch.split(latents, _FILMS_AT_ONCE))
            return judge(made, self._coded[films.name].films)

    def _areas(self, films: FilmSet, codes: Codes) -> dict[str, Area]:
        return areas(self._pooled(codes), films.marks, seed=self._seed)

    def _pooled(self, codes: Codes) -> Codes:
        """Codes of maps with many numbers, as means of neighbours; others as they are."""
        shape = self.codec.code_shape
        if len(shape) != 3 or codes.shape[1] <= MOST_NUMBERS:
            return codes
        side = max(1, int((MOST_NUMBERS / shape[0]) ** 0.5))
        maps = torch.from_numpy(codes).reshape(-1, *shape)
        found: Codes = torch.nn.functional.adaptive_avg_pool2d(maps, side).flatten(1).numpy()
        return found


def judge(made: Iterator[Tensor], films: Tensor) -> Judged:
    """Batches of films at any size, in [0, 1], against films [n, 1, S, S] in the same order."""
    psnr: list[float] = []
    ssim: list[float] = []
    ms_ssim: list[float] = []
    at = 0
    for batch in made:
        wanted = films[at : at + len(batch)]
        shown = metrics.resize_film(batch, films.shape[-1]).clamp(0, 1)
        psnr += metrics.psnr(shown, wanted).tolist()
        ssim += metrics.ssim(shown, wanted).tolist()
        if films.shape[-1] >= metrics.MS_SSIM_LEAST_SIZE:
            ms_ssim += metrics.ms_ssim(shown, wanted).tolist()
        at += len(batch)
    return Judged(psnr=tuple(psnr), ssim=tuple(ssim), ms_ssim=tuple(ms_ssim))
