"""The decoders: every ref ends in its batch, in order, as the same pixels whatever its neighbours, batch size, threads or decoder."""

from __future__ import annotations

import gc
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import DecodeConfig
from engine.decode.choose import Decoder, build_decoder
from engine.decode.film import Film
from engine.decode.formats import open_film, read_film
from engine.decode.prepare import prepare
from engine.errors import ConfigError, ReadError
from engine.recipe import PixelRecipe
from engine.records import ImageRef, PixelBatch, Status
from tests.decode.film_files import bad_films, good_films

RECIPE = PixelRecipe(resolution=32)
EXPECTED = good_films()
GOOD = {name: film.data for name, film in EXPECTED.items()}
BAD = {name: data for name, (data, _) in bad_films().items() if name not in ("dicom-bomb", "jpeg-cut-then-end")}
FILES = {**GOOD, **BAD}
Build = Callable[..., Decoder]


def read(uri: str) -> bytes:
    if uri not in FILES:
        raise ReadError("file is gone")
    return FILES[uri]


def refs_of(names: list[str], first_row: int = 0) -> list[ImageRef]:
    return [ImageRef(first_row + index, f"id-{index}", name) for index, name in enumerate(names)]


def alone(name: str, size: int = 32) -> torch.Tensor:
    out = np.empty((size, size), dtype=np.float32)
    film: Film = read_film(open_film(FILES[name], DecodeConfig()), RECIPE)
    prepare(film, RECIPE, out)
    return torch.from_numpy(out)


@pytest.fixture(params=["cpu", "dali"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    if request.param == "dali":
        pytest.importorskip("nvidia.dali")
    made: list[Decoder] = []

    def make(batch_size: int = 4, *, film_size: int | None = None, read: Callable[[str], bytes] = read) -> Decoder:
        cfg = DecodeConfig(decoder=request.param, threads=2)
        made.append(build_decoder(RECIPE, cfg, read=read, batch_size=batch_size, film_size=film_size))
        return made[-1]

    yield make
    for decoder in made:
        decoder.close()


def check_counts(batches: list[PixelBatch], refs: list[ImageRef], batch_size: int) -> None:
    """Counts in = rows out, stretch by stretch."""
    for start, batch in zip(range(0, len(refs), batch_size), batches, strict=True):
        rows = {ref.row for ref in refs[start : start + batch_size]}
        assert {ref.row for ref in batch.refs} | {failure.row for failure in batch.failures} == rows
        assert len(batch.refs) + len(batch.failures) == len(rows)
        assert batch.pixels.shape == (len(batch.refs), 1, 32, 32)
        assert batch.pixels.dtype == torch.float32
        assert batch.pixels.is_contiguous()
        assert len(batch.infos) == len(batch.refs)
        assert [ref.row for ref in batch.refs] == sorted(ref.row for ref in batch.refs)


@pytest.mark.parametrize("batch_size", [1, 3, 16, 100])
def test_every_format_equals_the_single_film_path(build: Build, batch_size: int) -> None:
    refs = refs_of(list(GOOD))
    batches = list(build(batch_size).batches(refs))
    check_counts(batches, refs, batch_size)
    assert not any(batch.failures for batch in batches)
    for batch in batches:
        for ref, pixels, info in zip(batch.refs, batch.pixels, batch.infos, strict=True):
            torch.testing.assert_close(pixels[0], alone(ref.uri), rtol=0, atol=0)
            expected = EXPECTED[ref.uri]
            assert (info.height, info.width, info.bits) == (*expected.gray.shape, expected.bits)
            assert info.sha256 == hashlib.sha256(GOOD[ref.uri]).digest()


def test_bad_films_become_failures_and_touch_nobody(build: Build) -> None:
    names = [name for pair in zip(BAD, [*GOOD] * 9, strict=False) for name in pair]
    names.append("vanished")
    refs = refs_of(names, first_row=1000)
    batches = list(build(5).batches(refs))
    check_counts(batches, refs, 5)
    failed = {failure.row: failure for batch in batches for failure in batch.failures}
    assert {refs[row - 1000].uri for row in failed} == {*BAD, "vanished"}
    for batch in batches:
        for ref, pixels in zip(batch.refs, batch.pixels, strict=True):
            torch.testing.assert_close(pixels[0], alone(ref.uri), rtol=0, atol=0)
        for failure in batch.failures:
            uri = refs[failure.row - 1000].uri
            assert failure.status is Status.DECODE_ERROR
            assert failure.sample_id == refs[failure.row - 1000].sample_id
            assert failure.stage == ("read" if uri == "vanished" else "decode")
            assert failure.reason
            if uri == "vanished":
                assert failure.row not in batch.failed_infos
            else:
                assert batch.failed_infos[failure.row].sha256 == hashlib.sha256(BAD[uri]).digest()
    info = next(batch.failed_infos[row] for batch in batches for row in batch.failed_infos if refs[row - 1000].uri == "png-broken-stream")
    assert (info.height, info.width, info.bits) == (40, 56, 8)


def test_reasons_do_not_depend_on_the_decoder() -> None:
    pytest.importorskip("nvidia.dali")
    refs = refs_of(list(FILES))
    reasons = []
    for name in ("cpu", "dali"):
        decoder = build_decoder(RECIPE, DecodeConfig(decoder=name, threads=2), read=read, batch_size=7, film_size=None)  # type: ignore[arg-type]
        reasons.append([(failure.row, failure.reason) for batch in decoder.batches(refs) for failure in batch.failures])
        decoder.close()
    assert reasons[0] == reasons[1]
    assert len(reasons[0]) == len(BAD)


def test_a_stretch_of_nothing_but_bad_films_is_an_empty_batch(build: Build) -> None:
    batches = list(build(4, film_size=16).batches(refs_of(["empty", "text", "cut-png8", "vanished"])))
    assert len(batches) == 1
    assert batches[0].pixels.shape == (0, 1, 32, 32)
    assert batches[0].films is not None
    assert batches[0].films.shape == (0, 1, 16, 16)
    assert len(batches[0].failures) == 4


def test_no_refs_give_no_batches(build: Build) -> None:
    assert list(build().batches([])) == []


def test_films_for_the_metrics(build: Build) -> None:
    refs = refs_of(["png8", "empty", "png16", "dicom12"])
    assert next(build().batches(refs)).films is None
    batch = next(build(film_size=32).batches(refs))
    assert batch.films is batch.pixels
    batch = next(build(film_size=64).batches(refs))
    assert batch.films is not None
    for film, ref in zip(batch.films, batch.refs, strict=True):
        torch.testing.assert_close(film[0], alone(ref.uri, 64), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("threads", "choices"),
    [
        (1, {"equalise": "histogram", "bits": 12}),
        (3, {"equalise": "histogram", "bits": 12}),
        (2, {"intensity": "minmax"}),
    ],
    ids=["one thread", "three threads", "own range"],
)
def test_recipes_agree_between_decoders(threads: int, choices: dict[str, Any]) -> None:
    pytest.importorskip("nvidia.dali")
    recipe = PixelRecipe(resolution=48, square="crop", resize="lanczos", **choices)
    batches = []
    for name in ("cpu", "dali"):
        cfg = DecodeConfig(decoder=name, threads=threads)  # type: ignore[arg-type]
        decoder = build_decoder(recipe, cfg, read=read, batch_size=64, film_size=None)
        assert decoder.name == name
        batches.append(next(decoder.batches(refs_of(list(GOOD)))))
        decoder.close()
    assert (batches[0].pixels - batches[1].pixels).abs().max() <= 2 * recipe.tolerance
    torch.testing.assert_close(batches[0].pixels, batches[1].pixels, rtol=0, atol=0)


def test_dali_takes_the_ordinary_films_and_recovers_from_a_bad_one() -> None:
    pytest.importorskip("nvidia.dali")
    from engine.decode.dali import DaliDecoder

    decoder = DaliDecoder(RECIPE, DecodeConfig(threads=2), read=read, batch_size=3, film_size=None)
    assert all(not batch.failures for batch in decoder.batches(refs_of(["png8", "jpeg", "jp2-16", "tiff16-lzw"])))
    assert decoder.num_rebuilds == 0
    batches = list(decoder.batches(refs_of(["png8", "png-broken-stream", "tiff8", "png8", "png-flipped-bit", "jpeg"])))
    assert decoder.num_rebuilds == 1
    assert [len(batch.refs) for batch in batches] == [2, 2]
    torch.testing.assert_close(batches[1].pixels[0], batches[0].pixels[0], rtol=0, atol=0)
    decoder.close()


def test_reading_ahead_is_bounded_and_goes_on_while_the_caller_works(build: Build) -> None:
    begun: list[str] = []
    enough = threading.Event()

    def counting_read(uri: str) -> bytes:
        begun.append(uri)
        if len(begun) == 12:
            enough.set()
        return read(uri)

    batches = build(4, read=counting_read).batches(refs_of(["png8"] * 400))
    assert begun == []  # nothing is read before it is asked for
    next(batches)
    assert enough.wait(20)  # the first stretch and two more, without another call
    batches.close()  # type: ignore[attr-defined]
    assert len(begun) == 12


def test_memory_does_not_grow_with_the_number_of_films(build: Build) -> None:
    decoder = build(4, film_size=64)
    gc.collect()
    alive = []
    for count, _ in enumerate(decoder.batches(refs_of(["png8", "cut-png16", "dicom12", "jpeg"] * 60))):
        if count in (10, 50):
            alive.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    assert alive[1] <= alive[0] + 8  # a stretch more or less may be under way


def test_auto_is_the_thread_pool_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    decoder = build_decoder(RECIPE, DecodeConfig(), read=read, batch_size=2, film_size=None)
    assert decoder.name == "cpu"
    decoder.close()


def test_dali_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"pip install latentray\[gpu\]"):
        build_decoder(RECIPE, DecodeConfig(decoder="dali"), read=read, batch_size=2, film_size=None)


@pytest.mark.gpu
def test_dali_on_a_busy_gpu_gives_the_same_pixels() -> None:
    pytest.importorskip("nvidia.dali")
    refs = refs_of([name for name in GOOD for _ in range(8)])
    batches = []
    for is_busy in (False, True):
        decoder = build_decoder(RECIPE, DecodeConfig(decoder="dali"), read=read, batch_size=8, film_size=None)
        if is_busy:
            torch.cuda._sleep(1_000_000_000)  # type: ignore[no-untyped-call]  # half a second in which nothing on this stream begins
        batches.append([batch.pixels.cpu() for batch in decoder.batches(refs)])
        decoder.close()
    for idle, busy in zip(*batches, strict=True):
        torch.testing.assert_close(busy, idle, rtol=0, atol=0)


@pytest.mark.gpu
def test_dali_on_a_gpu_stays_within_the_tolerance() -> None:
    pytest.importorskip("nvidia.dali")
    refs = refs_of(list(GOOD))
    batches = []
    for name in ("cpu", "dali"):
        decoder = build_decoder(RECIPE, DecodeConfig(decoder=name), read=read, batch_size=8, film_size=64)  # type: ignore[arg-type]
        batches.append(list(decoder.batches(refs)))
        decoder.close()
    for cpu, gpu in zip(*batches, strict=True):
        assert gpu.pixels.is_cuda
        assert not gpu.failures
        assert (gpu.pixels.cpu() - cpu.pixels).abs().max() <= 2 * RECIPE.tolerance


def test_a_batch_tells_what_its_threads_were_busy_with(build: Build) -> None:
    (batch,) = build().batches(refs_of(["png8", "gone"]))
    assert len(batch.failures) == 1
    assert batch.seconds["read"] > 0
    assert batch.seconds["decode"] > 0
    (nothing,) = build().batches(refs_of(["gone"]))
    assert nothing.seconds["read"] > 0
    assert nothing.seconds["decode"] == 0
