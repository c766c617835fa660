"""What a codec that decomposes films (Tang et al. 2021) adds to their codes: the normal film, the residue, saliency, lungs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.archive.root import sha256
from engine.archive.schema import RowArray
from engine.config import MapsConfig
from engine.encode.codec import Codec
from engine.encode.gauge import into_range
from engine.encode.precision import DTYPES, in_precision, without_gradients
from engine.errors import CodecError, ConfigError
from engine.lung_box import FINDER, Box, find_lungs, whole
from engine.lung_file import read_lung_file
from engine.records import Status
from engine.saliency import STEPS, saliency, to_steps

Arrays = dict[str, np.ndarray[Any, Any]]
GRAYS = 255
NOT_FINITE = (Status.NONFINITE, "its maps are not finite")
OUTSIDE = (Status.ENCODE_ERROR, "the given box of the lungs lies outside the film")


def check_decomposes(codec: Codec) -> None:
    """Raises CodecError unless the codec's generator takes films apart, and its encoder gives the codes for it."""
    if not hasattr(codec.generator.network, "decompose"):
        network = codec.spec.generator.network
        raise CodecError(
            f"decompose needs a codec of `latentray train dgm`, or another that decomposes films; this one's network: {network}"
        )
    if not codec.has_encoder:
        raise CodecError(f"decompose needs a codec with an encoder: {codec.name}")


def describe_maps(cfg: MapsConfig) -> dict[str, Any]:
    """What decides the maps beside the codes, for the fingerprint: never a path. Raises ConfigError for a file that cannot be read."""
    lungs = sha256(read_lung_file(cfg.lungs).data) if cfg.lungs else FINDER
    return {"floor": cfg.floor, "lungs": lungs}


def check_lung_ids(cfg: MapsConfig, ids: Iterable[str]) -> None:
    """Raises ConfigError for a file of boxes that has none for any of these films: its ids are likely others."""
    if cfg.lungs and read_lung_file(cfg.lungs).boxes.keys().isdisjoint(ids):
        raise ConfigError(f"the file of lung boxes has no id of a film; ids are those that the archive has: {cfg.lungs}")


def map_arrays(resolution: int) -> dict[str, RowArray]:
    """The arrays that an archive of decomposed films has beside those of every archive; rows without a code hold fill."""
    film: dict[str, Any] = {"dims": ("film_y", "film_x"), "shape": (resolution, resolution)}
    unit = "1 is half the way from black to white"
    box = {"long_name": "box around the lungs, x0 y0 x1 y1, x1 and y1 just outside; else all of the film", "units": "pixel"}
    names = {
        "normal": ("u1", "normal film, 0 black to 255 white", {}),
        "residue": ("i1", f"residue, film minus normal film; {unit}", {"scale_factor": 1 / STEPS}),
        "saliency": ("u1", "|residue| in the salient parts, 255 at the greatest of the film; 0 elsewhere", {}),
    }
    return {
        **{name: RowArray(dtype=dtype, attributes={"long_name": text, **more}, **film) for name, (dtype, text, more) in names.items()},
        "lung_box": RowArray(dtype="u2", dims=("edge",), shape=(4,), attributes=box),
        "residue_mean": RowArray(dtype="f4", attributes={"long_name": f"mean |residue| before rounding; {unit}", "units": "1"}),
        "salient_share": RowArray(dtype="f4", attributes={"long_name": "share of the film that is salient", "units": "1"}),
    }


def films_are_sums(codec: Codec) -> bool:
    """Whether the film of a code is its normal film plus its residue, so that who has the parts need not make the film as well."""
    return bool(getattr(codec.generator.network, "sums_its_parts", False))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the generator makes of codes when it takes them apart: normal film and residue `both` [n, 2, R, R], float32 on its device.

    `films` [n, 1, R, R] in [-1, 1]: what the codes stand for, where that is the sum of the two; None where it is made otherwise.
    """

    both: Tensor
    films: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What is stored of films beside their codes: arrays by name, each [n, ...] of the stored type. `faults`: why a film has none."""

    arrays: Arrays
    faults: list[tuple[Status, str] | None]


class Decomposer:
    """Takes films apart. `arrays`: what it gives for each film. Raises CodecError where the codec does not decompose, ConfigError for a
    file of boxes that is none."""

    def __init__(self, codec: Codec, cfg: MapsConfig, *, precision: str) -> None:
        check_decomposes(codec)
        self.arrays = map_arrays(codec.recipe.resolution)
        self._cfg, self._recipe, self._device = cfg, codec.recipe, codec.device
        self._lungs = read_lung_file(cfg.lungs) if cfg.lungs else None
        self._sums = films_are_sums(codec)
        network: Any = codec.generator.network
        both = in_precision(lambda codes: torch.cat(network.decompose(codes), dim=1), codec.device, DTYPES[precision])
        self._both = without_gradients(both, codec.device)

    def parts(self, codes: Tensor) -> Parts:
        """Of codes [n, *shape] as stored, in float32. The generator runs once for both: maps, and the films that quality is measured on."""
        both = self._both(codes.to(self._device)).float()
        return Parts(both=both, films=into_range(both.sum(dim=1, keepdim=True)) if self._sums else None)

    def maps(self, parts: Parts, pixels: Tensor, ids: Sequence[str], sources: Sequence[tuple[int, int]]) -> Maps:
        """The maps of films from their parts.

        `pixels` [n, 1, R, R] in [-1, 1], on which lungs are sought; `sources`: (height, width) of their files.
        """
        both = parts.both.cpu().numpy()
        finite = np.isfinite(both).all(axis=(1, 2, 3))
        boxes = [self._box(film[0], name, source) for film, name, source in zip(pixels.cpu().numpy(), ids, sources, strict=True)]
        faults = [NOT_FINITE if not ok else OUTSIDE if box is None else None for ok, box in zip(finite, boxes, strict=True)]
        rows = [
            self._of_film(normal, residue, box or whole(residue)) for (normal, residue), box in zip(np.nan_to_num(both), boxes, strict=True)
        ]
        arrays = {name: np.stack([row[name] for row in rows]).astype(array.dtype) for name, array in self.arrays.items()}
        return Maps(arrays=arrays, faults=faults)

    def _of_film(self, normal: Any, residue: Any, box: Box) -> Arrays:
        stored = to_steps(residue)
        salient = saliency(stored, box, floor=self._cfg.floor)
        return {
            "normal": np.rint((np.clip(normal, -1, 1) + 1) * (GRAYS / 2)),
            "residue": stored,
            "saliency": salient,
            "lung_box": np.array(box),
            "residue_mean": np.abs(residue).mean(),
            "salient_share": np.array((salient > 0).mean()),
        }

    def _box(self, film: Any, sample_id: str, source: tuple[int, int]) -> Box | None:
        """None where a box is given that has nothing of the film in it."""
        if self._lungs is not None and sample_id in self._lungs.boxes:
            return self._lungs.box_of(sample_id, source=source, side=self._recipe.resolution, square=self._recipe.square)
        return find_lungs(film) or whole(film)
