"""From the bytes of a file to a film: the format is told by its first bytes, never by its name."""

from __future__ import annotations

import logging
import warnings

import cv2
from pydicom import config

from engine.config import DecodeConfig
from engine.decode import jpeg, jpeg2000, png, tiff
from engine.decode.dicom import is_dicom, open_dicom
from engine.decode.film import Film, SealedFilm, check_size, refusing
from engine.errors import DecodeError
from engine.recipe import PixelRecipe


def open_film(data: bytes, cfg: DecodeConfig) -> SealedFilm:
    """Reads the header of a PNG, JPEG, TIFF, JPEG 2000 or DICOM file and checks its size against the limits; makes no pixels.

    Raises DecodeError, with a reason of one line that quotes nothing of the file's text.
    """
    if not data:
        raise DecodeError("file is empty")
    name = _sniff(data)
    with refusing(name, with_message=name != "DICOM"):
        sealed = _open(name, data, cfg)
        check_size(sealed.header.height, sealed.header.width, max_pixels=cfg.max_pixels)
        return sealed


def read_film(sealed: SealedFilm, recipe: PixelRecipe) -> Film:
    """The film itself: gray samples and their white level. Raises DecodeError for data that are damaged in any way that can be seen."""
    name = sealed.header.format
    with refusing(name, with_message=name != "DICOM"):
        film = sealed.read(recipe)
        if film.samples.shape != (sealed.header.height, sealed.header.width):
            raise DecodeError(f"{name} data have another size than the header says")
        return film


def read_stored(sealed: SealedFilm) -> Film:
    """The film's samples as they are stored, upright and gray but before any window. Raises DecodeError as `read_film` does."""
    name = sealed.header.format
    if sealed.read_stored is None:
        return read_film(sealed, PixelRecipe(resolution=1))
    with refusing(name, with_message=name != "DICOM"):
        film = sealed.read_stored()
        if film.samples.shape != (sealed.header.height, sealed.header.width):
            raise DecodeError(f"{name} data have another size than the header says")
        return film


def settle_libraries() -> None:
    """Settings of other libraries for this process; every decoder calls it once.

    The DICOM and TIFF readers warn with header values in the text, which must not reach a log. OpenCV must not start threads of its
    own: films are decoded side by side already.
    """
    warnings.filterwarnings("ignore", module=r"(pydicom|tifffile|engine\.decode)\b")
    for name in ("pydicom", "tifffile"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config.settings.reading_validation_mode = config.IGNORE
    cv2.setNumThreads(1)


def _sniff(data: bytes) -> str:
    if is_dicom(data):  # first, since a DICOM preamble may hold a TIFF header
        return "DICOM"
    for name, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return name
    raise DecodeError("not an image format that is read (PNG, JPEG, TIFF, JPEG 2000, DICOM)")


def _open(name: str, data: bytes, cfg: DecodeConfig) -> SealedFilm:
    if name == "PNG":
        return png.open_png(data)
    if name == "JPEG":
        return jpeg.open_jpeg(data)
    if name == "JPEG 2000":
        return jpeg2000.open_jpeg2000(data)
    if name == "TIFF":
        return tiff.open_tiff(data, max_pixels=cfg.max_pixels)
    return open_dicom(data, max_bytes=cfg.max_bytes, max_pixels=cfg.max_pixels)


_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "PNG": (png.SIGNATURE,),
    "JPEG": (jpeg.SIGNATURE,),
    "JPEG 2000": (jpeg2000.SIGNATURE_FILE, jpeg2000.SIGNATURE_CODESTREAM),
    "TIFF": tiff.SIGNATURES,
}
