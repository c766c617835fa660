"""Layers that are cut, changed, or made to deceive: one error, and no memory taken for pixels that are not there."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from engine.errors import LayerError
from engine.fidelity.codestream import CODESTREAMS, decode_plane, encode_plane
from engine.fidelity.decode import decode_layer, layer_info
from engine.fidelity.encode import encode_film
from engine.fidelity.header import HEADER_BYTES, pack, unpack
from engine.fidelity.heads import squeeze, stretch
from engine.fidelity.region import Region
from engine.fidelity.target import Target
from engine.fidelity.way import Way
from tests.fidelity.film_shapes import radiograph

FILM = radiograph()
BOX = Region(10, 20, 40, 60)
LAYERS = {
    "lossless": encode_film(FILM, Target("lossless"), Way("jxl", 3)).data,
    "max-error": encode_film(FILM, Target("max-error", 2), Way("j2k")).data,
    "corrected": encode_film(FILM, Target("max-error", 4), Way("avif", 10, start=20)).data,
    "j2k": encode_film(FILM, Target("psnr", 36), Way("j2k")).data,
    "avif": encode_film(FILM, Target("psnr", 36), Way("avif", 10)).data,
    "region": encode_film(FILM, Target("psnr", 36), Way("j2k"), region=BOX).data,
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_cut_anywhere_is_refused(name: str) -> None:
    data = LAYERS[name]
    for end in [*range(0, 80, 3), *random.Random(0).sample(range(len(data)), 20), len(data) - 1]:
        with pytest.raises(LayerError):
            decode_layer(data[:end])


@pytest.mark.parametrize("name", LAYERS)
def test_a_changed_byte_is_refused(name: str) -> None:
    data = bytearray(LAYERS[name])
    for at in [*range(HEADER_BYTES + 40), *random.Random(1).sample(range(len(data)), 40)]:
        changed = bytearray(data)
        changed[at] ^= 0x10
        if at == 10 - 1:
            continue  # the byte that the header leaves free
        with pytest.raises(LayerError):
            decode_layer(bytes(changed))


@pytest.mark.parametrize("name", LAYERS)
def test_damage_with_a_right_checksum_is_an_error_or_a_film(name: str) -> None:
    """Whoever makes a layer can make its checksum, so what the codecs meet may be anything."""
    info, body = unpack(LAYERS[name])
    rng = random.Random(2)
    refused = 0
    for _ in range(60):
        changed = bytearray(body)
        for _ in range(rng.choice([1, 1, 4, 30])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            film = decode_layer(pack(info, bytes(changed[: rng.choice([len(changed), rng.randrange(len(changed))])])))
        except LayerError:
            refused += 1
        else:
            assert film.samples.shape == FILM.samples.shape
    assert refused > 0


@pytest.mark.parametrize("name", ["j2k", "avif", "lossless"])
def test_a_picture_of_another_size_is_refused(name: str) -> None:
    info, body = unpack(LAYERS[name])
    with pytest.raises(LayerError, match=r"another size|cannot be decoded by jxl: invalid out\.shape"):
        decode_layer(pack(replace(info, height=info.height + 1), body))


def test_sizes_are_checked_before_anything_is_decoded() -> None:
    info, body = unpack(LAYERS["j2k"])
    with pytest.raises(LayerError, match="more than 100000000: 60000x60000"):
        layer_info(pack(replace(info, height=60000, width=60000), body))
    with pytest.raises(LayerError, match="more than 100"):
        decode_layer(LAYERS["j2k"], max_pixels=100)
    huge = encode_plane("j2k", FILM.samples, 8, quality=36, effort=0)
    lying = bytearray(huge)
    lying[8:16] = struct.pack(">II", 50_000, 50_000)
    with pytest.raises(LayerError, match="another size: 50000x50000"):
        decode_plane("j2k", bytes(lying), FILM.samples.shape, 8)


def test_headers_that_make_no_sense_are_refused() -> None:
    data = LAYERS["j2k"]
    with pytest.raises(LayerError, match="truncated: 3 bytes"):
        layer_info(data[:3])
    with pytest.raises(LayerError, match="not a fidelity layer"):
        layer_info(b"PNG" + data[3:])
    with pytest.raises(LayerError, match="version that is not read: 9"):
        layer_info(data[:3] + b"\x09" + data[4:])
    info, body = unpack(data)
    with pytest.raises(LayerError, match="makes no sense"):
        layer_info(pack(replace(info, step=0), body))


def test_digest_of_a_lossless_layer_is_checked() -> None:
    info, body = unpack(LAYERS["lossless"])
    with pytest.raises(LayerError, match="digest"):
        decode_layer(pack(info, bytes(32) + body[32:]))


def test_a_base_that_decodes_otherwise_elsewhere_promises_nothing() -> None:
    info, body = unpack(LAYERS["corrected"])
    assert info.has_base
    with pytest.raises(LayerError, match="other samples here than where it was made"):
        decode_layer(pack(info, body[:4] + bytes(4) + body[8:]))


@pytest.mark.parametrize("name", CODESTREAMS)
def test_heads_are_squeezed_without_loss(name: str) -> None:
    codec = CODESTREAMS[name]
    for shape in [(1, 1), (1, 9), (40, 33), (128, 128)]:
        plane = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape).astype(np.uint8)
        code = encode_plane(name, plane, 8, quality=None if codec.write is None else codec.knob.low + 5, effort=codec.effort)  # type: ignore[union-attr]
        assert stretch(squeeze(name, code)) == code
        assert len(squeeze(name, code)) <= len(code) + 2
    for junk in (b"", b"\xff\x93", b"mdat", bytes(5000), bytes(5000) + b"mdat"):
        assert stretch(squeeze(name, junk)) == junk
