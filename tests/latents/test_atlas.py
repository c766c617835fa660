"""The atlas: what is on the page, and the page as a browser runs it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.cli import main
from engine.errors import ConfigError
from engine.latents.atlas import ALPHAS, EDIT_SIDE, SIDE, _columns, write_atlas
from engine.latents.codes import read_codes
from engine.latents.direction_file import read_direction
from engine.latents.edit import moved
from engine.latents.film_labels import read_table
from engine.latents.mapped import find_clusters, find_places

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def direction(coded_phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direction") / "view.direction"
    assert main(["direction", str(coded_phantoms), "--attribute", "portable: view=AP", "--method", "lda", "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(coded_phantoms: Path, direction: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas") / "atlas.html"
    assert main(["atlas", str(coded_phantoms), "--out", str(out), "--direction", str(direction), "--pictures", "20"]) == 0
    return out


@pytest.fixture(scope="module")
def data(page: Path):
    return json.loads(re.search(r"^const data = (.*);$", page.read_text(), flags=re.MULTILINE).group(1))


def pixels(jpeg: str):
    return cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), cv2.IMREAD_UNCHANGED)


def test_every_code_is_on_the_map_with_what_is_known(data, coded_phantoms: Path) -> None:
    codes = read_codes(coded_phantoms)
    assert data["ids"] == list(codes.ids)
    assert len(data["x"]) == len(data["y"]) == len(data["cluster"]) == 60
    assert min(data["x"]) == 0
    assert max(data["y"]) == 1
    sexes = data["columns"]["sex"]
    table = read_table(None, coded_phantoms, ["sex"])["sex"]
    assert [sexes["names"][value] for value in sexes["classes"]] == [table[name] for name in codes.ids]
    assert "numbers" in data["columns"]["cardiothoracic_ratio"]


def test_pictures_are_films_reconstructions_and_edits(data, coded_phantoms: Path, direction: Path) -> None:
    from engine.replay import Replay

    assert len(data["pictures"]) == 20
    codes, replay = read_codes(coded_phantoms), Replay(coded_phantoms)
    place, shown = next((int(place), shown) for place, shown in data["pictures"].items())
    film, made = pixels(shown["film"]), pixels(shown["made"])
    assert film.shape == made.shape == (SIDE, SIDE)
    expected = replay.films(replay.latents([int(codes.rows[place])]), SIDE).numpy()[0, 0]
    assert np.abs(made / 255 - expected).mean() < 0.02
    frames = shown["edits"][0]
    assert len(frames) == len(ALPHAS)
    import torch

    far = moved(codes.values[[place]], read_direction(direction), [ALPHAS[-1]], codes.space)[0]
    expected = replay.films(torch.from_numpy(far).reshape(1, 1, 8), EDIT_SIDE).numpy()[0, 0]
    assert np.abs(pixels(frames[-1]) / 255 - expected).mean() < 0.02
    assert place not in shown["near"]


def test_a_page_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?://|<link|@import|src=[\"'](?!data:)", text)
    assert "TITLE" not in text
    assert text.isascii() or "charset" in text


def test_columns_are_classes_numbers_or_nothing(coded_phantoms: Path) -> None:
    codes = read_codes(coded_phantoms).take(range(20))
    names = list(codes.ids)
    table = {
        "number": {name: str(at / 2) for at, name in enumerate(names)},
        "class": {name: "a" if at % 2 else "b" for at, name in enumerate(names)} | {names[0]: None},
        "free text": {name: f"<script>{at}" for at, name in enumerate(names)},
        "nothing": dict.fromkeys(names),
    }
    found = _columns(codes, table)
    assert set(found) == {"number", "class"}
    assert found["number"]["numbers"][3] == 1.5
    assert found["class"]["names"] == ["a", "b"]
    assert found["class"]["classes"][:3] == [-1, 0, 1]


def test_places_are_the_same_each_time_and_keep_neighbours() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 40)
    values = (rng.normal(size=(3, 16)) * 6)[group] + rng.normal(size=(120, 16))
    places = find_places(values.astype(np.float32), seed=0)
    assert np.array_equal(places, find_places(values.astype(np.float32), seed=0))
    clusters = find_clusters(places)
    for number in range(3):
        inside = clusters[group == number]
        assert len(set(inside[inside >= 0])) == 1
    assert len(set(clusters) - {-1}) == 3
    with pytest.raises(ConfigError, match="a map needs 4 codes or more: 3"):
        find_places(values[:3].astype(np.float32), seed=0)


def test_an_atlas_without_pictures_has_points_alone(coded_phantoms: Path, tmp_path: Path) -> None:
    written = write_atlas(coded_phantoms, tmp_path / "a.html", table={}, pictures=0)
    assert (written.codes, written.films) == (60, 0)
    assert written.bytes < 60_000


WALK = """
<script>
const told = { errors: [] };
window.onerror = (message) => { told.errors.push(String(message)); };
const error = console.error;
console.error = (...words) => { told.errors.push(words.join(" ")); };
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const send = (type, x, y, target) => {
  const box = canvas.getBoundingClientRect();
  (target || canvas).dispatchEvent(new PointerEvent(type, { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
};
(async () => {
  const at = Number(Object.keys(data.pictures)[3]), spot = () => place(at, frame());
  send("pointermove", ...spot());
  told.tip = [$("tip").style.display, $("tip").querySelectorAll("img").length, $("tip").textContent, data.ids[at]];
  send("pointerdown", ...spot());
  send("pointerup", ...spot());
  told.chosen = [chosen, at, $("panel").querySelector("h2").textContent];
  await later(300);
  const canvases = $("residual"), seen = canvases.getContext("2d").getImageData(0, 0, canvases.width, canvases.height).data;
  told.residual = [canvases.dataset.ready, canvases.width, new Set(seen).size > 3];
  const image = document.querySelector(".edit img"), slider = document.querySelector(".edit input"), before = image.src;
  slider.value = slider.max;
  slider.dispatchEvent(new Event("input"));
  told.slider = [image.src !== before, document.querySelector(".edit output").textContent];
  document.querySelector(".near button").click();
  told.neighbour = [chosen, data.pictures[at].near[0]];
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  told.right = data.x[chosen] > data.x[data.pictures[at].near[0]] || chosen === data.pictures[at].near[0];
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  told.escaped = chosen;
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -400, clientX: 300, clientY: 300, bubbles: true, cancelable: true }));
  told.zoomed = view.scale;
  for (const option of [...$("colour").options]) { $("colour").value = option.value; $("colour").onchange(); }
  told.columns = $("colour").options.length;
  $("find").value = data.ids[7];
  $("find").onchange();
  told.found = chosen;
  document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
})();
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to run the page in")
def test_the_page_prints_all_that_a_slider_hides(page: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.html"
    choose = "<script>choose(Number(Object.keys(data.pictures)[0]));</script>"
    chosen.write_text(page.read_text().replace("</body>", choose + "</body>"))
    pictures = {}
    for name, file in (("whole", page), ("chosen", chosen)):
        pdf = tmp_path / f"{name}.pdf"
        words = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=4000",
            "--no-pdf-header-footer",
            f"--print-to-pdf={pdf}",
        ]
        profile = f"--user-data-dir={tmp_path / 'printing'}"
        subprocess.run([str(CHROMIUM), *words, profile, file.as_uri()], capture_output=True, timeout=120, check=True)
        data = pdf.read_bytes()
        pictures[name] = len(re.findall(rb"/Subtype\s*/Image", data))
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 3
    assert pictures["chosen"] - pictures["whole"] >= len(ALPHAS) + 2  # every step of the edit, film and reconstruction


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to run the page in")
def test_the_page_answers_in_a_browser(page: Path, data, tmp_path: Path) -> None:
    walked = tmp_path / "walk.html"
    walked.write_text(page.read_text().replace("</body>", WALK + "</body>"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *words, f"--user-data-dir={tmp_path / 'profile'}", walked.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = json.loads(
        re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.DOTALL).group(1).replace("&gt;", ">").replace("&amp;", "&")
    )
    assert told["errors"] == []
    display, images, text, name = told["tip"]
    assert (display, images, text) == ("block", 2, name)
    assert told["chosen"][0] == told["chosen"][1]
    assert told["residual"] == ["yes", SIDE, True]
    assert told["slider"] == [True, f"portable +{ALPHAS[-1]:g}"]
    assert told["neighbour"][0] == told["neighbour"][1]
    assert told["right"]
    assert told["escaped"] == -1
    assert told["zoomed"] > 2
    assert told["columns"] == 1 + len(data["columns"])
    assert told["found"] == 7
