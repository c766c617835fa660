"""Training, validation and what must not be seen: by patient, stable when films are added, whatever way a list names its films."""

import csv
from collections import Counter

import numpy as np
import pytest

from engine.errors import ConfigError, SourceError
from tests.trainers.packs import pack, write_films, write_manifest
from trainers.labels import read_labels
from trainers.packed_films import open_pack
from trainers.presets.films import SplitConfig
from trainers.split import split_films

PATIENTS = [f"p{film // 3}" for film in range(30)]  # three films each


@pytest.fixture
def folder(tmp_path):
    """Thirty films of ten patients, with a manifest."""
    folder = write_films(tmp_path / "films", 30, side=4)
    write_manifest(folder, {"patient_id": PATIENTS})
    return folder


def packed_manifest(folder, out="pack", name="films.csv"):
    return pack(folder / name, folder.parent / out, side=4)


def patients_of(indices, patients=PATIENTS):
    return {patients[index] for index in indices}


def test_patients_are_never_divided(folder):
    split = split_films(packed_manifest(folder), SplitConfig(validation=0.4))
    held_out, train = patients_of(split.validation), patients_of(split.train)
    assert held_out.isdisjoint(train)
    assert len(held_out | train) == 10
    assert sorted([*split.train, *split.validation]) == list(range(30))
    assert (split.validation_patients, split.train_patients) == (len(held_out), len(train))
    assert 1 <= len(held_out) <= 8
    assert split.excluded == 0


def test_films_that_are_added_move_no_patient(folder):
    before = split_films(packed_manifest(folder), SplitConfig(validation=0.3))
    for film in range(30, 45):
        (folder / f"film{film}.png").write_bytes((folder / "film00.png").read_bytes())
    patients = [*PATIENTS, *(f"new{film // 2}" for film in range(12)), "p0", "p4", "p9"]
    write_manifest(folder, {"patient_id": patients}, "more.csv")
    after = split_films(packed_manifest(folder, "more", "more.csv"), SplitConfig(validation=0.3))
    assert patients_of(before.validation) == patients_of(after.validation, patients) & set(PATIENTS)
    assert patients_of(before.train) == patients_of(after.train, patients) & set(PATIENTS)


def test_films_that_fail_move_no_patient(folder):
    before = split_films(packed_manifest(folder), SplitConfig(validation=0.3))
    (folder / "film07.png").write_bytes(b"")
    packed = packed_manifest(folder, "failed")
    after = split_films(packed, SplitConfig(validation=0.3))
    assert packed.num_films == 29
    assert set(packed.rows[after.validation]) == set(before.validation) - {7}
    assert set(packed.rows[after.train]) == set(before.train) - {7}


def test_the_seed_chooses_others_and_the_share_is_kept(tmp_path):
    count = 90
    folder = write_films(tmp_path / "films", count, side=4)
    packed = pack(folder, tmp_path / "pack", side=4)
    picks = [split_films(packed, SplitConfig(validation=0.2, seed=seed)).validation for seed in range(20)]
    assert len({tuple(pick) for pick in picks}) == 20
    assert 0.17 < np.mean([len(pick) for pick in picks]) / count < 0.23


@pytest.mark.parametrize(("validation", "held_out"), [(0.0, 0), (1e-9, 1), (0.999999, 9)])
def test_someone_is_held_out_and_someone_trains(folder, validation, held_out):
    split = split_films(packed_manifest(folder), SplitConfig(validation=validation))
    assert (split.validation_patients, split.train_patients) == (held_out, 10 - held_out)


def test_a_single_patient_trains(tmp_path):
    folder = write_films(tmp_path / "films", 3, side=4)
    write_manifest(folder, {"patient": ["p", "p", "p"]})
    split = split_films(pack(folder / "films.csv", tmp_path / "pack", side=4), SplitConfig(validation=0.999))
    assert (len(split.train), len(split.validation)) == (3, 0)


@pytest.mark.parametrize("column", ["patient_id", "patient", "PatientID", "Patient ID"])
def test_the_patients_column_is_found(tmp_path, column, caplog):
    folder = write_films(tmp_path / "films", 4, side=4)
    write_manifest(folder, {"age": [1, 2, 3, 4], column: ["a", "a", "b", "b"]})
    split = split_films(pack(folder / "films.csv", tmp_path / "pack", side=4), SplitConfig())
    assert split.train_patients + split.validation_patients == 2
    assert not caplog.records


def test_the_patients_column_is_named(folder, caplog):
    write_manifest(folder, {"patient_id": PATIENTS, "subject": ["s"] * 15 + ["t"] * 15}, "two.csv")
    packed = packed_manifest(folder, name="two.csv")
    split = split_films(packed, SplitConfig(patient_column="subject"))
    assert (len(split.train), len(split.validation)) == (15, 15)
    with pytest.raises(ConfigError, match="it has patient_id, subject: name"):
        split_films(packed, SplitConfig(patient_column="name"))


def test_one_line_warns_where_no_column_names_patients(folder, caplog):
    split = split_films(pack(folder, folder.parent / "pack", side=4), SplitConfig())
    assert split.train_patients + split.validation_patients == 30
    (record,) = caplog.records
    assert "so each film counts as one" in record.getMessage()


def test_a_film_without_a_patient_is_one_of_its_own(folder, caplog):
    write_manifest(folder, {"patient_id": ["p"] * 28 + ["", ""]}, "gaps.csv")
    split = split_films(packed_manifest(folder, name="gaps.csv"), SplitConfig())
    assert split.train_patients + split.validation_patients == 3
    assert "patient of its own: 2" in caplog.text


def test_phantoms_are_patients_of_their_own(tmp_path, caplog):
    packed = pack("phantom:5?size=16", tmp_path / "pack")
    split = split_films(packed, SplitConfig(validation=0.4))
    assert split.train_patients + split.validation_patients == 5
    assert not caplog.records
    without_source = split_films(open_pack(tmp_path / "pack"), SplitConfig(validation=0.4))
    assert without_source.validation.tolist() == split.validation.tolist()


def test_other_films_are_not_divided_without_their_source(folder):
    packed_manifest(folder)
    with pytest.raises(SourceError, match="source is at hand"):
        split_films(open_pack(folder.parent / "pack"), SplitConfig())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test_list.txt", "film04.png\r\nfilm05.png\nfilm21.png\nelsewhere.png\n\n"),
        ("stems.txt", "film04\nfilm05\nfilm21"),
        ("paths.lst", "films/film04.png\n./film05.png\n/mnt/old/set/film21.png\nother/film00.jpg\n"),
        ("table.csv", "age,path\n40,images/films/film04.png\n41,film05.png\n42,film21.png\n"),
        ("table.tsv", "id\tage\nfilm04\t4\nfilm05\t5\nfilm21.png\t1\n"),
        ("bom.csv", "\ufeffpath,view\nfilm04.png,PA\nfilm05.png,PA\nfilm21.png,PA\n"),
    ],
)
def test_listed_films_and_their_patients_are_left_out(folder, name, text, caplog):
    (folder.parent / name).write_text(text)
    split = split_films(packed_manifest(folder), SplitConfig(validation=0.3, exclude=str(folder.parent / name)))
    seen = [*split.train, *split.validation]
    assert patients_of(seen) == set(PATIENTS) - {"p1", "p7"}
    assert (split.named, split.excluded, len(seen)) == (3, 6, 24)
    assert "6 are left out (3 named, 3 of the same patients)" in split.sentence()
    assert not caplog.records


def test_a_table_may_name_patients(folder):
    (folder.parent / "test.csv").write_text("path,patient_id\nother/x.jpg,p1\nother/y.jpg,p7\n")
    split = split_films(packed_manifest(folder), SplitConfig(exclude=str(folder.parent / "test.csv")))
    assert patients_of([*split.train, *split.validation]) == set(PATIENTS) - {"p1", "p7"}


def test_ids_of_the_manifest_are_known(folder):
    write_manifest(folder, {"patient_id": PATIENTS, "id": [f"study-{film}" for film in range(30)]}, "ids.csv")
    (folder.parent / "list.txt").write_text("study-4\nstudy-29\n")
    split = split_films(packed_manifest(folder, name="ids.csv"), SplitConfig(exclude=str(folder.parent / "list.txt")))
    assert patients_of([*split.train, *split.validation]) == set(PATIENTS) - {"p1", "p9"}


def test_names_with_folders_mean_those_alone(tmp_path):
    """Data sets with a folder a study call each film by the same name."""
    folder = tmp_path / "set"
    for patient in "abc":
        (folder / patient).mkdir(parents=True)
        write_films(folder / patient / "study1", 2, side=4)
    (tmp_path / "list.txt").write_text("Set-v1.0/valid/b/study1/film00.png\nb/study1/film01.png\n")
    split = split_films(pack(folder, tmp_path / "pack", side=4), SplitConfig(exclude=str(tmp_path / "list.txt")))
    assert sorted([*split.train, *split.validation]) == [0, 1, 4, 5]


def test_a_listed_film_that_failed_still_names_its_patient(folder):
    (folder / "film04.png").write_bytes(b"")
    (folder.parent / "list.txt").write_text("film04.png")
    packed = packed_manifest(folder)
    split = split_films(packed, SplitConfig(exclude=str(folder.parent / "list.txt")))
    assert patients_of(packed.rows[[*split.train, *split.validation]]) == set(PATIENTS) - {"p1"}


def test_the_manifests_own_test_films_are_left_out(folder):
    marks = ["train"] * 30
    marks[10], marks[20] = "test", "Test"
    write_manifest(folder, {"patient_id": PATIENTS, "split": marks}, "marked.csv")
    split = split_films(packed_manifest(folder, name="marked.csv"), SplitConfig())
    assert patients_of([*split.train, *split.validation]) == set(PATIENTS) - {"p3", "p6"}
    assert (split.named, split.excluded) == (2, 6)


def test_a_list_of_other_films_is_told(folder, caplog):
    (folder.parent / "list.txt").write_text("other.png")
    split = split_films(packed_manifest(folder), SplitConfig(exclude=str(folder.parent / "list.txt")))
    assert split.excluded == 0
    assert "no film of the source is in the list" in caplog.text


def test_lists_that_cannot_be_used(folder):
    packed = packed_manifest(folder)
    here = folder.parent
    (here / "table.csv").write_text("name\nfilm04.png\n")
    (here / "latin.txt").write_bytes(b"\xff\xfe\xfa")
    (here / "long.csv").write_text(f"path\n{'x' * 200_000}\n")  # as after a quotation mark that is never closed
    (here / "all.txt").write_text("\n".join(f"film{film:02}.png" for film in range(30)))
    refused = {
        "table.csv": "no column path, id or patient_id",
        "latin.txt": "UTF-8",
        "none.txt": "no such file",
        "long.csv": r"^table of films to leave out cannot be read \(field larger than .*\): .*long\.csv$",
    }
    for name, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            split_films(packed, SplitConfig(exclude=str(here / name)))
    with pytest.raises(SourceError, match=r"no film is left to train on.*: 30"):
        split_films(packed, SplitConfig(exclude=str(here / "all.txt")))


@pytest.mark.parametrize("validation", [-0.1, 1, float("nan")])
def test_shares_that_make_no_sense(validation):
    with pytest.raises(ConfigError, match="validation must be 0 or more and less than 1"):
        SplitConfig(validation=validation)


def test_a_stratified_split(tmp_path):
    """Sixteen patients of two films; of the four who have the label one is held out."""
    folder = write_films(tmp_path / "films", 32)
    cells = {
        "patient": [f"p{film // 2:02}" for film in range(32)],
        "mass": ["1" if film // 2 in (2, 7, 9, 11) else "0" for film in range(32)],
    }
    write_manifest(folder, cells)
    packed = pack(folder / "films.csv", tmp_path / "pack")
    labels = read_labels(packed, ["mass"]).values
    cfg = SplitConfig(validation=0.25, stratify=True)
    split = split_films(packed, cfg, labels)
    assert (split.train_patients, split.validation_patients) == (12, 4)
    assert labels[split.validation].sum() == 2
    assert not {film // 2 for film in split.train} & {film // 2 for film in split.validation}
    assert sorted([*split.train, *split.validation]) == list(range(32))
    whole = split_films(packed, SplitConfig(validation=0.0, stratify=True), labels)
    assert len(whole.validation) == 0
    with pytest.raises(ConfigError, match="--stratify needs a task that learns from labels"):
        split_films(packed, cfg)


def test_patients_that_must_not_be_seen_take_no_part_in_a_stratified_split(tmp_path):
    folder = write_films(tmp_path / "films", 12)
    write_manifest(folder, {"patient": [f"p{film // 2}" for film in range(12)], "mass": ["1", "0"] * 6, "split": ["test"] + [""] * 11})
    packed = pack(folder / "films.csv", tmp_path / "pack")
    split = split_films(packed, SplitConfig(validation=0.4, stratify=True), read_labels(packed, ["mass"]).values)
    assert split.excluded == 2
    assert sorted([*split.train, *split.validation]) == list(range(2, 12))


@pytest.mark.films
def test_real_films_by_patient(films, tmp_path):
    from engine.config import DecodeConfig
    from engine.recipe import PixelRecipe
    from trainers.packing import pack_films

    packed = pack_films(str(films / "train.csv"), tmp_path / "films", PixelRecipe(resolution=16), decode=DecodeConfig(decoder="cpu"))
    with open(films / "train.csv", newline="") as file:
        patient = {row["path"]: row["patient_id"] for row in csv.DictReader(file)}
    split = split_films(packed, SplitConfig(exclude=str(films / "manifest.csv")))
    names = packed.plan.column("sample_id").to_pylist()
    sides = [Counter(patient[names[index]] for index in side) for side in (split.train, split.validation)]
    assert sides[0].keys().isdisjoint(sides[1])
    assert sum(map(len, sides)) == len(set(patient.values()))
    assert split.excluded == 0  # the test films are of other patients
    assert 0.05 < split.validation_patients / len(set(patient.values())) < 0.15
    listed = tmp_path / "list.txt"
    listed.write_text(names[0].rpartition("/")[2])
    again = split_films(packed, SplitConfig(exclude=str(listed)))
    assert again.excluded == sum(patient[name] == patient[names[0]] for name in names)
