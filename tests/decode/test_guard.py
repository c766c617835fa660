"""The guard: the same films from a child as from here, and a child that dies, hangs or swells costs one film and nothing else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate

from engine.config import DecodeConfig
from engine.decode.cpu import PoolDecoder
from engine.decode.formats import open_film, read_film, settle_libraries
from engine.decode.guard import Guard
from engine.errors import ConfigError, DecodeError
from engine.recipe import PixelRecipe
from engine.records import ImageRef
from tests.decode.film_files import dicom, encapsulated, good_films, ramp

CONFIG = DecodeConfig(max_seconds=20)
RECIPE = PixelRecipe(resolution=32)
GOOD = {name: film.data for name, film in good_films().items()}
RISKY = {name for name, data in GOOD.items() if open_film(data, CONFIG).header.is_risky}
# Run-length coding that says nothing, forty million times: pydicom reads it in a loop of its own for about ten seconds.
SLOW = encapsulated(dicom(ramp()), encapsulate([b"\1\0\0\0\x40" + bytes(59) + b"\x80" * 40_000_000]), "1.2.840.10008.1.2.5")


@pytest.fixture
def guard() -> Iterator[Guard]:
    settle_libraries()
    guard = Guard(RECIPE, CONFIG)
    yield guard
    guard.close()
    assert children() == []


def children() -> list[int]:
    """Processes of the guard that this one has."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"engine.decode.guarded_child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def test_risky_films_are_those_of_codecs_that_damage_can_break() -> None:
    found = {name for name, data in GOOD.items() if open_film(data, CONFIG).header.is_risky}
    assert found == {
        "jpeg12", "jpeg-lossless", "jpeg-ls", "jp2-8", "jp2-16", "jp2-rgb", "j2k-12", "dicom12-j2k", "dicom16-rle",
    }  # fmt: skip


def test_guarded_films_are_the_same_bit_by_bit(guard: Guard) -> None:
    for name, data in GOOD.items():
        sealed = open_film(data, CONFIG)
        here, there = read_film(sealed, RECIPE), guard.read(sealed)
        np.testing.assert_array_equal(here.samples, there.samples, err_msg=name)
        assert (here.samples.dtype, here.white) == (there.samples.dtype, there.white), name
    assert len(children()) == 1


def test_reasons_are_the_same(guard: Guard) -> None:
    sealed = open_film(GOOD["jp2-16"][:-200], CONFIG)
    with pytest.raises(DecodeError) as here:
        read_film(sealed, RECIPE)
    with pytest.raises(DecodeError) as there:
        guard.read(sealed)
    assert here.value.reason == there.value.reason


def test_threads_have_a_child_each(guard: Guard) -> None:
    sealed = [open_film(GOOD[name], CONFIG) for name in sorted(RISKY)]
    with ThreadPoolExecutor(2) as pool:
        films = list(pool.map(guard.read, sealed * 3))
    for one, film in zip(sealed * 3, films, strict=True):
        np.testing.assert_array_equal(film.samples, read_film(one, RECIPE).samples)
    assert 1 <= len(children()) <= 2


def test_a_child_that_was_lost_costs_nothing(guard: Guard) -> None:
    sealed = open_film(GOOD["jp2-8"], CONFIG)
    first = guard.read(sealed)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    np.testing.assert_array_equal(guard.read(sealed).samples, first.samples)
    assert children() != [child]


def test_a_film_that_ends_two_children_is_named(guard: Guard) -> None:
    stop = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not stop.wait(0.01):
            for child in children():
                os.kill(child, signal.SIGSEGV)
                killed.append(child)

    killer = threading.Thread(target=kill)
    sealed = open_film(SLOW, CONFIG)
    guard.read(open_film(GOOD["jp2-8"], CONFIG))  # so that a child is there before it can be killed for not having started
    pairs = [guard._take() for _ in range(2)]
    guard._idle += pairs
    killer.start()
    try:
        with pytest.raises(DecodeError, match="DICOM data end the process that decodes them: SIGSEGV"):
            guard.read(sealed)
    finally:
        stop.set()
        killer.join()
    assert len(set(killed)) == 2
    assert guard.read(open_film(GOOD["jp2-8"], CONFIG)).samples.shape == (40, 56)


def test_a_film_that_takes_too_long_is_given_up() -> None:
    cfg = DecodeConfig(max_seconds=0.2)
    guard = Guard(RECIPE, cfg)
    with pytest.raises(DecodeError, match=r"^took longer than 0\.2 s$"):
        guard.read(open_film(SLOW, cfg))
    assert guard.read(open_film(GOOD["jp2-8"], cfg)).samples.shape == (40, 56)
    guard.close()


def test_safe_films_start_no_process() -> None:
    decoder = PoolDecoder(RECIPE, DecodeConfig(threads=1), read=GOOD.__getitem__, batch_size=8, film_size=None)
    refs = [ImageRef(row, name, name) for row, name in enumerate(sorted(GOOD.keys() - RISKY))]
    assert [ref.uri for batch in decoder.batches(refs) for ref in batch.refs] == [ref.uri for ref in refs]
    assert children() == []
    decoder.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_seconds_are_checked(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"decode\.max_seconds"):
        DecodeConfig(max_seconds=seconds)
