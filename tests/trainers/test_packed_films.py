"""Films packed for a training: the same gray, bad films left out within a limit, packs that are reused, redone or refused, full disks."""

import json
import os
import resource
import shutil
import threading

import numpy as np
import pytest
import torch

from engine.config import DecodeConfig
from engine.errors import ConfigError, SettingsChanged, SourceError, TrainError
from engine.recipe import PixelRecipe
from tests.trainers.packs import SIDE, gray, pack, write_films
from trainers import packed_films
from trainers.films import Films
from trainers.packed_films import open_pack
from trainers.packing import pack_films


@pytest.fixture
def folder(tmp_path):
    """Ten films."""
    return write_films(tmp_path / "patient-name", 10)


def test_eight_bit_films_come_back_as_they_were_decoded(folder, tmp_path):
    packed = pack(folder, tmp_path / "films")
    decoded = Films(
        str(folder), tmp_path, PixelRecipe(resolution=SIDE), limit=None, batch_size=10, decode=DecodeConfig(decoder="cpu", threads=1)
    )
    assert torch.equal(packed.films(range(10), SIDE), next(decoded.batches()))
    assert (packed.num_films, packed.resolution, packed.index.kind) == (10, SIDE, "folder")


@pytest.mark.parametrize("resolution", [1, 2, 4, 8])
def test_smaller_films_are_means_of_squares(folder, tmp_path, resolution):
    packed = pack(folder, tmp_path / "films")
    k = SIDE // resolution
    exact = gray(7).reshape(resolution, k, resolution, k).mean((1, 3)) / 127.5 - 1
    for _ in range(2):  # made, then kept
        got = packed.films([7, 3, 7], resolution)
        assert got.shape == (3, 1, resolution, resolution)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got[0, 0], exact, atol=2e-7, rtol=0)
        assert torch.equal(got[0], got[2])
        assert torch.equal(got[1:2], packed.films([3], resolution))


def test_what_is_kept_gives_way_to_the_next_side(folder, tmp_path, monkeypatch):
    packed = pack(folder, tmp_path / "films")
    fresh = {r: open_pack(tmp_path / "films").films(range(10), r) for r in (2, 4, 8)}
    monkeypatch.setattr(packed_films, "_CACHE_BYTES", 10 * 4 * (16 + 4))  # sides 4 and 2, or one of them; never 8
    for r in (2, 4, 8, 2, 4, 2, 8):
        assert torch.equal(packed.films(range(10), r), fresh[r])


def test_a_returned_batch_is_the_callers_own(folder, tmp_path):
    packed = pack(folder, tmp_path / "films")
    first = packed.films([1], 4)
    kept = first.clone()
    first.zero_()
    assert torch.equal(packed.films([1], 4), kept)


def test_deep_films_lose_half_a_level_at_most(tmp_path):
    import imagecodecs

    deep = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    got = pack(tmp_path / "a.png", tmp_path / "films").films([0], SIDE)[0, 0]
    assert float((got - torch.from_numpy(deep / 32767.5 - 1)).abs().max()) <= 0.5 / 127.5 + 1e-6


def test_bad_films_among_good_ones(folder, tmp_path, caplog):
    (folder / "film03a.png").write_bytes((folder / "film00.png").read_bytes()[:100])
    (folder / "film05a.png").write_bytes(b"")
    packed = pack(folder, tmp_path / "films", max_failed_fraction=0.2)
    assert packed.num_films == 10
    assert packed.index.failed_rows == (4, 7)
    assert packed.rows.tolist() == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert sum(packed.index.failed_by_reason.values()) == 2
    assert packed.index.failed_by_reason["read: file is empty"] == 1
    for row in range(10):
        assert torch.equal(packed.films([row], SIDE), pack(folder / f"film{row:02}.png", tmp_path / f"alone{row}").films([0], SIDE))
    named = [record.getMessage() for record in caplog.records]
    assert [name for name in ("film03a", "film05a") if any(name in line for line in named)] == ["film03a", "film05a"]


def test_too_many_bad_films(folder, tmp_path):
    (folder / "bad.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"at least 1 of 11; mend them or .*: 0\.05$"):
        pack(folder, tmp_path / "films")
    assert list((tmp_path / "films").iterdir()) == []
    assert pack(folder, tmp_path / "films", max_failed_fraction=0.1).num_films == 10
    with pytest.raises(SourceError, match="too many"):  # the finished pack is judged by the limit, too
        pack(folder, tmp_path / "films")


def test_it_ends_as_soon_as_too_many_are_certain(tmp_path, capsys, caplog):
    folder = write_films(tmp_path / "many", 40)
    for seed in range(8):
        (folder / f"film{seed:02}.png").write_bytes(b"no film")
    with pytest.raises(SourceError, match="at least 4 of 40"):  # after the first batch of 4
        pack(folder, tmp_path / "films")
    assert len(caplog.records) == 4


def test_no_film_at_all(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    with pytest.raises(SourceError, match="no films"):
        pack(folder, tmp_path / "out")
    (folder / "a.png").write_bytes(b"no film")
    with pytest.raises(SourceError, match="not one film"):
        pack(folder, tmp_path / "out", max_failed_fraction=1)
    with pytest.raises(ConfigError, match="0 to 1: 2"):
        pack(folder, tmp_path / "out", max_failed_fraction=2)


def test_neither_paths_nor_names_are_kept(folder, tmp_path):
    pack(folder, tmp_path / "films")
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == ["films.npy", "index.json", "sizes.npy"]
    kept = (tmp_path / "films" / "index.json").read_text()
    assert "patient-name" not in kept
    assert "film00" not in kept
    assert str(tmp_path) not in kept


def test_numpy_opens_a_pack(folder, tmp_path):
    (folder / "bad.png").write_bytes(b"")
    pack(folder, tmp_path / "films", max_failed_fraction=0.1)
    films = np.load(tmp_path / "films" / "films.npy", mmap_mode="r")
    assert films.shape == (10, SIDE, SIDE)
    assert np.load(tmp_path / "films" / "sizes.npy").tolist() == [[SIDE, SIDE]] * 10  # of the files
    np.testing.assert_array_equal(films[4], gray(4))


def test_a_finished_pack_is_reused(folder, tmp_path, capsys):
    first = pack(folder, tmp_path / "films")
    assert "packed 10 films" in capsys.readouterr().err
    (folder / "film00.png").write_bytes(b"")  # would fail, were it read
    again = pack(folder, tmp_path / "films")
    assert capsys.readouterr().err == ""
    assert again.index == first.index
    assert torch.equal(again.films(range(10), 8), first.films(range(10), 8))
    assert torch.equal(open_pack(tmp_path / "films").films([2], 8), first.films([2], 8))


@pytest.mark.parametrize("broken", ["no index", "cut index", "cut films", "other version", "partial alone"])
def test_a_half_written_pack_is_redone(folder, tmp_path, broken):
    out = tmp_path / "films"
    whole = pack(folder, out)
    films, index = out / "films.npy", out / "index.json"
    if broken == "cut films":
        films.write_bytes(films.read_bytes()[:-1])
    elif broken == "cut index":
        index.write_text(index.read_text()[:-5])
    elif broken == "other version":
        index.write_text(json.dumps(json.loads(index.read_text()) | {"version": 99}))
    else:
        index.unlink()
    if broken == "partial alone":
        films.rename(out / "films.npy.partial")
    with pytest.raises(TrainError, match="no finished pack"):
        open_pack(out)
    again = pack(folder, out)
    assert again.index == whole.index
    assert sorted(path.name for path in out.iterdir()) == ["films.npy", "index.json", "sizes.npy"]


def test_a_pack_of_other_films_is_refused_or_replaced(folder, tmp_path):
    out = tmp_path / "films"
    before = pack(folder, out).index
    with pytest.raises(SettingsChanged, match=r"recipe was .*, is .*delete the folder"):
        pack(folder, out, side=8)
    with pytest.raises(SettingsChanged, match="plan_digest was"):
        pack(folder, out, limit=4)
    assert open_pack(out).index == before
    assert pack(folder, out, limit=4, replace=True).num_films == 4
    assert SettingsChanged.exit_code == 3


def test_a_disk_without_room_is_told_before_the_work(folder, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(TrainError, match=r"no room .* 2560 bytes are needed and 1000 are free"):
        pack(folder, tmp_path / "films")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_on_the_way(folder, tmp_path):
    out = tmp_path / "films"
    out.mkdir()
    (out / "films.npy.partial").symlink_to("/dev/full")  # every write to it ends with ENOSPC
    with pytest.raises(TrainError, match=r"(?i)no space left on device.*2560 bytes are needed"):
        pack(folder, out)
    assert list(out.iterdir()) == []
    assert pack(folder, out).num_films == 10


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainError, match="cannot be packed"):
        pack(folder, tmp_path / "file" / "films")


def test_films_that_are_cut_short_later_are_an_error_not_a_crash(folder, tmp_path):
    packed = pack(folder, tmp_path / "films")
    os.truncate(tmp_path / "films" / "films.npy", 1000)
    with pytest.raises(TrainError, match="cut short"):
        packed.films([9], SIDE)


def test_what_cannot_be_asked_for(folder, tmp_path):
    packed = pack(folder, tmp_path / "films")
    with pytest.raises(ConfigError, match="resolution of 5"):
        packed.films([0], 5)
    with pytest.raises(ConfigError, match="resolution of 32"):
        packed.films([0], 32)
    with pytest.raises(IndexError):
        packed.films([10], 8)
    assert packed.films([], 8).shape == (0, 1, 8, 8)


def test_threads_may_ask_together(folder, tmp_path):
    packed = pack(folder, tmp_path / "films")
    right = {r: open_pack(tmp_path / "films").films(range(10), r) for r in (4, 8, 16)}
    wrong = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(50):
            indices, r = rng.integers(0, 10, 6), int(rng.choice([4, 8, 16]))
            if not torch.equal(packed.films(indices, r), right[r][indices]):
                wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_memory_does_not_grow_with_the_number_of_films(tmp_path):
    first = write_films(tmp_path / "films", 16, side=256)
    for copy in range(384):
        os.link(first / "film00.png", first / f"more{copy:03}.png")
    pack(first, tmp_path / "few", side=256, limit=100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert pack(first, tmp_path / "many", side=256).num_films == 400
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 16, "MiB; the films take 25 as bytes and 100 as floats"


def test_phantoms(tmp_path):
    packed = pack("phantom:6?seed=5&size=64", tmp_path / "films", side=32)
    assert (packed.num_films, packed.index.kind) == (6, "phantom")
    assert len(torch.unique(packed.films(range(6), 32).flatten(1), dim=0)) == 6


@pytest.mark.films
def test_real_films(films, tmp_path):
    packed = pack_films(str(films / "train.csv"), tmp_path / "films", PixelRecipe(resolution=64), decode=DecodeConfig(decoder="cpu"))
    assert packed.num_films == 643
    assert packed.films(range(643), 64).std() > 0.3
