"""The first bytes of a codestream, squeezed: they hardly differ from film to film, and of a layer of 3 kB they would be a tenth."""

from __future__ import annotations

import zlib

from engine.errors import LayerError

# What the heads look like, as a dictionary for deflate. Part of the layer's format: a change needs a new version.
_J2K = (
    b"\xff\x4f\xff\x51\x00\x29\x00\x00\x00\x00\x04\x00\x00\x00\x04\x00" + bytes(10) + b"\x04\x00\x00\x00\x04\x00" + bytes(8)
    + b"\x00\x01\x07\x01\x01\xff\x52\x00\x14\x01\x02\x00\x01\x00\x07\x04\x04\x00\x00" + b"\x88" * 8
    + b"\xff\x5c\x00\x2fB\x7f\x00~\xc0~\xc0~\x80v\xe0v\xe0v\xa0n\xf0n\xf0n\xc0g\x00g\x00f\xe0_P_P_hH\x05H\x05HGO\xd3O\xd3Ob"
    + b"\xff\x5c\x00\x2fBo\x00n\xc0n\xc0n\x80f\xe0f\xe0f\xa0^\xf0^\xf0^\xc0W\x00W\x00V\xe0OPOPOh8\x058\x058G?\xd3?\xd3?b"
    + b"\xff\x5c\x00\x2fBw\x00v\xc0v\xc0v\x80n\xe0n\xe0n\xa0f\xf0f\xf0f\xc0_\x00_\x00^\xe0WPWPWh@\x05@\x05@GG\xd3G\xd3Gb"
    + b"\xff\x64\x00\x25\x00\x01Created by OpenJPEG version 2.5.4\xff\x90\x00\x0a\x00\x00\x00\x00\x14\x86\x00\x01\xff\x93"
)  # fmt: skip
_AVIF = (
    b"\x00\x00\x00 ftypavif\x00\x00\x00\x00avifmif1miafMA1AMA1B\x00\x00\x00\xebmeta" + bytes(7) + b"!hdlr" + bytes(8) + b"pict"
    + bytes(15) + b"\x0epitm" + bytes(5) + b"\x01\x00\x00\x00\x1eiloc\x00\x00\x00\x00D\x00\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00"
    + b"\x01\x13\x00\x00\x14\xa2\x00\x00\x00(iinf" + bytes(5) + b"\x01\x00\x00\x00\x1ainfe\x02\x00\x00\x00\x00\x01\x00\x00av01Color"
    + b"\x00\x00\x00\x00jiprp\x00\x00\x00Kipco\x00\x00\x00\x14ispe" + bytes(6) + b"\x04\x00\x00\x00\x04\x00\x00\x00\x00\x10pixi"
    + b"\x00\x00\x00\x00\x03\x0a\x0a\x0a\x00\x00\x00\x10pixi\x00\x00\x00\x00\x03\x08\x08\x08\x00\x00\x00\x0cav1C\x81\x05L\x00"
    + b"\x00\x00\x00\x0cav1C\x81\x05\x0c\x00\x00\x00\x00\x13colrnclx\x00\x02\x00\x02\x00\x06\x80\x00\x00\x00\x17ipma" + bytes(7)
    + b"\x01\x00\x01\x04\x01\x02\x83\x04\x00\x00\x14\xa2mdat"
)  # fmt: skip
_DICTIONARY = _J2K + _AVIF
_MOST = 4096  # bytes of a head; a codestream whose head does not end so soon keeps it
_ENDS = {"j2k": b"\xff\x93", "avif": b"mdat"}


def squeeze(name: str, codestream: bytes) -> bytes:
    """The codestream of codec `name` with its head deflated; `stretch` gives it back byte for byte."""
    mark = _ENDS.get(name)
    end = codestream.find(mark, 0, _MOST) if mark else 0
    end = end + len(mark) if mark and end > 0 else 0
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=_DICTIONARY)
    return deflater.compress(codestream[:end]) + deflater.flush() + codestream[end:]


def stretch(data: bytes) -> bytes:
    """The codestream that was squeezed. Raises LayerError where its head does not end."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_DICTIONARY)
    try:
        head = inflater.decompress(data, _MOST + 8)
    except zlib.error as error:
        raise LayerError("layer is damaged: the head of its codestream cannot be inflated") from error
    if not inflater.eof:
        raise LayerError("layer is damaged: the head of its codestream has no end")
    return head + inflater.unused_data
