"""DICOM: what stored values mean, against the formulas of the standard; and nothing of a header gets out."""

from __future__ import annotations

import logging

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from engine.config import DecodeConfig
from engine.decode.film import Film
from engine.decode.formats import open_film, read_film, settle_libraries
from engine.errors import DecodeError
from engine.recipe import PixelRecipe
from tests.decode.film_files import dicom, encapsulated, lut_item, ramp, unit

AUTO = PixelRecipe(resolution=32)
NONE = PixelRecipe(resolution=32, window="none")
STORED = ramp(12)


@pytest.fixture(autouse=True)
def _settled() -> None:
    settle_libraries()


def read(data: bytes, recipe: PixelRecipe = AUTO) -> np.ndarray:
    film: Film = read_film(open_film(data, DecodeConfig()), recipe)
    assert film.white == 1
    assert film.samples.dtype == np.float32
    return film.samples


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, written as the standard has it, with y from 0 to 1."""
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    inside = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.where(values <= low, 0, np.where(values > high, 1, inside))


def test_without_window_the_stored_bits_are_the_range() -> None:
    np.testing.assert_allclose(read(dicom(STORED, bits=12)), unit(STORED, 12), atol=1e-7)
    np.testing.assert_allclose(read(dicom(STORED, bits=16)), unit(STORED, 16), atol=1e-7)


def test_monochrome1_is_inverted() -> None:
    data = dicom(STORED, bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read(data), 1 - unit(STORED, 12), atol=1e-7)


def test_signed_values_span_both_signs() -> None:
    signed = (STORED.astype(np.int32) - 2048).astype(np.int16)
    np.testing.assert_allclose(read(dicom(signed, bits=12)), unit(STORED, 12), atol=1e-7)


def test_rescale_alone_changes_nothing_unless_it_turns_the_scale_over() -> None:
    np.testing.assert_allclose(read(dicom(STORED, bits=12, RescaleSlope=2.5, RescaleIntercept=-1024)), unit(STORED, 12), atol=1e-7)
    np.testing.assert_allclose(read(dicom(STORED, bits=12, RescaleSlope=-1, RescaleIntercept=4095)), 1 - unit(STORED, 12), atol=1e-7)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_is_applied_after_the_rescale(photometric: str) -> None:
    data = dicom(
        STORED,
        bits=12,
        WindowCenter=40,
        WindowWidth=400,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        PhotometricInterpretation=photometric,
    )
    expected = linear(STORED - 1024.0, 40, 400)
    np.testing.assert_allclose(read(data), expected if photometric == "MONOCHROME2" else 1 - expected, atol=1e-7)
    full = unit(STORED, 12)
    np.testing.assert_allclose(read(data, NONE), full if photometric == "MONOCHROME2" else 1 - full, atol=1e-7)


def test_window_shapes() -> None:
    exact = dicom(STORED, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(read(exact), np.clip((STORED - 2000.0) / 1000 + 0.5, 0, 1), atol=1e-7)
    sigmoid = dicom(STORED, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(read(sigmoid), 1 / (1 + np.exp(-4 * (STORED - 2000.0) / 1000)), atol=1e-7)
    step = dicom(STORED, bits=12, WindowCenter=2000, WindowWidth=1)
    np.testing.assert_array_equal(read(step), STORED > 1999.5)
    with pytest.raises(DecodeError, match="function is unknown"):
        read(dicom(STORED, bits=12, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="CUBIC"))


def test_the_first_of_several_windows_counts() -> None:
    data = dicom(STORED, bits=12, WindowCenter=[1000, 3000], WindowWidth=[500, 50])
    np.testing.assert_allclose(read(data), linear(STORED.astype(float), 1000, 500), atol=1e-7)


def test_a_window_without_width_is_ignored_and_noted() -> None:
    data = dicom(STORED, bits=12, WindowCenter=1000, WindowWidth=0)
    assert open_film(data, DecodeConfig()).header.note == "window without width ignored"
    np.testing.assert_allclose(read(data), unit(STORED, 12), atol=1e-7)


def test_voi_lut_comes_before_the_window() -> None:
    entries = [int(value) for value in np.rint(np.linspace(0, 1, 1000) ** 2 * 1023)]
    item = lut_item(entries, first=500, bits=10)
    data = dicom(STORED, bits=12, VOILUTSequence=[item], WindowCenter=40, WindowWidth=400)
    expected = np.array(entries)[np.clip(STORED.astype(int) - 500, 0, 999)] / 1023
    np.testing.assert_allclose(read(data), expected, atol=1e-7)


def test_modality_lut_replaces_the_rescale() -> None:
    entries = [int(value) for value in np.rint(np.sqrt(np.linspace(0, 1, 4096)) * 4095)]
    data = dicom(STORED, bits=12, ModalityLUTSequence=[lut_item(entries, first=0, bits=12)], WindowCenter=2048, WindowWidth=1024)
    values = np.array(entries)[STORED].astype(float)
    np.testing.assert_allclose(read(data), linear(values, 2048, 1024), atol=1e-7)
    np.testing.assert_allclose(read(data, NONE), values / 4095, atol=1e-7)


def test_lut_of_signed_values_may_begin_below_zero() -> None:
    signed = (STORED.astype(np.int32) - 2048).astype(np.int16)
    entries = list(range(4096))
    data = dicom(signed, bits=12, VOILUTSequence=[lut_item(entries, first=-2048, bits=12)])
    np.testing.assert_allclose(read(data), unit(STORED, 12), atol=1e-7)


def test_short_lut_is_refused() -> None:
    item = lut_item([1, 2, 3], first=0, bits=12)
    item.LUTDescriptor = [4, 0, 12]
    with pytest.raises(DecodeError, match="fewer entries"):
        read(dicom(STORED, bits=12, VOILUTSequence=[item]))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_black(photometric: str) -> None:
    stored = STORED.copy()
    stored[:5] = 4000
    stored[-3:] = 4001
    data = dicom(
        stored, bits=12, PhotometricInterpretation=photometric, PixelPaddingValue=4000, PixelPaddingRangeLimit=4001, PixelRepresentation=0
    )
    film = read(data)
    assert not film[:5].any()
    assert not film[-3:].any()
    gray = unit(stored, 12) if photometric == "MONOCHROME2" else 1 - unit(stored, 12)
    rest = ~np.isin(stored, (4000, 4001))
    np.testing.assert_allclose(film[rest], gray[rest], atol=1e-7)


def test_first_frame_of_many_with_a_note() -> None:
    frames = np.stack([STORED, STORED[::-1], STORED])
    sealed = open_film(dicom(frames, bits=12), DecodeConfig())
    assert sealed.header.note == "first of 3 frames"
    np.testing.assert_allclose(read(dicom(frames, bits=12)), unit(STORED, 12), atol=1e-7)


def test_recipe_bits_override_the_stored_bits() -> None:
    gray = read(dicom(STORED, bits=16), PixelRecipe(resolution=32, bits=12))
    np.testing.assert_allclose(gray, unit(STORED, 12), atol=1e-7)


def test_unused_high_bits_are_not_part_of_the_film() -> None:
    overlay = STORED | np.uint16(0x8000)
    np.testing.assert_allclose(read(dicom(overlay, bits=12)), unit(STORED, 12), atol=1e-7)


def test_palette_colour() -> None:
    table = np.arange(256, dtype=np.uint16) * 257
    palette = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    palette |= {f"{name}PaletteColorLookupTableData": table.tobytes() for name in ("Red", "Green", "Blue")}
    film = read_film(open_film(dicom(ramp(), PhotometricInterpretation="PALETTE COLOR", **palette), DecodeConfig()), AUTO)
    np.testing.assert_allclose(film.samples / film.white, unit(ramp(), 8), atol=1e-6)


def test_ybr_full_is_gray_by_its_luma() -> None:
    ybr = np.stack([ramp(), np.full_like(ramp(), 128), np.full_like(ramp(), 128)], axis=-1)
    data = dicom(np.ascontiguousarray(ybr), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)
    film = read_film(open_film(data, DecodeConfig()), AUTO)
    np.testing.assert_allclose(film.samples / film.white, unit(ramp(), 8), atol=1e-6)


def test_codestream_of_another_size_than_the_header_says() -> None:
    with pytest.raises(DecodeError, match="another size"):
        read(dicom(STORED, bits=12, syntax=JPEG2000Lossless).replace(b"\x28\0\x10\0US\2\0\x28\0", b"\x28\0\x10\0US\2\0\x27\0"))


def test_nothing_of_the_header_is_logged_or_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    data = dicom(STORED, bits=12, WindowCenter=40, WindowWidth=400).replace(b"40", b"S!")
    with caplog.at_level(logging.DEBUG), pytest.raises(DecodeError) as caught:
        read(data)
    out, err = capfd.readouterr()
    for text in (caught.value.reason, out, err, caplog.text):
        assert "Secret" not in text
        assert "S!" not in text


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("process", ["lossless", "JPEG-LS"])
def test_gray_jpeg_frames_need_no_plugin(process: str, signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = STORED.astype(np.int32) - 2048 * signed
    bits12 = (stored & 0xFFF).astype(np.uint16)
    if process == "lossless":
        frame, syntax = imagecodecs.jpeg8_encode(bits12, lossless=True, bitspersample=12), JPEGLosslessSV1
    else:
        frame, syntax = imagecodecs.jpegls_encode(bits12), JPEGLSLossless
    plain = dicom(stored.astype(np.int16 if signed else np.uint16), bits=12)
    data = encapsulated(plain, encapsulate([frame]), syntax)
    monkeypatch.setattr("engine.decode.dicom.get_decoder", None)
    np.testing.assert_allclose(read(data), unit(STORED, 12), atol=1e-7)
    with pytest.raises(DecodeError, match="truncated"):
        read(encapsulated(plain, encapsulate([frame[:-20]]), syntax))


def test_unknown_transfer_syntax_is_named() -> None:
    with pytest.raises(DecodeError, match="transfer syntax is not read: MPEG2"):
        read(encapsulated(dicom(STORED, bits=12), encapsulate([b"\0\0\1\xb3" * 10]), MPEG2MPML))
