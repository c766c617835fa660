"""Objects of small arrays, packed without Zarr's machinery, which costs more than the packing: the same bytes, held equal by tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from numcodecs.vlen import VLenUTF8

Pack = Callable[[bytes], bytes]
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class PlainChunk:
    """One array whose chunks are single objects: numbers or strings, then zstd or blosc or neither, then crc32c."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._rows = int(document["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._is_text = document["data_type"] == "string"
        self._dtype = np.dtype(object if self._is_text else document["data_type"])
        self._fill: Any = "" if self._is_text else self._dtype.type(document["fill_value"])
        self._packs = [_packs(each) for each in document["codecs"][1:]]

    @staticmethod
    def suits(document: Mapping[str, Any]) -> bool:
        """Whether an array is packed in a way that this module knows."""
        names = [each["name"] for each in document["codecs"]]
        is_text = document["data_type"] == "string" and names[:1] == ["vlen-utf8"]
        is_number = document["data_type"] in _NUMBERS and names[:1] == ["bytes"]
        return (is_text or is_number) and names[-1] == "crc32c" and set(names[1:-1]) <= {"zstd", "blosc"}

    def encode(self, values: np.ndarray[Any, Any]) -> bytes | None:
        """The object of up to a chunk's rows, the rest being fill; None where all values are fill and no object is kept."""
        values = np.asarray(values, dtype=self._dtype)
        if self._is_all_fill(values):
            return None
        whole = np.full((self._rows, *values.shape[1:]), self._fill, dtype=self._dtype)
        whole[: len(values)] = values
        data = bytes(VLenUTF8().encode(whole)) if self._is_text else whole.astype(self._dtype.newbyteorder("<")).tobytes()
        for pack in self._packs:
            data = pack(data)
        return data

    def _is_all_fill(self, values: np.ndarray[Any, Any]) -> bool:
        if self._dtype.kind == "f" and np.isnan(self._fill):
            return bool(np.isnan(values).all())
        return bool((values == self._fill).all())


_NUMBERS = frozenset(("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"))


def _packs(codec: Mapping[str, Any]) -> Pack:
    settings = codec.get("configuration", {})
    if codec["name"] == "crc32c":
        return lambda data: data + google_crc32c.value(data).to_bytes(4, "little")
    if codec["name"] == "zstd":
        zstd = numcodecs.Zstd(level=settings["level"], checksum=settings["checksum"])
        return lambda data: bytes(zstd.encode(data))
    shuffle = _SHUFFLES[settings["shuffle"]]
    blosc = numcodecs.Blosc(settings["cname"], settings["clevel"], shuffle, settings["blocksize"])
    return lambda data: bytes(blosc.encode(np.frombuffer(data, dtype=f"u{settings['typesize']}")))
