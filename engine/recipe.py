"""The pixel recipe: how a file becomes pixels, as data. It lives in `codec.json`, travels in the archive, and holds no code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from engine.errors import CodecError

Square = Literal["pad", "crop", "stretch"]
Resize = Literal["area", "lanczos"]
Equalise = Literal["none", "histogram"]
Window = Literal["auto", "none"]
Intensity = Literal["full", "minmax"]


@dataclass(frozen=True, kw_only=True)
class PixelRecipe:
    """How a film becomes float gray pixels [1, R, R] in [-1, 1].

    In this order: read the samples without loss; DICOM: modality LUT or rescale, then VOI LUT or window (`window` = "auto" applies
    the file's own, "none" takes the full range of the stored bits), MONOCHROME1 inverted; colour to gray (ITU-R 601 luma, alpha dropped);
    divide by the white level, 2^bits - 1 (`bits` = 0 takes the file's own depth: PNG sBIT, TIFF BitsPerSample, JPEG 2000 component depth,
    DICOM BitsStored, else the container's; a number overrides it, for 12-bit data in a 16-bit container without a mark), or, where
    `intensity` is "minmax", stretch the film's own range so that its darkest sample is 0 and its brightest 1 (a film of one gray is black);
    `equalise`; make square (`square`: "pad" with black, centred; "crop" the centre; "stretch"); resize to `resolution`;
    map [0, 1] to [-1, 1].

    `resize`: "area" is the exact area average (OpenCV's INTER_AREA; a film enlarged twice repeats its pixels);
    "lanczos" is the 3-lobed windowed sinc, widened when it shrinks (Pillow's LANCZOS).
    `tolerance`: largest difference, in [0, 1] units, that two decoders may show on one pixel of one file.
    """

    resolution: int
    square: Square = "pad"
    resize: Resize = "area"
    window: Window = "auto"
    bits: int = 0
    equalise: Equalise = "none"
    intensity: Intensity = "full"
    tolerance: float = 2 / 255

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= 16384:
            raise CodecError(f"recipe.resolution must be 1 to 16384: {self.resolution}")
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise CodecError(f"recipe.{name} must be one of {', '.join(allowed)}: {getattr(self, name)}")
        if self.bits != 0 and not 2 <= self.bits <= 16:
            raise CodecError(f"recipe.bits must be 0 (as the file says) or 2 to 16: {self.bits}")

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values, in field order. `intensity` is left out where it is "full".

        Archives begun before there was that choice have fingerprints without it, and go on.
        """
        plain = asdict(self)
        return plain if self.intensity != "full" else {name: value for name, value in plain.items() if name != "intensity"}


_ALLOWED: dict[str, tuple[str, ...]] = {
    "square": ("pad", "crop", "stretch"),
    "resize": ("area", "lanczos"),
    "window": ("auto", "none"),
    "equalise": ("none", "histogram"),
    "intensity": ("full", "minmax"),
}
