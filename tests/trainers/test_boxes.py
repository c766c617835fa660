"""Boxes of films: from phantoms, from tables of two kinds, on films that a recipe squares, mirrored with their films, and bad tables."""

import imagecodecs
import numpy as np
import pytest
import torch

from engine.config import DecodeConfig
from engine.errors import ConfigError, SourceError, TrainError
from engine.recipe import PixelRecipe
from engine.source.phantom import render_phantom
from trainers.boxes import mirror, read_box_file, read_boxes
from trainers.film_feed import FilmFeed
from trainers.film_request import FilmsRequest, build_feed
from trainers.packing import pack_films
from trainers.presets.films import SplitConfig, augment_preset
from trainers.ranks import join
from trainers.split import split_films

HEIGHT, WIDTH = 24, 48
PLACES = {"a": (30, 4, 42, 16), "b": (2, 2, 14, 10)}  # of a bright square on each film; c has none


def pack(source, folder, square="pad", side=24):
    return pack_films(str(source), folder, PixelRecipe(resolution=side, square=square), decode=DecodeConfig(threads=1))


def table(folder, text, name="boxes.csv"):
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes") / "films"
    folder.mkdir()
    for name in "abc":
        film = np.zeros((HEIGHT, WIDTH), np.uint8)
        if name in PLACES:
            x0, y0, x1, y1 = PLACES[name]
            film[y0:y1, x0:x1] = 255
        (folder / f"{name}.png").write_bytes(imagecodecs.png_encode(film))
    return folder


@pytest.fixture(scope="module")
def boxes_file(films):
    rows = [",".join(map(str, (name, *place))) for name, place in PLACES.items()]
    return table(films.parent, "\n".join(["id,x0,y0,x1,y1", *rows]))


@pytest.fixture(scope="module")
def padded(films, tmp_path_factory):
    return pack(films, tmp_path_factory.mktemp("pack"))


def brightest(film, boxes):
    """Means of a film [1, R, R] inside the only box, and outside it."""
    x0, y0, x1, y1 = (boxes[0] * film.shape[-1]).round().int().tolist()
    inside = film[0, y0:y1, x0:x1]
    return inside.mean().item(), (film.sum() - inside.sum()).item() / (film.numel() - inside.numel())


@pytest.mark.parametrize("square", ["pad", "crop", "stretch"])
def test_boxes_lie_where_the_films_are_bright(films, boxes_file, tmp_path, square):
    packed = pack(films, tmp_path / "pack", square)
    found = read_boxes(packed, str(boxes_file))
    pixels = packed.films(range(3), 24)
    left_out = {"crop": 1}.get(square)  # b lies where the crop ends: half of it is cut
    for film in range(2):
        boxes = found.of_film(film)
        assert boxes.shape == (1, 4)
        inside, outside = brightest(pixels[film], boxes)
        assert inside > 0.95
        assert outside == pytest.approx(-1, abs=0.01)
        if film == left_out:
            assert boxes[0, 0] == 0
    assert found.of_film(2).shape == (0, 4)


def test_what_is_cropped_away_is_no_box(films, tmp_path):
    packed = pack(films, tmp_path / "pack", "crop")
    found = read_boxes(packed, str(table(tmp_path, "id,x0,y0,x1,y1\na,0,2,12,10\na,30,4,42,16\n")))
    torch.testing.assert_close(found.of_film(0), torch.tensor([[18 / 24, 4 / 24, 1, 16 / 24]]))


def test_the_challenges_own_table(padded, tmp_path):
    rows = ["patientId,x,y,width,height,Target", "a,30,4,12,12,1", "a,2,2,12,8,1", "c,,,,,0"]
    found = read_boxes(padded, str(table(tmp_path, "\n".join(rows))))
    assert [len(boxes) for boxes in found.films] == [2, 0, 0]
    torch.testing.assert_close(found.of_film(0)[1] * 48, torch.tensor([2.0, 14, 14, 22]))  # 12 rows of black above
    assert found.count(np.array([0, 2])) == {"films": 1, "boxes": 2}


def test_phantoms_know_their_opacities(tmp_path):
    packed = pack("phantom:8?seed=3&size=32", tmp_path / "pack", side=32)
    found = read_boxes(packed, "truth")
    assert sum(map(len, found.films)) > 0
    for film in range(8):
        mask = render_phantom(3, film, size=32).masks["opacity"]
        drawn = np.zeros((32, 32), bool)
        for x0, y0, x1, y1 in (found.of_film(film) * 32).round().int().tolist():
            drawn[y0:y1, x0:x1] = True
        assert not (mask & ~drawn).any()
        assert drawn.any(0).tolist() == mask.any(0).tolist()
        assert drawn.any(1).tolist() == mask.any(1).tolist()
    with pytest.raises(ConfigError, match=r"phantoms know their own boxes, so the setting boxes must be truth: x.csv"):
        read_boxes(packed, "x.csv")


def test_mirrored_films_have_mirrored_boxes(padded, boxes_file):
    boxes = read_boxes(padded, str(boxes_file))
    split = split_films(padded, SplitConfig(validation=0.0))
    feed = FilmFeed(padded, split, seed=1, augment=augment_preset("mirror"), boxes=boxes)
    plain = FilmFeed(padded, split, seed=1, boxes=boxes)
    numbers, mirrored = range(12), 0
    films, found = feed.batch(numbers, 24), feed.boxes(numbers)
    for film, own, before in zip(films, found, plain.boxes(numbers), strict=True):
        if not len(own):
            continue
        inside, outside = brightest(film, own)
        assert inside > 0.95 > -0.95 > outside
        mirrored += not torch.equal(own, before)
        assert torch.equal(own, before) or torch.equal(own, mirror(before))
    assert 0 < mirrored < 8
    assert feed.describe()["boxes"]["train"] == {"films": 2, "boxes": 2}
    assert len({feed.digest, plain.digest, FilmFeed(padded, split, seed=1).digest}) == 3


def test_held_out_films_come_with_their_boxes(padded, boxes_file):
    boxes = read_boxes(padded, str(boxes_file))
    split = split_films(padded, SplitConfig(validation=0.4))
    feed = FilmFeed(padded, split, seed=1, boxes=boxes)
    assert [torch.equal(one, boxes.of_film(film)) for one, film in zip(feed.held_out.boxes(), split.validation, strict=True)] == [True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,x0,y0,x1\na,1,2,3\n", "needs columns id, x0, y0, x1, y1, or patientId, x, y, width, height: "),
        ("id,x0,y0,x1,y1\na,1,2,3,4\nb,5,2,3,4\n", "needs four numbers that make a box, in line 3: "),
        ("id,x0,y0,x1,y1\na,1,2,3\n", "needs four numbers that make a box, in line 2: "),
        ("id,x0,y0,x1,y1\na,1,2,3,nan\n", "needs four numbers that make a box, in line 2: "),
        ("patientId,x,y,width,height\na,1,2,0,4\n", "needs four numbers that make a box, in line 2: "),
    ],
)
def test_bad_tables(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read_box_file(table(tmp_path, text))
    with pytest.raises(ConfigError, match="table of boxes cannot be read"):
        read_box_file(tmp_path / "nowhere.csv")


def test_tables_of_other_films(padded, tmp_path):
    with pytest.raises(SourceError, match=r"a box reaches outside its film of 48x24 pixels, a.png: 1.0, 2.0, 3.0, 25.0"):
        read_boxes(padded, str(table(tmp_path, "id,x0,y0,x1,y1\na,1,2,3,25\n")))
    with pytest.raises(SourceError, match=r"names not one of the 3 films, a.png for one: "):
        read_boxes(padded, str(table(tmp_path, "id,x0,y0,x1,y1\nz,1,2,3,4\n")))
    with pytest.raises(ConfigError, match="only phantoms know their boxes; name a table with --set boxes=FILE"):
        read_boxes(padded, "truth")


def test_requests_that_cannot_be_met(films, boxes_file, tmp_path):
    def feed(**request):
        boxes = request.pop("boxes", str(boxes_file))
        asked = FilmsRequest(source=str(films), decode=DecodeConfig(threads=1), **request)
        build_feed(asked, tmp_path / "pack", PixelRecipe(resolution=24), seed=0, replace=False, ranks=join("cpu"), boxes=boxes)

    with pytest.raises(ConfigError, match="boxes follow mirror images alone, so --augment must be none or mirror: flip"):
        feed(augment="flip")
    with pytest.raises(ConfigError, match="table of boxes cannot be read"):
        feed(boxes=str(tmp_path / "nowhere.csv"))
    assert not (tmp_path / "pack").exists(), "refused before films are packed"
    with pytest.raises(SourceError, match="boxes cannot be learned, there is not one on the films that train: 3"):
        feed(boxes=str(table(tmp_path, "patientId,x,y,width,height\nc,,,,\n")), split=SplitConfig(validation=0.0))


def test_a_pack_from_before_sizes_were_kept(films, boxes_file, tmp_path):
    packed = pack(films, tmp_path / "pack")
    (tmp_path / "pack" / "sizes.npy").unlink()
    with pytest.raises(TrainError, match="do not know the sizes of their files; delete the folder to pack anew"):
        read_boxes(packed, str(boxes_file))
