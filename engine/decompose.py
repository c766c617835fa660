"""What a codec that decomposes films (Tang et al. 2021) adds to their codes: the normal film, the residue, saliency, lungs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.archive.root import sha256
from engine.archive.schema import RowArray
from engine.config import MapsConfig
from engine.encode.codec import Codec
from engine.encode.precision import DTYPES, in_precision, without_gradients
from engine.errors import CodecError
from engine.lung_box import FINDER, Box, find_lungs, whole
from engine.lung_file import read_lung_file
from engine.saliency import STEPS, saliency, to_steps

Arrays = dict[str, np.ndarray[Any, Any]]
GRAYS = 255


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


class Decomposer:
    """Takes films apart. `arrays`: what it gives for each film. Raises CodecError where the codec does not decompose, ConfigError for a
    file of boxes that is none."""

    def __init__(self, codec: Codec, cfg: MapsConfig, *, precision: str) -> None:
        check_decomposes(codec)
        self.arrays = map_arrays(codec.recipe.resolution)
        self._cfg, self._recipe, self._device = cfg, codec.recipe, codec.device
        self._lungs = read_lung_file(cfg.lungs) if cfg.lungs else None
        network: Any = codec.generator.network
        both = in_precision(lambda codes: torch.cat(network.decompose(codes), dim=1), codec.device, DTYPES[precision])
        self._parts = without_gradients(both, codec.device)

    def __call__(self, codes: Tensor, pixels: Tensor, ids: Sequence[str], sources: Sequence[tuple[int, int]]) -> tuple[Arrays, Any]:
        """The maps of films, and whether each film's are finite.

        `codes` [n, *shape] as stored, in float32; `pixels` [n, 1, R, R] in [-1, 1], on which lungs are sought; `sources`: (height, width)
        of their files. Returns arrays by name, each [n, ...] and of the stored type, and bool [n].
        """
        parts = self._parts(codes.to(self._device)).float().cpu().numpy()  # [n, 2, R, R]: normal film, residue
        finite = np.isfinite(parts).all(axis=(1, 2, 3))
        parts = np.nan_to_num(parts)
        rows = [
            self._of_film(normal, residue, self._box(film[0], name, source))
            for (normal, residue), film, name, source in zip(parts, pixels.cpu().numpy(), ids, sources, strict=True)
        ]
        return {name: np.stack([row[name] for row in rows]).astype(array.dtype) for name, array in self.arrays.items()}, finite

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

    def _box(self, film: Any, sample_id: str, source: tuple[int, int]) -> Box:
        given = None
        if self._lungs is not None:
            given = self._lungs.box_of(sample_id, source=source, side=self._recipe.resolution, square=self._recipe.square)
        return given or find_lungs(film) or whole(film)
