"""What the loop is fed: every film once an epoch, an order that follows from the image's number, films that training never sees."""

import json

import pytest
import torch

from engine.errors import TrainError
from tests.trainers.packs import pack, write_films, write_manifest
from trainers.film_feed import FilmFeed
from trainers.presets.films import SplitConfig, augment_preset
from trainers.split import split_films


@pytest.fixture
def packed(tmp_path):
    """Twenty-four films of twelve patients."""
    folder = write_films(tmp_path / "patient-name", 24)
    write_manifest(folder, {"patient_id": [f"secret-{film // 2}" for film in range(24)]})
    return pack(folder / "films.csv", tmp_path / "pack")


@pytest.fixture
def split(packed):
    return split_films(packed, SplitConfig(validation=0.25))


@pytest.fixture
def feed(packed, split):
    feed = FilmFeed(packed, split, seed=3, augment=augment_preset("light"))
    yield feed
    feed.close()


def order_of(feed, packed, numbers):
    """Which films a feed without variations hands out."""
    films = packed.films(range(packed.num_films), 16)
    return [int((films == film).all((1, 2, 3)).nonzero()) for film in feed.batch(numbers, 16)]


def test_every_film_once_an_epoch_in_a_new_order(packed, split):
    feed, n = FilmFeed(packed, split, seed=3), len(split.train)
    epochs = [order_of(feed, packed, range(n * epoch, n * (epoch + 1))) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == split.train.tolist()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order_of(FilmFeed(packed, split, seed=4), packed, range(n)) != epochs[0]
    assert order_of(feed, packed, range(n - 5, 2 * n + 3)) == [*epochs[0][-5:], *epochs[1], *epochs[2][:3]]
    assert order_of(feed, packed, range(n)) == epochs[0]  # back again


def test_any_part_of_a_batch_is_the_same(feed, packed, split):
    whole = feed.batch(range(5, 45), 8)
    assert whole.dtype == torch.float32
    assert whole.is_contiguous(memory_format=torch.channels_last)
    for world in (2, 4, 5):
        share = 40 // world
        parts = [FilmFeed(packed, split, seed=3, augment=augment_preset("light")) for _ in range(world)]
        made = [part.batch(range(5 + rank * share, 5 + (rank + 1) * share), 8) for rank, part in enumerate(parts)]
        assert torch.equal(torch.cat(made), whole)


def test_looking_ahead_changes_nothing(feed, packed, split):
    plain = FilmFeed(packed, split, seed=3, augment=augment_preset("light"))
    for start in range(0, 60, 6):
        feed.ahead(range(start, start + 3), 8)
        feed.ahead(range(start + 3, start + 6), 8)
        feed.ahead(range(start + 3, start + 6), 8)
        feed.ahead(range(start + 900, start + 906), 8)  # never asked for
        feed.ahead(range(start, start + 3), 16)  # nor this
        assert torch.equal(feed.batch(range(start, start + 3), 8), plain.batch(range(start, start + 3), 8))
        assert torch.equal(feed.batch(range(start + 3, start + 6), 8), plain.batch(range(start + 3, start + 6), 8))
    feed.close()
    assert torch.equal(feed.batch(range(4), 4), plain.batch(range(4), 4))


def test_what_goes_wrong_ahead_is_told_when_it_is_asked_for(feed, tmp_path):
    with open(tmp_path / "pack" / "films.npy", "r+b") as file:
        file.truncate(200)
    feed.ahead(range(20), 16)
    with pytest.raises(TrainError, match="cut short"):
        feed.batch(range(20), 16)


def test_held_out_films_are_the_same_each_time_and_as_they_are(feed, packed, split):
    held_out = feed.held_out(16)
    assert torch.equal(held_out, packed.films(split.validation, 16))
    assert torch.equal(held_out, feed.held_out(16))
    few = feed.held_out(8, limit=2)
    assert torch.equal(few, packed.films(split.validation[[0, len(split.validation) // 2]], 8))
    seen = feed.batch(range(len(split.train)), 16)
    assert not any((seen == film).all((1, 2, 3)).any() for film in held_out)


def test_none_held_out(packed):
    feed = FilmFeed(packed, split_films(packed, SplitConfig(validation=0)), seed=0)
    assert feed.held_out(8).shape == (0, 1, 8, 8)


def test_it_says_what_it_feeds_and_names_nobody(feed, packed, split, tmp_path):
    told = feed.describe()
    text = json.dumps(told)
    assert (told["films"], told["failed"], told["patients"], told["kind"]) == (24, 0, 12, "csv")
    assert told["train"] + told["validation"] == 24
    assert told["plan_digest"] == packed.index.plan_digest
    assert not [word for word in ("secret", "patient-name", "film0", str(tmp_path)) if word in text]


def test_the_digest_is_that_of_what_a_resume_needs(feed, packed, split):
    light = augment_preset("light")
    assert FilmFeed(packed, split, seed=3, augment=light).digest == feed.digest
    others = [
        FilmFeed(packed, split, seed=3),
        FilmFeed(packed, split_films(packed, SplitConfig(validation=0.5)), seed=3, augment=light),
    ]
    assert len({feed.digest, *(other.digest for other in others)}) == 3
