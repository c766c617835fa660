"""Damage that knows no format: bits, bytes, runs, cuts, lengths as numbers, and two files spliced into one."""

from __future__ import annotations

import numpy as np

Random = np.random.Generator

# Numbers that readers stumble over: none, one, the ends of signed and unsigned words, and sizes that look possible.
NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 4095, 32767, 32768, 60000, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_HEAD = 400  # bytes in which most headers lie; half of all damage goes there


def place(data: bytes, random: Random) -> int:
    """An offset into `data`, in its head as often as anywhere."""
    end = len(data) if random.random() < 0.5 else min(len(data), _HEAD)
    return int(random.integers(end)) if end else 0


def flip_bits(data: bytes, random: Random) -> bytes:
    """One to sixteen single bits changed."""
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 17)) if len(data) else 0):
        damaged[place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def overwrite_run(data: bytes, random: Random) -> bytes:
    """A run of zeros, of ones, or of noise over what was there."""
    at, length = place(data, random), int(random.integers(1, 64))
    length = min(length, len(data) - at)
    run = (bytes(length), b"\xff" * length, random.bytes(length))[int(random.integers(3))]
    return data[:at] + run + data[at + length :]


def put_number(data: bytes, random: Random) -> bytes:
    """One of NUMBERS as a word of 1, 2, 4 or 8 bytes in either byte order."""
    size = (1, 2, 4, 8)[int(random.integers(4))]
    number = NUMBERS[int(random.integers(len(NUMBERS)))] % 256**size
    at = place(data, random)
    return data[:at] + number.to_bytes(size, ("little", "big")[int(random.integers(2))]) + data[at + size :]


def cut(data: bytes, random: Random) -> bytes:
    """The file up to some byte."""
    return data[: place(data, random)]


def remove_run(data: bytes, random: Random) -> bytes:
    """Some bytes missing from the middle."""
    at = place(data, random)
    return data[:at] + data[at + int(random.integers(1, 200)) :]


def repeat_run(data: bytes, random: Random) -> bytes:
    """A part of the file that stands there twice, or very often."""
    at, length = place(data, random), int(random.integers(1, 200))
    times = 2 if random.random() < 0.8 else int(random.integers(3, 2000))
    return data[:at] + data[at : at + length] * times + data[at + length :]


def insert_noise(data: bytes, random: Random) -> bytes:
    """Noise between two bytes."""
    at = place(data, random)
    return data[:at] + random.bytes(int(random.integers(1, 100))) + data[at:]


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: place(data, random)] + other[place(other, random) :]


ANY_FORMAT = (flip_bits, flip_bits, overwrite_run, put_number, put_number, cut, remove_run, repeat_run, insert_noise)
