"""Labels: what a cell says, films that say nothing, classes that cannot be learned, and films that come in turns."""

import json

import numpy as np
import pytest
import torch

from engine.errors import ConfigError, SourceError
from engine.labels import LabelSpec, Term
from engine.recipe import PixelRecipe
from engine.source.phantom import draw_labels
from tests.trainers.packs import SIDE, pack, write_films, write_manifest
from trainers.film_feed import FilmFeed
from trainers.film_request import FilmsRequest, build_feed
from trainers.labels import Labels, check_classes, read_labels
from trainers.presets.films import SplitConfig
from trainers.ranks import Ranks
from trainers.split import split_films

MANY = 24
CELLS = {
    "effusion": [str(film % 3 % 2) for film in range(MANY)],
    "mass": ["yes" if film < 4 else "No" for film in range(MANY)],
    "Finding Labels": ["Mass|Effusion" if film % 2 else "No Finding" for film in range(MANY)],
    "side": ["left" if film % 4 else "" for film in range(MANY)],
    "certain": ["-1" if film in (5, 7) else "1" for film in range(MANY)],
    "never": ["0"] * MANY,
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = write_films(tmp_path_factory.mktemp("source") / "films", MANY)
    write_manifest(folder, CELLS)
    return pack(folder / "films.csv", tmp_path_factory.mktemp("pack"))


@pytest.mark.parametrize(
    ("term", "cell", "says"),
    [
        *[("a", cell, True) for cell in ("1", "true", "Yes", " y ", "1.0")],
        *[("a", cell, False) for cell in ("0", "FALSE", "no", "0.0")],
        *[("a", cell, None) for cell in (None, "", "-1", "maybe")],
        ("a=left", "left", True),
        ("a=left", "right|left", True),
        ("a=left", "lefty", False),
        ("a=left", None, None),
        ("a?", "left", True),
        ("a?", None, False),
        ("a?", "", False),
        ("a>0.5", "0.51", True),
        ("a>0.5", "0.5", False),
        ("a >= 0.5", "0.5", True),
        ("a<-1", "-1.5", True),
        ("a<=3", "4", False),
        *[("a>0.5", cell, None) for cell in (None, "", "wide", "nan", "0.6|0.4")],
        ("a>0.55/<=0.45", "0.6", True),
        ("a>0.55/<=0.45", "0.45", False),
        ("a>0.55/<=0.45", "0.5", None),
        ("a<0/>=0", "0", False),
        ("a=b>1", "b>1", True),
        ("a=>1", "2", False),
        ("a>1?", "left", True),
    ],
)
def test_what_a_cell_says(term, cell, says):
    assert Term.parse(term).holds(cell) is says


def test_labels_of_columns(packed):
    labels = read_labels(packed, ["effusion", "any: effusion, mass", "has: Finding Labels=Effusion", "side?"])
    assert labels.names == ("effusion", "any", "has", "side?")
    assert labels.values.dtype == np.float32
    films = range(MANY)
    assert labels.values[:, 0].tolist() == [film % 3 % 2 for film in films]
    assert labels.values[:, 1].tolist() == [max(film % 3 % 2, film < 4) for film in films]
    assert labels.values[:, 2].tolist() == [film % 2 for film in films]
    assert labels.values[:, 3].tolist() == [film % 4 > 0 for film in films]


def test_labels_of_phantoms_are_their_own_truth(tmp_path):
    packed = pack("phantom:6?seed=4&size=16", tmp_path)
    labels = read_labels(packed, ["cardiomegaly", "opacity?", "view=AP"])
    truths = [draw_labels(4, film, size=16) for film in range(6)]
    wide = [t["cardiothoracic_ratio"] > 0.45 for t in truths]
    assert read_labels(packed, ["wide: cardiothoracic_ratio>0.45"]).values[:, 0].tolist() == wide
    assert len(set(wide)) == 2
    assert labels.values.tolist() == [[t["cardiomegaly"], t["opacity"] != "", t["view"] == "AP"] for t in truths]


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        (["nodule"], ConfigError, "it has effusion, mass, Finding Labels, side, certain, never: nodule"),
        (["side=left"], SourceError, "label side=left (column side) says neither yes nor no for 6 of 24 films"),
        (["certain"], SourceError, "label certain (column certain) says neither yes nor no for 2 of 24 films"),
        (["mass", "mass"], ConfigError, "names of their own: mass, mass"),
        (["a:"], ConfigError, "COLUMN, COLUMN=VALUE or COLUMN?: nothing"),
        ([": mass"], ConfigError, "NAME: TERM, TERM: : mass"),
        (["mass="], ConfigError, "COLUMN, COLUMN=VALUE or COLUMN?: mass="),
        (["mass>"], ConfigError, "COLUMN>NUMBER or COLUMN>NUMBER/<NUMBER, with >, >=, < or <=: >"),
        (["mass>big"], ConfigError, "with >, >=, < or <=: >big"),
        (["mass>inf"], ConfigError, "with >, >=, < or <=: >inf"),
        ([">1"], ConfigError, "COLUMN>NUMBER/<NUMBER: >1"),
        (["mass>1/0"], ConfigError, "with >, >=, < or <=: 0"),
        (["mass>1/<0/<-1"], ConfigError, "COLUMN>NUMBER/<NUMBER: mass>1/<0/<-1"),
        (["mass>0.4/<0.5"], ConfigError, "both with and without a label: mass>0.4/<0.5"),
        (["mass>=1/<=1"], ConfigError, "both with and without a label: mass>=1/<=1"),
        (["mass>1/>2"], ConfigError, "both with and without a label: mass>1/>2"),
    ],
)
def test_labels_that_cannot_be_read(packed, wanted, error, says):
    with pytest.raises(error) as caught:
        read_labels(packed, wanted)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_phantom_has_no_such_label(tmp_path):
    with pytest.raises(ConfigError, match=r"phantoms have no such label, they have view, sex.*: gout"):
        read_labels(pack("phantom:2?size=16", tmp_path), ["gout"])


def test_a_class_without_films(packed):
    split = split_films(packed, SplitConfig(validation=0.25))
    check_classes(read_labels(packed, ["effusion"]), split)
    with pytest.raises(SourceError, match=r"label never cannot be learned, not one of .* films that train is with it"):
        check_classes(read_labels(packed, ["effusion", "never"]), split)
    always = Labels(("always",), np.ones((MANY, 1), np.float32))
    with pytest.raises(SourceError, match="is without it"):
        check_classes(always, split)


@pytest.fixture
def feed(packed):
    split = split_films(packed, SplitConfig(validation=0.25))
    return FilmFeed(packed, split, seed=1, labels=read_labels(packed, ["effusion", "mass"]), alternate="mass")


def test_films_come_in_turns_without_and_with_the_label(feed, packed):
    marks = feed.labels(range(200))
    assert marks.shape == (200, 2)
    assert marks[0::2, 1].sum() == 0
    assert marks[1::2, 1].min() == 1
    assert torch.equal(marks[7:50], feed.labels(range(7, 50)))
    seen = feed.batch(range(200), 16)
    films, labels = packed.films(range(MANY), 16), read_labels(packed, ["effusion", "mass"])
    places = [int((films == film).all((1, 2, 3)).nonzero()[0]) for film in seen]
    assert np.array_equal(labels.values[places], marks.numpy())
    without = places[0::2]
    once = len(set(without))
    assert sorted(without[:once]) == sorted(set(without))  # every film once before any film twice


def test_held_out_films_and_labels_belong_together(feed, packed):
    held_out, marks = feed.held_out(16), feed.held_out.labels()
    films, labels = packed.films(range(MANY), 16), read_labels(packed, ["effusion", "mass"])
    places = [int((films == film).all((1, 2, 3)).nonzero()[0]) for film in held_out]
    assert np.array_equal(labels.values[places], marks.numpy())
    assert torch.equal(feed.held_out.labels(limit=2), marks[[0, len(marks) // 2]])


def test_labels_are_of_the_digest_and_of_the_provenance(packed):
    split = split_films(packed, SplitConfig(validation=0.25))
    one, other = (FilmFeed(packed, split, seed=1, labels=read_labels(packed, wanted)) for wanted in (["mass"], ["effusion"]))
    assert len({one.digest, other.digest, FilmFeed(packed, split, seed=1).digest}) == 3
    told = json.loads(json.dumps(one.describe()))
    assert told["labels"] == {"mass": int(read_labels(packed, ["mass"]).values[split.train].sum())}


def test_a_task_is_given_what_it_asks_for(packed, tmp_path):
    folder = write_films(tmp_path / "films", MANY)
    write_manifest(folder, CELLS)
    request = FilmsRequest(source=str(folder / "films.csv"), split=SplitConfig(validation=0.25))
    again = {"seed": 1, "replace": True, "ranks": Ranks(device=torch.device("cpu"))}
    recipe = PixelRecipe(resolution=SIDE)
    feed = build_feed(request, tmp_path / "pack", recipe, **again, labels=["mass"], alternate="mass")
    assert feed.labels(range(4)).flatten().tolist() == [0, 1, 0, 1]
    with pytest.raises(SourceError, match="label never cannot be learned"):
        build_feed(request, tmp_path / "pack", recipe, **again, labels=["never"])


def test_specs():
    assert LabelSpec.parse("sick: a, b=c, d?") == LabelSpec("sick", (Term("a", "yes"), Term("b", "is", "c"), Term("d", "filled")))
