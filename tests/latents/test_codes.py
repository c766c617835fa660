"""Codes read, matched with labels by id, moved, compared and written again."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import encode_dataset, open_archive
from engine.archive.root import plan_beside, read_root
from engine.archive.verify import verify_archive
from engine.encode.codec import load_codec
from engine.errors import ArchiveError, ConfigError, SourceError
from engine.latents.codes import Space, read_codes
from engine.latents.codes_archive import write_codes
from engine.latents.direction_file import Direction, read_direction, write_direction
from engine.latents.edit import moved
from engine.latents.faiss_search import nearest_by_faiss
from engine.latents.film_labels import mark, read_table
from engine.latents.find import by_labels, by_pairs, independent_of
from engine.latents.neighbours import around, nearest
from engine.source.phantom import draw_labels

SPHERE = Space(shape=(2, 4), gauge="sphere", codec="c", digest="d" * 64)


@pytest.fixture(scope="module")
def codes(coded_phantoms: Path):
    return read_codes(coded_phantoms)


def test_codes_are_those_of_the_archive(codes, coded_phantoms: Path, small_codec: Path) -> None:
    dataset = open_archive(coded_phantoms)
    assert codes.values.dtype == np.float32
    assert np.array_equal(codes.values, dataset["latent"].to_numpy().reshape(60, -1).astype(np.float32))
    assert (list(codes.ids[:2]), codes.left_out, len(codes)) == (["phantom-000000", "phantom-000001"], 0, 60)
    assert (codes.space.shape, codes.space.gauge, codes.space.digest) == ((1, 8), "none", load_codec(small_codec).digest)
    some = codes.take([5, 3])
    assert (list(some.ids), list(some.rows), some.place("phantom-000003")) == (["phantom-000005", "phantom-000003"], [5, 3], 1)
    with pytest.raises(ArchiveError, match="no code of this id: phantom-000004"):
        some.place("phantom-000004")


def test_rows_without_a_code_are_left_out_and_counted(small_films: Path, small_codec: Path, tmp_path: Path) -> None:
    shutil.copytree(small_films, tmp_path / "films")
    (tmp_path / "films" / "film-001.png").write_text("no film")
    archive = tmp_path / "films.zarr"
    encode_dataset(str(tmp_path / "films"), str(archive), str(small_codec), workers=0, metrics="none", limit=4, quiet=True)
    codes = read_codes(archive)
    assert (list(codes.ids), codes.left_out) == (["film-000", "film-002", "film-003"], 1)


def test_the_gauge_is_kept() -> None:
    values = SPHERE.on_gauge(np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32))
    assert np.square(values.reshape(5, 2, 4)).sum(2) == pytest.approx(np.full((5, 2), 4.0), rel=1e-5)
    direction = Direction(attribute="a", method="mean", vector=np.eye(8)[0], spread=2.0, shape=(2, 4), codec="c", digest="d" * 64)
    found = moved(values, direction, [-1, 0, 3], SPHERE)
    assert found.shape == (5, 3, 8)
    assert found[:, 1] == pytest.approx(values, abs=1e-6)
    assert np.square(found.reshape(5, 3, 2, 4)).sum(3) == pytest.approx(np.full((5, 3, 2), 4.0), rel=1e-5)
    assert (found[:, 2, 0] > values[:, 0]).all()
    assert found[:, :, 4:] == pytest.approx(np.broadcast_to(values[:, None, 4:], (5, 3, 4)), abs=1e-6)  # the other layer stays


def test_labels_come_from_the_phantoms_a_table_or_a_plan(codes, coded_phantoms: Path, small_codec: Path, tmp_path: Path) -> None:
    truth = [draw_labels(21, index, size=32) for index in range(60)]
    expected = [bool(each["cardiomegaly"]) for each in truth]
    for place in (None, "phantom:60?seed=21&size=32"):
        marked = mark(codes, read_table(place, coded_phantoms, ["cardiomegaly"]), "cardiomegaly")
        assert (marked.marks.tolist(), marked.places.tolist(), marked.unknown) == (expected, list(range(60)), 0)
    either = mark(codes, read_table(None, coded_phantoms, ["effusion_left", "opacity"]), "any: effusion_left, opacity?")
    assert either.marks.tolist() == [bool(each["effusion_left"] or each["opacity"]) for each in truth]
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "sex"], ["a/phantom-000007.png", "F"], ["phantom-000002.png", "M"], ["phantom-000003.png", ""]]
        )
    marked = mark(codes, read_table(str(path), coded_phantoms, ["sex"]), "sex=F")
    assert (marked.places.tolist(), marked.marks.tolist(), marked.unknown) == ([2, 7], [False, True], 58)
    films = tmp_path / "films.zarr"
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path,site\nphantom:?seed=21&size=32&index=4,north\n".replace("phantom:?seed=21&size=32&index=4", str(tmp_path / "x.png"))
    )
    from engine.source.phantom import phantom_png

    (tmp_path / "x.png").write_bytes(phantom_png(21, 4, size=32))
    encode_dataset(str(manifest), str(films), str(small_codec), workers=0, metrics="none", quiet=True)
    assert mark(read_codes(films), read_table(None, films, ["site"]), "site=north").marks.tolist() == [True]


def test_labels_that_do_not_fit_are_one_clear_line(codes, coded_phantoms: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,a\nother,1\n")
    with pytest.raises(SourceError, match="none of the 60 ids is in the labels"):
        mark(codes, read_table(str(path), coded_phantoms, ["a"]), "a")
    with pytest.raises(ConfigError, match="the labels has no such column, there are id, a: b"):
        read_table(str(path), coded_phantoms, ["b"])
    path.write_text("id,a\nphantom-000001,maybe\n")
    with pytest.raises(SourceError, match="neither yes nor no of any film for this attribute: a"):
        mark(codes, read_table(str(path), coded_phantoms, ["a"]), "a")
    path.write_text("name,a\nphantom-000001,1\n")
    with pytest.raises(ConfigError, match="labels need a column of ids"):
        read_table(str(path), coded_phantoms, ["a"])
    with pytest.raises(SourceError, match="labels cannot be read"):
        read_table(str(tmp_path / "missing.csv"), coded_phantoms, ["a"])
    with pytest.raises(ConfigError, match="phantoms has no such column"):
        read_table(None, coded_phantoms, ["a"])


def test_hashed_ids_are_matched_by_their_key(small_codec: Path, tmp_path: Path) -> None:
    archive, key = tmp_path / "h.zarr", b"0123456789abcdef"
    encode_dataset("phantom:6?seed=21&size=32", str(archive), str(small_codec), workers=0, metrics="none", quiet=True, hash_key=key)
    codes = read_codes(archive)
    source = "phantom:6?seed=21&size=32"
    assert len(mark(codes, read_table(source, archive, ["sex"], hash_key=key), "sex=F").places) == 6
    with pytest.raises(SourceError, match="of an archive of hashed ids, name --hash-ids"):
        mark(codes, read_table(source, archive, ["sex"]), "sex=F")


def test_directions_are_kept_with_where_they_come_from(codes, coded_phantoms: Path, tmp_path: Path) -> None:
    marked = mark(codes, read_table(None, coded_phantoms, ["view"]), "portable: view=AP")
    direction = by_labels(codes, marked, "portable: view=AP", "lda", seed=0)
    write_direction(tmp_path / "d" / "view.direction", direction)
    again = read_direction(tmp_path / "d" / "view.direction")
    assert again.vector == pytest.approx(direction.vector, abs=1e-7)
    assert (again.attribute, again.method, again.shape, again.digest) == ("portable", "lda", (1, 8), codes.space.digest)
    assert again.provenance["separation"] == direction.provenance["separation"]
    assert again.spread == pytest.approx((codes.values @ direction.vector).std())
    with pytest.raises(ConfigError, match=r"direction portable is of codec .*, the codes are of c \(dddddddddddd\)"):
        again.check_space(SPHERE)
    other = by_labels(codes, mark(codes, read_table(None, coded_phantoms, ["sex"]), "sex=F"), "sex=F", "mean", seed=0)
    alone = independent_of(direction, [other], codes.values)
    assert alone.vector @ other.vector == pytest.approx(0, abs=1e-12)
    assert alone.provenance["independent_of"] == ["sex=F"]


def test_what_is_no_direction_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="file holds no direction of latentray"):
        read_direction(tmp_path / "x")
    with pytest.raises(ConfigError, match="there is no direction"):
        read_direction(tmp_path / "y")


def test_made_codes_are_an_archive_like_any_other(codes, coded_phantoms: Path, tmp_path: Path) -> None:
    some, out = codes.take(range(20)), tmp_path / "made.zarr"
    ids = [f"{name}@2" for name in some.ids]
    write_codes(out, coded_phantoms, values=some.values, ids=ids, labels={"alpha": ["2"] * 20}, made={"by": "edit"})
    again = read_codes(out)
    assert np.array_equal(again.values, some.values)
    assert list(again.ids) == ids
    assert again.space.digest == codes.space.digest
    assert read_root(out).parts["made"]["by"] == "edit"
    assert verify_archive(out, level=3) == []
    assert mark(again, read_table(None, out, ["alpha"]), "alpha=2").marks.all()
    with pytest.raises(ArchiveError, match="archive is there already"):
        write_codes(out, coded_phantoms, values=some.values, ids=ids, made={"by": "edit"})
    assert plan_beside(out).is_file()


def test_pairs_are_matched_by_id(codes, coded_phantoms: Path, tmp_path: Path) -> None:
    step = np.zeros(8, np.float32)
    step[2] = 0.5
    half = codes.take(range(0, 60, 2))
    write_codes(tmp_path / "b.zarr", coded_phantoms, values=half.values + step, ids=half.ids, made={"by": "test"})
    direction = by_pairs(codes, read_codes(tmp_path / "b.zarr"), "edited")
    assert direction.vector == pytest.approx(np.eye(8)[2], abs=1e-2)
    assert direction.provenance["films"] == 30
    write_codes(tmp_path / "c.zarr", coded_phantoms, values=half.values, ids=[f"x{name}" for name in half.ids], made={"by": "test"})
    with pytest.raises(ArchiveError, match="archives of a pair must share ids"):
        by_pairs(codes, read_codes(tmp_path / "c.zarr"), "edited")


def test_one_film_and_its_edited_version_give_a_direction_on_which_1_is_the_edit(codes, coded_phantoms: Path, tmp_path: Path) -> None:
    one = codes.take([3])
    edited = one.values.copy()
    edited[0, 5] += 2
    write_codes(tmp_path / "edited.zarr", coded_phantoms, values=edited, ids=one.ids, made={"by": "test"})
    direction = by_pairs(one, read_codes(tmp_path / "edited.zarr"), "painted")
    assert moved(one.values, direction, [0, 1], one.space)[0] == pytest.approx(np.stack([one.values[0], edited[0]]), abs=0.02)
    among_others = by_pairs(codes, read_codes(tmp_path / "edited.zarr"), "painted")
    assert among_others.vector == pytest.approx(direction.vector)
    assert among_others.spread == pytest.approx(float((codes.values.astype("f8") @ direction.vector).std()))


def test_numbers_between_two_borders_are_unknown_and_counted(codes, coded_phantoms: Path) -> None:
    asked = "wide: cardiothoracic_ratio>0.5/<=0.45"
    table = read_table(None, coded_phantoms, ["cardiothoracic_ratio"])
    ratios = [float(table["cardiothoracic_ratio"][name] or "nan") for name in codes.ids]
    marked = mark(codes, table, asked)
    expected = [(place, ratio > 0.5) for place, ratio in enumerate(ratios) if not 0.45 < ratio <= 0.5]
    assert list(zip(marked.places.tolist(), marked.marks.tolist(), strict=True)) == expected
    assert marked.unknown == 60 - len(expected) > 0
    direction = by_labels(codes, marked, asked, "mean", seed=0)
    assert (direction.attribute, direction.provenance["unknown"]) == ("wide", marked.unknown)


def test_faiss_finds_the_same(codes) -> None:
    asked = np.array([7, 31, 0])
    plain, fast = (search(codes, codes.values[asked], 5, leave_out=asked) for search in (nearest, nearest_by_faiss))
    np.testing.assert_array_equal(fast.places, plain.places)
    np.testing.assert_allclose(fast.cosine, plain.cosine, atol=1e-6)
    assert nearest_by_faiss(codes, codes.values[asked], 1).places[:, 0].tolist() == asked.tolist()
    elsewhere = np.array([-1, -1, -1])
    assert nearest_by_faiss(codes, codes.values[asked], 2, leave_out=elsewhere).places[:, 0].tolist() == asked.tolist()


def test_nearest_are_those_of_the_greatest_cosine(codes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.latents.neighbours._NUMBERS_AT_ONCE", 100)  # so that the archive is taken in pieces
    asked = np.array([7, 31])
    found = nearest(codes, codes.values[asked], 5, leave_out=asked)
    for place, row, cosine in zip(asked, found.places, found.cosine, strict=True):
        every = codes.values @ codes.values[place] / np.linalg.norm(codes.values, axis=1) / np.linalg.norm(codes.values[place])
        every[place] = -2
        assert row.tolist() == np.argsort(-every)[:5].tolist()
        assert cosine == pytest.approx(np.sort(every)[::-1][:5], abs=1e-5)
    assert nearest(codes, codes.values[asked], 1).places[:, 0].tolist() == [7, 31]
    with pytest.raises(ConfigError, match="count must be 1 to 60"):
        nearest(codes, codes.values[:1], 61)


def test_codes_around_a_code_are_as_far_as_sigma_says(codes) -> None:
    values = SPHERE.on_gauge(np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32))
    near, far = (around(values, sigma, 200, SPHERE, seed=1) for sigma in (0.1, 0.5))
    cosine = [np.mean((each * values[:, None]).sum(-1)) / 8 for each in (near, far)]
    assert cosine[0] > 0.98 > cosine[1] > 0.5
    assert np.array_equal(near, around(values, 0.1, 200, SPHERE, seed=1))
    assert around(values, 0.0, 1, SPHERE, seed=1)[:, 0] == pytest.approx(values, abs=1e-6)
    plain = around(codes.values, 0.2, 300, codes.space, seed=0) - codes.values[:, None]
    assert plain.std() == pytest.approx(0.2 * np.sqrt(np.mean(codes.values**2)), rel=0.05)
    with pytest.raises(ConfigError, match="sigma must be 0 or more"):
        around(values, -1, 1, SPHERE, seed=1)
