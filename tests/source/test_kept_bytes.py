"""Two stages read a film once; memory is bounded, and what had to go is read anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.errors import ReadError
from engine.source.kept_bytes import KeptBytes

FILES = {f"film-{number}": bytes([number]) * 10 for number in range(8)}


class Disk:
    """Counts what is read of FILES."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, uri: str) -> bytes:
        self.read.append(uri)
        if uri not in FILES:
            raise ReadError("file vanished")
        return FILES[uri]


def test_the_second_reader_gets_what_the_first_was_given_once() -> None:
    disk = Disk()
    films = KeptBytes(disk, most_bytes=1000)
    assert [films.first(uri) for uri in FILES] == list(FILES.values())
    assert [films.again(uri) for uri in FILES] == list(FILES.values())
    assert disk.read == list(FILES)
    assert films.again("film-3") == FILES["film-3"]  # a third one reads
    assert disk.read == [*FILES, "film-3"]


def test_the_oldest_are_let_go_and_read_anew() -> None:
    disk = Disk()
    films = KeptBytes(disk, most_bytes=35)
    for uri in FILES:
        films.first(uri)
    disk.read.clear()
    assert [films.again(uri) for uri in FILES] == list(FILES.values())
    assert disk.read == list(FILES)[:5]  # three of ten bytes fit


def test_a_film_larger_than_the_room_is_not_kept() -> None:
    disk = Disk()
    films = KeptBytes(disk, most_bytes=9)
    assert films.first("film-1") == films.again("film-1") == FILES["film-1"]
    assert disk.read == ["film-1", "film-1"]


def test_a_film_that_is_listed_twice_is_kept_once() -> None:
    disk = Disk()
    films = KeptBytes(disk, most_bytes=20)
    for uri in ("film-1", "film-2", "film-1", "film-1"):
        films.first(uri)
    assert films.again("film-2") == FILES["film-2"]
    assert films.again("film-1") == FILES["film-1"]
    assert len(disk.read) == 4


def test_what_cannot_be_read_raises_for_both() -> None:
    films = KeptBytes(Disk(), most_bytes=100)
    for read in (films.first, films.again):
        with pytest.raises(ReadError, match="vanished"):
            read("none")


def test_threads_may_share_it() -> None:
    films = KeptBytes(Disk(), most_bytes=40)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda turn: (films.first if turn % 3 else films.again)(f"film-{turn % 8}"), range(2000)))
    assert got == [FILES[f"film-{turn % 8}"] for turn in range(2000)]
