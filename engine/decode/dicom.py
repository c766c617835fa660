"""DICOM: the first frame of a file in any classic transfer syntax, through pydicom; no header field survives beyond the pixels."""

from __future__ import annotations

import struct
import zlib
from functools import partial

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from engine.decode import jpeg, jpeg2000
from engine.decode.bounded import BoundedFile
from engine.decode.dicom_gray import has_window, shown_range, to_unit
from engine.decode.film import Film, Header, Samples, SealedFilm, check_size, to_gray, white_level
from engine.errors import DecodeError
from engine.recipe import PixelRecipe

_PREAMBLE = 128
_MARK = b"DICM"
_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
# Only these are read from a file: what pixels need. Names, dates and places are skipped over and never decoded.
# fmt: off
_TAGS = [
    "TransferSyntaxUID", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
]
# fmt: on


def is_dicom(data: bytes) -> bool:
    """The mark after the preamble; or, for files written without one, an element of group 2 or 8 at the very start."""
    if data[_PREAMBLE : _PREAMBLE + 4] == _MARK:
        return True
    if len(data) < 64:
        return False
    group, element = struct.unpack_from("<HH", data)
    (length,) = struct.unpack_from("<I", data, 4)
    return group in (2, 8) and element <= 0x18 and (data[4:6].isalpha() or length <= 64)


def open_dicom(data: bytes, *, max_bytes: int, max_pixels: int) -> SealedFilm:
    """Reads the elements that pixels need. Raises DecodeError for files without pixels, or with float or deep ones."""
    dataset = _parse(data, max_bytes)
    if not dataset.get("PixelData"):
        raise DecodeError("DICOM has no integer pixels, or is truncated within them")
    rows, columns, frames = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    check_size(rows, columns, max_pixels=max_pixels)
    _check_samples(dataset)
    notes = [f"first of {frames} frames"] if frames > 1 else []
    if dataset.get("WindowWidth") is not None and not dataset.get("VOILUTSequence") and not has_window(dataset):
        notes.append("window without width ignored")
    # Compressed frames are walked and read by libraries that damage can abort or keep busy; palettes can be built to expand without end.
    is_risky = dataset.file_meta.TransferSyntaxUID.is_encapsulated or dataset.PhotometricInterpretation == "PALETTE COLOR"
    header = Header("DICOM", rows, columns, int(dataset.BitsStored), note="; ".join(notes), is_risky=is_risky)
    return SealedFilm(data, header, partial(_read, dataset), partial(_read_stored, dataset))


def _check_samples(dataset: Dataset) -> None:
    """Raises DecodeError for samples that are deep or oddly placed, and for native pixels that are not all there."""
    stored, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if allocated not in (1, 8, 16) or not 1 <= stored <= allocated:
        raise DecodeError(f"DICOM samples are not of 1, 8 or 16 bits: {allocated} bits allocated, {stored} stored")
    if int(dataset.get("HighBit", stored - 1)) != stored - 1:
        raise DecodeError("DICOM samples do not start at bit 0")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated or dataset.PhotometricInterpretation == "YBR_FULL_422":
        return
    needed = (int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1)) * allocated + 7) // 8
    if len(dataset.PixelData) < needed:
        raise DecodeError(f"DICOM is truncated: {len(dataset.PixelData)} bytes of pixels, {needed} needed")


def _parse(data: bytes, max_bytes: int) -> Dataset:
    """The wanted elements of a file, with its transfer syntax in `file_meta`."""
    syntax, body = _transfer_syntax(data)
    if syntax == DeflatedExplicitVRLittleEndian:
        data = _inflate(data[body:], max_bytes)
        if _transfer_syntax(data)[0] == DeflatedExplicitVRLittleEndian:  # pydicom itself would inflate it once more, without a limit
            raise DecodeError("DICOM is deflated twice")
    dataset: Dataset = dcmread(BoundedFile(data), force=True, specific_tags=list(_TAGS))
    if not getattr(dataset, "file_meta", None) or "TransferSyntaxUID" not in dataset.file_meta:
        # Without a meta group the samples can only be in a native encoding.
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    return dataset


def _transfer_syntax(data: bytes) -> tuple[str, int]:
    """The transfer syntax of the file meta group, and the offset of what follows that group, as pydicom itself will find them."""
    stream = BoundedFile(data)
    read_preamble(stream, force=True)
    meta = _read_file_meta_info(stream)
    return str(meta.get("TransferSyntaxUID", "")), stream.tell()


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """The plain data set of a deflated one, of at most `max_bytes`; pydicom itself would inflate without end."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(body, max_bytes)
    if inflater.unconsumed_tail:
        raise DecodeError(f"DICOM inflates to more than {max_bytes} bytes (decode.max_bytes)")
    if not inflater.eof:
        raise DecodeError("DICOM is truncated")
    return plain


def _read(dataset: Dataset, recipe: PixelRecipe) -> Film:
    samples, photometric = _first_frame(dataset)
    if photometric == "PALETTE COLOR":
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        return Film(to_gray(apply_color_lut(samples, dataset)), white_level(bits, recipe))
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        return Film(to_unit(np.ascontiguousarray(samples), dataset, recipe), 1.0)
    if photometric != "RGB" or samples.dtype.kind != "u":
        raise DecodeError(f"DICOM photometric interpretation is not read: {photometric[:16]!r}")
    return Film(to_gray(samples), white_level(int(dataset.BitsStored), recipe))


def _read_stored(dataset: Dataset) -> Film:
    """Stored gray values before any rescale or window, with those that are shown black and white; colour as `_read` has it."""
    samples, photometric = _first_frame(dataset)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return _read(dataset, PixelRecipe(resolution=1))
    black, white = shown_range(dataset, is_signed=samples.dtype.kind == "i")
    gray = to_gray(samples)
    return Film(np.ascontiguousarray(gray, dtype=np.int16) if gray.dtype == np.int8 else np.ascontiguousarray(gray), white, black)


def _first_frame(dataset: Dataset) -> tuple[Samples, str]:
    """Stored samples [H, W] or [H, W, 3] (YBR turned to RGB) in the machine's byte order, and what they mean."""
    syntax = dataset.file_meta.TransferSyntaxUID
    frame = _check_frame(dataset) if syntax.is_encapsulated else b""
    if frame.startswith(jpeg.SIGNATURE) and (header := jpeg.read_frame(frame)).components == 1:
        # Gray JPEG of every process, retired ones too, is read as JPEG files are; so it does not matter which plugins are installed.
        return _with_sign(to_gray(jpeg.decode_codestream(frame, header)), dataset), str(dataset.PhotometricInterpretation)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DecodeError(f"DICOM transfer syntax is not read: {syntax.name[:64]}") from None
    if not decoder.is_available:
        raise DecodeError(f"no pydicom plugin is installed for this DICOM transfer syntax: {syntax.name[:64]}")
    # The quicker plugin for run-length coding panics on damaged frames, past any `except`.
    samples, meta = decoder.as_array(dataset, index=0, decoding_plugin="pydicom" if syntax == RLELossless else "")
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    return samples, str(meta["photometric_interpretation"])


def _with_sign(samples: Samples, dataset: Dataset) -> Samples:
    """JPEG knows no sign: where the file has signed samples, bit BitsStored - 1 is it."""
    if dataset.get("PixelRepresentation") != 1:
        return samples
    spare = 8 * samples.dtype.itemsize - int(dataset.BitsStored)
    shifted = np.left_shift(samples, max(spare, 0)).view(f"i{samples.dtype.itemsize}")
    return np.asarray(np.right_shift(shifted, max(spare, 0)))


def _check_frame(dataset: Dataset) -> bytes:
    """The first compressed frame, once its own header agrees with the file's: a small file may hide a huge codestream."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths) if dataset.get("ExtendedOffsetTable") else None
    frame = get_frame(dataset.PixelData, 0, number_of_frames=frames, extended_offsets=offsets)
    size = (int(dataset.Rows), int(dataset.Columns))
    if frame.startswith(jpeg.SIGNATURE):
        header = jpeg.read_frame(frame)
        height, width, samples = header.height, header.width, header.components
        if not jpeg.is_whole(frame):
            raise DecodeError("DICOM frame is truncated: its JPEG has no end-of-image marker")
    elif frame.startswith(jpeg2000.SIGNATURE_CODESTREAM):
        height, width, components = jpeg2000.read_size(frame[:64])
        samples = len(components)
    else:
        return frame
    if (height, width) != size:
        raise DecodeError(f"DICOM frame has another size than its header says: {height}x{width}, not {size[0]}x{size[1]}")
    # One of pydicom's plugins ends the process where these differ.
    if not samples == int(dataset.get("SamplesPerPixel", 1)) == (1 if dataset.PhotometricInterpretation in _ONE_SAMPLE else 3):
        raise DecodeError(f"DICOM frame has another number of samples a pixel than its header says: {samples}")
    return frame
